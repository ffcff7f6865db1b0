"""Judging while a run goes and after it: native sizes, how many boxes are kept, what the weights say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_model

from onestage import Detector, models
from onestage.data.one_set import open_set
from onestage.errors import ModelError, RecipeError
from onestage.experiments.run import Run
from onestage.models.weights import read_card
from onestage.training.fit import fit
from onestage.training.judging.dataset import judge
from onestage.training.recipe.recipe import build

QUICK: dict[str, Any] = {
    "model": "ssd-small", "weights": "none", "epochs": 1, "batch": 4, "precision": "fp32", "device": "cpu", "ema": 0,
    "augmentation.policy": "none", "validation.score": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "ssd-small", small_model.WORDS)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright squares on grey in images of many sizes, one of 9 by 200, one class, YOLO txt."""
    folder, rng = tmp_path_factory.mktemp("sizes"), np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for i in range(12):
        width, height = (9, 200) if i == 3 else (int(v) for v in rng.integers(50, 150, 2))
        image, side = rng.integers(90, 130, (height, width, 3)).astype(np.uint8), min(width, height) // 2
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        image[y : y + side, x : x + side] = (255, 220, 40)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image)
        box = ((x + side / 2) / width, (y + side / 2) / height, side / width, side / height)
        (folder / "labels" / f"{i:03d}.txt").write_text(" ".join(map(str, (0, *box))))
    (folder / "classes.txt").write_text("square\n")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    asked = {"data": str(data), "validation.fit": "native", "validation.scale": 1.5, "validation.most": 7}
    return fit({**QUICK, **asked}, root=tmp_path_factory.mktemp("runs"))


def test_a_run_judged_at_native_size_says_so_and_is_judged_alike_later(run: Run) -> None:
    card = read_card(run.weights_dir / "best.safetensors")
    assert (card["fit"], card["scale"], card["size"]) == ("native", 1.5, [64, 64])
    detector = Detector.load(run.folder)
    assert (detector.fit, detector.scale) == ("native", 1.5)
    again = detector.val(device="cpu").metrics
    kept = {(row["protocol"], row["name"], row["class"]): row["value"] for row in run.metrics["rows"]}
    assert {key: again.value(key[1], key[0], key[2]) for key in kept} == pytest.approx(
        {key: np.nan if value is None else value for key, value in kept.items()}, nan_ok=True
    )
    assert detector.model.size == (64, 64)


def test_no_image_keeps_more_than_asked(run: Run) -> None:
    counts = np.unique([row["image_id"] for row in run.predictions], return_counts=True)[1]
    assert counts.max() == 7


def test_predicting_finds_what_judging_found(run: Run, data: Path) -> None:
    detector, rows = Detector.load(run.folder), run.predictions
    for image_id in {row["image_id"] for row in rows}:
        path = data / "images" / f"{image_id}.png"
        [found] = detector.predict(path, score=0.0, iou=0.5, most=7, device="cpu")
        own = [row for row in rows if row["image_id"] == image_id]
        np.testing.assert_allclose(found.scores, [row["score"] for row in own], atol=1e-5)
        xywh = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
        np.testing.assert_allclose(xywh, [row["bbox"] for row in own], atol=0.01)
    assert detector.model.size == (64, 64)


def test_saved_again_the_weights_still_say_how_images_come(run: Run, tmp_path: Path) -> None:
    kept = Detector.load(Detector.load(run.folder).save(tmp_path / "w.safetensors"))
    assert (kept.fit, kept.scale, kept.model.size) == ("native", 1.5, (64, 64))
    other = Detector.load(run.folder, fit="squash")
    assert (other.fit, other._asked("x", {})["fit"]) == ("squash", "squash")
    assert Detector.load(run.folder)._asked("x", {})["validation.fit"] == "native"


def test_candidates_and_most_limit_what_is_judged(run: Run, data: Path) -> None:
    dataset, detector = open_set(str(data), "all"), Detector.load(run.folder).model
    for limits, most in (
        ({"most": 3}, 3),
        ({"candidates": 5, "iou": 1.0}, 5),
        ({"candidates": 900, "most": 800, "iou": 1.0}, 800),
    ):
        _, found = judge(detector, dataset, ["voc10"], score=0.0, fit="native", scale=2.0, device="cpu", **limits)
        assert max(map(len, found.values())) == most


def test_what_cannot_be_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ssd300 takes 300x300 alone"):
        fit({**QUICK, "data": str(data), "model": "ssd300", "validation.fit": "native"}, root=tmp_path)
    with pytest.raises(RecipeError, match=r"fit: training takes batches of one size.*validation\.fit=native"):
        build({"data": "x", "fit": "native"})
    with pytest.raises(RecipeError, match="scale: 2 has no effect without fit=native"):
        build({"data": "x", "validation.scale": 2})
    with pytest.raises(RecipeError, match=r"validation\.fit.*'nativ' \(did you mean 'native'\?\)"):
        build({"data": "x", "validation.fit": "nativ"})
