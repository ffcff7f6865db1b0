"""The densified square priors of FaceBoxes, in the three placements that programs gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onestage.boxes.priors import grid_cells
from onestage.records import FloatArray, IntArray

# Zhang et al. 2017, section 3.2: strides of the three levels, the sides of each level's squares, and how often a square
# is repeated along each side of a cell, so that four of its centres lie within its side, whatever that is.
STRIDES = (32, 64, 128)
SIDES = ((32, 64, 128), (256,), (512,))
DENSITIES = ((4, 2, 1), (1,), (1,))


@dataclass(frozen=True)
class Layout:
    """Where the repeated priors of a cell lie, in which order, and how much of their side is left out.

    With n per side they lie at (k + 1/2) / n of the cell where `centred`, else at k / n; a single one in the middle.
    `x_first`: x changes slowest, else y does. `shrink` is taken off each side, in pixels.
    """

    centred: bool
    x_first: bool
    shrink: float = 0.0


LAYOUTS: Mapping[str, Layout] = {
    "symmetric": Layout(centred=True, x_first=True),
    "zisianw": Layout(centred=False, x_first=False),
    "caffe": Layout(centred=False, x_first=False, shrink=1.0),
}
"""The known placements: of the paper's figure and lxg2015, of zisianw/FaceBoxes.PyTorch, of the Caffe release."""


def densified_priors(size: tuple[int, int], layout: str = "zisianw") -> tuple[FloatArray, IntArray]:
    """FaceBoxes' priors (P, 4), cx, cy, w, h in pixels of an input of `size` (width, height), and their levels (P,).

    Rows go by level, then row and column of the cell, side (small ones first), and the repetitions of `layout`, a name
    of `LAYOUTS`. Levels have ceil(side / stride) cells a side: 21,824 priors at 1024x1024. Not clipped. Raises KeyError
    for an unknown layout.

    Source: Zhang et al. 2017 (FaceBoxes), section 3.2 and figure 3. Rows are equal to those of lxg2015/faceboxes
    ("symmetric", 1024x1024 only there), of zisianw/FaceBoxes.PyTorch, and of the prior_box layer of the Caffe release,
    whose boxes are size - 1 pixels wide.
    """
    boxes, levels = [np.zeros((0, 4))], [np.zeros(0, np.int64)]
    for level, (stride, cell) in enumerate(zip(STRIDES, cell_priors(layout), strict=True)):
        across, down = grid_cells(size, stride)
        x, y = np.meshgrid(np.arange(across) * float(stride), np.arange(down) * float(stride))
        origins = np.stack([x, y, np.zeros_like(x), np.zeros_like(x)], -1).reshape(-1, 1, 4)
        boxes.append((origins + cell).reshape(-1, 4))
        levels.append(np.full(across * down * len(cell), level, np.int64))
    return np.concatenate(boxes), np.concatenate(levels)


def cell_priors(layout: str = "zisianw") -> list[FloatArray]:
    """The priors of one cell of each level, (A, 4) cx, cy, w, h in pixels from the cell's upper left corner."""
    placed = LAYOUTS[layout]
    return [
        np.concatenate([_repeated(stride, side, n, placed) for side, n in zip(sides, densities, strict=True)])
        for stride, sides, densities in zip(STRIDES, SIDES, DENSITIES, strict=True)
    ]


def priors_per_cell() -> list[int]:
    """How many priors a cell of each level has: 21, 1, 1."""
    return [sum(n * n for n in level) for level in DENSITIES]


def _repeated(stride: int, side: float, n: int, layout: Layout) -> FloatArray:
    places = (np.arange(n) + (0.5 if layout.centred or n == 1 else 0.0)) * stride / n
    slow, fast = np.meshgrid(places, places, indexing="ij")
    x, y = (slow, fast) if layout.x_first else (fast, slow)
    sides = np.full(n * n, side - layout.shrink)
    return np.stack([x.ravel(), y.ravel(), sides, sides], 1)
