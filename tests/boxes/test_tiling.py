"""Priors by level and size: strides, densities and verdicts of models that are known by heart."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.boxes.densified import densified_priors
from onestage.boxes.priors import grid_priors, to_corners
from onestage.boxes.tiling import sizes_name, tilings, together, verdict


def faceboxes(layout: str = "symmetric", size: tuple[int, int] = (1024, 1024)) -> list:
    priors, level = densified_priors(size, layout)
    return tilings(to_corners(priors), level, size)


def test_faceboxes_has_five_sizes_of_density_four() -> None:
    # Zhang et al. 2017, section 3.2: densified so that every size has tiling density 4
    found = faceboxes()
    assert [(one.level, one.name, len(one), one.per_cell) for one in found] == [
        (0, "32 px", 16384, 16), (0, "64 px", 4096, 4), (0, "128 px", 1024, 1), (1, "256 px", 256, 1),
        (2, "512 px", 64, 1),
    ]  # fmt: skip
    assert [one.density for one in found] == [4] * 5
    assert [one.stride for one in found] == [(32, 32)] * 3 + [(64, 64), (128, 128)]
    assert sum(map(len, found)) == 21824
    assert verdict(found[1:2]) == "2x2 densified, spacing 16 px in both directions, no duplicates"
    assert np.concatenate([one.index for one in found]).size == np.unique([i for one in found for i in one.index]).size


def test_placements_from_the_cells_corner_lie_off_the_middle() -> None:
    off = faceboxes("zisianw")[1]
    assert off.shift == (-8, -8)
    assert verdict([off]).endswith("no duplicates; their middle lies 8 px left and 8 px up of the input's")
    assert faceboxes("caffe")[0].name == "31 px"


def test_the_diarys_mistake_is_told_as_one() -> None:
    centres = np.array([((i + 0.5) * 32 + dx, (j + 0.5) * 32 + dy) for j in range(8) for i in range(8)
                        for dx in (-16, 16) for dy in (-16, 16)])  # fmt: skip
    whole = np.array([((i + 0.5) * 32, (j + 0.5) * 32) for j in range(8) for i in range(8)])
    boxes = np.concatenate([np.hstack([centres - 32, centres + 32]), np.hstack([whole - 64, whole + 64])])
    found = tilings(boxes, np.zeros(len(boxes), np.int64), (256, 256))
    assert verdict(found[:1]) == (
        "175 of 256 priors stand where another does: 2x2 densification buys nothing, the spacing stays 32 px in both "
        "directions"
    )
    assert found[0].density == 2  # and not 4
    assert verdict(found[1:]).startswith("one in each cell")


def test_sizes_that_share_their_centres_are_one_group() -> None:
    priors, level = grid_priors((320, 256), (8, 16), ((12, 18), (36,)), ((1, 0.5), (1,)))
    groups = together(tilings(to_corners(priors), level, (320, 256)))
    assert [len(same) for same in groups] == [4, 1]
    assert sizes_name(groups[0]) == "12, 8.5x17, 18, 12.7x25.5 px"
    assert sizes_name(groups[0], 1) == "12 and 3 more px"
    assert groups[0][0].cells == (40, 32)


def test_sizes_are_told_apart_despite_float32() -> None:
    priors, level = densified_priors((1056, 800), "symmetric")
    noisy = to_corners(priors.astype(np.float32)).astype(np.float64)
    noisy += np.random.default_rng(0).uniform(-1e-4, 1e-4, noisy.shape)
    assert [one.name for one in tilings(noisy, level, (1056, 800))] == [one.name for one in faceboxes()]


def test_a_single_prior_has_the_input_for_stride_and_no_density() -> None:
    one = tilings(np.array([[10.0, 10, 90, 90]]), np.zeros(1, np.int64), (100, 80))[0]
    assert (one.stride, one.cells, one.density) == ((100, 80), (1, 1), None)
    assert verdict([one]) == "a single prior of each size, its centre at (50, 50)"
    assert one.as_dict()["tiling_density"] is None


def test_without_priors_there_is_nothing() -> None:
    assert tilings(np.zeros((0, 4)), np.zeros(0, np.int64), (64, 64)) == []


@pytest.mark.parametrize(("size", "words"), [((300, 300), "10 px right and 10 px down"), ((320, 320), "no duplicates")])
def test_cells_that_reach_over_the_edge_are_told(size: tuple[int, int], words: str) -> None:
    priors, level = grid_priors(size, (64,), ((100,),), ((1,),))
    assert verdict(tilings(to_corners(priors), level, size)).endswith(words + " of the input's" * (size[0] == 300))
