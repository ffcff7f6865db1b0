"""Anchors by k-means and k-medians under IoU: held to plain loops, found where planted, in any order alike."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestage.boxes.clusters import HOW, SAMPLED, _mean, _median, _settled, clusters, masks, shape_iou, shares
from onestage.boxes.geometry import iou
from onestage.errors import DataError

PLANTED = np.array([[8.0, 10.0], [30.0, 20.0], [25.0, 70.0], [120.0, 90.0]])
SIDES = arrays(np.float64, st.tuples(st.integers(5, 40), st.just(2)), elements=st.integers(1, 400).map(float))


def scattered(count: int, spread: float = 0.08, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([pair * np.exp(rng.normal(0, spread, (count, 2))) for pair in PLANTED])


def alike(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)


def plain_kmeans(boxes: list[tuple[float, float]], count: int, chance: random.Random) -> float:
    """Lloyd's rounds in plain Python from random boxes, as darknet and its kin do it; the mean IoU it ends with."""
    centres = chance.sample(boxes, count)
    before: list[int] = []
    while True:
        own = [max(range(count), key=lambda k: alike(box, centres[k])) for box in boxes]
        if own == before:
            return sum(max(alike(box, centre) for centre in centres) for box in boxes) / len(boxes)
        before = own
        for k in range(count):
            mine = [box for box, at in zip(boxes, own, strict=True) if at == k]
            if mine:
                centres[k] = (sum(w for w, _ in mine) / len(mine), sum(h for _, h in mine) / len(mine))


def test_shapes_overlap_as_boxes_at_one_corner() -> None:
    sides, anchors = scattered(9), PLANTED
    at = [np.hstack([np.zeros_like(each), each]) for each in (sides, anchors)]
    np.testing.assert_allclose(shape_iou(sides, anchors), iou(*at), rtol=1e-12)


@pytest.mark.parametrize("how", HOW)
def test_planted_clusters_are_found(how: str) -> None:
    found = clusters(scattered(200), 4, how)
    np.testing.assert_allclose(found.anchors, PLANTED, rtol=0.03)
    assert found.sizes.tolist() == [200] * 4
    assert found.mean_iou > 0.87


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_the_best_of_many_plain_runs(seed: int) -> None:
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    sides = np.exp(rng.normal(3, 0.8, (60, 2)))
    boxes = [(w, h) for w, h in sides.tolist()]
    best = max(plain_kmeans(boxes, 3, chance) for _ in range(60))
    found = clusters(sides, 3, restarts=30)
    own = sum(max(alike(box, (w, h)) for w, h in found.anchors.tolist()) for box in boxes) / len(boxes)
    assert found.mean_iou == pytest.approx(own, abs=1e-12)  # what it says of itself
    assert found.mean_iou >= best - 1e-9


def test_medians_stand_firm_where_means_are_pulled() -> None:
    """One box in ten of each kind is 1.6 times as wide: not wide enough for a cluster of its own."""
    sides = scattered(200, 0.03)
    sides[::10, 0] *= 1.6
    off = {how: np.abs(clusters(sides, 4, how).anchors / PLANTED - 1).max() for how in HOW}
    assert off["kmedians"] < 0.02 < off["kmeans"]


@settings(max_examples=50)
@given(SIDES, st.integers(0, 99))
def test_centres_of_boxes_that_come_several_times(sides, seed) -> None:
    times = np.random.default_rng(seed).integers(1, 5, len(sides))
    every = np.repeat(sides, times, 0)
    weights = times.astype(float)
    assert _median(sides, weights).tolist() == np.median(every, 0).tolist()
    assert _mean(sides, weights) == pytest.approx(every.mean(0))


def test_repeated_boxes_weigh_as_often_as_they_come() -> None:
    sides = np.array([[10.0, 20.0], [12.0, 22.0], [12.0, 24.0], [16.0, 30.0]])
    repeated = np.repeat(sides, [5, 1, 1, 1], 0)
    assert clusters(repeated, 1, "kmedians").anchors.tolist() == [[10.0, 20.0]]
    assert clusters(repeated, 2).sizes.tolist() == [5, 3]


@settings(max_examples=30)
@given(SIDES, st.sampled_from(HOW), st.integers(0, 9), st.integers(-3, 5), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_scale_carries_over(sides, how, seed, power, chance) -> None:
    count = min(3, len(np.unique(sides, axis=0)))
    found = clusters(sides, count, how, seed, restarts=2)
    rows = list(range(len(sides)))
    chance.shuffle(rows)
    again = clusters(sides[rows], count, how, seed, restarts=2)
    assert again.anchors.tolist() == found.anchors.tolist()
    scaled = clusters(sides * 2.0**power, count, how, seed, restarts=2)
    assert (scaled.anchors / 2.0**power).tolist() == found.anchors.tolist()
    assert scaled.mean_iou == found.mean_iou
    area = found.anchors.prod(1)
    assert (np.diff(area) >= 0).all()
    assert found.sizes.sum() == len(sides)
    assert found.mean_iou >= found.start_iou


@settings(max_examples=30)
@given(SIDES, st.sampled_from(HOW), st.integers(0, 9))
def test_never_worse_than_the_start(sides, how, seed) -> None:
    count = min(4, len(np.unique(sides, axis=0)))
    start = np.random.default_rng(seed).uniform(1, 400, (count, 2))
    found = clusters(sides, count, how, seed, restarts=1, start=start)
    assert found.mean_iou >= shape_iou(sides, start).max(1).mean() - 1e-12


def test_an_anchor_that_no_box_wants_begins_anew() -> None:
    """From two anchors far off: they must move to the two kinds that have none, or the mean would stay at 0.6."""
    sides = scattered(50)
    lost = np.array([[8.0, 10.0], [30.0, 20.0], [9000.0, 1.0], [8000.0, 1.0]])
    anchors, mean = _settled(sides, np.ones(len(sides)), lost, _mean)
    assert mean > 0.87
    np.testing.assert_allclose(anchors[np.argsort(anchors.prod(1))], PLANTED, rtol=0.05)


def test_so_many_boxes_that_a_sample_begins() -> None:
    sides = scattered(SAMPLED // 2)
    found = clusters(sides, 4, restarts=2)
    np.testing.assert_allclose(found.anchors, PLANTED, rtol=0.01)
    assert found.sizes.sum() == len(sides)


def test_every_different_box_its_own_anchor() -> None:
    found = clusters(np.repeat(PLANTED, 7, 0), 4)
    assert found.anchors.tolist() == PLANTED[np.argsort(PLANTED.prod(1))].tolist()
    assert found.mean_iou == 1.0


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        (np.zeros((0, 2)), "there are 0 boxes"),
        (PLANTED[:1], "there are 1 box"),
        (np.repeat(PLANTED[:3], 10, 0), "30 boxes of 3 different sizes"),
    ],
)
def test_too_few_boxes_are_told_in_words(sides: np.ndarray, told: str) -> None:
    with pytest.raises(DataError, match="4 anchors need at least 4 boxes of different sizes") as raised:
        clusters(sides, 4)
    assert told in raised.value.message


def test_sides_that_are_none_are_refused() -> None:
    for sides in ([[0.0, 3.0]], [[-1.0, 3.0]], [[np.nan, 3.0]]):
        with pytest.raises(ValueError, match="above 0"):
            clusters(np.array(sides), 1)


def test_shares_of_heads() -> None:
    assert shares(9, 3) == (3, 3, 3)
    assert shares(10, 3) == (4, 3, 3)
    assert shares(11, 3) == (4, 4, 3)
    assert shares(3, 3) == (1, 1, 1)
    assert shares(5, 1) == (5,)
    with pytest.raises(ValueError, match="each of 3 heads"):
        shares(2, 3)


def test_the_smallest_go_to_the_finest_head_wherever_it_stands() -> None:
    assert masks((3, 3, 3), (32, 16, 8)) == ((6, 7, 8), (3, 4, 5), (0, 1, 2))  # yolov3
    assert masks((3, 3, 4), (32, 16, 8)) == ((7, 8, 9), (4, 5, 6), (0, 1, 2, 3))
    assert masks((3, 3), (8, 16)) == ((0, 1, 2), (3, 4, 5))
    assert masks((2, 4, 1), (16, 8, 32)) == ((4, 5), (0, 1, 2, 3), (6,))
