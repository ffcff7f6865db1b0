"""Truths that augmentation leaves out: counted in every step, foreseen before the run, told afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn import twelve

from onestage import models
from onestage.boxes.geometry import iou
from onestage.boxes.matching import BACKGROUND, IGNORED
from onestage.cli.dry_run import _show_batch
from onestage.data.augment import augmentation
from onestage.data.batches import augmentation_seed, generator
from onestage.data.dataset import Dataset
from onestage.data.face_crops import FaceCrops
from onestage.data.loader import Loader
from onestage.experiments.filtered import Filtered
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw, Truth
from onestage.records import Annotations, Batch, ImageInfo, ImageTransform
from onestage.report.page import write_report
from onestage.training.devices.ranks import Ranks
from onestage.training.filtered import LOOKED_AT, findings, foreseen, left_out
from onestage.training.first_batch import first_batch
from onestage.training.fit import fit
from onestage.training.levels import levels_of
from onestage.training.loop.evidence import Pass
from onestage.training.loop.step import Differentiator
from onestage.training.plan import ask, make_plan

FACES: dict[str, Any] = {
    "size": 64, "weights": "none", "epochs": 2, "batch": 4, "precision": "fp32", "device": "cpu", "workers": 0,
    "augmentation.policy": "faceboxes", "augmentation.options": {"min_face": 16.0}, "augmentation.rest": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of a large and two small faces each, YOLO."""
    rows = ["0 0.4 0.5 0.3 0.375", "0 0.8 0.2 0.05 0.06", "0 0.1 0.9 0.06 0.05"]
    return twelve(tmp_path_factory.mktemp("faces"), rows, "face")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit({**FACES, "data": str(data), "accumulate": 2}, root=tmp_path_factory.mktemp("runs"))


def counts(batch: Batch) -> dict[str, int]:
    """What a batch holds, counted by hand."""
    every = [(bool(i), bool(s), bool(c)) for one in batch.annotations
             for i, s, c in zip(one.ignore, one.extra["small"], one.extra["cut"], strict=True)]  # fmt: skip
    small, cut = sum(s for _, s, _ in every), sum(c for _, _, c in every)
    return {"small": small, "cut": cut, "of": small + cut + sum(not i for i, _, _ in every)}


def test_every_step_counts_what_its_micro_batches_left_out(data: Path, run: Run) -> None:
    plan = make_plan(ask({**FACES, "data": str(data)}))
    policy = augmentation("faceboxes", min_face=16.0)
    batches = []
    with Loader(plan.opened.train, (64, 64), policy, batch=4, seed=plan.recipe.seed, workers=0, drop_last=True) as own:
        for epoch in range(2):
            batches += list(own.epoch(epoch))
    assert [row["filtered"] for row in run.steps] == [counts(batch) for batch in batches]
    assert sum(row["filtered"]["small"] for row in run.steps) > 0


def test_the_sums_are_in_run_json_and_on_the_page(run: Run) -> None:
    sums = {name: sum(row["filtered"][name] for row in run.steps) for name in ("small", "cut", "of")}
    assert run.info["filtered"] == {**sums, "min_face": 16.0}
    page = write_report(run).read_text(encoding="utf-8")
    assert f"of {sums['of']:,} truths under 16 px" in page
    assert "ignored, none taken for background" in page


def test_other_policies_say_nothing(data: Path) -> None:
    plan = make_plan(ask({**FACES, "data": str(data), "augmentation.policy": "ssd", "augmentation.options": {}}))
    assert plan.filtered is None
    assert not any(finding.code == "policy-filters-truths" for finding in plan.foresight)
    with Loader(plan.opened.train, (64, 64), "ssd", batch=4) as loader:
        assert left_out(next(loader.epoch(0)).annotations) is None


def test_the_plan_foresees_the_first_epoch(data: Path, run: Run) -> None:
    plan = make_plan(ask({**FACES, "data": str(data), "batch": 2}))  # the order of images does not matter
    assert plan.filtered is not None
    loader = Loader(plan.opened.train, (64, 64), augmentation("faceboxes"), batch=1, seed=plan.recipe.seed)
    with loader:
        seen = [counts(batch) for batch in loader.epoch(0)]
    assert {name: getattr(plan.filtered, name) for name in ("small", "cut", "of")} == {
        name: sum(one[name] for one in seen) for name in ("small", "cut", "of")
    }
    (found,) = (finding for finding in plan.foresight if finding.code == "policy-filters-truths")
    assert found.severity == ("warning" if plan.filtered.share >= 0.5 else "note")
    assert "under 16 pixels at 64x64" in found.what
    json.dumps(found.as_dict())


def test_a_dry_run_tells_the_first_epoch_and_what_the_first_batch_ignores(data: Path) -> None:
    plan = make_plan(ask({**FACES, "data": str(data), "augmentation.options": {"tries": 0}}))  # the whole image, always
    said: list[tuple[str, str]] = []
    terminal: Any = SimpleNamespace(facts=said.extend)
    _show_batch(terminal, first_batch(plan), None, plan.filtered, levels_of(plan.detector))
    told = dict(said)
    assert "4 images, 4 truths after augmentation (faceboxes), 8 to ignore" in told["first batch"]
    assert told["first epoch"].startswith("67 % of 30 truths under 16 px: ignored")


def set_of(images: int, sides: list[float]) -> Dataset:
    corners = np.arange(len(sides)) * 30.0 + 5
    boxes = np.stack([corners, corners, corners + sides, corners + sides], 1)
    infos = tuple(ImageInfo(i, Path(f"{i}.jpg"), 200, 200) for i in range(images))
    return Dataset(Path(), "made", "train", ("face",), infos,
                   {i: Annotations(boxes, np.zeros(len(sides))) for i in range(images)})  # fmt: skip


def test_large_sets_are_looked_at_in_part_and_evenly() -> None:
    dataset, policy = set_of(LOOKED_AT * 2, [20.0]), FaceCrops(tries=0)
    found = foreseen(policy, dataset, (200, 200), 0)
    assert found == Filtered(0, 0, LOOKED_AT, 16.0)
    chance = generator(augmentation_seed(0, 0, 5))
    assert len(policy.truths((200, 200), dataset.annotations[5], chance, (200, 200))) == 1


@pytest.mark.parametrize(
    ("sides", "severity"),
    [([20.0], None), ([20.0, 9.0, 20, 20, 20], "note"), ([9.0, 20.0], "warning"), ([9.0], "warning"), ([], None)],
)
def test_a_large_share_is_told(sides: list[float], severity: str | None) -> None:
    found = foreseen(FaceCrops(tries=0), set_of(3, sides), (200, 200), 0)
    assert [finding.severity for finding in findings(found, (200, 200))] == ([severity] if severity else [])
    assert not list(findings(None, (200, 200)))


def test_words() -> None:
    assert str(Filtered(430, 0, 1000, 16.0)) == "43 % of 1,000 truths under 16 px: ignored, none taken for background"
    assert "under 16 px, 2 % cut by the border" in str(Filtered(430, 20, 1000, 16.0))
    assert str(Filtered(1, 0, 100_000, 10.5)).startswith("under 0.1 % of 100,000 truths under 10.5 px")
    assert str(Filtered(999, 0, 1000, 16.0)).startswith("99.9 %")
    assert str(Filtered(99_999, 0, 100_000, 16.0)).startswith("over 99.9 %")
    assert str(Filtered(1000, 0, 1000, 16.0)).startswith("100 %")
    assert str(Filtered(0, 0, 5, 16.0)).startswith("0 %")
    assert str(Filtered(0, 0, 0, 16.0)) == "the samples showed no truth"
    assert Filtered.of_rows([{"step": 1}, {"step": 2, "filtered": "lost"}], 16.0) is None


def test_no_prior_takes_an_ignored_face_for_background() -> None:
    """The jump of the diary: what remains to be seen of a filtered face was background."""
    detector = models.build("faceboxes", 1, (128, 128))
    image, truth = np.zeros((128, 128, 3), np.uint8), Annotations(
        np.array([[20.0, 20, 60, 60], [90, 40, 100, 51], [-20, 90, 18, 126]]), np.zeros(3)
    )  # fmt: skip
    sample = FaceCrops(tries=0, mirror=0.0)(image, truth, np.random.default_rng(0), (128, 128))
    assert sample.annotations.ignore.tolist() == [False, True, True]
    found = detector.assign([Truth.of(sample.annotations, "cpu")])
    overlap = iou(sample.annotations.boxes, found.boxes.double().numpy())
    match = found.match[0].numpy()
    for face in (1, 2):
        best = overlap[face].argmax()
        assert overlap[face, best] > 0
        assert match[best] == IGNORED
        assert (match[overlap[face] >= overlap[face].max() * 0.5] != BACKGROUND).all()
    assert (match == 0).sum() >= 1
    dropped = detector.assign([Truth.of(truth.take(np.array([0])), "cpu")]).match[0].numpy()
    assert all(dropped[overlap[face].argmax()] == BACKGROUND for face in (1, 2))  # as the originals have it


class Doubled(Ranks):
    """As if another process had the same share of the batch."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 2


def test_counts_are_summed_over_processes() -> None:
    truth = Annotations(np.tile([0.0, 0, 9, 9], (3, 1)), np.zeros(3), ignore=[True, True, False],
                        extra={"small": [True, False, False], "cut": [False, False, False]})  # fmt: skip
    batch = Batch(np.zeros((1, 3, 8, 8), np.uint8), [truth], [ImageTransform()], [0], [0])
    one = Pass(batch, [], Raw(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2)),
               Loss({"cls": torch.ones(1)}, torch.ones(1, 2), torch.ones(1)))  # fmt: skip
    differentiator = Differentiator.__new__(Differentiator)
    differentiator.ranks = Doubled()
    totals = differentiator.totals([one, one])
    assert totals.filtered == {"small": 4, "cut": 0, "of": 8}
    assert (totals.images, totals.truths, totals.positives) == (4, 4, [4, 4])
