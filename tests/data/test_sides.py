"""Sides of a whole set at the input, all at once: to the bit what the annotations of each image give alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onestage.data.dataset import Dataset
from onestage.data.images import fit_transform, native_size
from onestage.data.sides import sides_at_input
from onestage.data.views import moved
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo


def made(count: int = 12) -> Dataset:
    """Images of many shapes; boxes that leave them, vanish, do not count."""
    rng = np.random.default_rng(0)
    images, truths = [], {}
    for i in range(count):
        width, height = (int(v) for v in rng.integers(40, 900, 2))
        corner = rng.uniform(-20, 1, (i, 2)) + rng.uniform(0, 1, (i, 2)) * (width, height)
        boxes = np.hstack([corner, corner + np.exp(rng.uniform(-1, 5, (i, 2)))])
        ignore, crowd = rng.random((2, i)) < 0.1
        images.append(ImageInfo(i, Path(f"{i}.png"), width, height))
        truths[i] = Annotations(boxes, rng.integers(0, 3, i), ignore=ignore, crowd=crowd)
    return Dataset(Path("nowhere"), "made", "train", ("a", "b", "c"), tuple(images), truths)


@pytest.mark.parametrize("fit", ["squash", "letterbox", "native"])
def test_sides_are_those_of_each_image_alone(fit: str) -> None:
    dataset, size = made(40), (416, 320)
    found = sides_at_input(dataset, size, fit, 0.5)
    lost = ignored = 0
    for row, image in enumerate(dataset.images):
        shape = (image.width, image.height)
        into = native_size(shape, 0.5) if fit == "native" else size
        given = dataset.annotations[image.id]
        one = moved(given, fit_transform(shape, into, fit), into, visible=0.0)
        counts = ~(one.ignore | one.crowd)
        mine = found.image == row
        assert found.sides[mine].tolist() == (one.boxes[:, 2:] - one.boxes[:, :2])[counts].tolist()
        assert found.label[mine].tolist() == one.labels[counts].tolist()
        there = ~(given.ignore | given.crowd)
        lost += int(there.sum() - counts.sum())
        ignored += int((~there).sum())
    assert lost > 0
    assert ignored > 0
    assert (found.lost, found.ignored, found.images) == (lost, ignored, 40)
    assert found.per_image.sum() == len(found.sides)


def test_nothing_gives_nothing_and_unknown_sizes_are_refused() -> None:
    empty = sides_at_input(made(1), (416, 416))
    assert (len(empty.sides), empty.per_image.tolist()) == (0, [0])
    unknown = Dataset(
        Path("nowhere"), "made", "train", ("a",), (ImageInfo(0, Path("0.png"), 0, 0),), {0: Annotations.empty()}
    )
    with pytest.raises(DataError, match="size is not known"):
        sides_at_input(unknown, (416, 416))
