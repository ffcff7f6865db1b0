"""Darknet's .data, .names and lists: label files by its rule, paths of other machines, what it would stop at."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders_on_disk import codes, picture, write

from onestage.data.formats import recognise
from onestage.data.formats import yolo as module
from onestage.data.formats.yolo_labels import label_path
from onestage.data.opening import open_dataset
from onestage.errors import DataError

ROW = "1 0.5 0.5 0.25 0.5\n"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("images/train/a.png", "labels/train/a.txt"),
        ("VOC2007/JPEGImages/a.jpg", "VOC2007/labels/a.txt"),
        ("raw/a.JPG", "labels/a.txt"),
        ("uav_images/seq/a.jpeg", "uav_labels/seq/a.txt"),  # darknet replaces the word wherever it stands
        ("images/one/images/a.jpg", "images/one/labels/a.txt"),
        ("images/one/images/a.jpg", "labels/one/images/a.txt"),  # the first hit, as darknet has it
        ("obj/a.jpg", "obj/a.txt"),
        ("images/a.jpg", "images/a.txt"),
    ],
)
def test_the_label_file_is_found_by_darknets_rule(tmp_path: Path, image: str, label: str) -> None:
    write(tmp_path / label, ROW)
    assert label_path(tmp_path / image) == tmp_path / label


def test_where_there_is_none_the_usual_place_is_told(tmp_path: Path) -> None:
    assert label_path(tmp_path / "images" / "a.jpg") == tmp_path / "labels" / "a.txt"
    assert label_path(tmp_path / "raw" / "a.jpg") == tmp_path / "raw" / "a.txt"


def darknet(root: Path, *, names: str = "names=data/obj.names\n", more: str = "") -> Path:
    """A working folder as darknet has it: cfg/, data/, lists with absolute paths of another machine."""
    for stem in ("a", "b", "c", "d", "e"):
        picture(root / "data" / "set" / "images" / f"{stem}.jpg")
        write(root / "data" / "set" / "labels" / f"{stem}.txt", ROW)
    other = "/home/zhao/darknet/data/set/images"
    write(root / "data" / "train.txt", "".join(f"{other}/{stem}.jpg\n" for stem in "abc"))
    write(root / "data" / "valid.txt", "".join(f"C:\\work\\data\\set\\images\\{stem}.jpg\r\n" for stem in "de"))
    write(root / "data" / "obj.names", "person\ncar\n\n")
    where = "/home/zhao/darknet/data"
    text = f"classes = 2\ntrain  = {where}/train.txt\nvalid = {where}/valid.txt\n{names}backup = /scratch\n{more}"
    return write(root / "cfg" / "obj.data", text)


def test_a_data_file_of_another_machine_is_followed(tmp_path: Path) -> None:
    path = darknet(tmp_path)
    assert recognise(path)[0] == ("yolo", "darknet data file obj.data, sets train, val")
    opened = open_dataset(path)
    assert [image.id for image in opened.train.images] == ["a", "b", "c"]
    assert [image.id for image in opened.val.images] == ["d", "e"]
    assert opened.classes == ("person", "car")
    assert opened.train.annotations["a"].boxes.tolist() == [[22.5, 10, 37.5, 30]]
    assert codes(opened.train) == []


def test_listed_images_without_label_files_are_told_for_darknet_stops_there(tmp_path: Path) -> None:
    path = darknet(tmp_path)
    (tmp_path / "data" / "set" / "labels" / "b.txt").unlink()
    dataset = module.read(path, "train")
    (finding,) = dataset.findings
    assert (finding.code, finding.severity) == ("no-label-file", "note")
    assert finding.what == "1 of 3 images of the list train have no label file"
    assert len(dataset.annotations["b"]) == 0
    assert len(dataset) == 3


def test_names_that_are_not_there_and_a_list_of_difficult_objects_are_told(tmp_path: Path) -> None:
    path = darknet(tmp_path, names="names = data/gone.names\n", more="difficult = data/difficult.txt\n")
    dataset = module.read(path, "train")
    assert sorted(codes(dataset)) == ["missing-names", "unread-list"]
    assert dataset.classes == ("0", "1")


def test_without_names_the_count_of_classes_holds(tmp_path: Path) -> None:
    dataset = module.read(darknet(tmp_path, names=""), "train")
    assert dataset.classes == ("0", "1")
    assert codes(dataset) == []


def test_a_data_file_with_keys_that_cannot_be_meant_is_refused_whole(tmp_path: Path) -> None:
    root = darknet(tmp_path).parent.parent
    write(
        root / "b.data",
        "clases=2\ntrain=data/train.txt\ntrain=data/valid.txt\nvaild=data/valid.txt\nclasses=x\ntop=5\n",
    )
    with pytest.raises(DataError, match=r"b\.data cannot be followed") as told:
        module.read_splits(root / "b.data", ["train"])
    assert told.value.problems == (
        "line 1: clases: unknown key (did you mean 'classes'?)",
        "line 3: train=data/valid.txt, and before it train=data/train.txt: one of the two",
        "line 4: vaild: unknown key (did you mean 'valid'?)",
        "classes: expected a whole number from 1 on, got 'x'",
    )
