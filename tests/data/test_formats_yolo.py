"""YOLO and darknet txt: layouts, rows, faults, round trip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes, only, picture, write, yolo
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import yolo as module
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

ROW = "0 0.5 0.5 0.5 0.5\n"


def one(root: Path, text: str, classes: str = "cat\ndog\n") -> Dataset:
    yolo(root, {"a": text, "ok": ROW})
    write(root / "classes.txt", classes)
    return module.read(root, None)


def test_shares_become_pixels(tmp_path: Path) -> None:
    dataset = one(tmp_path, "1 0.5 0.5 0.5 0.25\n\n0 0.1 0.1 0.2 0.2 \n")
    truth = dataset.annotations["a"]
    np.testing.assert_allclose(truth.boxes, [[15, 15, 45, 25], [0, 0, 12, 8]])
    assert truth.labels.tolist() == [1, 0]
    assert truth.extra["line"].tolist() == [1, 3]
    assert dataset.classes == ("cat", "dog")
    assert dataset.findings == ()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("0 0.5 0.5 0.5", "bad-row"),
        ("0 0.5 0.5 0.5 0.5 0.93", "bad-row"),  # six columns: a detector's output
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "bad-row"),  # no polygon: a number is missing
        ("cat 0.5 0.5 0.5 0.5", "not-a-number"),
        ("0 nan 0.5 0.5 0.5", "not-a-number"),
        ("0 0.5 inf 0.5 0.5", "not-a-number"),
        ("0 0,5 0,5 0,5 0,5", "not-a-number"),
        ("-1 0.5 0.5 0.5 0.5", "bad-row"),
        ("0.5 0.5 0.5 0.5 0.5", "bad-row"),
        ("0 300 200 20 30", "bad-row"),  # pixels
        ("0 0.5 0.5 0 0.5", "zero-area-box"),
        ("0 0.5 0.5 -0.2 0.5", "inverted-box"),
        ("2 0.5 0.5 0.2 0.2", "unknown-class"),
        ("1e300 0.5 0.5 0.2 0.2", "unknown-class"),
        ("# note", "bad-row"),
    ],
)
def test_bad_rows_go_with_file_and_line(tmp_path: Path, row: str, code: str) -> None:
    dataset = one(tmp_path, ROW + row + "\n")
    (finding,) = dataset.findings
    assert (finding.code, finding.where.file, finding.where.line) == (code, "labels/a.txt", 2)
    assert len(dataset.annotations["a"]) == 1
    assert (dataset.boxes_read, dataset.boxes, dataset.images_read) == (3, 2, 2)


def test_values_a_little_past_one_are_cut_not_dropped(tmp_path: Path) -> None:
    dataset = one(tmp_path, "0 0.5 0.5 1.001 1.0008\n0 0.95 0.5 0.2 0.2\n0 -0.0005 0.5 0.5 0.1\n")
    assert codes(dataset) == ["box-clipped"] * 3
    assert len(dataset.annotations["a"]) == 3
    assert dataset.annotations["a"].boxes[0].tolist() == [0, 0, 60, 40]


def test_polygons_give_their_rectangle_with_a_note(tmp_path: Path) -> None:
    dataset = one(tmp_path, "1 0.1 0.1 0.5 0.2 0.3 0.9\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n")
    np.testing.assert_allclose(dataset.annotations["a"].boxes, [[6, 4, 30, 36], [6, 4, 12, 8]])
    assert codes(dataset) == ["polygon-row"]
    assert "2 polygons" in dataset.findings[0].what


def test_no_label_file_and_an_empty_one_are_images_without_objects(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW, "b": "", "c": None})
    dataset = module.read(tmp_path, None)
    assert [len(dataset.annotations[key]) for key in "abc"] == [1, 0, 0]
    assert codes(dataset) == []


def test_a_label_file_without_image_is_listed(tmp_path: Path) -> None:
    dataset = one(tmp_path, ROW)
    write(tmp_path / "labels" / "ghost.txt", ROW)
    dataset = module.read(tmp_path, None)
    assert [(found.code, found.where.file) for found in dataset.findings] == [("orphan-label-file", "labels/ghost.txt")]
    assert dataset.images_read == 2


@pytest.mark.parametrize("style", ["list", "dict", "nc", "classes.txt", "nothing"])
def test_names_of_classes(tmp_path: Path, style: str) -> None:
    yolo(tmp_path, {"a": "2 0.5 0.5 0.5 0.5\n"}, "train")
    more = {"list": "names: [x, 'y', 3]", "dict": "names:\n  2: z\n  0: x\n  1: y", "nc": "nc: 4"}.get(style)
    if more is not None:
        write(tmp_path / "data.yaml", f"train: images/train\nval: images/train\n{more}\n")
    elif style == "classes.txt":
        write(tmp_path / "classes.txt", "x\r\ny\r\nz\r\n")
    expected = {"list": ("x", "y", "3"), "nc": ("0", "1", "2", "3"), "nothing": ("0", "1", "2")}.get(
        style, ("x", "y", "z")
    )
    assert module.read(tmp_path, "train").classes == expected


def test_data_yaml_paths(tmp_path: Path) -> None:
    root = tmp_path / "set"
    yolo(root, {"a": ROW}, "train")
    yolo(root, {"b": ROW}, "val")
    for text in (
        "path: set\ntrain: images/train\nval: images/val",
        "train: set/images/train\nval: [set/images/val]",
        f"path: {root}\ntrain: images/train\nvalid: images/val",
        "train: ../set/images/train\nval: set/images/val\ntest:",
        "train: set/images/train\nval: set/images/val\ntest: set/images/none\nnc: 1\ndownload: exit 1",
    ):
        path = write(tmp_path / "data.yaml", text + "\nnames: [cat]\n")
        assert module.splits(path) == module.splits(tmp_path) == ["train", "val"]
        assert [image.id for image in module.read(path, "val").images] == ["b"]


def test_roboflow_layout_with_paths_one_level_off(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "images" / "a.jpg")
        write(tmp_path / split / "labels" / "a.txt", ROW)
    assert module.splits(tmp_path) == ["train", "valid"]
    assert module.declared(tmp_path) is False
    write(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat']\n")
    assert module.declared(tmp_path) is True
    train, val, every = module.read_splits(tmp_path, ["train", "val", None])
    assert (len(train), len(val), len(every)) == (1, 1, 2)
    assert codes(train) == ["class-count"]
    assert [image.id for image in every.images] == ["a", "val/a"]


def test_darknet_data_file_with_lists_from_another_machine(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "obj" / f"{name}.jpg")
        write(tmp_path / "obj" / f"{name}.txt", ROW)
    write(tmp_path / "train.txt", f"/home/someone/darknet/obj/a.jpg\r\n{tmp_path}/obj/b.jpg\r\n\r\n")
    write(tmp_path / "val.txt", "obj/c.jpg\nobj/gone.jpg\n")
    write(tmp_path / "obj.names", "cat\n\n")
    write(
        tmp_path / "obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid=val.txt\n# x\nnames = obj.names\nbackup = /b\n",
    )
    for root in (tmp_path, tmp_path / "obj.data"):
        train, val = module.read_splits(root, ["train", "val"])
        assert [image.id for image in train.images] == ["a", "b"]
        assert [image.id for image in val.images] == ["c"]
        assert train.classes == ("cat",)
        assert codes(val) == ["class-count", "missing-image"]
        assert val.images_read == 2


@pytest.mark.parametrize("line", ["../secret.jpg", "../../secret.jpg", "obj/../../secret.jpg"])
def test_a_list_cannot_lead_out(tmp_path: Path, line: str) -> None:
    root = tmp_path / "set"
    picture(tmp_path / "secret.jpg")
    picture(root / "obj" / "a.jpg")
    write(root / "train.txt", f"{line}\nobj/a.jpg\n")
    write(root / "data.yaml", "train: train.txt\nnames: [cat]\n")
    dataset = module.read(root, "train")
    assert [image.id for image in dataset.images] == ["a"]
    assert codes(dataset) == ["path-escape"]
    assert dataset.images_read == 2


def test_links_out_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", {"a": ROW, "b": None})
    picture(tmp_path / "secret.jpg")
    write(tmp_path / "secret.txt", "root:x:0:0")
    (root / "images" / "c.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "labels" / "b.txt").symlink_to(tmp_path / "secret.txt")
    dataset = module.read(root, None)
    assert [image.id for image in dataset.images] == ["a"]
    assert codes(dataset) == ["path-escape", "path-escape"]
    assert "root:x" not in str(dataset.findings)
    assert dataset.images_read == 3


def test_images_and_labels_together(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", ROW)
    write(tmp_path / "ghost.txt", ROW)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = module.read(tmp_path, None)
    assert dataset.classes == ("cat",)
    assert codes(dataset) == ["orphan-label-file"]


def test_ids_stay_unique(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "y/a.jpg", "y/a.png"):
        picture(tmp_path / "images" / name)
    for name in "xy":
        write(tmp_path / "labels" / name / "a.txt", ROW)
    ids = [image.id for image in module.read(tmp_path, None).images]
    assert ids == ["images/x/a.jpg", "images/y/a.jpg", "images/y/a.png"]


def test_pose_rows_give_their_box(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2\n"}, "train")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\n")
    assert only(module.read(tmp_path, "train")).boxes.tolist() == [[15, 10, 45, 30]]


def test_bom_crlf_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW})
    (tmp_path / "labels" / "a.txt").write_bytes(
        b"\xef\xbb\xbf0 0.5 0.5 0.5 0.5\r\n0 0.2 0.2 0.1 0.1\r\n\xff\xfe\x00\r\n"
    )
    dataset = module.read(tmp_path, None)
    assert dataset.boxes == 2
    assert codes(dataset) == ["bad-row"]


@pytest.mark.skipif(os.name == "nt", reason="names of bytes")
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW})
    stem = os.fsdecode(b"caf\xe9")
    picture(tmp_path / "images" / f"{stem}.jpg")
    write(tmp_path / "labels" / f"{stem}.txt", "rubbish\n")
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["a", "caf\\xe9"]
    assert str(dataset.findings[0].where).isascii()
    assert dataset.fingerprint()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nval: images/vall\nnames: [cat]", "val: images/vall does not exist"),
        ("train: [images/train\nnames: x", "not valid YAML"),
        ("train: images/train\nnames: {a: b}", "expected numbers as keys"),
        ("train: images/train\nnames: cat", "expected a list of class names"),
        ("train: !!python/object/apply:os.system ['exit 1']", "not valid YAML"),
    ],
)
def test_a_data_yaml_that_cannot_be_followed(tmp_path: Path, text: str, words: str) -> None:
    yolo(tmp_path, {"a": ROW}, "train")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError) as caught:
        module.read(tmp_path, "train")
    assert words in str(caught.value)


def test_what_is_not_yolo(tmp_path: Path) -> None:
    assert module.recognise(tmp_path) is None
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "car 0 0 -1.5 10 20 30 40 1 2 3 4 5 6 7\n")  # KITTI
    assert module.recognise(tmp_path) is None
    write(tmp_path / "settings.yaml", "train: {epochs: 3}\n")
    assert module.recognise(tmp_path / "settings.yaml") is None
    with pytest.raises(DataError, match="no YOLO txt dataset"):
        module.read(tmp_path, None)


def test_unknown_set(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW}, "train")
    with pytest.raises(DataError, match="did you mean 'train'"):
        module.read(tmp_path, "trian")


share = st.floats(0, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(share, share, share, share, st.integers(0, 1)), max_size=6),
    st.sampled_from([(60, 40), (1, 1), (4000, 7)]),
)
@example([(0.0, 0.0, 1.0, 1.0, 0), (0.0, 1.0, 1.0, 1e-207, 0)], (60, 40))
def test_round_trip(tmp_path: Path, rows: list, size: tuple[int, int]) -> None:
    info = ImageInfo("x/a b", picture(tmp_path / "a b.png", *size), *size)
    corners = np.array([[min(x, u), min(y, v), max(x, u), max(y, v)] for x, y, u, v, _ in rows]).reshape(-1, 4)
    keep = ((corners[:, 2:] - corners[:, :2]) > 1e-4).all(axis=1)
    apart = np.abs(corners[:, None] - corners[None]).max(2, initial=0.0) > 1e-6  # nearer ones are one box when written
    keep &= apart[np.triu_indices(len(corners), 1)].all()
    boxes = corners[keep] * np.array([*size, *size])
    truth = Annotations(boxes, np.array([row[4] for row in rows], int)[keep])
    dataset = Dataset(tmp_path, "voc", "train", ("a: b", "ü"), (info,), {"x/a b": truth})
    assert module.write(dataset, tmp_path / "out") == []
    back = module.read(tmp_path / "out", "train")
    assert back.classes == dataset.classes
    np.testing.assert_allclose(only(back).boxes / [*size, *size], boxes / [*size, *size], atol=1e-6)
    assert only(back).labels.tolist() == truth.labels.tolist()
    assert codes(back) == []


def test_writing_two_sets_and_what_yolo_cannot_hold(tmp_path: Path) -> None:
    info = ImageInfo(7, picture(tmp_path / "a.jpg"), 60, 40)
    boxes = [[0, 0, 10, 10], [5, 5, 6, 20], [1, 1, 9, 9]]
    truth = Annotations(boxes, [0, 0, 0], difficult=[1, 0, 0], crowd=[0, 0, 1])
    out = tmp_path / "out"
    for split in ("val", "train"):
        dataset = Dataset(tmp_path, "coco", split, ("cat",), (info,), {7: truth})
        assert [found.code for found in module.write(dataset, out, images="link")] == ["lost-flag", "lost-flag"]
    assert module.splits(out) == ["train", "val"]
    assert module.read(out, "val").boxes == 2
