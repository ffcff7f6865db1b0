"""PASCAL VOC: conventions, layouts, faults, round trip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes, only, picture, voc, voc_xml, with_orientation, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import voc as module
from onestage.data.formats.voc_xml import parse
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo


def test_pixels_counted_from_one_become_half_open(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 1, 1, 60, 40), ("dog", 11, 6, 20, 15)]})
    dataset = module.read(tmp_path, None)
    assert only(dataset).boxes.tolist() == [[0, 0, 60, 40], [10, 5, 20, 15]]
    assert dataset.classes == ("cat", "dog")
    assert (dataset.boxes_read, dataset.images_read, dataset.format, dataset.split) == (2, 1, "voc", "all")
    assert dataset.findings == ()


def test_a_set_that_counts_from_zero_is_not_shifted_and_says_so(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 0, 3, 20, 15)], "b": [("cat", 5, 5, 20, 15)]}, {"one": ["b"]})
    dataset = module.read(tmp_path, "one")  # judged over the whole folder, or train and val would differ
    assert only(dataset).boxes.tolist() == [[5, 5, 20, 15]]
    assert codes(dataset) == ["zero-based"]


def test_one_stray_zero_does_not_turn_a_set_that_counts_from_one(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 0, 3, 20, 15), ("cat", 1, 1, 9, 9)]})
    dataset = module.read(tmp_path, None)
    assert only(dataset).boxes.tolist() == [[0, 2, 20, 15], [0, 0, 9, 9]]
    assert codes(dataset) == ["box-clipped"]


def test_flags_are_kept(tmp_path: Path) -> None:
    voc(tmp_path, {"a": []})
    more = "<difficult>1</difficult><truncated>0.3</truncated><occluded>1</occluded>"
    text = voc_xml([("cat", 2, 2, 9, 9)], more=more).replace(
        "</annotation>",
        "<object><name>cat</name><truncated>Unspecified</truncated>"
        "<bndbox><xmax>30</xmax><xmin> 3.5 </xmin>"
        "<ymin>4</ymin><ymax>9</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object></annotation>",
    )
    write(tmp_path / "Annotations" / "a.xml", text)
    truth = only(module.read(tmp_path, None))
    assert truth.boxes.tolist() == [[1, 1, 9, 9], [2.5, 3, 30, 9]]
    assert truth.difficult.tolist() == [True, False]
    assert truth.extra["truncated"].tolist() == [0.3, 0]
    assert truth.extra["occluded"].tolist() == [1, 0]
    assert truth.extra["line"].tolist() == [4, 5]


@pytest.mark.parametrize(
    "layout", ["Annotations+JPEGImages", "annotations+images", "together", "xml+images", "Annotations+root"]
)
def test_layouts(tmp_path: Path, layout: str) -> None:
    homes = {"together": ("", ""), "Annotations+root": ("Annotations", "")}
    xml, images = homes.get(layout) or layout.split("+")
    picture(tmp_path / images / "a.png")
    write(tmp_path / xml / "a.xml", voc_xml([("cat", 2, 2, 9, 9)], "wrong.xml"))
    assert "PASCAL VOC" in (module.recognise(tmp_path) or "")
    dataset = module.read(tmp_path, None)
    assert dataset.images[0].path == tmp_path / images / "a.png"
    assert only(dataset).boxes.tolist() == [[1, 1, 9, 9]]
    assert module.splits(tmp_path) == []


def test_folders_that_are_splits(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("valid", "dog")):
        picture(tmp_path / split / "a.jpg", seed=len(split))
        write(tmp_path / split / "a.xml", voc_xml([(name, 2, 2, 9, 9)]))
    assert module.splits(tmp_path) == ["train", "valid"]
    assert module.read(tmp_path, "valid").classes == ("cat", "dog")  # of all splits, whichever is read
    whole = module.read(tmp_path, None)
    assert [image.id for image in whole.images] == ["a", "valid/a"]


def test_lists_keep_their_order_and_class_lists_are_no_splits(tmp_path: Path) -> None:
    voc(
        tmp_path,
        {name: [("cat", 2, 2, 9, 9)] for name in "abc"},
        {"val": ["c", "a"], "train": ["b.jpg"], "cat_val": ["c  1", "a -1"]},
    )
    assert module.splits(tmp_path) == ["train", "val"]
    assert [image.id for image in module.read(tmp_path, "val").images] == ["c", "a"]
    assert [image.id for image in module.read(tmp_path, "train").images] == ["b"]
    assert len(module.read(tmp_path, None)) == 3
    with pytest.raises(DataError, match="did you mean 'val'"):
        module.read(tmp_path, "vall")


def test_lists_with_bom_and_crlf(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 2, 2, 9, 9)], "b": []}, {"train": []})
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\n")
    text = voc_xml([("cat", 2, 2, 9, 9)]).replace("\n", "\r\n").encode()
    (tmp_path / "Annotations/a.xml").write_bytes(b"\xef\xbb\xbf" + text)
    dataset = module.read(tmp_path, "train")
    assert [image.id for image in dataset.images] == ["a", "b"]
    assert dataset.boxes == 1
    assert dataset.annotations["a"].extra["line"].tolist() == [4]


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 2, 2, 9, 9)], "b": []})
    dataset = module.read(tmp_path, None)
    assert [len(dataset.annotations[image.id]) for image in dataset.images] == [1, 0]


def test_the_filename_is_asked_where_the_stem_finds_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "photo one.jpeg")
    write(tmp_path / "annotations" / "0001.xml", voc_xml([("cat", 2, 2, 9, 9)], "photo one.png"))
    write(tmp_path / "annotations" / "0002.xml", voc_xml([("cat", 2, 2, 9, 9)], "gone.jpg"))
    dataset = module.read(tmp_path, None)
    assert [image.path.name for image in dataset.images] == ["photo one.jpeg"]
    assert codes(dataset) == ["missing-image"]


def test_sizes_are_checked_against_the_image_as_shown(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 2, 2, 50, 39)], "b": [("cat", 2, 2, 9, 9)]})
    path = tmp_path / "JPEGImages" / "a.jpg"
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    dataset = module.read(tmp_path, None)
    assert (dataset.images[0].width, dataset.images[0].height) == (40, 60)
    assert codes(dataset) == ["size-mismatch", "box-clipped"]
    assert "swapped" in dataset.findings[0].what
    assert dataset.annotations["a"].boxes.tolist() == [[1, 1, 40, 39]]


def test_rows_without_name_or_box_and_class_missing_from_the_list(tmp_path: Path) -> None:
    voc(
        tmp_path,
        {"a": [("cat", 2, 2, 9, 9), ("", 2, 2, 9, 9), ("dog", 2, 2, 9, 9), ("cat", "x", 2, 9, 9), ("cat", 5, 5, 5, 9)]},
    )
    text = (
        (tmp_path / "Annotations/a.xml")
        .read_text()
        .replace("</annotation>", "<object><name>cat</name></object></annotation>")
    )
    write(tmp_path / "Annotations/a.xml", text)
    dataset = module.read(tmp_path, None, ["cat"])
    assert sorted(codes(dataset)) == ["bad-row", "bad-row", "not-a-number", "unknown-class", "zero-area-box"]
    assert {found.where.line for found in dataset.findings} == {5, 6, 7, 8, 9}
    assert (dataset.boxes_read, dataset.boxes) == (6, 1)


def test_listed_and_unlisted_images_without_xml(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 2, 2, 9, 9)]}, {"train": ["a", "ghost"]})
    picture(tmp_path / "JPEGImages" / "new.jpg")
    listed = module.read(tmp_path, "train")
    assert codes(listed) == ["missing-annotation"]
    assert listed.images_read == 2
    free = module.read(tmp_path, None)
    assert codes(free) == ["unannotated-images"]
    assert free.images_read == 1  # they do not belong to the set, so that half-annotated folders can be used


def test_broken_images_are_left_out(tmp_path: Path) -> None:
    voc(tmp_path, {name: [("cat", 2, 2, 9, 9)] for name in "abc"})
    for name, data in (("a", b""), ("b", (tmp_path / "JPEGImages/b.jpg").read_bytes()[:400])):
        (tmp_path / f"JPEGImages/{name}.jpg").write_bytes(data)
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["c"]
    assert codes(dataset) == ["unreadable-image"] * 2
    assert (dataset.images_read, dataset.boxes_read) == (3, 3)


@pytest.mark.skipif(os.name == "nt", reason="names of bytes")
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    stem = os.fsdecode(b"caf\xe9")
    try:
        voc(tmp_path, {stem: []})
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    except UnicodeEncodeError:
        pass
    (tmp_path / "Annotations").mkdir(exist_ok=True)
    (tmp_path / "Annotations" / f"{stem}.xml").write_text(voc_xml([("cat", 2, 2, 9, 9)]))
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["caf\\xe9"]
    assert dataset.fingerprint()
    assert dataset.images[0].path.is_file()


def test_class_order_and_result_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    for root, names in ((tmp_path / "1", "abc"), (tmp_path / "2", "cba")):
        classes = {"a": "zebra", "b": "ant", "c": "cat"}
        for name in names:
            voc(root, {name: [(classes[name], 2, 2, 9, 9)]})
    first, second = (module.read(tmp_path / number, None) for number in "12")
    assert first.classes == second.classes == ("ant", "cat", "zebra")
    assert first.fingerprint() == second.fingerprint()


def test_what_is_not_voc(tmp_path: Path) -> None:
    assert module.recognise(tmp_path) is None
    assert module.recognise(tmp_path / "absent") is None
    write(tmp_path / "pom.xml", "<project/>")
    assert module.recognise(tmp_path) is None
    with pytest.raises(DataError, match="no PASCAL VOC"):
        module.read(tmp_path / "absent", None)


def test_line_numbers_of_nodes() -> None:
    root = parse(b"<annotation>\n<a>x</a>\n\n<b/></annotation>")
    assert [(node.tag, node.line, node.text) for node in root.children] == [("a", 2, "x"), ("b", 4, "")]


side = st.one_of(st.integers(0, 50).map(float), st.floats(0, 50).map(lambda v: round(v, 3)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(side, side, st.floats(1.01, 9), st.floats(1.01, 9), st.integers(0, 1), st.booleans()),
        max_size=6,
        unique_by=lambda r: r[:5],
    )
)
def test_round_trip(tmp_path: Path, rows: list) -> None:
    image = ImageInfo("x/a b", picture(tmp_path / "a b.png", 60, 60), 60, 60)
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, *_ in rows]).reshape(-1, 4)
    flags = [row[5] for row in rows]
    truth = Annotations(
        boxes,
        [row[4] for row in rows],
        flags,
        extra={"truncated": np.array(flags, float), "occluded": np.zeros(len(rows))},
    )
    dataset = Dataset(tmp_path, "voc", "train", ("a&b", "<c>"), (image,), {image.id: truth})
    root = tmp_path / "out"
    assert module.write(dataset, root) == []
    back = module.read(root, "train", dataset.classes)
    assert [one.id for one in back.images] == ["x/a b"]
    again = only(back)
    np.testing.assert_allclose(again.boxes, truth.boxes, atol=2e-6)
    assert again.labels.tolist() == truth.labels.tolist()
    assert again.difficult.tolist() == flags
    assert again.extra.get("truncated", np.zeros(0)).tolist() == truth.extra["truncated"].tolist()
    assert codes(back) == []


def test_integer_boxes_are_written_without_decimals_and_what_voc_cannot_hold_is_listed(tmp_path: Path) -> None:
    image = ImageInfo(7, picture(tmp_path / "a.jpg"), 60, 40)
    boxes = [[0, 0, 10, 10], [5, 5, 6, 20], [1, 1, 9, 9]]
    dataset = Dataset(tmp_path, "coco", "val", ("cat",), (image,), {7: Annotations(boxes, [0, 0, 0], crowd=[0, 0, 1])})
    assert [found.code for found in module.write(dataset, tmp_path / "out", images="link")] == ["thin-box", "lost-flag"]
    text = (tmp_path / "out/Annotations/7.xml").read_text()
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>10</ymax>" in text
    assert (tmp_path / "out/JPEGImages/7.jpg").samefile(image.path)
    assert module.read(tmp_path / "out", "val").boxes == 1
