"""Other people's datasets, read whole: counts that were known beforehand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes

from onestage.data.formats import READERS
from onestage.data.formats import coco as coco_reader
from onestage.data.opening import open_dataset

# name: format, images, boxes in the files, boxes kept, classes, findings; from ../shared/data/README.md and from
# counting <object>, rows and annotations with grep
KNOWN = {
    "bccd": ("voc", 364, 4888, 4886, 3, {"zero-area-box": 2}),
    "raccoon": ("voc", 200, 217, 217, 1, {}),
    "helmet": ("voc", 194, 810, 808, 2, {"zero-area-box": 2, "size-mismatch": 1}),
    "coco128": ("yolo", 128, 929, 929, 80, {"orphan-label-file": 2}),
    "tinycoco": ("coco", 38, 424, 424, 80, {}),
    "road": ("voc", 20, 239, 239, 10, {"zero-based": 1}),
}


@pytest.mark.parametrize("name", KNOWN)
def test_counts(shared: Path, name: str) -> None:
    form, images, rows, boxes, classes, findings = KNOWN[name]
    assert open_dataset(shared / name).format == form
    dataset = READERS[form].read(shared / name, None)
    assert (len(dataset), dataset.images_read, dataset.boxes_read, dataset.boxes) == (images, images, rows, boxes)
    assert len(dataset.classes) == classes
    assert Counter(codes(dataset)) == findings
    for image in dataset.images:
        corners = dataset.annotations[image.id].boxes
        assert (corners >= 0).all()
        assert (corners <= [image.width, image.height, image.width, image.height]).all()


def test_bccd_lists_its_two_empty_boxes_and_uses_its_lists(shared: Path) -> None:
    opened = open_dataset(shared / "bccd")
    assert (len(opened.train), len(opened.val), opened.test, opened.split_made) == (292, 72, None, None)
    files = [str(found.where.file) for found in opened.findings if found.code == "zero-area-box"]
    assert files == ["Annotations/BloodImage_00338.xml", "Annotations/BloodImage_00343.xml"]
    assert all(found.where.line for found in opened.findings)


def test_helmet_lists_what_its_readme_says(shared: Path) -> None:
    dataset = READERS["voc"].read(shared / "helmet", None)
    where = {(found.code, str(found.where.file)) for found in dataset.findings}
    assert where == {("size-mismatch", "Annotations/000121.xml"), ("zero-area-box", "Annotations/001691.xml")}


def test_coco128_validates_on_other_images_than_it_trains_on(shared: Path) -> None:
    opened = open_dataset(shared / "coco128")
    assert "train-is-val" in [found.code for found in opened.findings]
    assert not {image.path for image in opened.train.images} & {image.path for image in opened.val.images}
    assert len(opened.train) + len(opened.val) == 128
    empty = [
        image for part in (opened.train, opened.val) for image in part.images if not len(part.annotations[image.id])
    ]
    assert len(empty) >= 2


def test_tinycoco_sets_crowds_and_areas(shared: Path) -> None:
    opened = open_dataset(shared / "tinycoco")
    assert (len(opened.train), len(opened.val), opened.train.boxes, opened.val.boxes) == (32, 6, 288, 136)
    truths = [*opened.train.annotations.values(), *opened.val.annotations.values()]
    assert sum(int(truth.crowd.sum()) for truth in truths) == 5
    assert all(isinstance(image.id, int) for image in opened.train.images)
    assert all((truth.extra["area"] > 0).all() for truth in truths if len(truth))


def test_known_truth_can_be_read_without_its_images(shared: Path) -> None:
    path = shared / "known_scores" / "coco100" / "instances_val2014_100.json"
    dataset = coco_reader.read(path, None, probe_images=False)
    assert (len(dataset), dataset.boxes, dataset.boxes_read) == (100, 839, 839)
    assert sum(int(truth.crowd.sum()) for truth in dataset.annotations.values()) == 9


@pytest.mark.parametrize("name", ["raccoon", "tinycoco", "road", "coco128"])
@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_converting_loses_nothing_but_flags(shared: Path, tmp_path: Path, name: str, form: str) -> None:
    whole = READERS[KNOWN[name][0]].read(shared / name, None)
    lost = READERS[form].write(whole, tmp_path, images="link")
    dropped = [found for found in lost if "difficult" not in found.what]
    back = READERS[form].read(tmp_path, None, whole.classes)
    assert len(back) == len(whole)
    assert back.boxes == whole.boxes - len(dropped)
    if not dropped:
        for a, b in zip(
            sorted(whole.images, key=lambda image: image.path.name),
            sorted(back.images, key=lambda i: i.path.name),
            strict=True,
        ):
            assert a.path.samefile(b.path) or a.path.read_bytes() == b.path.read_bytes()
            np.testing.assert_allclose(back.annotations[b.id].boxes, whole.annotations[a.id].boxes, atol=1e-5)
            assert (back.annotations[b.id].labels == whole.annotations[a.id].labels).all()
