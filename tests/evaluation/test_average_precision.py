"""Rules of the area on curves drawn by hand, weights, and the layout and pairs they rest on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.boxes.geometry import iou
from onestage.evaluation import lay_out
from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    HUNDRED_AND_ONE_POINTS,
    area_under_envelope,
    average_precisions,
    mean_present,
    precision_recall,
    recalls,
)
from onestage.evaluation.overlap import paired_iou, pairs, ranges
from onestage.evaluation.ranking import Ranking
from onestage.records import Annotations, Detections

RULES = (ELEVEN_POINTS, HUNDRED_AND_ONE_POINTS, area_under_envelope)


def ranking(hits: list[int], truths: int) -> Ranking:
    """All in one image; 1 hit, 0 false, 2 not counted."""
    verdict = np.array([hits]).reshape(1, -1)
    n = verdict.shape[1]
    return Ranking(
        np.zeros(n, np.int64), np.linspace(1, 0.1, n), np.arange(n), verdict == 1, verdict != 2, np.array([truths])
    )


@pytest.mark.parametrize(
    ("hits", "truths", "eleven", "hundred", "whole"),
    [
        ([1, 1], 2, 1.0, 1.0, 1.0),
        ([1, 0, 1], 2, (6 + 5 * 2 / 3) / 11, (51 + 50 * 2 / 3) / 101, 0.5 + 0.5 * 2 / 3),
        ([2, 0, 2, 1], 1, 0.5, 0.5, 0.5),  # two of four are not counted
        ([0, 0], 3, 0.0, 0.0, 0.0),
        ([], 3, 0.0, 0.0, 0.0),
        ([1], 4, 3 / 11, 26 / 101, 0.25),
        ([1, 1, 1], 5, 6 / 11, 61 / 101, 0.6),  # the point 0.6 as i * 0.1 lies a hair above three fifths
    ],
)
def test_areas_by_hand(hits: list[int], truths: int, eleven: float, hundred: float, whole: float) -> None:
    ones = np.ones((1, 1), np.int64)
    for rule, expected in zip(RULES, (eleven, hundred, whole), strict=True):
        assert average_precisions([ranking(hits, truths)], rule, ones) == pytest.approx(expected, abs=1e-14)


def test_points_are_compared_as_the_official_tools_do() -> None:
    for n in range(1, 400):
        recall = np.arange(1, n + 1) / n
        precision = np.linspace(1, 0.5, n)
        for rule, points in (
            (ELEVEN_POINTS, np.arange(0, 1.05, 0.1)),
            (HUNDRED_AND_ONE_POINTS, np.linspace(0, 1, 101)),
        ):
            padded = np.r_[precision, 0.0]
            expected = padded[np.searchsorted(recall, points, side="left")].mean()
            assert float(rule(precision, recall)) == pytest.approx(expected, abs=1e-13)


def test_nothing_to_find_is_undefined_and_no_class_gives_no_row() -> None:
    ones = np.ones((3, 1), np.int64)
    for rule in RULES:
        assert np.isnan(average_precisions([ranking([0, 0], 0)], rule, ones)).all()
        assert average_precisions([], rule, ones).shape == (0, 1, 3)
    assert np.isnan(recalls([ranking([0], 0)], 100, ones)).all()
    assert recalls([], 100, ones).shape == (0, 1, 3)
    assert np.isnan(precision_recall(ranking([0, 0], 0))[0]).all()


def test_weights_of_zero_leave_an_image_out() -> None:
    verdict = np.array([[True, False, True]])
    two = Ranking(
        np.array([0, 1, 1]), np.array([0.9, 0.8, 0.7]), np.array([0, 0, 1]), verdict, verdict | True, np.array([1, 2])
    )
    weights = np.array([[1, 1], [1, 0], [0, 1], [0, 2], [0, 0]])
    ap = average_precisions([two], area_under_envelope, weights)[0, 0]
    np.testing.assert_allclose(ap, [1 / 3 + 2 / 9, 1.0, 0.25, 0.25, np.nan])
    np.testing.assert_allclose(recalls([two], 1, weights)[0, 0], [1 / 3, 1.0, 0.0, 0.0, np.nan])
    np.testing.assert_allclose(recalls([two], 2, weights)[0, 0], [2 / 3, 1.0, 0.5, 0.5, np.nan])


def test_mean_of_what_is_defined() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    np.testing.assert_array_equal(mean_present(values), [2.0, np.nan])
    assert mean_present(values, (0, 1)) == 2.0
    assert np.isnan(mean_present(np.zeros((0,))))


def test_ranges() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_pairs_are_all_of_the_same_image_and_class(seed: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    truths = {
        i: Annotations(rng.uniform(0, 9, (n, 4)), rng.integers(0, 3, n)) for i, n in enumerate(rng.integers(0, 6, 5))
    }
    found = {
        i: Detections(rng.uniform(0, 9, (n, 4)), rng.integers(0, 3, n), rng.random(n))
        for i, n in enumerate(rng.integers(0, 6, 5))
    }
    pool = lay_out(truths, found, ["a", "b", "c"])
    parts = list(pairs(pool, np.arange(len(pool.group)), at_once))
    got = [pair for part in parts for pair in zip(part[0].tolist(), part[1].tolist(), strict=True)]
    same = pool.group[:, None] == pool.truth_group[None]
    assert got == [tuple(pair) for pair in np.argwhere(same).tolist()]
    assert sum(len(d) for d in found.values()) == len(pool.group)
    for label, rows in enumerate(pool.class_slices(pool.group)):
        assert (pool.group[rows] // 5 == label).all()
        assert (np.diff(pool.score[pool.by_score(rows)]) <= 0).all()
    for offset in (0.0, 1.0):
        for d, t in parts:
            whole = iou(pool.box, pool.truth_box, offset)
            np.testing.assert_array_equal(paired_iou(pool.box[d], pool.truth_box[t], offset), whole[d, t])


def test_equal_scores_are_taken_by_image_then_row() -> None:
    truths = {i: Annotations.empty() for i in ("b", "a", 10, 9)}
    found = {i: Detections(np.zeros((2, 4)) + k, [0, 0], [0.5, 0.5]) for k, i in enumerate(("a", 10, "b", 9))}
    pool = lay_out(truths, found, ["c"])
    assert pool.images == (9, 10, "a", "b")
    assert pool.by_score(slice(0, 8)).tolist() == list(range(8))
    assert pool.box[:, 0].tolist() == [3, 3, 1, 1, 0, 0, 2, 2]
    assert pool.rank.tolist() == [0, 1] * 4
