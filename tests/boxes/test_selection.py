"""From scored boxes to detections: floor, caps, order, and refusal of scores that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.selection import PRESETS, Selection, select, select_in_image
from onestage.records import ImageTransform

APART = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])


def test_presets_differ_in_their_floor() -> None:
    assert PRESETS["evaluate"].score <= 0.01 < PRESETS["view"].score


def test_a_box_may_be_of_two_classes() -> None:
    found = select(APART[:1], np.array([[0.6, 0.7]]), Selection(0.5))
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == [0.7, 0.6]


def test_caps_keep_the_highest() -> None:
    scores = np.array([[0.3], [0.9], [0.5], [0.7]])
    assert select(APART, scores, Selection(0.1, per_class=2)).scores.tolist() == [0.9, 0.7]
    assert select(APART, scores, Selection(0.1, per_image=3)).scores.tolist() == [0.9, 0.7, 0.5]
    assert select(APART, scores, Selection(0.5)).scores.tolist() == [0.9, 0.7, 0.5]


def test_overlapping_boxes_of_one_class_give_one() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10]])
    found = select(boxes, np.array([[0.5], [0.8]]), Selection(0.1, iou=0.5))
    assert found.boxes.tolist() == [[1, 0, 11, 10]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        select(APART[:1], np.array([[bad]]), Selection(0.1))


def test_nothing_found() -> None:
    assert len(select(np.zeros((0, 4)), np.zeros((0, 3)), Selection(0.1))) == 0
    assert len(select(APART, np.zeros((4, 2)), Selection(0.1))) == 0


@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 20), st.integers(0, 999))
def test_what_is_selected_obeys_the_selection(count: int, classes: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 90, (count, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(1, 30, (count, 2))], 1), rng.uniform(size=(count, classes))
    found = select(boxes, scores, Selection(0.3, per_class=most, per_image=most))
    assert len(found) <= most
    assert (found.scores >= 0.3).all()
    assert (np.diff(found.scores) <= 0).all()
    assert all(np.bincount(found.labels, minlength=classes) <= most) if len(found) else True


def test_boxes_come_back_to_the_image_and_are_cut_at_its_borders() -> None:
    # An image of 40 x 20, letterboxed to 20 x 20: half the size, 5 pixels of border above and below.
    transform = ImageTransform(0.5, 0.5, 0.0, 5.0)
    boxes = np.array([[0.0, 5, 10, 15], [15, 0, 25, 20], [0, 0, 20, 4]])
    found = select_in_image(boxes, np.array([[0.9], [0.8], [0.7]]), Selection(0.1), transform, 40, 20)
    assert found.boxes.tolist() == [[0, 0, 20, 20], [30, 0, 40, 20]]
