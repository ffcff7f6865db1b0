"""Priors of one image and their truths: counts, truths without any, order by fit, empty cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.assigned import Assigned, level_sides

PRIORS = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [20, 20, 40, 40], [0, 0, 40, 40]], float)
LEVEL = np.array([0, 0, 1, 2])


def assigned(match: list[int], truths: list[list[float]], ignore: list[bool] | None = None) -> Assigned:
    boxes = np.array(truths, float).reshape(-1, 4)
    rows = np.array(ignore if ignore is not None else [False] * len(boxes), bool)
    return Assigned(np.array(match), PRIORS, LEVEL, 3, boxes, rows)


def test_counts_by_level_and_by_truth() -> None:
    mine = assigned([0, 0, 1, -1], [[0, 0, 12, 10], [21, 20, 40, 40]])
    assert mine.per_level == [2, 1, 0]
    assert mine.per_truth.tolist() == [2, 1]
    assert mine.unanswered.tolist() == []
    assert mine.positives.tolist() == [0, 1, 2]


def test_the_best_fitting_prior_comes_first() -> None:
    mine = assigned([0, 0, -1, -1], [[0, 0, 12, 10]])
    assert mine.priors_of(0).tolist() == [1, 0]
    assert mine.priors_of(0, most=1).tolist() == [1]


def test_a_truth_without_a_prior_is_named_but_not_a_region_to_ignore() -> None:
    mine = assigned([0, -1, -2, -1], [[0, 0, 10, 10], [100, 100, 101, 101], [20, 20, 40, 40]], [False, False, True])
    assert mine.unanswered.tolist() == [1]
    assert mine.best_iou.tolist() == [1.0, 0.0, 1.0]
    assert mine.poorly_fitted == 1


def test_without_truths_there_is_nothing() -> None:
    mine = assigned([-1, -1, -1, -1], [])
    assert mine.per_level == [0, 0, 0]
    assert mine.unanswered.size == mine.best_iou.size == mine.per_truth.size == 0


def test_the_usual_side_of_a_level_is_that_of_its_middle_prior() -> None:
    sides = level_sides(PRIORS, LEVEL, 4)
    assert np.isclose(sides[:3], [(10 + 120**0.5) / 2, 20, 40]).all()
    assert np.isnan(sides[3])


@given(st.lists(st.integers(-2, 2), min_size=4, max_size=4))
def test_every_positive_is_counted_once(match: list[int]) -> None:
    mine = assigned(match, [[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 30, 40]])
    positives = sum(value >= 0 for value in match)
    assert sum(mine.per_level) == mine.per_truth.sum() == positives
    assert sum(len(mine.priors_of(truth)) for truth in range(3)) == positives


def test_a_crowd_is_measured_in_parts_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (50, 2))
    truths = np.hstack([corner, corner + rng.uniform(1, 30, (50, 2))]).tolist()
    whole = assigned([0, 7, 7, -1], truths).best_iou
    monkeypatch.setattr("onestage.boxes.assigned._AT_ONCE", 9)
    assert (assigned([0, 7, 7, -1], truths).best_iou == whole).all()


def test_forced_truths_are_those_that_all_their_priors_miss_by_far() -> None:
    mine = assigned([0, 1, 1, -1], [[0, 0, 10, 5], [20, 20, 40, 40], [200, 200, 201, 201]])
    assert mine.positive_iou.tolist() == [0.5, 0.0, 1.0]
    assert mine.answer_iou.tolist() == [0.5, 1.0, 0.0]
    assert mine.forced(0.6).tolist() == [True, False, False]  # the third has no prior at all
    assert not mine.forced(0.5).any()
