"""Each detection format: recognised by content, read as its program wrote it, its bad rows listed."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.detections import FORMATS, cartucho, coco_json, comp4, csv_table, darknet, recognise, yolo_txt
from onestage.data.detections.coco_json import coco_results
from onestage.data.detections.reading import read_detections
from onestage.data.detections.rows import Rows
from onestage.errors import DataError
from onestage.records import Annotations, Detections, ImageId, ImageInfo

CLASSES = ("cat", "dog", "dining_table")
IMAGES = tuple(ImageInfo(name, Path(f"/data/{name}.jpg"), 200, 100) for name in ("a", "b", "c_1"))
DATA = Dataset(Path(), "voc", "val", CLASSES, IMAGES, {image.id: Annotations.empty() for image in IMAGES})


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def names(path: Path) -> list[str]:
    return [name for name, _ in recognise(path)]


def refused(rows: Rows) -> list[tuple[str | None, int | None]]:
    return [(one.where.file, one.where.line) for one in rows.findings if one.code == "bad-row"]


box = st.tuples(*(st.floats(0, 90, width=32) for _ in range(2)), *(st.floats(0.125, 60, width=32) for _ in range(2)))
detection = st.tuples(box, st.integers(0, 2), st.floats(0, 1, width=32))


@st.composite
def answers(draw: st.DrawFn) -> dict[ImageId, Detections]:
    found: dict[ImageId, Detections] = {}
    for image in IMAGES:
        if rows := draw(st.lists(detection, max_size=4)):
            corners = [(x, y, x + w, y + h) for (x, y, w, h), _, _ in rows]
            found[image.id] = Detections(corners, [row[1] for row in rows], [row[2] for row in rows])  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", ["coco", "comp4", "yolo"])
@given(found=answers())
def test_what_is_written_comes_back(name: str, found: dict[ImageId, Detections]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        if name == "coco":
            path = path / "found.json"
            path.write_text(json.dumps(coco_results(found)))
        elif name == "comp4":
            comp4.write(found, CLASSES, path)
        else:
            yolo_txt.write(found, IMAGES, path)
        back = read_detections(path, DATA, format=name).detections
        if any(map(len, found.values())):
            assert names(path) == [name]
    assert set(back) == set(found)
    for image, one in found.items():
        order = [np.lexsort((*d.boxes.round(3).T, d.labels, -d.scores)) for d in (one, back[image])]
        np.testing.assert_allclose(back[image].scores[order[1]], one.scores[order[0]], rtol=1e-8)
        assert sorted(back[image].labels) == sorted(one.labels)
        np.testing.assert_allclose(sorted(back[image].boxes.sum(1)), sorted(one.boxes.sum(1)), atol=1e-4)


# ---- VOC comp4


def test_comp4_as_the_challenge_writes_it(tmp_path: Path) -> None:
    put(tmp_path, comp4_det_test_cat="a 0.9 1 1 10 20\n\nb nan 5 5 6 6\n", comp4_det_test_dining_table="")
    assert names(tmp_path) == ["comp4"]
    rows = comp4.read(tmp_path)
    assert rows.classes == ("cat", "dining_table")[: len(rows.classes)]
    assert rows.boxes.tolist() == [[0, 0, 10, 20], [4, 4, 6, 6]]
    assert rows.line.tolist() == [1, 3]
    assert rows.files == ("comp4_det_test_cat.txt", "comp4_det_test_dining_table.txt")


def test_comp4_by_any_prefix_whose_end_is_a_class(tmp_path: Path) -> None:
    put(tmp_path, results_dining_table="c_1 0.9 1 1 10 20\n", cat="a 0.9 1 1 10 20\n")
    found = read_detections(tmp_path, DATA).detections
    assert (found["c_1"].labels.tolist(), found["a"].labels.tolist()) == ([2], [0])
    put(tmp_path, results_dinning_table="c_1 0.9 1 1 10 20\n")
    with pytest.raises(DataError, match="1 of 3"):
        read_detections(tmp_path, DATA)


def test_comp4_files_of_voc_classes_that_a_subset_lacks_are_listed_not_refused(tmp_path: Path) -> None:
    put(tmp_path, comp4_det_test_cat="a 0.9 1 1 10 20\n", comp4_det_test_sofa="a 0.9 1 1 9 9\nb 0.8 1 1 9 9\n")
    found = read_detections(tmp_path, DATA)
    assert {image: one.labels.tolist() for image, one in found.detections.items()} == {"a": [0]}
    (absent,) = [one for one in found.findings if one.code == "absent-class"]
    assert (absent.severity, absent.evidence["count"]) == ("warning", 2)
    assert "no class sofa" in absent.what
    put(tmp_path, comp4_det_test_soffa="a 0.9 1 1 9 9\n")
    with pytest.raises(DataError, match="'soffa' is not in the data"):
        read_detections(tmp_path, DATA)


def test_comp4_lists_rows_that_are_none(tmp_path: Path) -> None:
    put(tmp_path, comp4_det_test_cat="a 0.9 1 1 10 20\na 0.9 1 1 10\na high 1 1 10 20\na 1_0 1 1 10 20\n")
    rows = comp4.read(tmp_path)
    assert refused(rows) == [("comp4_det_test_cat.txt", line) for line in (2, 3, 4)]
    assert len(rows) == 1
    assert "5 columns, expected 6" in rows.findings[0].what


# ---- YOLO


def test_yolo_in_the_order_of_ultralytics(tmp_path: Path) -> None:
    put(tmp_path, a="1 0.5 0.5 0.2 0.4 0.9\n0 0.1 0.1 0.1 0.1 0.05\n", b="")
    assert names(tmp_path) == ["yolo"]
    found = read_detections(tmp_path, DATA)
    np.testing.assert_allclose(found.detections["a"].boxes[0], [80, 30, 120, 70])
    assert found.detections["a"].labels.tolist() == [1, 0]
    assert [one.what for one in found.findings if one.code == "silent-images"] == [
        "1 of 3 images are named nowhere, first 'c_1'"
    ]


def test_yolo_with_the_confidence_second(tmp_path: Path) -> None:
    put(tmp_path, a="1 0.95 0.5 0.5 0.2 0.4\n0 0.05 0.1 0.1 0.1 0.1\n")
    found = read_detections(tmp_path, DATA)
    np.testing.assert_allclose(found.detections["a"].boxes[0], [80, 30, 120, 70])
    assert found.detections["a"].scores.tolist() == [0.95, 0.05]


def test_yolo_says_so_where_both_orders_would_do(tmp_path: Path) -> None:
    put(tmp_path, a="0 0.5 0.5 0.5 0.5 0.5\n")
    assert "column-order" in [one.code for one in read_detections(tmp_path, DATA).findings]


def test_yolo_without_confidence_says_how_to_get_it(tmp_path: Path) -> None:
    put(tmp_path, a="1 0.5 0.5 0.2 0.4\n")
    with pytest.raises(DataError) as caught:
        read_detections(tmp_path, DATA)
    assert "a.txt:1: " in caught.value.problems[0]
    assert "save_conf=True" in caught.value.problems[0]


def test_yolo_in_folders_and_with_bad_rows(tmp_path: Path) -> None:
    put(tmp_path / "labels", a="0 0.5 0.5 0.2 0.2 0.9\n0.5 0.5 0.5 0.2 0.2 0.9\nx 0.5 0.5 0.2 0.2 0.9\n")
    put(tmp_path / "labels", classes="cat\ndog\n")
    rows = yolo_txt.read(tmp_path)
    assert rows.images == ("labels/a",)
    assert sorted(refused(rows), key=str) == [("labels/a.txt", 2), ("labels/a.txt", 3)]


# ---- darknet


TEXT = """ Try to load weights: yolov4.weights ... Done! Loaded 162 layers from weights-file
Enter Image Path:  Detection layer: 139 - type = 28
/data/a.jpg: Predicted in 27.039000 milli-seconds.
dog: 98%\t(left_x:  124   top_y:   12   width:   60   height:   50)
cat: 7%\t(left_x:   -4   top_y:   12   width:   60   height:   50)
Enter Image Path: data/b.jpg: Predicted in 26.1 milli-seconds.
Enter Image Path: data/c_1.jpg: Predicted in 0.026100 seconds.
dining_table: -nan%\t(left_x:  124   top_y:   12   width:   60   height:   50)
dog: 51%
"""


def test_darknet_text(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text(TEXT)
    assert names(path) == ["darknet"]
    rows = darknet.read(path)
    assert rows.images == ("/data/a.jpg", "data/b.jpg", "data/c_1.jpg")
    assert rows.boxes[:2].tolist() == [[124, 12, 184, 62], [-4, 12, 56, 62]]
    assert rows.line.tolist() == [4, 5, 8]
    assert np.isnan(rows.scores[2])
    assert refused(rows) == [("result.txt", 9)]
    assert "coarse-scores" in [one.code for one in rows.findings]
    found = read_detections(path, DATA, allow_loss=True).detections
    assert found["a"].scores.tolist() == [0.98, 0.07]


def test_darknet_json(tmp_path: Path) -> None:
    place = {"center_x": 0.5, "center_y": 0.5, "width": 0.2, "height": 0.4}
    objects = [{"class_id": 1, "name": "dog", "relative_coordinates": place, "confidence": 0.75}, {"name": "dog"}]
    path = tmp_path / "result.json"
    path.write_text(json.dumps([
        {"frame_id": 1, "filename": "data/a.jpg", "objects": objects},
        {"frame_id": 2, "filename": "data/b.jpg", "objects": []}, {"frame_id": 3},
    ]))  # fmt: skip
    assert names(path) == ["darknet"]
    rows = darknet.read(path)
    assert (len(rows), len(rows.findings), rows.images) == (1, 2, ("data/a.jpg", "data/b.jpg"))
    found = read_detections(path, DATA, allow_loss=True).detections
    np.testing.assert_allclose(found["a"].boxes, [[80, 30, 120, 70]])


# ---- Cartucho, CSV


def test_cartucho(tmp_path: Path) -> None:
    put(tmp_path, a="dog 0.5 1 2 30 40\ndog 0.5 1 2 30\n", b="")
    rows = cartucho.read(tmp_path)
    assert (rows.images, rows.classes, rows.boxes.tolist()) == (("a", "b"), ("dog",), [[1, 2, 30, 40]])
    assert refused(rows) == [("a.txt", 2)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image,class,score,xmin,ymin,xmax,ymax", "a.jpg,dog,0.5,10,20,30,50"),
        ("filename;label;confidence;x1;y1;x2;y2", "a;1;0.5;10;20;30;50"),
        ("Image ID\tCategory\tScore\tx\ty\tw\th", "a\tdog\t0.5\t10\t20\t20\t30"),
        ('"file","category_id","conf","left","top","width","height","more"', '"x/a.png",2,0.5,10,20,20,30,"1,2"'),
        ("width,height,image,class,score,xmin,ymin,xmax,ymax", "200,100,a.jpg,dog,0.5,10,20,30,50"),
    ],
)
def test_csv_by_the_names_of_its_columns(tmp_path: Path, header: str, row: str) -> None:
    path = tmp_path / "found.csv"
    path.write_text(f"\ufeff{header}\r\n{row}\r\n\r\n", encoding="utf-8")
    assert names(path) == ["csv"]
    found = read_detections(path, DATA).detections["a"]
    assert (found.boxes.tolist(), found.labels.tolist(), found.scores.tolist()) == ([[10, 20, 30, 50]], [1], [0.5])


def test_csv_names_every_column_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("image,klass,scores,xmin,ymin,xmax\n")
    with pytest.raises(DataError, match="columns are missing") as caught:
        read_detections(path, DATA)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["class", "score", "right", "bottom"]
    assert "is it 'scores'?" in caught.value.problems[1]
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_detections(path, DATA)


def test_csv_lists_rows_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("image,class,score,xmin,ymin,xmax,ymax\na,cat,0.5,1,2,3,4\na,cat,0.5,1,2,3\na,cat,,1,2,3,4\n")
    rows = csv_table.read(path)
    assert (len(rows), refused(rows)) == (1, [("found.csv", 3), ("found.csv", 4)])
    assert "score '' is no number" in rows.findings[1].what


# ---- COCO


def test_coco_under_annotations_and_what_is_a_truth(tmp_path: Path) -> None:
    row = {"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"annotations": [row], "info": {}}))
    assert names(path) == ["coco"]
    assert len(coco_json.read(path)) == 1
    path.write_text(json.dumps({"annotations": [row], "images": [], "categories": []}))
    assert names(path) == []
    with pytest.raises(DataError, match="got a truth file"):
        read_detections(path, DATA)


@pytest.mark.parametrize("value", [True, None, "1", [1], 10**400])
@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "bbox"])
def test_coco_lists_values_of_wrong_kinds(tmp_path: Path, key: str, value: Any) -> None:
    good = {"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    bad = {**good, key: [1, 2, 3, value] if key == "bbox" else value}
    path = tmp_path / "found.json"
    path.write_text(json.dumps([good, bad]))
    rows = coco_json.read(path)
    if key in ("image_id", "category_id") and isinstance(value, str | int) and not isinstance(value, bool):
        assert len(rows) == 2  # a name, or a number: whether it means anything is looked up later
    else:
        assert (len(rows), len(rows.findings)) == (1, 1)


entry = st.fixed_dictionaries(
    {
        "image_id": st.one_of(st.integers(0, 9), st.sampled_from(["a", "} ,{", "\\", '"}, {"', "é"])),
        "category_id": st.integers(1, 3),
        "bbox": st.one_of(st.just([1, 2, 3, 4]), st.just([1, 2])),
        "score": st.floats(0, 1),
    },
    optional={"parts": st.just([{"x": 1}, {"y": [{}, {}]}])},
)


@given(
    st.lists(entry, max_size=12),
    st.integers(1, 90),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from(["", "]", " ,"]),
)
def test_a_coco_list_read_in_pieces_is_the_list_read_whole(
    rows: list[Any], size: int, indent: int | None, marked: bool, end: str
) -> None:
    """Wherever the text is cut, also within texts and nested entries; and what is no JSON is refused alike."""
    text = json.dumps(rows, indent=indent, ensure_ascii=False) + end
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        path = Path(place) / "found.json"
        path.write_text(text, encoding="utf-8-sig" if marked else "utf-8")
        told = []
        for piece in (size, len(text) * 4 + 4):
            patch.setattr(coco_json, "_PIECE", piece)
            try:
                read = coco_json.read(path)
            except DataError as error:
                told.append((error.message,))
            else:
                columns = [getattr(read, name).tolist() for name in ("image", "label", "line", "boxes", "scores")]
                told.append((read.images, read.classes, columns, [str(one) for one in read.findings]))
        assert told[0] == told[1]
        assert len(told[0]) == (1 if end.strip() else 4)


def test_a_long_coco_list_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} for i in range(300)]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(rows))
    monkeypatch.setattr(coco_json, "_PIECE", 2000)
    monkeypatch.setattr(coco_json, "read_json", None)
    assert max(len(piece) for piece in coco_json._pieces(path)) < 30
    assert coco_json.read(path).line.tolist() == list(range(1, 301))


@given(st.text(max_size=60), st.sampled_from([*FORMATS]), st.sampled_from(["x.txt", "x.json", "x.csv"]))
def test_any_text_is_read_or_refused_in_words(text: str, name: str, file: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, file)
        path.write_text(text, encoding="utf-8")
        recognise(path)
        try:
            read_detections(path, DATA, format=name)
        except DataError as error:
            assert error.message  # noqa: PT017


# ---- a format asked for that the files do not have


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_coco_list_is_never_nothing_of_another_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([{"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}] * 90))
    if name == "coco":
        assert len(read_detections(path, DATA, format=name).detections["a"]) == 90
        return
    with pytest.raises(DataError) as caught:
        read_detections(path, DATA, format=name)
    assert max(map(len, str(caught.value).splitlines())) < 400


@pytest.mark.parametrize("name", ["coco", "darknet", "csv"])
def test_a_folder_for_a_format_of_one_file_names_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps(coco_results({"a": Detections([[1, 2, 3, 4]], [0], [0.5])})))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is a folder") as caught:
        read_detections(tmp_path, DATA, format=name)
    assert ("found.json" in str(caught.value)) is (name == "coco")


@pytest.mark.parametrize("format", ["comp4", "yolo", "visdrone", "widerface", "fddb"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path, format: str) -> None:
    rows = {
        "comp4": "a 0.9 1 1 10 20\n", "yolo": "0 .5 .5 .2 .2 .9\n", "visdrone": "1,1,9,9,0.9,4,-1,-1\n",
        "widerface": "a.jpg\n1\n1 1 9 9 0.9\n", "fddb": "a\n1\n1 1 9 9 0.9\n",
    }[format]  # fmt: skip
    folder = put(tmp_path / "found", **{"cat" if format == "comp4" else "a": rows})
    (tmp_path / "secret.txt").write_text("b 0.9 1 1 10 20\nsecret\n")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    names_read = FORMATS[format].read(folder)
    assert len(names_read) == 1
    assert "b.txt" not in names_read.files
    data = (
        replace(DATA, classes=("face",)) if format in ("widerface", "fddb") else replace(DATA, classes=("cat", "car"))
    )
    said = read_detections(folder, data, format=format, allow_loss=True).findings
    assert [one.where.file for one in said if one.code == "file-passed-over"] == ["b.txt"]
