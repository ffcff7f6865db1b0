"""Annotations moved into a view of their image, and joined over several views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.boxes import geometry
from onestage.data.images import Size
from onestage.records import Annotations, BoolArray, FloatArray, ImageTransform


def moved(
    annotations: Annotations, transform: ImageTransform, size: Size, visible: float | None = None,
    least: tuple[float, float] = (1.0, 1.0),
) -> Annotations:  # fmt: skip
    """The annotations of an image as they lie in a view of it: boxes in pixels of the view, cut at its borders.

    Boxes stay when their centre shows or at least `visible` of their area does (None: the centre alone counts);
    `ignore` and `crowd` regions stay while any part shows. What is left with a side under `least` (of width and of
    height, in pixels, above 0) is dropped, so every box is upright and has positive area. Other columns are carried
    along as the file has them.
    """
    width, height = size
    boxes = transform.to_net(annotations.boxes)
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    stays = centres_inside(boxes, np.array([[0.0, 0.0, width, height]]))[:, 0]
    cut = geometry.clip(boxes, width, height)
    if visible is not None:
        stays |= geometry.area(cut) >= visible * geometry.area(boxes)
    stays |= annotations.ignore | annotations.crowd
    stays &= ((cut[:, 2:] - cut[:, :2]) >= least).all(1)
    return annotations.take(stays, cut[stays])


def centres_inside(boxes: FloatArray, windows: FloatArray) -> BoolArray:
    """Whether the centre of each box (N, 4) lies in each window (K, 4), half-open: (N, K)."""
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    inside = (centres >= windows[:, :2]) & (centres < windows[:, 2:])
    return np.asarray(inside.all(2), np.bool_)


def joined(parts: Sequence[Annotations]) -> Annotations:
    """All rows of several annotations; of the extra columns those that each one has."""
    names = sorted(set.intersection(*(set(part.extra) for part in parts)))
    columns = {
        column: np.concatenate([getattr(part, column) for part in parts])
        for column in ("boxes", "labels", "difficult", "ignore", "crowd")
    }
    return Annotations(**columns, extra={name: np.concatenate([part.extra[name] for part in parts]) for name in names})
