"""Whether the centres of priors form a uniform lattice: spacing, duplicates, and where it breaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from onestage.records import FloatArray, IntArray

# Pixels by which centres may differ and still be the same place: far above float32, far below any spacing.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Lattice:
    """How the centres of priors of one size stand.

    `spacing_x` and `spacing_y` are the usual distances of neighbouring columns and rows in pixels, None where there is
    one or none. `columns` x `rows` are the distinct coordinates, `duplicates` how many centres stand where an earlier
    one does already, `offset` is the first column's x and the first row's y. `uniform` says that columns and rows are
    evenly spaced and every place of them is taken; where they are not, `broken` says in words where that ends first.
    """

    spacing_x: float | None
    spacing_y: float | None
    columns: int
    rows: int
    duplicates: int
    uniform: bool
    offset: tuple[float, float]
    broken: str = ""

    @property
    def sound(self) -> bool:
        """Uniform, and no two centres at one place."""
        return self.uniform and not self.duplicates

    @property
    def spacing(self) -> float | None:
        """The side of a square of the same area as a mesh of the lattice; None where a direction has none."""
        if self.spacing_x is None or self.spacing_y is None:
            return self.spacing_x or self.spacing_y
        return float(np.sqrt(self.spacing_x * self.spacing_y))

    @property
    def middle(self) -> tuple[float, float]:
        """The middle between the first and the last place, in pixels."""
        x, y = self.offset
        across, down = (self.columns - 1) * (self.spacing_x or 0), (self.rows - 1) * (self.spacing_y or 0)
        return x + across / 2, y + down / 2


def lattice(centres: ArrayLike) -> Lattice:
    """How centres (N, 2), x and y in pixels, of priors of one size stand; N = 0 and 1 are uniform.

    It is blind to order and to how the centres came about, so it finds densification that gives the same place twice:
    offsets of a quarter of the box instead of an eighth (lxg2015/faceboxes, "modification 1") put every centre of a
    stride where its neighbour's lies, and the spacing stays the stride.
    """
    points = np.asarray(centres, np.float64).reshape(-1, 2)
    if not len(points):
        return Lattice(None, None, 0, 0, 0, True, (0.0, 0.0))
    x, column = _distinct(points[:, 0])
    y, row = _distinct(points[:, 1])
    taken = np.unique(row * len(x) + column)
    spacing_x, spacing_y = _spacing(x), _spacing(y)
    broken = _uneven(x, spacing_x, "columns at x") or _uneven(y, spacing_y, "rows at y") or _hole(taken, x, y)
    return Lattice(
        spacing_x, spacing_y, len(x), len(y), len(points) - len(taken), not broken,
        (round(float(x[0]), 3), round(float(y[0]), 3)), broken,
    )  # fmt: skip


def _distinct(values: FloatArray) -> tuple[FloatArray, IntArray]:
    """The distinct values in order, and which of them each value is."""
    order = np.argsort(values, kind="stable")
    fresh = np.diff(values[order], prepend=-np.inf) > TOLERANCE
    which = np.empty(len(values), np.int64)
    which[order] = np.cumsum(fresh) - 1
    return values[order][fresh], which


def _spacing(values: FloatArray) -> float | None:
    return round(float(np.median(np.diff(values))), 3) if len(values) > 1 else None


def _uneven(values: FloatArray, spacing: float | None, what: str) -> str:
    """The first two neighbours that are not `spacing` apart, in words; "" where all are."""
    if spacing is None:
        return ""
    gaps = np.diff(values)
    wrong = np.flatnonzero(np.abs(gaps - spacing) > TOLERANCE)
    if not len(wrong):
        return ""
    i = int(wrong[0])
    return f"{what} = {values[i]:.5g} and {values[i + 1]:.5g} are {gaps[i]:.4g} px apart, not {spacing:.4g}"


def _hole(taken: IntArray, x: FloatArray, y: FloatArray) -> str:
    """The first place of the grid without a centre, in words; "" where all are taken."""
    if len(taken) == len(x) * len(y):
        return ""
    misses = np.flatnonzero(taken != np.arange(len(taken)))
    place = int(misses[0]) if len(misses) else len(taken)
    return f"no centre at ({x[place % len(x)]:.5g}, {y[place // len(x)]:.5g})"
