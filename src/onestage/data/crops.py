"""Windows drawn at random: zooming out, and crops that overlap objects by a set measure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.boxes import geometry
from onestage.data.images import Window
from onestage.data.views import centres_inside
from onestage.records import FloatArray

TRIES = 50


def expanded(width: int, height: int, ratio: tuple[float, float], rng: np.random.Generator) -> Window:
    """A canvas `ratio` times as wide and high that holds the whole image somewhere, as a window in its pixels."""
    times = rng.uniform(*ratio)
    left, top = rng.uniform(0, width * (times - 1)), rng.uniform(0, height * (times - 1))
    return -left, -top, width * times - left, height * times - top


def overlapping_crop(
    boxes: FloatArray,
    canvas: Window,
    rng: np.random.Generator,
    overlaps: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    sides: tuple[float, float] = (0.3, 1.0),
    rounds: int = 10,
) -> Window:
    """A window within `canvas` that meets one of SSD's conditions, drawn anew up to `rounds` times.

    The conditions: all of the canvas; IoU of at least each of `overlaps` with some box; none. Except for the first, a
    window has sides of `sides` of the canvas, an aspect of .5 … 2, and the centre of at least one of `boxes` (N, 4)
    inside; 50 are tried per condition. Without boxes any window will do. All of the canvas when nothing was found.
    """
    for _ in range(rounds):
        way = int(rng.integers(len(overlaps) + 2))
        if way == 0:
            return canvas
        least = 0.0 if way > len(overlaps) else overlaps[way - 1]
        windows = _draw(canvas, sides, rng)
        # The tries are drawn at once and judged at once; the first good one is what a loop would have stopped at.
        good = np.abs(np.log2((windows[:, 3] - windows[:, 1]) / (windows[:, 2] - windows[:, 0]))) <= 1
        if len(boxes):
            good &= centres_inside(boxes, windows).any(0)
            if least > 0:
                good &= geometry.iou(boxes, windows).max(0) >= least
        found = int(good.argmax())
        if good[found]:
            x0, y0, x1, y1 = windows[found].tolist()
            return x0, y0, x1, y1
    return canvas


def _draw(canvas: Window, sides: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    low, high = sides
    draws = rng.random((TRIES, 4))
    start, whole = np.array(canvas[:2]), np.array(canvas[2:]) - canvas[:2]
    lengths = (low + (high - low) * draws[:, :2]) * whole
    corners = draws[:, 2:] * (whole - lengths) + start
    return np.concatenate([corners, corners + lengths], 1)
