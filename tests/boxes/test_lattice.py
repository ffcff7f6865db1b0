"""Lattices of centres: FaceBoxes' placements pass, the diary's mistake does not, and every break is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.densified import LAYOUTS, densified_priors
from onestage.boxes.lattice import lattice


def cells(offsets: list[float], stride: float = 32, across: int = 32, down: int = 32) -> np.ndarray:
    """Centres at `offsets` from the middle of each cell, in both directions, as FaceBoxes densifies."""
    return np.array([
        ((i + 0.5) * stride + dx, (j + 0.5) * stride + dy)
        for j in range(down) for i in range(across) for dx in offsets for dy in offsets
    ])  # fmt: skip


def grid(columns: int, rows: int, step_x: float, step_y: float, at: tuple[float, float] = (0, 0)) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns) * step_x + at[0], np.arange(rows) * step_y + at[1])
    return np.stack([x.ravel(), y.ravel()], 1).astype(float)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1024, 1024), (640, 480), (1, 1), (1025, 31)])
def test_every_placement_of_faceboxes_is_uniform_without_duplicates(layout: str, size: tuple[int, int]) -> None:
    priors, _ = densified_priors(size, layout)
    wanted = {32: 8, 64: 16, 128: 32, 256: 64, 512: 128}
    for side, spacing in wanted.items():
        own = priors[np.round(priors[:, 2] + LAYOUTS[layout].shrink) == side]
        found = lattice(own[:, :2])
        assert found.sound, (side, found)
        assert {found.spacing_x, found.spacing_y} <= {float(spacing), None}
        assert found.columns * found.rows == len(own)


def test_a_quarter_for_an_eighth_gives_the_neighbours_places_again() -> None:
    # lxg2015/faceboxes, "modification 1": 64 px squares at +-16 about the middle of cells of 32, not at +-8
    right, wrong = lattice(cells([-8, 8])), lattice(cells([-16, 16]))
    assert right.sound
    assert (right.spacing_x, right.spacing_y) == (16, 16)
    assert not wrong.sound
    assert (wrong.spacing_x, wrong.spacing_y) == (32, 32)  # the stride: nothing was bought
    assert wrong.duplicates == 4096 - 33 * 33
    along = lattice(np.array([(32 * i + 16 + d, 0.0) for i in range(32) for d in (-16, 16)]))
    assert along.duplicates == 31  # of 64 in a row: half of them


def test_none_and_one() -> None:
    assert lattice(np.zeros((0, 2))).sound
    one = lattice([[5.0, 7.0]])
    assert one.sound
    assert (one.spacing, one.columns, one.rows, one.offset, one.middle) == (None, 1, 1, (5.0, 7.0), (5.0, 7.0))
    row = lattice(grid(5, 1, 4, 1))
    assert (row.spacing_x, row.spacing_y, row.spacing) == (4, None, 4)


def test_two_at_one_place_are_a_duplicate() -> None:
    found = lattice([[5.0, 7.0], [5.0, 7.0]])
    assert found.duplicates == 1
    assert found.uniform
    assert not found.sound


def test_uneven_columns_are_named() -> None:
    # SSD300's third level: cells of 32, the last centre of 304 clipped to the input's 300
    found = lattice(np.minimum(grid(10, 10, 32, 32, (16, 16)), 300))
    assert not found.uniform
    assert found.broken == "columns at x = 272 and 300 are 28 px apart, not 32"


def test_a_hole_is_named() -> None:
    centres = grid(4, 4, 8, 8)
    assert lattice(np.delete(centres, 5, 0)).broken == "no centre at (8, 8)"
    assert lattice(centres[:-1]).broken == "no centre at (24, 24)"


@given(
    st.integers(2, 9), st.integers(2, 9), st.floats(0.5, 200), st.floats(0.5, 200), st.integers(0, 2**32 - 1),
    st.tuples(st.floats(-100, 1000), st.floats(-100, 1000)),
)  # fmt: skip
def test_order_place_and_float32_do_not_matter(
    columns: int, rows: int, step_x: float, step_y: float, seed: int, at: tuple[float, float]
) -> None:
    centres = grid(columns, rows, step_x, step_y, at)
    rng = np.random.default_rng(seed)
    found = lattice(rng.permutation(centres).astype(np.float32))
    assert found.sound
    assert (found.columns, found.rows) == (columns, rows)
    assert found.spacing_x == pytest.approx(step_x, abs=2e-3)
    assert found.spacing_y == pytest.approx(step_y, abs=2e-3)
    assert found.offset == pytest.approx(at, abs=2e-3)
    assert found.middle == pytest.approx(tuple(centres.mean(0)), abs=2e-2)


@given(st.integers(3, 8), st.integers(0, 1000), st.floats(0.1, 3.9), st.integers(0, 1))
def test_one_centre_out_of_place_breaks_it(side: int, which: int, by: float, axis: int) -> None:
    centres = grid(side, side, 8, 8)
    centres[which % len(centres), axis] += by
    found = lattice(centres)
    assert not found.uniform
    assert found.broken


@given(st.integers(2, 6), st.integers(1, 40))
def test_duplicates_are_counted(side: int, extra: int) -> None:
    centres = grid(side, side, 8, 8)
    more = centres[np.random.default_rng(extra).integers(0, len(centres), extra)]
    assert lattice(np.concatenate([centres, more])).duplicates == extra
