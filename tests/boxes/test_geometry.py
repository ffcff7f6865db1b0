"""Rectangles: areas, overlaps, clipping and exact suppression, against slow plain forms and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestage.boxes.geometry import area, clip, corners, intersection, ioa, iou, nms, nms_per_class

EMPTY = np.zeros((0, 4))
whole = st.integers(0, 40).map(float)


@st.composite
def some_boxes(draw: st.DrawFn, most: int = 12) -> np.ndarray:
    """Upright boxes with whole corners, some of them empty."""
    ends = draw(arrays(np.float64, (draw(st.integers(0, most)), 4), elements=whole))
    low, high = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
    return np.concatenate([low, high], 1)


def iou_of_two(a: np.ndarray, b: np.ndarray) -> float:
    """By counting the unit squares that both cover."""

    def squares(box: np.ndarray) -> set[tuple[int, int]]:
        return {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}

    ours, theirs = squares(a), squares(b)
    union = len(ours | theirs)
    return len(ours & theirs) / union if union else 0.0


def test_corners_are_those_of_left_top_width_height() -> None:
    given = np.array([[1, 2, 30, 40], [0.5, 0, 0, 2.25], [5, 5, -1, 3]])
    assert corners(given).tolist() == [[1, 2, 31, 42], [0.5, 0, 0.5, 2.25], [5, 5, 4, 8]]
    assert given[0].tolist() == [1, 2, 30, 40]  # what was given stays as it was
    assert corners(EMPTY).shape == (0, 4)


@given(some_boxes(5), some_boxes(5))
@settings(max_examples=40, deadline=None)
def test_iou_counts_pixels(a: np.ndarray, b: np.ndarray) -> None:
    found = iou(a, b)
    assert found.shape == (len(a), len(b))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            assert found[i, j] == pytest.approx(iou_of_two(first, second), abs=1e-12)


@given(some_boxes(), some_boxes())
def test_overlaps_keep_their_bounds(a: np.ndarray, b: np.ndarray) -> None:
    for measure in (iou, ioa):
        assert ((measure(a, b) >= 0) & (measure(a, b) <= 1)).all()
    np.testing.assert_array_equal(iou(a, b), iou(b, a).T)
    np.testing.assert_array_equal(intersection(a, a).diagonal(), area(a))
    np.testing.assert_array_equal(ioa(a, a).diagonal(), (area(a) > 0).astype(float))


@given(some_boxes(), st.floats(0, 1), st.floats(-30, 30), st.floats(-30, 30))
def test_moving_both_changes_no_overlap(boxes: np.ndarray, scale: float, dx: float, dy: float) -> None:
    moved = boxes * (1 + scale) + np.array([dx, dy, dx, dy])
    np.testing.assert_allclose(iou(moved, moved), iou(boxes, boxes), atol=1e-9)


def test_known_overlaps() -> None:
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10]])
    np.testing.assert_allclose(iou(a, b), [[1 / 3, 0, 0]])
    # Closed pixels 0..9 and 5..14, each 10 wide when a pixel is added: 5 x 10 shared of 150, as half-open boxes.
    closed = iou(np.array([[0.0, 0, 9, 9]]), np.array([[5.0, 0, 14, 9]]), offset=1.0)
    np.testing.assert_allclose(closed, [[1 / 3]])


def test_inverted_and_empty_boxes_overlap_nothing() -> None:
    odd = np.array([[5.0, 5, 5, 9], [9, 9, 2, 2]])
    whole_image = np.array([[0.0, 0, 20, 20]])
    np.testing.assert_array_equal(area(odd), 0)
    np.testing.assert_array_equal(iou(odd, whole_image), 0)
    np.testing.assert_array_equal(ioa(odd, whole_image), 0)


@given(some_boxes())
def test_clipped_boxes_lie_inside(boxes: np.ndarray) -> None:
    cut = clip(boxes - 10, 17, 11)
    assert (cut >= 0).all()
    assert (cut[:, [0, 2]] <= 17).all()
    assert (cut[:, [1, 3]] <= 11).all()
    np.testing.assert_array_equal(clip(cut, 17, 11), cut)


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """The greedy rule, one box after the other."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda k: (-scores[k], k)):
        if all(iou(boxes[[i]], boxes[[j]])[0, 0] <= threshold for j in kept):
            kept.append(i)
    return kept


@given(some_boxes(30), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_nms_is_the_greedy_rule_whatever_the_block(
    boxes: np.ndarray, threshold: float, block: int, random: object
) -> None:
    scores = np.array([random.choice([0.2, 0.5, 0.9]) for _ in boxes])  # type: ignore[attr-defined]
    assert nms(boxes, scores, threshold, block=block).tolist() == slow_nms(boxes, scores, threshold)


def test_nms_on_many_boxes() -> None:
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 180, (500, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (500, 2))], 1)
    scores = rng.uniform(size=500).round(2)
    assert nms(boxes, scores, 0.45).tolist() == slow_nms(boxes, scores, 0.45)


@given(some_boxes(20), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_classes_do_not_suppress_each_other(boxes: np.ndarray, random: object) -> None:
    scores = np.array([random.choice([0.2, 0.5, 0.9]) for _ in boxes])  # type: ignore[attr-defined]
    labels = np.array([random.choice([0, 3]) for _ in boxes], np.int64)  # type: ignore[attr-defined]
    kept = nms_per_class(boxes, scores, labels, 0.5)
    by_class = [m[slow_nms(boxes[m], scores[m], 0.5)] for m in (np.flatnonzero(labels == k) for k in (0, 3))]
    assert sorted(kept.tolist()) == sorted(np.concatenate(by_class).tolist() if len(boxes) else [])
    assert list(zip(-scores[kept], kept, strict=True)) == sorted(zip(-scores[kept], kept, strict=True))


def test_nothing_in_nothing_out() -> None:
    none = np.zeros(0)
    assert nms(EMPTY, none, 0.5).shape == (0,)
    assert nms_per_class(EMPTY, none, none.astype(np.int64), 0.5).shape == (0,)
    assert iou(EMPTY, EMPTY).shape == (0, 0)
    assert iou(EMPTY, np.ones((3, 4))).shape == (0, 3)
    assert ioa(np.ones((2, 4)), EMPTY).shape == (2, 0)
    assert area(EMPTY).shape == (0,)
    assert clip(EMPTY, 5, 5).shape == (0, 4)
