"""A model's priors before training: the same counts as the model's own, and as the loader's batches give."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from onestage.boxes.assigned import Assigned
from onestage.data.dataset import Dataset
from onestage.data.loader import Loader
from onestage.errors import DataError, ModelError, UsageError
from onestage.records import Annotations, ImageInfo
from onestage.training.anchors import Anchors, anchors, chosen_set
from onestage.training.first_batch import assigned_of


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six pictures of several shapes, one without a truth, one with a region to ignore and a truth that vanishes."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    images, truths = [], {}
    for i in range(6):
        width, height = (int(v) for v in rng.integers(90, 200, 2))
        path = folder / f"face{i}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        corner = rng.uniform(0, 60, (i, 2))
        boxes = np.hstack([corner, corner + rng.uniform(5, 60, (i, 2))])
        ignore = np.zeros(i, bool)
        if i == 5:
            boxes[0, 2:], ignore[1] = boxes[0, :2] + 0.6, True
        images.append(ImageInfo(i, path, width, height))
        truths[i] = Annotations(boxes, np.zeros(i, int), ignore=ignore)
    return Dataset(folder, "made", "train", ("face",), tuple(images), truths)


@pytest.fixture(scope="module")
def small() -> Anchors:
    return anchors("faceboxes", size=(128, 96), layout="symmetric")


def test_faceboxes_in_numbers(small: Anchors) -> None:
    told = small.as_dict()
    assert told["parameters"]["all"] == 1_007_330
    assert told["parameters"]["all"] == sum(count for part, count in told["parameters"].items() if part != "all")
    assert told["priors"] == 4 * 3 * 21 + 2 * 2 + 1
    assert (told["threshold"], told["classes"], told["size"]) == (0.35, 1, [128, 96])
    assert all(row["sound"] for row in told["lattices"])
    assert (np.bincount(small.tiling) == [192, 48, 12, 4, 1]).all()
    assert (small.group == small.tiling).all()  # each size has centres of its own


def test_a_set_is_answered_as_the_loaders_batches_are(small: Anchors, faces: Dataset) -> None:
    found = small.answers(faces)
    with Loader(faces, small.size, "none", batch=6, shuffle=False) as loader:
        batch = next(iter(loader.epoch(0)))
    each = assigned_of(small.detector, batch)
    assert each is not None
    assert found.positives.sum() == sum(len(one.positives) for one in each)
    assert [found.positives[:3].sum(), *found.positives[3:]] == [
        sum(counts) for counts in zip(*(one.per_level for one in each), strict=True)
    ]
    assert found.best.tolist() == np.concatenate([one.best_iou for one in each]).tolist()
    assert found.priors.tolist() == np.concatenate([one.per_truth for one in each]).tolist()
    assert found.unanswered.sum() == sum(len(one.unanswered) for one in each)
    assert found.lost == 1
    assert found.ignore.sum() == 1


def test_every_image_has_its_own_input_at_its_own_pixels(faces: Dataset) -> None:
    own = anchors("faceboxes", size=(100, 100), fit="native", scale=2.0)
    found = own.answers(faces)
    for image in faces.images:
        truth = faces.annotations[image.id]
        alone = anchors("faceboxes", size=(2 * image.width, 2 * image.height))
        mine, _ = alone.assigned(alone.at_input((image.width, image.height), truth))
        shown = own.shown(image.path, str(image.id), truth)
        assert shown.image.shape[:2] == (2 * image.height, 2 * image.width)
        assert isinstance(shown.assigned, Assigned)
        assert (shown.assigned.match == mine.match).all()
    assert found.side.size == sum(map(len, faces.annotations.values()))  # twice as large, none vanishes
    assert found.lost == 0


def test_progress_is_told_and_an_empty_set_refused(small: Anchors, faces: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    small.answers(faces, lambda done, every: seen.append((done, every)))
    assert seen == [(i, 6) for i in range(1, 7)]
    with pytest.raises(DataError, match="no images"):
        small.answers(faces.only(set(), "train"))


def test_what_the_model_does_not_take_is_refused() -> None:
    for words, told in (
        (("facebox",), "did you mean 'faceboxes'"), (("ssd300", 3, (512, 512)), "expected input size 300x300"),
        (("ssd300", 3, None, "native"), "takes 300x300 alone"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=told):
            anchors(*words)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="did you mean 'symmetric'"):
        anchors("faceboxes", layout="symetric")


def test_a_size_may_be_one_number() -> None:
    assert anchors("faceboxes", size=64).size == (64, 64)


def test_images_are_found_by_id_name_and_path(shared: Path) -> None:
    data = shared / "bccd"
    photo = data / "JPEGImages" / "BloodImage_00010.jpg"
    for words in (["BloodImage_00010"], ["BloodImage_00010.jpg"], [str(photo)]):
        assert [image.path.name for image in chosen_set(data, "all", words).images] == [photo.name]
    with pytest.raises(UsageError) as told:
        chosen_set(data, "all", ["BloodImage_0001O", "BloodImage_00010"])
    assert len(told.value.problems) == 1
    assert "did you mean" in told.value.problems[0]


def test_ssd300_on_blood_cells(shared: Path) -> None:
    # counted by lufficc's matching on the same boxes: all truths have a prior, most several
    found = anchors("ssd300", 3).answers(chosen_set(shared / "bccd", "all", [f"BloodImage_{i:05d}" for i in range(4)]))
    told = found.as_dict()
    assert told["unanswered"] == 0
    assert told["forced"] <= 0.1 * told["truths"]
    assert told["best_iou"]["0.5"] > 0.65
