"""Offsets from cells to boxes in numpy, as YOLO networks mean them, for places without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A decoded side is at most this many times its anchor's.
MAX_GROWTH = 1e4


def boxes_of_cells(offsets: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (..., P, 4) xyxy in pixels for `offsets` (..., P, 4) tx, ty, tw, th from `cells` (P, 6), float32.

    A row of `cells` is the left and top of the cell, its side, the anchor's width and height, all in pixels, and how
    far the centre may lie: at 1 anywhere within the cell. Sides are cut at MAX_GROWTH times the anchor's, so finite
    offsets give finite boxes.

    Source: Redmon and Farhadi 2018, section 2.1; the last column is scale_x_y of AlexeyAB's darknet. Equal to
    `Geometry.decode` of models.darknet to rounding.
    """
    one = np.float32(1)
    stretch = cells[:, 5:]
    centres = np.clip(offsets[..., :2], -80, 80)  # beyond it the sigmoid is 0 or 1, and exp infinite
    np.negative(centres, out=centres)
    np.exp(centres, out=centres)
    centres += one
    np.divide(stretch, centres, out=centres)
    centres -= (stretch - one) / 2
    centres *= cells[:, 2:3]
    centres += cells[:, :2]
    half = np.minimum(offsets[..., 2:], np.float32(np.log(MAX_GROWTH)))
    np.exp(half, out=half)
    half *= cells[:, 3:5] * np.float32(0.5)
    return np.concatenate([centres - half, centres + half], -1)
