"""The sides of a set's boxes as they come to the network, all at once; no image is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.images import Fit, Size, fit_transform, native_size
from onestage.errors import DataError
from onestage.records import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Sides:
    """The truths of a set that count: `sides` (N, 2) width and height in pixels of the input, `label` (N,).

    `image` (N,) is the place of each one's image among the `images` of the set. `lost` more come to the input with a
    side below one pixel, `ignored` ones do not count.
    """

    sides: FloatArray
    image: IntArray
    label: IntArray
    images: int
    lost: int
    ignored: int

    @property
    def per_image(self) -> IntArray:
        """How many truths each image (I,) has."""
        return np.bincount(self.image, minlength=self.images)


def sides_at_input(dataset: Dataset, size: Size, fit: Fit = "squash", scale: float = 1.0) -> Sides:
    """The sides of the truths as training without augmentation has them at input `size` (width, height).

    They are cut at the borders, and left out where a side comes below one pixel. With `fit` "native" each image has an
    input of its own size, `scale` times its pixels. Raises DataError for an image whose size is not known.
    """
    known: dict[Size, tuple[float, ...]] = {}
    moves = np.zeros((len(dataset), 6))  # scale x, y, pad x, y, width and height of the input
    for row, image in enumerate(dataset.images):
        shape = (image.width, image.height)
        if shape not in known:
            if not image.width:
                raise DataError(f"{image.path}: its size is not known", hint="a set whose images are there")
            into = native_size(shape, scale) if fit == "native" else size
            how = fit_transform(shape, into, fit)
            known[shape] = (how.scale_x, how.scale_y, how.pad_x, how.pad_y, *into)
        moves[row] = known[shape]
    given = [dataset.annotations[image.id] for image in dataset.images]
    of = np.repeat(np.arange(len(given)), [len(one) for one in given])
    boxes = np.concatenate([np.zeros((0, 4)), *(one.boxes for one in given)])
    label = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in given)])
    counts = ~np.concatenate([np.zeros(0, np.bool_), *(one.ignore | one.crowd for one in given)])
    mine = moves[of]
    corners = boxes * np.tile(mine[:, :2], 2) + np.tile(mine[:, 2:4], 2)
    corners = np.clip(corners, 0, np.tile(mine[:, 4:], 2))
    sides = np.abs(corners[:, 2:] - corners[:, :2])
    seen = counts & (sides >= 1.0).all(1)
    return Sides(
        sides[seen], of[seen], label[seen], len(given), int((counts & ~seen).sum()), int((~counts).sum())
    )  # fmt: skip
