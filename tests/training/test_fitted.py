"""Anchors that a recipe has made from its set, kept as numbers; what is told of a network's anchors before a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import twelve

from onestage import models
from onestage.boxes.anchor_fit import Heads, anchor_fit, refit
from onestage.data.dataset import Dataset
from onestage.data.sides import sides_at_input
from onestage.errors import DataError, ModelError, RecipeError
from onestage.records import Annotations, Finding, ImageInfo
from onestage.training import fitted
from onestage.training.fitted import fit_findings, loads, options_made
from onestage.training.plan import ask, make_plan
from onestage.training.recipe import Recipe

SIDES = ((10, 12), (14, 30), (40, 20), (60, 90), (120, 70), (200, 180), (330, 300))


def recipe(**options: Any) -> Recipe:
    return ask({"data": "made", "model": "yolov3-tiny", **{f"options.{key}": value for key, value in options.items()}})


def made(sides: Any, per_image: int = 7, apart: bool = True) -> Dataset:
    """Images of 416x416 with boxes of these sides, `per_image` in each, at places of their own or all in one."""
    images, truths = [], {}
    for i in range(0, len(sides), per_image):
        some = np.array(sides[i : i + per_image], np.float64)
        place = np.arange(len(some))[:, None] * (50, 40) + 30.0 if apart else np.full((len(some), 2), 208.0)
        images.append(ImageInfo(i, Path(f"{i:05d}.jpg"), 416, 416))
        truths[i] = Annotations(np.hstack([place - some / 2, place + some / 2]), np.arange(len(some)) % 2)
    return Dataset(Path("made"), "made", "train", ("cat", "dog"), tuple(images), truths)


def scattered(count: int, middle: float = 40, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(np.log(middle), 0.5, (count, 2))).clip(2, 400)


def found(dataset: Dataset, size: int = 416, **options: Any) -> dict[str, Finding]:
    detector = models.build("yolov3-tiny", 2, (size, size), **options)
    return {one.code: one for one in fit_findings(detector, recipe(**options), dataset)}


@pytest.mark.parametrize("how", ["kmeans", "kmedians"])
def test_a_plan_has_the_anchors_as_numbers(how: str, tmp_path: Path) -> None:
    rows = [f"0 0.5 0.5 {0.1 * i:.2f} {0.08 * i + 0.1:.2f}" for i in range(1, 8)]
    data = twelve(tmp_path, rows, "square")
    keys = {"data": str(data), "model": "yolov3-tiny", "weights": "none", "size": 96, "precision": "fp32",
            "device": "cpu", "epochs": 1, "batch": 2, "options.anchors": how}  # fmt: skip
    plan = make_plan(ask(keys))
    heads = plan.detector.anchor_heads()
    assert heads is not None
    assert plan.recipe.options["anchors"] == [list(pair) for pair in heads.anchors]
    assert plan.recipe.options["masks"] == [[3, 4, 5], [0, 1, 2]]
    assert heads.unsorted == []
    held = sides_at_input(plan.opened.train, (96, 96), plan.recipe.fit)
    own = models.build("yolov3-tiny", 1, (96, 96)).anchor_heads()
    assert own is not None
    assert heads.anchors == refit(held.sides, held.image, own, how).new.anchors
    assert anchor_fit(held.sides, heads).mean_iou > anchor_fit(held.sides, own).mean_iou
    told = {one.code: one for one in plan.foresight}["anchors-made"]
    assert told.evidence["how"] == how
    assert "no proof of a better detector" in told.consequence
    # The recorded recipe is made of numbers: it gives the same network without the set's being asked again.
    again, remade = options_made(plan.recipe, 1, plan.opened.train)
    assert (again, remade) == (plan.recipe.options, None)


def test_anchors_made_do_not_depend_on_the_seed_of_the_weights() -> None:
    dataset = made(scattered(70))
    asked = recipe(anchors="kmeans")
    one, _ = options_made(asked, 2, dataset)
    two, _ = options_made(asked.changed({"seed": 7}), 2, dataset)
    assert one == two


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        ({"options.anchors": "kmean"}, RecipeError, "did you mean 'kmeans'"),
        ({"options.anchors": "kmeans", "options.masks": [[0], [1]]}, RecipeError, "options.masks: has no effect"),
        ({"model": "ssd300", "options.anchors": "kmeans"}, RecipeError, "ssd300 has no anchors that can be made"),
        ({"options.anchors": "kmedians", "options.lose": "ratio"}, ModelError, "unknown model options"),
    ],
)
def test_what_cannot_be_made_is_refused(keys: dict[str, Any], error: type[Exception], told: str) -> None:
    asked = ask({"data": "made", "model": "yolov3-tiny", **keys})
    with pytest.raises(error, match=told):
        options_made(asked, 2, made(SIDES))


def test_too_few_boxes_and_given_pairs() -> None:
    with pytest.raises(DataError, match="anchors=kmeans: 6 anchors need at least 6 boxes"):
        options_made(recipe(anchors="kmeans"), 2, made(SIDES[:3]))
    pairs = [[10, 10], [20, 20], [30, 30], [40, 40], [50, 50], [60, 60]]
    assert options_made(recipe(anchors=pairs), 2, made(SIDES)) == ({"anchors": pairs}, None)


def test_a_sound_set_and_other_models_have_no_findings() -> None:
    assert found(made(SIDES)) == {}
    assert fit_findings(models.build("ssd-lite0", 2), recipe(), made(SIDES)) == []
    assert found(Dataset(Path("made"), "made", "train", ("cat", "dog"), (), {})) == {}


def test_truths_beyond_the_cap() -> None:
    crowds = made(scattered(70), 35, apart=False)
    both = found(crowds, most=30)
    assert both["truths-unanswered"].evidence["truths"] == 60  # of those that count
    told = both["truths-capped"]
    assert told.severity == "warning"
    assert (told.evidence["count"], told.evidence["images"]) == (10, 2)
    assert "10 of 70 truths (14.3 %)" in told.what
    assert "truths-capped" not in found(crowds, most=35)
    assert "truths-capped" not in found(crowds)


def test_the_cap_of_darknet_on_visdrone(shared: Path) -> None:
    """All 548 files of val; of the training set 40,426 of 343,205 are beyond darknet's 90, 11.8 %."""
    boxes, images = [], []
    for row, file in enumerate(sorted((shared / "visdrone/VisDrone2019-DET-val/annotations").glob("*.txt"))):
        rows = [line.strip().strip(",").split(",") for line in file.read_text().splitlines() if line.strip()]
        mine = [[float(v) for v in row[:4]] for row in rows if row[4] == "1" and 1 <= int(row[5]) <= 10]
        boxes += mine
        images += [row] * len(mine)
    held = fitted.Sides(np.array(boxes)[:, 2:], np.array(images), np.zeros(len(boxes), int), 548, 0, 0)
    (told,) = fitted._capped(held, 90)
    assert (told.evidence["truths"], told.evidence["count"], told.evidence["images"]) == (38_759, 5_526, 147)
    assert "the fullest has 317" in told.what


@pytest.mark.parametrize("loss", ["darknet", "ratio", "per-scale"])
def test_objects_in_one_cell_take_boxes_from_each_other(loss: str) -> None:
    alike = [(40, 41), (41, 40), (40, 42), (42, 40), (40, 40), (41, 41), (42, 42)]
    told = found(made(alike, apart=False), loss=loss)["truths-unanswered"]
    assert told.evidence["count"] == told.evidence["taken"] == 6
    assert told.evidence["images"] == ["00000.jpg"]
    assert f"under loss={loss}" in told.what
    assert "cat 4, dog 2" in told.what or "cat 3, dog 3" in told.what


def test_objects_that_no_anchor_fits() -> None:
    long = [(400, 6), (390, 7), *SIDES]
    told = found(made(long, 9), loss="ratio")["truths-unanswered"]
    assert (told.evidence["without_anchor"], told.evidence["taken"]) == (2, 0)
    assert "2 have no anchor of their shape" in told.what
    detector = models.build("yolov4-tiny", 2, masks=[[3, 4, 5], [1, 2, 3]])  # nobody has 10x14
    (told, *_) = fit_findings(detector, recipe(), made(SIDES))
    assert (told.code, told.evidence["without_anchor"]) == ("truths-unanswered", 1)


def test_large_sets_are_sampled_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "LOOKED_AT", 5)
    told = found(made([(40, 40)] * 140, 7, apart=False))["truths-unanswered"]
    assert told.evidence["looked_at"] == 5
    assert "of 35 truths of 5 of 20 images, evenly taken" in told.what


def test_anchors_too_large_and_idle_heads() -> None:
    small = made(scattered(300, 7))
    told = found(small)
    assert told["anchors-too-large"].severity == "warning"
    share = anchor_fit(sides_at_input(small, (416, 416)).sides, _heads()).below
    assert told["anchors-too-large"].evidence["share"] == share
    assert "smallest anchor, 10x14, at 416x416" in told["anchors-too-large"].what
    assert "stride 16, small objects: 100.0 % of the truths; stride 32, large objects: 0.0 %" in told["heads-idle"].what
    assert "heads-idle" not in found(small, loss="per-scale")
    assert "anchors-too-large" not in found(made(scattered(300, 80)))


@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_objects_have_the_size_that_training_gives_them(fit: str) -> None:
    square = made(scattered(140, 22))
    wide = Dataset(
        square.root, "made", "train", square.classes,
        tuple(ImageInfo(one.id, one.path, 1248, 416) for one in square.images), square.annotations,
    )  # fmt: skip
    detector = models.build("yolov3-tiny", 2)
    told = {one.code: one for one in fit_findings(detector, recipe().changed({"fit": fit}), wide)}
    share = anchor_fit(sides_at_input(wide, (416, 416), fit).sides, _heads()).below
    assert told["anchors-too-large"].evidence["share"] == share


def test_heads_in_words() -> None:
    """The batch of diary 001: 4994, 318 and 27 of 5339 truths on strides 8, 16 and 32."""
    heads = Heads(((10, 13),) * 3, ((2,), (1,), (0,)), (32, 16, 8))
    fit = anchor_fit(np.ones((1, 2)), heads)
    told = loads(heads, type(fit)(5339, 0.4, 0.4, 1.0, 0.0, (27 / 5339, 318 / 5339, 4994 / 5339), 0.0))
    assert told == (
        "stride 8, small objects: 93.5 % of the truths; stride 16, medium objects: 6.0 %; "
        "stride 32, large objects: 0.5 %"
    )


def test_anchors_out_of_order_are_taken_and_told() -> None:
    pairs = [[39, 30], [74, 69], [91, 199], [154, 107], [310, 381], [328, 146]]
    told = found(made(SIDES), anchors=pairs)["anchors-unsorted"]
    assert "stride 16 has 39x30, 74x69, 91x199; stride 32 has 154x107, 310x381, 328x146" in told.what
    assert told.evidence["anchors"] == pairs


def test_each_code_is_explained() -> None:
    source = Path(fitted.__file__).read_text()
    codes = set(re.findall(r'_finding\(\s*"([a-z-]+)"', source))
    assert len(codes) == 6
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    for code in codes:
        assert f"### {code}\n" in page


def _heads() -> Heads:
    heads = models.build("yolov3-tiny", 2).anchor_heads()
    assert heads is not None
    return heads
