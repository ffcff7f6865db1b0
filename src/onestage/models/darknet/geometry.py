"""Where the boxes of a YOLO network stand at one input size: cells, strides, anchors, level by level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onestage.boxes.cells import MAX_GROWTH
from onestage.models.darknet.layers import Head


@dataclass(frozen=True)
class Level:
    """One head at an input size: its cells, and its boxes among those of the network.

    Box `first + (row * columns + column) * len(mask) + a` is that of anchor `mask[a]` in that cell. `stride` is the
    side of a cell in pixels; `anchors` (A, 2) are those of `mask`, in pixels.
    """

    columns: int
    rows: int
    stride: float
    mask: tuple[int, ...]
    anchors: Tensor
    scale_xy: float
    softmax: bool
    first: int

    @property
    def count(self) -> int:
        """How many boxes it has."""
        return self.columns * self.rows * len(self.mask)

    @property
    def last(self) -> int:
        """The box after its last."""
        return self.first + self.count


@dataclass(frozen=True)
class Geometry:
    """All boxes of a network at input `size` (width, height).

    `levels` are the heads in the cfg's order; `anchors` (N, 2) all anchors of the cfg, in pixels, whether a head has
    them or not; `owner[n]` the level that answers with anchor n, None for none.
    """

    size: tuple[int, int]
    levels: tuple[Level, ...]
    anchors: Tensor
    owner: tuple[int | None, ...]

    @property
    def count(self) -> int:
        """How many boxes there are."""
        return self.levels[-1].last

    @cached_property
    def cells(self) -> Tensor:
        """(P, 2) left and top of each box's cell, in pixels."""
        parts = []
        for level in self.levels:
            device = self.anchors.device
            rows = torch.arange(level.rows, dtype=torch.float32, device=device)
            columns = torch.arange(level.columns, dtype=torch.float32, device=device)
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            corner = torch.stack([x, y], -1).reshape(-1, 1, 2) * level.stride
            parts.append(corner.expand(-1, len(level.mask), 2).reshape(-1, 2))
        return torch.cat(parts)

    @cached_property
    def stride(self) -> Tensor:
        """(P,) the side of each box's cell, in pixels."""
        return self._spread([level.stride for level in self.levels])

    @cached_property
    def scale_xy(self) -> Tensor:
        """(P,) how far the centre of each box may lie: at 1 anywhere within its cell."""
        return self._spread([level.scale_xy for level in self.levels])

    @cached_property
    def sides(self) -> Tensor:
        """(P, 2) the anchor of each box, in pixels."""
        return torch.cat([level.anchors.repeat(level.columns * level.rows, 1) for level in self.levels])

    @cached_property
    def level(self) -> Tensor:
        """(P,) the level of each box."""
        counts = torch.tensor([level.count for level in self.levels], device=self.anchors.device)
        return torch.repeat_interleave(torch.arange(len(self.levels), device=self.anchors.device), counts)

    @cached_property
    def priors(self) -> Tensor:
        """(P, 4) the anchors as boxes xyxy in pixels, each about the middle of its cell."""
        centre = self.cells + self.stride[:, None] / 2
        return torch.cat([centre - self.sides / 2, centre + self.sides / 2], 1)

    def filled(self) -> Geometry:
        """The same, everything computed."""
        assert all(len(one) for one in (self.cells, self.stride, self.scale_xy, self.sides, self.level, self.priors))  # noqa: S101
        return self

    def _spread(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.anchors.device)[self.level]

    def decode(self, offsets: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Boxes (..., P, 4) xyxy in pixels of `offsets` (..., P, 4) tx, ty, tw, th; `rows` (P,) are those they are of.

        Source: Redmon and Farhadi 2018, section 2.1; scale_x_y as AlexeyAB's darknet. Sides are cut at MAX_GROWTH
        times the anchor's, so that finite offsets give finite boxes; darknet does not cut them.
        """
        stride, scale = self.stride[rows][:, None], self.scale_xy[rows][:, None]
        centre = torch.sigmoid(offsets[..., :2]) * scale - (scale - 1) / 2
        centre = self.cells[rows] + centre * stride
        half = offsets[..., 2:].clamp(max=math.log(MAX_GROWTH)).exp() * self.sides[rows] / 2
        return torch.cat([centre - half, centre + half], -1)


def geometry(
    heads: Sequence[Head], size: tuple[int, int], grids: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
) -> Geometry:
    """The boxes of these heads at input `size` (width, height), whose maps have `grids` (columns, rows) cells."""
    levels: list[Level] = []
    first = 0
    for head, (columns, rows) in zip(heads, grids, strict=True):
        own = torch.tensor(head.own, dtype=torch.float32, device=device)
        one = Level(columns, rows, head.shape.stride, head.mask, own, head.scale_xy, head.softmax, first)
        levels.append(one)
        first = one.last
    known = torch.tensor(heads[0].anchors, dtype=torch.float32, device=device)
    owner = tuple(
        next((i for i, head in enumerate(heads) if n in head.mask), None) for n in range(len(heads[0].anchors))
    )
    return Geometry(size, tuple(levels), known, owner)
