"""Opening a path: format, train and val, refusals, every fault a user meets."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from folders_on_disk import coco, picture, voc, voc_xml, write, yolo

from onestage.data.formats import READERS, recognise
from onestage.data.opening import Opened, open_dataset
from onestage.errors import DataError, UsageError

GOOD = [("cat", 2, 2, 9, 9)]
ROW = "0 0.5 0.5 0.5 0.5\n"


def ids(dataset: object) -> list:
    return [image.id for image in dataset.images]  # type: ignore[attr-defined]


def found(opened: Opened) -> list[str]:
    return [finding.code for finding in opened.findings]


def refusal(*args: object, **more: object) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(*args, **more)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_voc_with_a_test_list_is_used_as_in_the_challenge(tmp_path: Path) -> None:
    files = dict.fromkeys("abcdef", GOOD)
    voc(tmp_path, files, {"train": "ab", "val": "c", "test": "def"})
    opened = open_dataset(tmp_path)
    assert (ids(opened.train), ids(opened.val), opened.test) == (["a", "b", "c"], ["d", "e", "f"], None)
    assert "train and val" in opened.described
    assert "list test" in opened.described
    write(tmp_path / "ImageSets/Main/trainval.txt", "c\na\n")
    assert ids(open_dataset(tmp_path).train) == ["c", "a"]
    assert open_dataset(tmp_path).split_made is None


def test_voc_whose_test_list_has_no_annotations(tmp_path: Path) -> None:
    voc(tmp_path, dict.fromkeys("abc", GOOD), {"train": "ab", "val": "c", "trainval": "abc", "test": ["x", "y"]})
    opened = open_dataset(tmp_path, allow_loss=False)
    assert (ids(opened.train), ids(opened.val)) == (["a", "b"], ["c"])
    assert "test has no annotations" in opened.described


def test_voc_with_train_and_val(tmp_path: Path) -> None:
    voc(tmp_path, dict.fromkeys("abc", GOOD), {"train": "ab", "val": "c"})
    opened = open_dataset(tmp_path)
    assert (ids(opened.train), ids(opened.val), opened.split_made) == (["a", "b"], ["c"], None)


@pytest.mark.parametrize("lists", [{}, {"train": "abcdefghij"}, {"trainval": "abcdefghij"}, {"default": "abcdefghij"}])
def test_one_set_is_divided_with_the_seed_and_says_so(tmp_path: Path, lists: dict) -> None:
    voc(tmp_path, dict.fromkeys("abcdefghij", GOOD), lists)
    opened = open_dataset(tmp_path, seed=4)
    assert (len(opened.train), len(opened.val)) == (8, 2)
    assert not set(ids(opened.train)) & set(ids(opened.val))
    assert opened.split_made is not None
    assert "seed 4" in opened.split_made
    assert opened.split_made in opened.described
    assert ids(open_dataset(tmp_path, seed=4).val) == ids(opened.val)
    assert len(open_dataset(tmp_path, val_fraction=0.5).val) == 5


def test_train_is_val_is_told_loudly_and_divided(tmp_path: Path) -> None:
    yolo(tmp_path, dict.fromkeys("abcde", ROW))
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    opened = open_dataset(tmp_path)
    assert found(opened) == ["train-is-val"]
    assert not set(ids(opened.train)) & set(ids(opened.val))
    assert "same images" in (opened.split_made or "")


def test_equal_images_in_train_and_val_are_told(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW, "b": ROW}, "train")
    yolo(tmp_path, {"c": ROW, "d": ROW}, "val")
    shutil.copy(tmp_path / "images/train/a.jpg", tmp_path / "images/val/c.jpg")
    opened = open_dataset(tmp_path)
    assert found(opened) == ["leak"]
    assert (len(opened.train), len(opened.val)) == (2, 2)


def test_yolo_and_coco_with_three_sets(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        yolo(tmp_path / "y", {f"{split}1": ROW}, split)
        picture(tmp_path / "c/images" / split / f"{split}.jpg")
        coco(
            tmp_path / f"c/annotations/instances_{split}.json",
            [{"id": 1, "file_name": f"{split}.jpg"}],
            [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}] if split != "test" else [],
            [{"id": 1, "name": "cat"}],
        )
    opened = open_dataset(tmp_path / "y")
    assert (len(opened.train), len(opened.val), opened.format) == (1, 1, "yolo")
    assert opened.test is not None
    opened = open_dataset(tmp_path / "c")
    assert (opened.format, opened.test, opened.classes) == ("coco", None, ("cat",))
    assert open_dataset(str(tmp_path / "c")).train.fingerprint() == opened.train.fingerprint()


def test_train_and_test_without_val(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW}, "train")
    yolo(tmp_path, {"b": ROW}, "test")
    opened = open_dataset(tmp_path)
    assert ids(opened.val) == ["b"]
    assert "test is used for validation" in opened.described


def test_a_split_spec_of_any_formats(tmp_path: Path) -> None:
    voc(tmp_path / "first", {"a": [("cat", 2, 2, 9, 9)]})
    voc(tmp_path / "second", {"b": [("ant", 2, 2, 9, 9), ("cat", 2, 2, 9, 9)]})
    spec = write(tmp_path / "split.yaml", "train: first\nval: second\n")
    opened = open_dataset(spec)
    assert (ids(opened.train), ids(opened.val), opened.classes) == (["a"], ["b"], ("ant", "cat"))
    assert found(opened) == ["classes-differ"]
    assert opened.val.annotations["b"].labels.tolist() == [0, 1]
    picture(tmp_path / "c.jpg")
    coco(
        tmp_path / "c.json",
        [{"id": 1, "file_name": "c.jpg"}],
        [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        [{"id": 1, "name": "cat"}],
    )
    write(spec, "train: first\nval: c.json\nclasses: [cat]\n")
    assert ids(open_dataset(spec).val) == [1]
    write(spec, "train: first\nval: thrid\n")
    assert "val: thrid does not exist" in refusal(spec)
    write(spec, "val: first\n")
    assert "names no training set" in refusal(spec)


def test_a_data_yaml_without_names_is_no_spec(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": ROW}, "train")
    yolo(tmp_path, {"b": ROW}, "val")
    path = write(tmp_path / "data.yaml", "train: images/train\nval: images/val\n")
    opened = open_dataset(path)
    assert (opened.format, opened.classes) == ("yolo", ("0",))


def test_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "helmets").mkdir()
    text = refusal(tmp_path / "helmet" / "images")
    assert "no such folder" in text
    assert "did you mean 'helmets'?" in text


def test_empty_folder_images_alone_and_things_unknown(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path)
    picture(tmp_path / "set" / "a.jpg")
    text = refusal(tmp_path / "set")
    assert "1 image but no annotations" in text
    assert "data.yaml" in text
    voc(tmp_path / "deep" / "VOC2007", {"a": GOOD, "b": GOOD})
    assert f"try: data={tmp_path / 'deep' / 'VOC2007'}" in refusal(tmp_path / "deep")
    assert "not an annotation file" in refusal(write(tmp_path / "notes.txt", "x"))
    assert "empty.txt is empty" in refusal(write(tmp_path / "empty.txt", ""))
    (tmp_path / "names").mkdir()
    write(tmp_path / "names" / "classes.txt", "cat")
    assert "not a dataset of a known format" in refusal(tmp_path / "names")


def test_a_set_of_ignored_boxes_alone_has_nothing_to_learn(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "images" / name)
    write(tmp_path / "faces.txt", "a.jpg 1 5 5 0 0 1\nb.jpg 1 5 5 0 9 1\n")
    assert "has a usable box: all 1 that it has are to be ignored" in refusal(tmp_path)


def test_a_class_list_is_no_text(tmp_path: Path) -> None:
    voc(tmp_path / "1", {"a": GOOD, "b": GOOD})
    with pytest.raises(UsageError, match="expected a list of names"):
        open_dataset(tmp_path / "1", classes="cat")


def test_no_boxes_and_no_images(tmp_path: Path) -> None:
    voc(tmp_path / "1", {"a": [], "b": []})
    assert "has a usable box" in refusal(tmp_path / "1")
    assert "try: name other images" in refusal(tmp_path / "1")
    voc(tmp_path / "2", {"a": GOOD, "b": GOOD})
    shutil.rmtree(tmp_path / "2" / "JPEGImages")
    text = refusal(tmp_path / "2")
    assert "2 of 2 images cannot be used" in text
    assert "no usable image" in refusal(tmp_path / "2", allow_loss=True)


def heavy(root: Path) -> Path:
    bad = [("cat", 5, 5, 5, 9 + i) for i in range(15)]
    return voc(root, {"a": [*GOOD, *bad], "b": GOOD, "c": GOOD})


def test_more_than_five_percent_lost_stops_unless_allowed(tmp_path: Path) -> None:
    text = refusal(heavy(tmp_path))
    assert "15 of 18 boxes and 0 of 3 images cannot be used: more than the 5%" in text
    assert text.count("zero-area-box") == 10
    assert "and 5 more" in text
    assert "Annotations/a.xml:5" in text
    assert "allow_loss" in text
    assert open_dataset(tmp_path, allow_loss=True).train.boxes
    assert open_dataset(tmp_path, allow_loss=0.9).train.boxes
    assert "more than the 50%" in refusal(tmp_path, allow_loss=0.5)


def test_five_percent_exactly_goes_through_and_is_listed(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", i + 2, 2, i + 9, 9) for i in range(18)] + [("cat", 5, 5, 5, 9)], "b": GOOD})
    assert found(open_dataset(tmp_path)) == ["zero-area-box"]


def test_repetitions_are_no_loss(tmp_path: Path) -> None:
    voc(tmp_path, {"a": GOOD * 5, "b": GOOD})
    assert found(open_dataset(tmp_path)) == ["duplicate-box"] * 4


def test_truncated_images_are_listed_and_left_out_or_stop(tmp_path: Path) -> None:
    voc(tmp_path, {f"i{n}": GOOD for n in range(24)})
    path = tmp_path / "JPEGImages" / "i0.jpg"
    path.write_bytes(path.read_bytes()[:500])
    opened = open_dataset(tmp_path)
    assert found(opened) == ["unreadable-image"]
    assert len(opened.train) + len(opened.val) == 23
    for n in range(1, 3):
        (tmp_path / "JPEGImages" / f"i{n}.jpg").write_bytes(b"")
    assert "3 of 24 images" in refusal(tmp_path)


def test_an_external_entity_is_refused(tmp_path: Path) -> None:
    voc(tmp_path, {"a": GOOD, "b": GOOD})
    write(
        tmp_path / "Annotations/a.xml",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    )
    text = refusal(tmp_path)
    assert "refused-xml" in text
    assert "root:" not in text


def test_class_missing_from_the_list(tmp_path: Path) -> None:
    voc(tmp_path / "v", {"a": [("helmet", 2, 2, 9, 9)], "b": [("helmet", 2, 2, 9, 9)]})
    text = refusal(tmp_path / "v", classes=["helmt"])
    assert "class 'helmet' is not in the list (did you mean 'helmt'?)" in text
    opened = open_dataset(tmp_path / "v", classes=["helmet", "head"])
    assert opened.classes == ("helmet", "head")
    assert found(opened) == ["class-without-boxes"]
    yolo(tmp_path / "y", {"a": ROW, "b": ROW})
    write(tmp_path / "y/classes.txt", "helmet")
    text = refusal(tmp_path / "y", classes=["helmet", "helmt"])
    assert "'helmt' is not among the classes of the data (did you mean 'helmet'?)" in text
    assert "more than once" in refusal(tmp_path / "v", classes=["helmet", "helmet"])


def test_findings_of_both_sets_once_each(tmp_path: Path) -> None:
    files = {name: [("cat", i + 2, 2, i + 9, 9) for i in range(40)] for name in "ab"}
    files["a"] = [*files["a"], ("cat", 5, 5, 5, 9)]
    files["b"] = [*files["b"], ("cat", 5, 9, 4, 9)]
    voc(tmp_path, files, {"train": "a", "val": "b"})
    assert found(open_dataset(tmp_path)) == ["zero-area-box", "inverted-box"]


def test_fraction_out_of_range(tmp_path: Path) -> None:
    assert "val_fraction" in refusal(voc(tmp_path, {"a": GOOD, "b": GOOD}), val_fraction=1.0)


def test_one_image(tmp_path: Path) -> None:
    assert "1 image cannot be divided" in refusal(voc(tmp_path, {"a": GOOD}))


def test_formats_side_by_side(tmp_path: Path) -> None:
    """Converted labels beside VOC's XML are passed over; a data.yaml beside them decides for YOLO."""
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.jpg")
        write(tmp_path / "annotations" / f"{name}.xml", voc_xml(GOOD))
        write(tmp_path / "labels" / f"{name}.txt", ROW)
    opened = open_dataset(tmp_path)
    assert (opened.format, found(opened)) == ("voc", ["several-formats"])
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    assert open_dataset(tmp_path).format == "yolo"
    assert [name for name, _ in recognise(tmp_path)] == ["yolo", "voc"]
    assert sorted(READERS) == ["coco", "facelist", "fddb", "visdrone", "voc", "widerface", "yolo"]


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    yolo(tmp_path, {"a": ROW, "b": ROW})
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "a.txt cannot be read: Permission denied" in refusal(tmp_path)


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voc(tmp_path, {f"{i}": [("cat", 1, 1, 20, 20)] for i in range(4)})
    closed, scandir = tmp_path / "JPEGImages", os.scandir

    def guarded(path: str | Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # chmod would not stop root, who may run the tests
    with pytest.raises(DataError, match="JPEGImages cannot be read: Permission denied"):
        open_dataset(tmp_path)
