"""FaceBoxes' priors: rows of three programs, counts at any size; test_lattice.py has how their centres stand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.densified import LAYOUTS, STRIDES, cell_priors, densified_priors, priors_per_cell

# lxg2015/faceboxes, encoderl.py: offsets from the centre, x outer. zisianw, prior_box.py: from the corner, y outer.
LXG = [(16 + dx, 16 + dy) for dx in (-12, -4, 4, 12) for dy in (-12, -4, 4, 12)]
ZISIANW = [(x, y) for y in (0, 8, 16, 24) for x in (0, 8, 16, 24)]


def test_the_first_cell_of_each_program() -> None:
    for layout, places, side in (("symmetric", LXG, 32), ("zisianw", ZISIANW, 32), ("caffe", ZISIANW, 31)):
        priors, level = densified_priors((64, 64), layout)
        assert priors[:16, :2].tolist() == [list(map(float, place)) for place in places]
        assert (priors[:16, 2:] == side).all()
        assert priors[20].tolist() == [16, 16, side + 96, side + 96]
        assert level.tolist() == [0] * 84 + [1, 2]


def test_counts_of_the_published_input() -> None:
    priors, level = densified_priors((1024, 1024))
    assert np.bincount(level).tolist() == [32 * 32 * 21, 16 * 16, 8 * 8]
    assert len(priors) == 21824
    assert priors_per_cell() == [21, 1, 1]


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(sorted(LAYOUTS)))
def test_any_size_has_cells_rounded_up(width: int, height: int, layout: str) -> None:
    priors, level = densified_priors((width, height), layout)
    cells = [-(-width // stride) * -(-height // stride) for stride in STRIDES]
    assert np.bincount(level, minlength=3).tolist() == [n * a for n, a in zip(cells, (21, 1, 1), strict=True)]
    assert (priors[:, 2:] > 0).all()
    if layout != "symmetric":
        assert (priors[:, :2] >= 0).all()


def test_a_cells_priors_are_those_of_the_grid() -> None:
    for layout in LAYOUTS:
        for level, cell in enumerate(cell_priors(layout)):
            priors, levels = densified_priors((128, 128), layout)
            assert np.array_equal(priors[levels == level][: len(cell)], cell)
