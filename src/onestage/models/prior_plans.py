"""Which priors a model has: SSD's for its two input sizes, and a grid for any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onestage.boxes.priors import grid_cells, grid_priors, ssd_priors


@dataclass(frozen=True)
class PriorPlan:
    """SSD's default boxes for one input size: cells along a side, strides, ratios, sizes (one more than levels)."""

    image_size: int
    maps: tuple[int, ...]
    strides: tuple[int, ...]
    ratios: tuple[tuple[int, ...], ...]
    sizes: tuple[float, ...]

    def priors(self) -> Tensor:
        """(P, 4) float32 cx, cy, w, h in pixels of the input."""
        relative = ssd_priors(
            self.maps, self.image_size, self.sizes[:-1], self.sizes[1:], self.ratios, self.strides
        )  # fmt: skip
        return torch.from_numpy(relative * self.image_size).float()

    def per_cell(self) -> list[int]:
        """Priors of a cell, per level."""
        return [2 + 2 * len(ratios) for ratios in self.ratios]

    def levels(self) -> list[int]:
        """Priors per level."""
        return [cells * cells * count for cells, count in zip(self.maps, self.per_cell(), strict=True)]


_VOC_300 = PriorPlan(
    300, (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    (30, 60, 111, 162, 213, 264, 315),
)  # fmt: skip
_VOC_512 = PriorPlan(
    512, (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512),
    ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)), (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65),
)  # fmt: skip
# COCO's objects are smaller: the paper starts lower.
PLANS = {
    ("voc", 300): _VOC_300,
    ("coco", 300): replace(_VOC_300, sizes=(21, 45, 99, 153, 207, 261, 315)),
    ("voc", 512): _VOC_512,
    ("coco", 512): replace(_VOC_512, sizes=(20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)),
}


@dataclass(frozen=True)
class PriorGrid:
    """The priors of a model of free input size: strides of its levels, sizes and ratios as in `grid_priors`."""

    strides: Sequence[int]
    sizes: Sequence[Sequence[float]]
    ratios: Sequence[Sequence[float]]

    def at(self, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
        """The priors (P, 4) at an input size, and how many each level has."""
        priors, _ = grid_priors(size, self.strides, self.sizes, self.ratios)
        cells = [grid_cells(size, stride) for stride in self.strides]
        levels = [across * down * count for (across, down), count in zip(cells, self.per_cell(), strict=True)]
        return torch.from_numpy(priors).float(), levels

    def per_cell(self) -> list[int]:
        """Priors of a cell, per level."""
        return [len(sizes) * len(ratios) for sizes, ratios in zip(self.sizes, self.ratios, strict=True)]
