"""Detection files judged from Python: the set, the protocols, the floor, what is said of the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onestage
from onestage.analysis.judging import fitting_protocols, judge_detections, several
from onestage.data.dataset import Dataset
from onestage.data.detections import coco_json
from onestage.data.detections.coco_json import coco_labels
from onestage.data.formats import coco, coco_folder
from onestage.errors import DataError, UsageError
from onestage.evaluation import DEFAULT_PROTOCOLS, PROTOCOLS, voc
from onestage.evaluation.judgement import Protocol
from onestage.records import Annotations, Detections, ImageInfo


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    document = {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg", "width": 100, "height": 80} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
            for i in (1, 2)
        ],
        "categories": [{"id": 5, "name": "cat"}],
    }  # fmt: skip
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    return path


def written(truth: Path, *rows: tuple[Any, float]) -> Path:
    path = truth.with_name("found.json")
    path.write_text(json.dumps([
        {"image_id": image, "category_id": 5, "bbox": [10, 10, 20, 20], "score": score} for image, score in rows
    ]))  # fmt: skip
    return path


def test_a_file_is_judged_from_python(truth: Path) -> None:
    judged = onestage.judge_detections(written(truth, (1, 0.9), ("002", 0.5)), truth, intervals=False)
    assert judged.evaluation.protocols == DEFAULT_PROTOCOLS
    assert judged.evaluation.metrics.value("mAP50", "voc10") == 1
    assert (judged.found.format, judged.findings, len(judged.detections)) == ("coco", (), 2)
    said = judged.as_dict()
    assert said["detections"]["rows"] == 2
    assert json.loads(json.dumps(said))["n_images"] == 2


def test_category_ids_are_those_of_the_set_that_is_judged(truth: Path) -> None:
    """Two sets that number their classes otherwise: the other one must not decide, nor be opened."""
    document = json.loads(truth.read_text())
    document["categories"].append({"id": 6, "name": "dog"})
    folder = truth.parent / "both" / "annotations"
    folder.mkdir(parents=True)
    (folder / "instances_val.json").write_text(json.dumps(document))
    found = written(truth, (1, 0.9), (2, 0.5))
    document["categories"] = [{"id": 5, "name": "dog"}, {"id": 6, "name": "cat"}]
    for row in document["annotations"]:
        row["category_id"] = 6
    (folder / "instances_train.json").write_text(json.dumps(document))
    classes = ["cat", "dog"]
    judged = judge_detections(found, folder.parent, split="val", classes=classes, intervals=False)
    assert judged.evaluation.metrics.value("AP50", "voc10", "cat") == 1
    other = judge_detections(found, folder.parent, split="train", classes=classes, intervals=False)
    assert other.evaluation.metrics.value("AP50", "voc10", "cat") == 0
    with pytest.raises(DataError, match="category id 5 means"):
        coco_labels(folder.parent, classes, "all")
    (folder / "instances_train.json").write_text('{"images": [], "annotations": [], "categories": [')
    judge_detections(found, folder.parent, split="val", classes=classes, intervals=False)


def test_the_truth_is_read_once_and_what_is_done_is_told(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(coco, "load", lambda path: opened.append(path) or coco_folder.load(path))
    monkeypatch.setattr(coco_json, "load", None)
    told: list[str] = []
    judged = judge_detections(written(truth, (1, 0.9)), truth, protocols=["coco"], progress=told.append)
    assert opened == [truth]
    assert judged.evaluation.metrics.value("mAP50", "coco") == pytest.approx(0.5, abs=0.01)  # category 5 is the cat
    assert told == [
        "reading truth.json", "reading found.json", "laying out truths and detections", "judging by coco",
        "500 resamples by coco", "curves",
    ]  # fmt: skip


def test_the_floor_leaves_rows_out_and_is_known(truth: Path) -> None:
    judged = judge_detections(written(truth, (1, 0.9), (2, 0.5)), truth, score=0.6, intervals=False)
    assert judged.evaluation.score_floor == 0.6
    assert "1 detection (1 more left out)" in judged.found.described
    assert judged.evaluation.metrics.value("mAP50", "voc10") == 0.5


def test_what_must_be_said_and_what_is_refused(truth: Path) -> None:
    path = written(truth, (1, 0.9))
    with pytest.raises(UsageError, match="data= is missing"):
        judge_detections(path)
    with pytest.raises(UsageError, match="categories=cocoa"):
        judge_detections(path, truth, categories="cocoa")
    with pytest.raises(DataError, match="no such file"):
        judge_detections(truth.with_name("none.csv"), truth)
    with pytest.raises(DataError, match="1 of 1"):
        judge_detections(path, truth, categories="labels")


def test_the_datas_own_protocol_comes_first_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageInfo("a", Path("a.jpg"), 10, 10)
    data = Dataset(Path(), "own", "val", ("cat",), (image,), {"a": Annotations.empty()})
    found = {"a": Detections.empty()}
    assert fitting_protocols(data, found) == DEFAULT_PROTOCOLS
    monkeypatch.setitem(PROTOCOLS, "own", Protocol(voc.voc10, "mAP50", "a test"))
    assert fitting_protocols(data, found) == ("own", *DEFAULT_PROTOCOLS)
    assert fitting_protocols(replace(data, format="coco"), found) == DEFAULT_PROTOCOLS
    monkeypatch.setitem(PROTOCOLS, "own", Protocol(voc.voc10, "mAP50", "a test", lambda pool: "no lists"))
    assert fitting_protocols(data, found) == DEFAULT_PROTOCOLS


def test_visdrones_own_protocol_is_the_headline(shared: Path, tmp_path: Path) -> None:
    """The truth's own objects of ten real images as detections, by the layout of the official tool."""
    truth, found = tmp_path / "VisDrone2019-DET-val" / "annotations", tmp_path / "found"
    truth.mkdir(parents=True)
    found.mkdir()
    for file in sorted((shared / "visdrone" / "VisDrone2019-DET-val" / "annotations").glob("*.txt"))[:10]:
        (truth / file.name).write_bytes(file.read_bytes())
        rows = [line.split(",") for line in file.read_text().split()]
        lines = [",".join([*row[:4], "0.9", row[5], "-1", "-1"]) for row in rows if row[5] not in ("0", "11")]
        (found / file.name).write_text("\n".join(lines))
    judged = judge_detections(found, truth.parent, intervals=False)
    assert judged.found.format == "visdrone"
    assert judged.evaluation.protocols == ("visdrone", *DEFAULT_PROTOCOLS)
    assert judged.evaluation.metrics.rows[0].protocol == "visdrone"
    assert judged.evaluation.metrics.value("mAP50-95", "coco") == pytest.approx(1, abs=2e-3)
    assert not [one for one in judged.findings if one.severity == "error"]


def test_names_may_be_one_text_with_commas() -> None:
    assert several("voc07, coco") == ("voc07", "coco")
    assert several(["voc07"]) == ("voc07",)
    assert several(None) is None


def test_detections_of_another_set_are_told_which_it_is(tmp_path: Path) -> None:
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>50</width><height>50</height></size><object><name>cat</name><bndbox><xmin>2</xmin>"
            "<ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"
        )
    for split, names in (("train", "c"), ("val", "a"), ("test", "b")):
        (tmp_path / "voc" / "ImageSets" / "Main" / f"{split}.txt").write_text(names + "\n")
    for names, hint in (
        ("b", "split=test: the detections fit that set, not val"),
        ("bc", "split=all:"),
        ("z", "judge on"),
    ):
        (tmp_path / "cat.txt").write_text("".join(f"{name} 0.9 2 2 20 20\n" for name in names))
        with pytest.raises(DataError) as caught:
            judge_detections(tmp_path / "cat.txt", tmp_path / "voc")
        assert str(caught.value.hint).startswith(hint)
    with pytest.raises(DataError) as caught:  # a set that was asked for is not second-guessed
        judge_detections(tmp_path / "cat.txt", tmp_path / "voc", split="val")
    assert "split=all:" not in str(caught.value.hint)
