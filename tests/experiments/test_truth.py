"""The validation truth kept in a run folder: COCO JSON out, the same records in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestage.errors import DataError
from onestage.evaluation import PROTOCOLS, lay_out
from onestage.experiments.run import Run
from onestage.experiments.truth import read_truth, write_truth
from onestage.records import Annotations, Detections, ImageInfo


def test_a_run_without_truth_has_none(tmp_path: Path) -> None:
    assert read_truth(Run.create(tmp_path)) is None


def test_a_damaged_truth_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    for text in ("{", "[]", '{"images": [{"id": 1}], "annotations": [], "categories": []}'):
        (run.folder / "validation.json").write_text(text)
        with pytest.raises(DataError, match=r"validation\.json cannot be read as COCO JSON"):
            read_truth(run)


COORDINATE = st.integers(0, 4096 * 256).map(lambda n: n / 256)  # finer is lost by xywh, by one ulp
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
ROW = st.tuples(BOX, st.integers(0, 2), st.booleans(), st.booleans(), st.booleans())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.lists(ROW, max_size=4), max_size=3), st.booleans())
def test_truth_comes_back_as_it_was(tmp_path: Path, rows: list[list[tuple]], words: bool) -> None:
    run = Run(tmp_path)
    ids = [f"nan {n}" if words else 10 * n for n in range(len(rows))]
    images = [ImageInfo(image_id, Path(f"a/é{image_id}.jpg"), 640, 480) for image_id in ids]
    annotations = {
        image_id: Annotations(
            np.array([row[0] for row in image_rows]).reshape(-1, 4),
            *(
                np.array([row[k] for row in image_rows], kind)
                for k, kind in ((1, int), (2, bool), (3, bool), (4, bool))
            ),
        )
        for image_id, image_rows in zip(ids, rows, strict=True)
    }
    write_truth(run, images, annotations, ("nan", "<b>", "Blutkörper"))
    truth = read_truth(run)
    assert truth is not None
    assert truth.classes == ("nan", "<b>", "Blutkörper")
    assert [image.id for image in truth.images] == ids
    assert all(image.path.is_absolute() for image in truth.images)
    for image_id in ids:
        for name in ("boxes", "labels", "difficult", "ignore", "crowd"):
            np.testing.assert_array_equal(
                getattr(truth.annotations[image_id], name), getattr(annotations[image_id], name)
            )


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    run = Run.create(tmp_path)
    annotations = {7: Annotations(np.array([[1.0, 2.0, 4.0, 6.0]]), np.array([1]), crowd=np.array([True]))}
    write_truth(run, [ImageInfo(7, Path("x.jpg"), 10, 10)], annotations, ("a", "b"))
    read = coco.COCO(str(run.folder / "validation.json"))
    assert read.loadAnns(read.getAnnIds(imgIds=[7]))[0]["bbox"] == [1.0, 2.0, 3.0, 4.0]
    assert [category["name"] for category in read.loadCats(read.getCatIds())] == ["a", "b"]


def test_numeric_extra_columns_are_kept_and_others_are_not(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    extra = {
        "area": np.array([5.5, np.nan]), "region": np.array([False, True]), "line": np.array([3, 9]),
        "ellipse": np.array([[1.0, 2, 3, 4, 5]] * 2), "name": np.array(["a", "b"]),
    }  # fmt: skip
    boxes = np.array([[0.0, 0, 4, 5], [1, 1, 3, 3]])
    annotations = {1: Annotations(boxes, np.array([0, 0]), extra=extra), 2: Annotations(boxes, np.array([0, 0]))}
    write_truth(run, [ImageInfo(i, Path("x.jpg"), 0, 0) for i in (1, 2)], annotations, ("a",))
    truth = read_truth(run)
    assert truth is not None
    kept = truth.annotations[1].extra
    assert set(kept) == {"area", "region", "line", "ellipse"}
    for name, column in kept.items():
        np.testing.assert_array_equal(column, extra[name])
        assert column.dtype == extra[name].dtype
    assert truth.annotations[2].extra == {}
    rows = json.loads((run.folder / "validation.json").read_text())["annotations"]
    assert [row["area"] for row in rows] == [5.5, 4.0, 20.0, 4.0]


def test_the_runs_own_scores_come_out_again_with_areas_of_masks(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    boxes = np.array([[0.0, 0, 40, 40]])
    annotations = {1: Annotations(boxes, np.array([0]), extra={"area": np.array([500.0])})}  # small by its mask only
    write_truth(run, [ImageInfo(1, Path("x.jpg"), 64, 64)], annotations, ("a",))
    truth = read_truth(run)
    assert truth is not None
    found = {1: Detections(boxes, np.array([0]), np.array([0.9]))}
    scores = [PROTOCOLS["coco"](lay_out(of, found, ["a"])).values() for of in (annotations, truth.annotations)]
    assert scores[0]["APs", None] == scores[1]["APs", None] == 1.0


def test_a_truth_of_earlier_runs_is_read(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    document = {
        "images": [{"id": 1, "file_name": "/a.jpg", "width": 9, "height": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "a"}],
    }
    (run.folder / "validation.json").write_text(json.dumps(document))
    truth = read_truth(run)
    assert truth is not None
    assert truth.annotations[1].extra == {}
