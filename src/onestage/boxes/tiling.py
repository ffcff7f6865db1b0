"""Priors sorted by level and size: cells, spacing, tiling density, and a verdict in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from onestage.boxes.lattice import TOLERANCE, Lattice, lattice
from onestage.records import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Tiling:
    """All priors of one size on one level.

    `width` and `height` are the prior's sides, `stride` the spacing of the level's cells and `cells` their numbers,
    all (x, y) in pixels of the input of `size` (width, height). `index` are the rows of the priors.
    """

    level: int
    width: float
    height: float
    stride: tuple[float, float]
    cells: tuple[int, int]
    lattice: Lattice
    size: tuple[int, int]
    index: IntArray = field(repr=False)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def name(self) -> str:
        """ "64 px" of a square, "42x21 px" else."""
        return f"{size_name(self.width, self.height)} px"

    @property
    def per_cell(self) -> int:
        """How many priors of this size each cell has."""
        return round(len(self) / max(self.cells[0] * self.cells[1], 1))

    @property
    def density(self) -> float | None:
        """Side over spacing: how many priors overlap along a line; None where there is one prior.

        Source: the tiling density of Zhang et al. 2017 (FaceBoxes), here with the spacing that the centres have, not
        the one that was meant.
        """
        spacing = self.lattice.spacing
        return None if spacing is None else float(np.sqrt(self.width * self.height)) / spacing

    @property
    def shift(self) -> tuple[float, float]:
        """How far the middle of the centres lies from the middle of the input, pixels to the right and down."""
        x, y = self.lattice.middle
        return x - self.size[0] / 2, y - self.size[1] / 2

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        mine = self.lattice
        return {
            "level": self.level, "width": round(self.width, 2), "height": round(self.height, 2), "priors": len(self),
            "stride": list(self.stride), "cells": list(self.cells), "per_cell": self.per_cell,
            "spacing": [mine.spacing_x, mine.spacing_y], "first_centre": list(mine.offset),
            "tiling_density": None if self.density is None else round(self.density, 3),
            "duplicates": mine.duplicates, "uniform": mine.uniform, "broken": mine.broken or None,
            "shift": [round(value, 3) for value in self.shift],
        }  # fmt: skip


def tilings(priors: FloatArray, level: IntArray, size: tuple[int, int]) -> list[Tiling]:
    """The priors (P, 4), xyxy in pixels of an input of `size`, sorted by `level` (P,) and their sides.

    They come by level, sizes in the order of the priors. A level's stride is the spacing of its coarsest lattice,
    the input's side where that is a single place.
    """
    found: list[Tiling] = []
    for one in map(int, np.unique(level)):
        rows = np.flatnonzero(level == one)
        sides = priors[rows, 2:] - priors[rows, :2]
        centres = (priors[rows, 2:] + priors[rows, :2]) / 2
        groups = _alike(sides)
        lattices = [lattice(centres[group]) for group in groups]
        across = min(lattices, key=lambda mine: mine.columns)
        down = min(lattices, key=lambda mine: mine.rows)
        stride = (across.spacing_x or float(size[0]), down.spacing_y or float(size[1]))
        for group, mine in zip(groups, lattices, strict=True):
            width, height = (float(v) for v in np.median(sides[group], 0))
            cells = (across.columns, down.rows)
            found.append(Tiling(one, width, height, stride, cells, mine, size, rows[group]))
    return found


def together(found: Iterable[Tiling]) -> list[list[Tiling]]:
    """Neighbours of one level whose priors stand at the same centres: one entry for each place to look at."""
    return [list(same) for _, same in groupby(found, lambda one: (one.level, one.per_cell, one.lattice))]


def sizes_name(same: Sequence[Tiling], most: int = 8) -> str:
    """The sizes of several tilings: "42, 67, 60x30, 30x60 px"."""
    shown = [size_name(one.width, one.height) for one in same[:most]]
    return ", ".join(shown) + (f" and {len(same) - most} more" if len(same) > most else "") + " px"


def size_name(width: float, height: float) -> str:
    """ "64" or "42.4x21.2"."""
    one, two = (f"{value:.1f}".removesuffix(".0") for value in (width, height))
    return one if one == two else f"{one}x{two}"


def verdict(same: Sequence[Tiling]) -> str:
    """What is to be said of the centres that these sizes of a level share: one sentence without a full stop."""
    one = same[0]
    mine, often = one.lattice, densified(one)
    if len(one) == 1:
        return f"a single prior of each size, its centre at ({mine.offset[0]:g}, {mine.offset[1]:g})"
    if mine.duplicates:
        bought = (
            f": {often} densification buys nothing, the spacing stays {_spacing(mine)}"
            if often and (mine.spacing or 0) >= min(one.stride)
            else f"; spacing {_spacing(mine)}"
        )
        return f"{mine.duplicates:,} of {len(one):,} priors stand where another does" + bought
    if not mine.uniform:
        return f"no uniform lattice: {mine.broken}"
    return f"{often + ' densified' if often else 'one in each cell'}, spacing {_spacing(mine)}, no duplicates" + _off(
        one
    )


def densified(one: Tiling) -> str:
    """ "4x4" where each cell has that many priors of the size, in a square; "5 in a cell" else, "" where it has one."""
    root = round(one.per_cell**0.5)
    if one.per_cell <= 1:
        return ""
    return f"{root}x{root}" if root * root == one.per_cell else f"{one.per_cell}-fold"


def _spacing(mine: Lattice) -> str:
    x, y = mine.spacing_x, mine.spacing_y
    if x == y:
        return f"{x:.4g} px in both directions"
    return " and ".join(f"{value:.4g} px {way}" for value, way in ((x, "across"), (y, "down")) if value is not None)


def _off(one: Tiling) -> str:
    x, y = one.shift
    said = [
        f"{abs(value):.3g} px {before if value < 0 else after}"
        for value, before, after in ((x, "left", "right"), (y, "up", "down")) if abs(value) > TOLERANCE
    ]  # fmt: skip
    return f"; their middle lies {' and '.join(said)} of the input's" if said else ""


def _alike(sides: FloatArray) -> list[IntArray]:
    """The rows of (N, 2) with the same sides, in the order of their first rows."""
    keys = np.zeros(len(sides), np.int64)
    for column in sides.T:
        order = np.argsort(column, kind="stable")
        which = np.empty(len(column), np.int64)
        which[order] = np.cumsum(np.diff(column[order], prepend=column[order[:1]]) > TOLERANCE)
        keys = keys * (int(which.max(initial=0)) + 1) + which
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return [np.flatnonzero(inverse == group) for group in np.argsort(first)]
