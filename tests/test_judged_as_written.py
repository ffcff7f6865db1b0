"""Truth read for judging is the file's own: odd boxes count as official tools count them; no image is needed."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from onestage.data.detections.coco_json import coco_labels
from onestage.data.detections.reading import read_detections
from onestage.data.one_set import open_set
from onestage.errors import DataError
from onestage.evaluation import evaluate
from onestage.evaluation.coco import SUMMARY

ODD = [[-5.5, 3, 30, 20], [50, 40, 30, 30], [10, 10, 0, 12], [10, 10, 20, 12], [10, 10, 20, 12], [200, 200, 9, 9]]


def odd_set(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Boxes over the border, outside, without area and twice; sizes differ, and there is no image file."""
    rng = np.random.default_rng(4)
    rows: list[dict[str, Any]] = []
    for image in range(1, 9):
        boxes = [*ODD, *np.round(np.c_[rng.uniform(-9, 60, (6, 2)), rng.uniform(5, 60, (6, 2))], 2).tolist()]
        for box in boxes:
            rows.append({"id": len(rows) + 1, "image_id": image, "category_id": int(rng.integers(1, 3)) * 7,
                         "bbox": box, "area": box[2] * box[3], "iscrowd": int(rng.random() < 0.1)})  # fmt: skip
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(1, 9)],
        "annotations": rows, "categories": [{"id": 7, "name": "cat"}, {"id": 14, "name": "dog"}],
    }  # fmt: skip
    path = folder / "instances_val.json"
    path.write_text(json.dumps(truth))
    found = []
    for row in rows:
        if rng.random() < 0.8:
            box = np.round(np.array(row["bbox"]) + rng.normal(0, 2, 4), 2)
            box[2:] = np.maximum(box[2:], 1)
            found.append({"image_id": row["image_id"], "category_id": row["category_id"], "bbox": box.tolist(),
                          "score": round(float(rng.random()), 2)})  # fmt: skip
    return path, found


def official(path: Path, found: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes([dict(row) for row in found]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


def test_odd_boxes_count_as_in_pycocotools(tmp_path: Path) -> None:
    path, rows = odd_set(tmp_path)
    dataset = open_set(path, images=False)
    (tmp_path / "found.json").write_text(json.dumps(rows))
    ids = coco_labels(path, dataset.classes, dataset.split)
    assert ids is not None
    found = read_detections(tmp_path / "found.json", dataset, ids).detections
    judged = evaluate(dict(dataset.annotations), found, dataset.classes, ["coco"], intervals=False)
    ours = [judged.metrics.value(name, "coco") for name in SUMMARY]
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), official(path, rows), rtol=0, atol=1e-12)
    codes = [finding.evidence["was"] for finding in dataset.findings if finding.code == "kept-as-written"]
    assert {"box-outside", "box-clipped", "zero-area-box"} <= set(codes)
    assert dataset.boxes == dataset.boxes_read


XML = """<annotation><filename>a.jpg</filename><size><width>64</width><height>48</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>70</xmax><ymax>20</ymax></bndbox></object>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>5</xmin><ymin>x</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


@pytest.mark.parametrize("split", [None, "test", "all"])
def test_voc_truth_needs_no_images(tmp_path: Path, split: str | None) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "Annotations" / "a.xml").write_text(XML)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("a\n")
    with pytest.raises(DataError, match="1 of 3 boxes and 0 of 1 images cannot be used"):
        open_set(tmp_path, split, images=False)
    dataset = open_set(tmp_path, split, images=False, allow_loss=True)
    (image,) = dataset.images
    assert (image.id, image.width, image.height) == ("a", 64, 48)
    assert dataset.annotations["a"].boxes.tolist() == [[0, 0, 70, 20], [4, 4, 5, 9]]
    assert dataset.annotations["a"].difficult.tolist() == [True, False]
    assert [finding.code for finding in dataset.findings].count("not-a-number") == 1
