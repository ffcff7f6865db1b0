"""A dry run: the batch that training sees first, steps on a copy, estimates against truth, what will not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import twelve

from onestage.records import Batch
from onestage.training.cost import estimate as estimating
from onestage.training.cost import shortages
from onestage.training.cost.estimate import estimate
from onestage.training.cost.footprint import areas, cached, in_bytes
from onestage.training.cost.trial import Trial, try_leg
from onestage.training.devices.capacity import Memory, memory_for
from onestage.training.dry_run import DryRun, dry_run
from onestage.training.feed import training_loader
from onestage.training.first_batch import first_batch
from onestage.training.fit import fit
from onestage.training.loop.loop import Loop
from onestage.training.plan import Plan, ask, make_plan

TINY: dict[str, Any] = {
    "size": 64, "weights": "none", "epochs": 3, "batch": 4, "precision": "fp32", "device": "cpu", "validation.every": 2,
    "augmentation.policy": "zoom",
}  # fmt: skip
GB = 10**9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of one square each, YOLO."""
    return twelve(tmp_path_factory.mktemp("squares"), ["0 0.4 0.5 0.3 0.375"], "square")


def planned(data: Path, **keys: Any) -> Plan:
    return make_plan(ask({**TINY, "data": str(data), **keys}))


@pytest.fixture(scope="module")
def found(data: Path) -> DryRun:
    return dry_run({**TINY, "data": str(data)})


def test_the_first_batch_is_the_one_that_training_sees(
    data: Path, found: DryRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Batch] = []
    one = Loop._one

    def spied(self: Loop, epoch: int, batch: Batch, images: int, waited: float) -> Any:
        seen.append(batch)
        return one(self, epoch, batch, images, waited)

    monkeypatch.setattr(Loop, "_one", spied)
    fit({**TINY, "data": str(data), "epochs": 1}, root=tmp_path)
    batch = first_batch(planned(data, epochs=1))
    assert (seen[0].images.transpose(0, 2, 3, 1) == batch.images).all()
    assert [a.boxes.tolist() for a in seen[0].annotations] == [a.boxes.tolist() for a in batch.annotations]
    assert (batch.images == found.first_batch.images).all()  # it does not depend on how many epochs there are


def test_the_calm_policy_where_the_rest_begins_at_once(data: Path) -> None:
    mosaic: dict[str, Any] = {"epochs": 1, "augmentation.policy": "mosaic"}
    usual = first_batch(planned(data, **mosaic)).images
    calm = first_batch(planned(data, **mosaic, **{"augmentation.rest": 0.9})).images
    assert (usual != calm).any()


def test_with_changing_sizes_the_first_batch_has_its_first_size(data: Path) -> None:
    keys: dict[str, Any] = {"size": 64, "multiscale.low": 0.5, "multiscale.high": 2.0}
    shapes = set()
    for seed in range(4):
        plan = planned(data, seed=seed, **keys)
        batch = first_batch(plan)
        shapes.add(batch.images.shape[1:3])
        assert batch.assigned is not None
        assert all(sum(mine.per_level) for mine in batch.assigned if len(mine.truths))
        assert plan.detector.size == (64, 64)
    assert len(shapes) > 1


def test_rows_count_what_the_priors_answer_for(found: DryRun) -> None:
    rows = found.first_batch.rows()
    assert len(rows) == 4
    assert found.first_batch.assigned is not None
    for row, truths in zip(rows, found.first_batch.annotations, strict=True):
        assert row["truths"] == len(truths)
        assert row["file"].endswith(".png")
        assert sum(row["positives_per_level"]) >= len(truths) - len(row["unanswered"])


def test_a_model_that_does_not_tell_its_priors(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(data)

    def silent(truths: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(plan.detector, "assign", silent)
    batch = first_batch(plan)
    assert batch.assigned is None
    assert set(batch.rows()[0]) == {"file", "truths", "ignored"}


def test_a_dry_run_changes_nothing_of_the_plan(data: Path) -> None:
    plan = planned(data)
    before = {name: value.clone() for name, value in plan.detector.state_dict().items()}
    training = plan.detector.training
    estimate(plan, budget=1)
    assert plan.detector.training == training
    assert all(torch.equal(value, before[name]) for name, value in plan.detector.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in plan.detector.parameters())


def test_time_is_the_sum_of_its_parts(found: DryRun) -> None:
    parts = {share.name: share for share in found.estimate.time}
    assert parts["steps"].times == found.plan.steps == 3 * found.plan.steps_per_epoch
    assert parts["evaluations"].times == 2  # after epochs 2 and 3
    assert found.estimate.seconds == pytest.approx(sum(share.total for share in found.estimate.time))
    low, high = found.estimate.seconds_range
    assert low < found.estimate.seconds < high


def test_memory_by_parts_is_what_torch_says_of_them(found: DryRun) -> None:
    parts = {share.name: share.total for share in found.estimate.memory}
    state = [*found.plan.detector.parameters(), *found.plan.detector.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
    numbers = sum(p.numel() for p in found.plan.detector.parameters())
    assert parts["weights"] == weights
    assert parts["gradients"] == 4 * numbers
    assert parts["optimiser"] == pytest.approx(8 * numbers, rel=0.01)  # AdamW: two moments, and a counter each
    assert parts["averaged weights"] == pytest.approx(weights, rel=0.01)
    assert found.estimate.peak == pytest.approx(sum(parts.values()))


def test_activations_are_counted_once_each(data: Path) -> None:
    """What the forward pass alone keeps, counted here, is nearly all of it."""
    plan = planned(data, batch=8)
    with training_loader(plan) as loader:
        trial = try_leg(plan, plan.legs[0], loader, memory_for("cpu"), 30.0)
    assert trial.images == 8
    kept: dict[int, int] = {}
    images = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    plan.detector.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        raw = plan.detector(images)
    own = {p.untyped_storage().data_ptr() for p in (*plan.detector.parameters(), *plan.detector.buffers())}
    forward = sum(size for place, size in kept.items() if place not in own)
    assert raw.logits.shape[0] == 8
    assert forward <= trial.kept * 8 <= 1.3 * forward  # the loss keeps something too


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak")
def test_a_larger_micro_batch_needs_more_and_accumulation_less(data: Path) -> None:
    peaks = [estimate(planned(data, batch=8, accumulate=n), budget=1.5).peak for n in (1, 4)]
    assert peaks[0] > peaks[1]


def test_fewer_images_are_tried_where_memory_is_short(data: Path) -> None:
    plan = planned(data, batch=8)
    with training_loader(plan) as loader:
        trial = try_leg(plan, plan.legs[0], loader, Memory(4 * 10**7, None, "a test"), 2.0)
    assert trial.images == 2
    assert trial.step_seconds(8, 1, min) > 3 * (min(trial.seconds) - trial.update)


def test_a_busy_machine_is_told_and_widens_the_range(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(planned(data).legs[0], 4, 1, 0, 0, 0, 0, 1.0, 10, 0.1, [4.0, 4.2, 4.4], [1.0, 1.1, 1.2])
    assert trial.alone_seconds(4, 1) == pytest.approx(1.1)
    assert trial.step_seconds(4, 1, max) == 4.4
    monkeypatch.setattr(estimating, "try_leg", lambda *words: trial)
    found = estimate(planned(data), budget=1)
    assert any("other work" in note and "1.1 s" in note for note in found.notes)
    assert found.seconds_range[0] < 0.3 * found.seconds


def test_beyond_the_trial_memory_and_time_grow_with_the_images(data: Path) -> None:
    trial = Trial(planned(data).legs[0], 4, 1, 0, 100, 0, 0, 10.0, 200, 1.0, [5.0])
    assert trial.growing(4) == pytest.approx(1.12 * 100)
    assert trial.growing(8) == pytest.approx(1.12 * 100 + 1.55 * 40)
    assert trial.growing(2) == pytest.approx(1.12 * 50)
    assert trial.step_seconds(8, 1, min) == 9.0


def made_up(plan: Plan, per_image: float) -> Trial:
    return Trial(plan.legs[0], 4, 1, 10**8, 10**8, 2 * 10**8, 10**8, per_image, 0, 0.1, [1.0, 1.2])


def test_what_does_not_fit_is_told_with_what_would(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(data, batch=8)
    monkeypatch.setattr(shortages, "resident_at_rest", lambda: 0)
    trial = made_up(plan, GB)
    peak = 0.5 * GB + trial.growing(8)
    (finding,) = shortages.memory_findings(plan, [trial], peak, Memory(8 * GB, 8 * GB, "the machine"))
    assert (finding.code, finding.severity) == ("memory-short", "error")
    assert finding.evidence["accumulate"] == 2  # 4 images at 1.6 GB each are 6.4 GB, and 0.5 GB beside
    assert "accumulate=2" in finding.remedy
    (finding,) = shortages.memory_findings(plan, [trial], peak, Memory(20 * GB, 8 * GB, "the machine"))
    assert finding.severity == "warning"
    assert shortages.memory_findings(plan, [trial], peak, Memory(20 * GB, None, "the machine")) == []
    (finding,) = shortages.memory_findings(plan, [trial], peak, Memory(2 * GB, None, "a control group"))
    assert finding.evidence["accumulate"] is None
    assert "smaller size" in finding.remedy


def test_a_short_disk_is_told(data: Path, found: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = shortages.disk_findings(found.estimate.disk, 10**6)
    assert (finding.code, finding.severity) == ("disk-short", "error")
    assert shortages.disk_findings(found.estimate.disk, 10**12) == []
    monkeypatch.setattr(estimating, "free_disk", lambda folder: 10**6)
    assert [f.code for f in estimate(planned(data), budget=1).findings] == ["disk-short"]


def test_the_run_folder_holds_no_more_than_was_said(data: Path, found: DryRun, tmp_path: Path) -> None:
    run = fit({**TINY, "data": str(data)}, root=tmp_path)
    parts = {share.name: share for share in found.estimate.disk}
    weights = (run.weights_dir / "best.safetensors").stat().st_size
    state = max(path.stat().st_size for path in run.state_dir.iterdir())
    assert weights == pytest.approx(parts["weights, best and last"].each, rel=0.1)
    assert state == pytest.approx(parts["states"].each, rel=0.1)
    whole = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    assert whole <= found.estimate.disk_bytes


def test_the_cache_is_told_by_the_bytes_of_the_images(data: Path) -> None:
    plan = planned(data)
    assert cached(plan) == (1.0, len(plan.opened.train) * 64 * 80 * 3)
    assert cached(planned(data, cache=False)) == (0.0, 0)


def test_sizes_of_multi_scale_count_by_their_area(data: Path) -> None:
    assert areas(planned(data)) == (1.0, 1.0)
    plan = planned(data, size=96, **{"multiscale.low": 0.6, "multiscale.high": 1.4, "multiscale.step": 32})
    mean, most = areas(plan)
    assert most == pytest.approx((128 / 96) ** 2)
    assert mean == pytest.approx(((64 / 96) ** 2 + 1 + (128 / 96) ** 2) / 3)


def test_bytes_in_words() -> None:
    assert [in_bytes(v) for v in (0, 999, 1500, 12e6, 1.25e9, 12.4e9)] == [
        "0 B", "999 B", "1.5 kB", "12 MB", "1.2 GB", "12 GB",
    ]  # fmt: skip


def test_all_of_it_is_plain_data(found: DryRun) -> None:
    import json

    told = json.loads(json.dumps(found.as_dict()))
    assert told["estimate"]["memory"]["peak"] == found.estimate.peak
    assert [row["file"] for row in told["first_batch"]] == list(found.first_batch.names)
    assert told["recipe"]["epochs"] == 3
