"""Priors against the formula written out, and against counts of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onestage.boxes.priors import grid_cells, grid_priors, ssd_priors, to_corners

SSD300 = {
    "maps": [38, 19, 10, 5, 3, 1], "image_size": 300, "min_sizes": [30, 60, 111, 162, 213, 264],
    "max_sizes": [60, 111, 162, 213, 264, 315], "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    "strides": [8, 16, 32, 64, 100, 300],
}  # fmt: skip
SSD512 = {
    "maps": [64, 32, 16, 8, 4, 2, 1], "image_size": 512,
    "min_sizes": [35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8],
    "max_sizes": [76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65],
    "ratios": [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]], "strides": [8, 16, 32, 64, 128, 256, 512],
}  # fmt: skip


def by_formula(maps, image_size, min_sizes, max_sizes, ratios, strides, clip=True):
    """Liu et al. 2016 box by box, in plain Python."""
    rows = []
    for level, cells in enumerate(maps):
        least, most = min_sizes[level] / image_size, max_sizes[level] / image_size
        for i in range(cells):
            for j in range(cells):
                cx, cy = (j + 0.5) / (image_size / strides[level]), (i + 0.5) / (image_size / strides[level])
                rows.append([cx, cy, least, least])
                rows.append([cx, cy, math.sqrt(least * most), math.sqrt(least * most)])
                for r in ratios[level]:
                    rows.append([cx, cy, least * math.sqrt(r), least / math.sqrt(r)])
                    rows.append([cx, cy, least / math.sqrt(r), least * math.sqrt(r)])
    return [[min(max(v, 0.0), 1.0) for v in row] if clip else row for row in rows]


@pytest.mark.parametrize(("plan", "count"), [(SSD300, 8732), (SSD512, 24564)])
@pytest.mark.parametrize("clip", [True, False])
def test_equal_to_the_formula(plan, count, clip):
    priors = ssd_priors(**plan, clip=clip)
    assert priors.shape == (count, 4)
    np.testing.assert_allclose(priors, by_formula(**plan, clip=clip), rtol=0, atol=1e-12)


def test_first_and_last_rows_of_ssd300_by_hand():
    priors = ssd_priors(**SSD300)
    c = 0.5 * 8 / 300
    np.testing.assert_allclose(
        priors[:4],
        [[c, c, 0.1, 0.1], [c, c, 0.1414214, 0.1414214], [c, c, 0.1414214, 0.0707107], [c, c, 0.0707107, 0.1414214]],
        atol=1e-6,
    )
    # the second cell lies to the right of the first
    np.testing.assert_allclose(priors[4, :2], [1.5 * 8 / 300, c], atol=1e-9)
    # sqrt(2) * 0.88 = 1.2445 is cut to 1 as a width; the centre stays
    np.testing.assert_allclose(priors[-2], [0.5, 0.5, 1.0, 0.6222540], atol=1e-6)


def test_clipping_is_of_centre_and_size_not_of_corners():
    assert to_corners(ssd_priors(**SSD300)).min() < 0


def test_grid_order_level_row_column_size_ratio():
    priors, level = grid_priors((40, 20), strides=[16, 32], sizes=[[8, 16], [32]], ratios=[[1, 4], [1]])
    assert grid_cells((40, 20), 16) == (3, 2)
    assert len(priors) == 3 * 2 * 4 + 2 * 1
    assert level.tolist() == [0] * 24 + [1] * 2
    np.testing.assert_allclose(
        priors[:5], [[8, 8, 8, 8], [8, 8, 16, 4], [8, 8, 16, 16], [8, 8, 32, 8], [24, 8, 8, 8]]
    )  # fmt: skip
    np.testing.assert_allclose(priors[12, :2], [8, 24])  # the second row of cells
    np.testing.assert_allclose(priors[-2:], [[16, 16, 32, 32], [48, 16, 32, 32]])


def test_no_levels_and_no_sizes():
    priors, level = grid_priors((64, 64), [], [], [])
    assert priors.shape == (0, 4)
    assert level.shape == (0,)
    priors, level = grid_priors((64, 64), [8], [[]], [[1]])
    assert priors.shape == (0, 4)
    assert ssd_priors([], 300, [], [], [], []).shape == (0, 4)
    assert to_corners(np.zeros((0, 4))).shape == (0, 4)


def test_levels_must_agree():
    with pytest.raises(ValueError, match=r"one entry per level.*'strides': 1"):
        grid_priors((64, 64), [8], [[8], [16]], [[1], [1]])
    with pytest.raises(ValueError, match="one entry per level"):
        ssd_priors(**{**SSD300, "strides": [8]})
