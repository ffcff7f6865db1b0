"""Offsets from priors to boxes in numpy: what `coding.decode` does, for places without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VARIANCES = (0.1, 0.2)
# A decoded side is at most this many times its prior's; keeps an untrained head from infinity.
MAX_GROWTH = 1000 / 16


class Coding(NamedTuple):
    """How a detector's offsets become boxes, without torch.

    `boxes(offsets, priors)` gives boxes (..., P, 4) xyxy in pixels of offsets (..., P, 4), those of `priors(size)`
    (P, K) at an input size (width, height) or of some of their rows; what the K columns are, only `boxes` knows.
    """

    boxes: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
    priors: Callable[[tuple[int, int]], NDArray[np.float32]]


def boxes_of(
    offsets: NDArray[np.float32], priors: NDArray[np.float32], variances: tuple[float, float] = VARIANCES
) -> NDArray[np.float32]:
    """Boxes (..., P, 4) xyxy for `offsets` (..., P, 4) from `priors` (P, 4) cx, cy, w, h, in their units, float32.

    Sides are cut at MAX_GROWTH times the prior's, so finite offsets give finite boxes.

    Source: Liu et al. 2016 with the variances of its Caffe release; equal to `boxes.coding.decode` to rounding.
    """
    sides = priors[:, 2:]
    centres = offsets[..., :2] * np.float32(variances[0])
    centres *= sides
    centres += priors[:, :2]
    half = offsets[..., 2:] * np.float32(variances[1])
    np.minimum(half, np.float32(math.log(MAX_GROWTH)), out=half)
    np.exp(half, out=half)
    half *= sides * np.float32(0.5)
    return np.concatenate([centres - half, centres + half], -1)
