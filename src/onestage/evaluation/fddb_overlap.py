"""How far FDDB's ellipses and rectangles overlap, in pixels drawn as the official tool draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation.pool import Pool
from onestage.records import FloatArray, IntArray

LARGEST = 5000.0  # pixels; radius of an ellipse, for each is drawn
_MARGIN = 4
_FAR = 1e9  # pixels; coordinates beyond are cut, so that they stay whole numbers


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs that share a pixel: indices of truths and detections of a pool, and their IoU in (0, 1]."""

    truth: IntArray
    detection: IntArray
    iou: FloatArray


def overlaps(pool: Pool) -> Overlaps:
    """The IoU of every truth with every detection of its image, where it is not zero.

    Areas are counts of pixels. A row of the column "ellipse" (major radius, minor radius, angle in radians, centre
    x, y) is drawn filled by OpenCV with radii cut and centre rounded to whole pixels and the angle rounded to whole
    degrees. Any other row is its box, both corners rounded (from single precision, halves to even) and both included,
    so one pixel wider and higher than the box. What lies outside the image does not count; where `pool.size` is not
    known, only the left and upper border cut. A pair that has no pixel inside the image overlaps by 0.

    Source: the evaluation code of FDDB (Jain and Learned-Miller, UMass 2010), whose drawing is OpenCV's own; it is
    imported here for that alone.
    """
    found = _shapes(pool.box, pool.column("ellipse", np.nan), pool.size[pool.image_of(pool.group)])
    truth = _shapes(pool.truth_box, pool.truth_column("ellipse", np.nan), pool.size[pool.image_of(pool.truth_group)])
    starts, ends = (np.searchsorted(pool.group, pool.truth_group, side) for side in ("left", "right"))
    pairs: list[tuple[int, IntArray, FloatArray]] = []
    for g in np.flatnonzero(ends > starts).tolist():
        rows = slice(int(starts[g]), int(ends[g]))
        shared = _shared(truth.take(g), found, rows)
        touching = np.flatnonzero(shared)
        if len(touching):
            both = truth.area(g) + np.array([found.area(int(d)) for d in touching + rows.start])
            pairs.append((g, touching + rows.start, shared[touching] / (both - shared[touching])))
    return Overlaps(
        np.repeat(np.array([g for g, _, _ in pairs], np.int64), [len(d) for _, d, _ in pairs]),
        np.concatenate([d for _, d, _ in pairs]) if pairs else np.zeros(0, np.int64),
        np.concatenate([iou for _, _, iou in pairs]) if pairs else np.zeros(0),
    )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """An ellipse as pixels: its upper left corner, and how many of them lie above and left of each corner point."""

    x: int
    y: int
    mask: NDArray[Any]
    summed: NDArray[Any]

    @property
    def area(self) -> int:
        return int(self.summed[-1, -1])

    def within(self, rectangles: FloatArray) -> FloatArray:
        """How many of its pixels lie in each of the rectangles (N, 4), half-open."""
        height, width = self.mask.shape
        x1, x2 = (np.clip(rectangles[:, i] - self.x, 0, width).astype(np.int64) for i in (0, 2))
        y1, y2 = (np.clip(rectangles[:, i] - self.y, 0, height).astype(np.int64) for i in (1, 3))
        s = self.summed
        inside: FloatArray = (s[y2, x2] - s[y1, x2] - s[y2, x1] + s[y1, x1]).astype(np.float64)
        return np.where((x2 > x1) & (y2 > y1), inside, 0.0)

    def common(self, other: _Drawn) -> int:
        """How many pixels it shares with another."""
        x1, y1 = max(self.x, other.x), max(self.y, other.y)
        x2 = min(self.x + self.mask.shape[1], other.x + other.mask.shape[1])
        y2 = min(self.y + self.mask.shape[0], other.y + other.mask.shape[0])
        if x2 <= x1 or y2 <= y1:
            return 0
        own = self.mask[y1 - self.y : y2 - self.y, x1 - self.x : x2 - self.x]
        theirs = other.mask[y1 - other.y : y2 - other.y, x1 - other.x : x2 - other.x]
        return int(np.count_nonzero(own & theirs))


@dataclass(frozen=True, eq=False)
class _Shapes:
    """N shapes: rectangles (N, 4) half-open and cut at the border; an ellipse has its window there and is drawn."""

    rectangle: FloatArray
    ellipse: Sequence[_Drawn | None]

    def take(self, index: int) -> tuple[FloatArray, _Drawn | None]:
        return self.rectangle[index], self.ellipse[index]

    def area(self, index: int) -> float:
        drawn = self.ellipse[index]
        x1, y1, x2, y2 = self.rectangle[index].tolist()
        return float(drawn.area) if drawn is not None else max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def _shapes(box: FloatArray, ellipse: FloatArray | None, size: FloatArray) -> _Shapes:
    limit = np.where(np.isnan(size) | (size <= 0), np.inf, size)
    corner = np.rint(np.clip(box, -_FAR, _FAR).astype(np.float32)).astype(np.float64)
    low = np.minimum(corner[:, :2], corner[:, 2:])
    high = np.maximum(corner[:, :2], corner[:, 2:]) + 1
    rectangle = np.concatenate([np.maximum(low, 0), np.minimum(high, limit)], axis=1)
    drawn: list[_Drawn | None] = [None] * len(box)
    if ellipse is not None:
        for i in np.flatnonzero(~np.isnan(ellipse).any(1)).tolist():
            shape = drawn[i] = _draw(ellipse[i].tolist(), limit[i].tolist())
            height, width = shape.mask.shape
            rectangle[i] = (shape.x, shape.y, shape.x + width, shape.y + height)
    return _Shapes(rectangle, drawn)


def _draw(ellipse: Sequence[float], limit: Sequence[float]) -> _Drawn:
    import cv2

    major, minor, angle, *centre = ellipse
    cx, cy = (int(np.rint(np.float32(min(max(at, -_FAR), _FAR)))) for at in centre)
    reach = int(max(major, minor)) + _MARGIN
    x1, y1 = max(cx - reach, 0), max(cy - reach, 0)
    x2, y2 = (int(min(at + reach + 1, end)) for at, end in zip((cx, cy), limit, strict=True))
    if x2 <= x1 or y2 <= y1:
        return _Drawn(0, 0, np.zeros((0, 0), np.int64), np.zeros((1, 1), np.int64))
    # The canvas ends where the image does, for OpenCV draws an edge that is cut otherwise than a whole one
    canvas = np.zeros((y2 - y1, x2 - x1), np.uint8)
    degrees = 180 - (math.pi - angle) * 180 / math.pi  # the detour, for a half rounds as it does there
    cv2.ellipse(canvas, (cx - x1, cy - y1), (int(major), int(minor)), degrees, 0, 360, 1, cv2.FILLED)
    return _Drawn(x1, y1, canvas, cv2.integral(canvas))


def _shared(truth: tuple[FloatArray, _Drawn | None], found: _Shapes, rows: slice) -> FloatArray:
    """How many pixels one truth shares with each of the detections `rows`."""
    window, drawn = truth
    rectangle = found.rectangle[rows]
    sides = np.minimum(rectangle[:, 2:], window[2:]) - np.maximum(rectangle[:, :2], window[:2])
    near = (sides > 0).all(1)
    shared = np.where(near, sides.prod(1), 0.0) if drawn is None else drawn.within(rectangle)
    for d in np.flatnonzero(near).tolist():
        other = found.ellipse[rows.start + d]
        if other is not None:
            shared[d] = other.within(window[None])[0] if drawn is None else drawn.common(other)
    return shared
