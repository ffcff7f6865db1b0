"""Judging while a run goes and after it: native sizes, how many boxes are kept, what the weights say of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onestage import Detector
from onestage.data.one_set import open_set
from onestage.errors import DataError, ModelError, RecipeError, UsageError
from onestage.experiments.run import Run
from onestage.models.weights_files import read_card
from onestage.records import Metrics
from onestage.training.fit import fit
from onestage.training.judging.dataset import judge
from onestage.training.plan import ask, make_plan
from onestage.training.recipe.recipe import build

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from widerface_sets import FaceSet

QUICK: dict[str, Any] = {
    "model": "ssd-small", "weights": "none", "epochs": 1, "batch": 4, "precision": "fp32", "device": "cpu", "ema": 0,
    "augmentation.policy": "none", "validation.score": 0.0,
}  # fmt: skip


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
    with pytest.raises(UsageError, match="scale has no effect on fit=squash"):
        Detector.load(run.folder, fit="squash", scale=2.0)


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


def face_folder(root: Path, lists: bool) -> Path:
    """A WIDER FACE folder: two events of two images in each set; with the validation set's level lists or not."""
    rng, names = np.random.default_rng(0), [f"{event}/{event}_{i}" for event in ("0--Parade", "2--Riot") for i in "ab"]
    rows = np.array([[8.0, 6, 20, 20], [40, 34, 16, 18]])
    for split in ("train", "val"):
        for name in names:
            path = root / f"WIDER_{split}" / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(90, 130, (70, 90, 3)).astype(np.uint8)
            for x, y, w, h in rows.astype(int).tolist():
                image[y : y + h, x : x + w] = (255, 220, 40)
            cv2.imwrite(str(path), image)
        records = [f"{name}.jpg\n2\n8 6 20 20 0 0 0 0 0 0\n40 34 16 18 0 0 0 0 0 0\n" for name in names]
        (root / "wider_face_split").mkdir(exist_ok=True)
        (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("".join(records))
    if lists:
        every, first = {name: np.array([0, 1]) for name in names}, {name: np.array([0]) for name in names}
        none = {name: np.zeros(0, int) for name in names}
        FaceSet(dict.fromkeys(names, rows), {"easy": none, "medium": first, "hard": every}, {}).write(root)
    return root


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return face_folder(tmp_path_factory.mktemp("wider"), lists=True)


def test_a_run_is_steered_by_a_level_of_widerface(faces: Path, tmp_path: Path) -> None:
    asked = {"data": str(faces), "epochs": 3, "validation.every": 1, "validation.metric": "widerface/medium"}
    run = fit({**QUICK, **asked, "validation.protocols": ["widerface", "voc10"]}, root=tmp_path)
    assert run.recipe["validation"]["metric"] == "widerface/APmedium"
    rows = run.results
    assert [name for name in rows[0] if name.startswith("metrics/")] == [
        "metrics/mAP50", "metrics/mAP50-95", "metrics/precision", "metrics/recall", "metrics/widerface/APeasy",
        "metrics/widerface/APmedium", "metrics/widerface/APhard",
    ]  # fmt: skip
    assert np.isnan(rows[0]["metrics/widerface/APeasy"])  # no face is easy
    values = [row["metrics/widerface/APmedium"] for row in rows]
    best = run.info["best"]
    assert (best["metric"], best["value"]) == ("widerface/APmedium", pytest.approx(max(values)))
    final = Metrics.from_list(run.metrics["rows"])
    assert final.value("APmedium", "widerface") == pytest.approx(max(values))
    assert np.isnan(final.value("APeasy", "widerface"))


@pytest.mark.parametrize("lists", [True, False])
def test_a_benchmarks_data_is_judged_by_its_own_protocol_where_nobody_says(lists: bool, tmp_path: Path) -> None:
    folder = face_folder(tmp_path / "wider", lists)
    plan = make_plan(ask({**QUICK, "data": str(folder)}))
    usual = ("voc07", "voc10", "coco")  # without the lists of levels there is no such judgement
    assert plan.recipe.validation.protocols == (("widerface", *usual) if lists else usual)


def test_a_metric_stands_in_results_without_its_protocol_being_asked_for(faces: Path, tmp_path: Path) -> None:
    asked = {"data": str(faces), "validation.metric": "coco/APs", "validation.protocols": ["voc10"]}
    run = fit({**QUICK, **asked}, root=tmp_path)
    assert {name for name in run.results[0] if name.count("/") == 2} == {"metrics/coco/APs"}
    assert run.info["best"]["value"] == run.results[0]["metrics/coco/APs"]


@pytest.mark.parametrize(
    ("metric", "lists", "told"),
    [
        ("widerface/hard", False, "put the official eval_tools/ground_truth beside the annotations"),
        ("widerface/easy", True, "widerface: APeasy is undefined: no truth of the 4 images counts for it"),
        ("fddb/disc@1000", True, "fddb: it judges faces marked by ellipses; this truth has none"),
        ("coco/APl", True, "coco: APl is undefined"),
    ],
)
def test_a_metric_that_the_data_cannot_give_is_refused_before_training(
    metric: str, lists: bool, told: str, faces: Path, tmp_path: Path
) -> None:
    data = faces if lists else face_folder(tmp_path / "data", lists=False)
    with pytest.raises(DataError, match=re.escape(told)) as error:
        fit({**QUICK, "data": str(data), "validation.metric": metric}, root=tmp_path / "runs")
    assert "another metric, such as mAP50" in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("widerface/hrad", "did you mean 'widerface/hard'"),
        ("widerfce", "no such score"),
        ("mAP5", "did you mean 'mAP50'"),
        ("fddb/disk@1000", "did you mean 'fddb/disc@1000'"),
        ("darknet/FP", "no such score"),
        ("", "no such score"),
    ],
)
def test_misspelt_metrics_name_the_right_one(asked: str, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape("validation.metric: no such score")) as error:
        build({"data": "x", "validation.metric": asked})
    assert told in str(error.value)
