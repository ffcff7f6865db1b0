"""Matching against slow references written from the paper's and lufficc's description, and regions to ignore."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.geometry import ioa, iou
from onestage.boxes.matching import BACKGROUND, IGNORED, match_ssd, pairwise_iou

corner = st.integers(0, 40)
rectangle = st.tuples(corner, corner, st.integers(1, 25), st.integers(1, 25))
rectangles = st.lists(rectangle.map(lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])), max_size=12)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def slow_greedy(overlap, threshold):
    """The paper: pick the best free pair again and again, then let every other prior take its best truth."""
    match = [BACKGROUND] * overlap.shape[1]
    for p in range(overlap.shape[1]):
        best = max(range(len(overlap)), key=lambda t: (overlap[t, p], -t), default=None)
        if best is not None and overlap[best, p] >= threshold:
            match[p] = best
    free_truths, free_priors = set(range(len(overlap))), set(range(overlap.shape[1]))
    while free_truths and free_priors:
        value, t, p = max(
            (overlap[t, p], -t, -p) for t in free_truths for p in free_priors
        )  # fmt: skip
        if value <= 0:
            break
        match[-p] = -t
        free_truths.remove(-t)
        free_priors.remove(-p)
    return match


def slow_last(overlap, threshold):
    """lufficc's loop: `for target, prior in enumerate(best priors)`, each overwriting what was there."""
    best_truth = overlap.argmax(0)
    value = overlap.max(0).copy()
    for t, p in enumerate(overlap.argmax(1)):
        if overlap[t, p] > 0:
            best_truth[p] = t
            value[p] = 2
    return np.where(value >= threshold, best_truth, BACKGROUND).tolist()


@given(rectangles, rectangles, st.sampled_from([0.35, 0.5]))
def test_greedy_equals_the_slow_reference(truths, priors, threshold):
    overlap = pairwise_iou(tensor(truths), tensor(priors)).numpy()
    expected = slow_greedy(overlap, threshold)
    assert match_ssd(tensor(truths), tensor(priors), threshold).tolist() == expected


@given(rectangles.filter(len), rectangles.filter(len), st.sampled_from([0.35, 0.5]))
def test_last_equals_the_loop_of_lufficc(truths, priors, threshold):
    overlap = pairwise_iou(tensor(truths), tensor(priors)).numpy()
    result = match_ssd(tensor(truths), tensor(priors), threshold, bipartite="last").tolist()
    assert result == slow_last(overlap, threshold)


@given(rectangles.filter(len), rectangles.filter(len))
def test_greedy_leaves_no_truth_without_a_prior_while_priors_are_free(truths, priors):
    overlap = pairwise_iou(tensor(truths), tensor(priors))
    match = match_ssd(tensor(truths), tensor(priors))
    for t in range(len(truths)):
        if t not in match.tolist():  # then all it overlaps answer for others
            assert (match[overlap[t] > 0] >= 0).all()


def slow_with_all(overlap, inside, threshold, ignore, floor, near):
    """The whole rule of the docstring, one prior at a time, with `bipartite="last"`."""
    truths, aside = np.flatnonzero(~ignore), list(np.flatnonzero(ignore))
    match = []
    for p in range(overlap.shape[1]):
        best = max(truths, key=lambda t: (overlap[t, p], -t), default=None)
        match.append(BACKGROUND if best is None or overlap[best, p] < threshold else int(best))
    for t in truths:
        p = int(overlap[t].argmax())
        if overlap[t, p] > 0 and overlap[t, p] >= floor:
            match[p] = int(t)
        elif floor > 0 and near > 0 and overlap[t, p] < threshold:
            aside.append(t)
    for p, has in enumerate(match):
        in_region = any(ignore[t] and inside[p, t] >= 0.5 for t in aside)
        close = near > 0 and any(overlap[t].max() > 0 and overlap[t, p] >= near * overlap[t].max() for t in aside)
        if has == BACKGROUND and (in_region or close):
            match[p] = IGNORED
    return match


@given(
    rectangles.filter(len), rectangles.filter(len), st.lists(st.booleans(), min_size=12, max_size=12),
    st.sampled_from([0.0, 0.1, 0.2, 0.6]), st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_floor_and_near_equal_the_slow_reference(truths, priors, aside, floor, near):
    ignore = np.array(aside[: len(truths)])
    overlap = pairwise_iou(tensor(truths), tensor(priors)).numpy()
    inside = ioa(np.array(priors, float), np.array(truths, float))
    given_ignore = torch.from_numpy(ignore)
    result = match_ssd(tensor(truths), tensor(priors), 0.35, True, given_ignore, "last", floor, near)
    assert result.tolist() == slow_with_all(overlap, inside, np.float32(0.35), ignore, np.float32(floor), near)


def test_the_floor_counts_itself_and_leaves_alone_what_the_threshold_matched():
    truth, half, less = tensor([(0, 0, 10, 10)]), (0, 0, 10, 20), (0, 0, 10, 32)
    assert match_ssd(truth, tensor([half]), 0.6, bipartite="last", floor=0.5).tolist() == [0]
    assert match_ssd(truth, tensor([half]), 0.6, floor=0.51, near=0.5).tolist() == [IGNORED]
    assert match_ssd(truth, tensor([half, less]), 0.35, floor=0.6, near=0.5).tolist() == [0, BACKGROUND]


def test_a_truth_under_the_floor_takes_nobodys_prior():
    """zisianw's would: its box, claiming last, becomes the target of a prior that another face matched."""
    large, small = (0, 0, 32, 32), (12, 12, 18, 18)
    assert match_ssd(tensor([large, small]), tensor([large]), 0.35, bipartite="last", floor=0.2).tolist() == [0]


@given(rectangles, rectangles)
def test_iou_equals_the_numpy_reference(a, b):
    expected = iou(np.array(a, float).reshape(-1, 4), np.array(b, float).reshape(-1, 4))
    np.testing.assert_allclose(pairwise_iou(tensor(a), tensor(b)).numpy(), expected, atol=1e-6)


def test_two_truths_want_the_same_prior():
    priors = tensor([[0, 0, 10, 10], [8, 8, 30, 30]])
    truths = tensor([[0, 0, 12, 12], [0, 0, 10, 10]])
    assert match_ssd(truths, priors).tolist() == [1, 0]  # the first gets its next best
    assert match_ssd(truths, priors, bipartite="last").tolist() == [1, BACKGROUND]  # the first is left without
    # the other way round the worse one, being last, takes it
    assert match_ssd(truths.flip(0), priors).tolist() == [0, 1]
    assert match_ssd(truths.flip(0), priors, bipartite="last").tolist() == [1, BACKGROUND]


def test_a_truth_below_the_threshold_is_forced_or_left():
    priors, truth = tensor([[0, 0, 100, 100], [100, 0, 200, 100]]), tensor([[10, 10, 20, 20]])
    assert match_ssd(truth, priors).tolist() == [0, BACKGROUND]
    assert match_ssd(truth, priors, force=False).tolist() == [BACKGROUND, BACKGROUND]


def test_equal_priors_the_lower_index_wins():
    priors = tensor([[0, 0, 10, 10]] * 3)
    assert match_ssd(tensor([[0, 0, 20, 20]]), priors).tolist() == [0, BACKGROUND, BACKGROUND]


def test_threshold_counts_itself():
    assert match_ssd(tensor([[0, 0, 10, 5]]), tensor([[0, 0, 10, 10]]), 0.5, force=False).tolist() == [0]


def test_regions_to_ignore():
    priors = tensor([[0, 0, 10, 10], [5, 0, 15, 10], [6, 0, 16, 10], [50, 50, 60, 60]])
    boxes = tensor([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    region = torch.tensor([True, False, False])
    # the positive stays positive, half inside is ignored, 0.4 inside is background, rows are those of `boxes`
    assert match_ssd(boxes, priors, ignore=region).tolist() == [1, IGNORED, BACKGROUND, 2]
    assert match_ssd(boxes[:1], priors, ignore=region[:1]).tolist() == [IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_empty_and_outlying_truths_match_nothing():
    truths = tensor([[5, 5, 5, 9], [9, 9, 3, 3], [500, 500, 510, 510]])
    for kind in ("greedy", "last"):
        assert match_ssd(truths, tensor([[0, 0, 10, 10]]), bipartite=kind).tolist() == [BACKGROUND]


def test_nothing_to_match():
    none, one = torch.zeros(0, 4), tensor([[0, 0, 10, 10]])
    assert match_ssd(none, one).tolist() == [BACKGROUND]
    assert match_ssd(none, one, ignore=torch.zeros(0, dtype=torch.bool)).tolist() == [BACKGROUND]
    assert match_ssd(one, none).tolist() == []
    assert match_ssd(none, none).tolist() == []


@pytest.mark.parametrize("crowded", [False, True])
def test_quick_enough_with_200_truths_and_25_thousand_priors(crowded):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(25_000, 2, generator=generator) * 500
    priors = torch.cat([corners, corners + 10 + torch.rand(25_000, 2, generator=generator) * 90], 1)
    truths = priors[:1].repeat(200, 1) if crowded else priors[:200]
    start = time.process_time()
    match = match_ssd(truths, priors)
    assert time.process_time() - start < 3  # about 0.1 s; ten times that for a slow, shared machine
    assert len(set(match.tolist()) - {BACKGROUND}) == 200


@given(rectangles, rectangles, st.floats(0.05, 1))
def test_priors_near_an_ignored_object_are_ignored_unless_they_have_a_truth(rows, aside, near):
    priors = tensor([(x, y, x + 16, y + 16) for x in range(0, 48, 8) for y in range(0, 48, 8)])
    boxes = tensor([*rows, *aside])
    ignore = torch.arange(len(boxes)) >= len(rows)
    match = match_ssd(boxes, priors, 0.35, ignore=ignore, near=near)
    alone = match_ssd(tensor(rows), priors, 0.35)
    assert torch.equal(match[match >= 0], alone[alone >= 0])
    overlap = pairwise_iou(tensor(aside), priors)
    best = overlap.amax(1, keepdim=True) if len(aside) else overlap
    expected = ((overlap >= near * best) & (best > 0)).any(0) & (alone == BACKGROUND)
    assert (match[expected] == IGNORED).all()
    if near >= 0.5:
        inside = (match == IGNORED) & ~expected
        assert all(
            iou(priors[i : i + 1].double().numpy(), np.array(aside, float)).max() > 0 for i in torch.nonzero(inside)
        )


@given(rectangles, st.floats(0.01, 1))
def test_a_floor_forces_no_pair_below_it(rows, floor):
    priors = tensor([(x, y, x + 16, y + 16) for x in range(0, 48, 8) for y in range(0, 48, 8)])
    boxes = tensor(rows)
    match = match_ssd(boxes, priors, 0.35, floor=floor)
    overlap = pairwise_iou(boxes, priors)
    for prior in torch.nonzero(match >= 0).flatten().tolist():
        assert overlap[match[prior], prior] >= min(floor, 0.35)
    answered = set(match[match >= 0].tolist())
    forced = set(match_ssd(boxes, priors, 0.35)[match_ssd(boxes, priors, 0.35) >= 0].tolist())
    assert answered <= forced


def test_overlaps_of_a_crowd_are_made_in_parts_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + torch.rand(40, 2, generator=generator) * 20], 1)
    whole = pairwise_iou(boxes, boxes[:7])
    monkeypatch.setattr("onestage.boxes.matching._AT_ONCE", 30)
    assert torch.equal(pairwise_iou(boxes, boxes[:7]), whole)
