"""Offsets: by hand, there and back, and never infinite."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.coding import MAX_GROWTH, MIN_SIDE, decode, encode, to_corners

side = st.floats(1, 600, width=32)
place = st.floats(-50, 650, width=32)
box = st.tuples(place, place, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
prior = st.tuples(place, place, st.floats(10, 600, width=32), st.floats(10, 600, width=32))


def test_by_hand():
    offsets = encode(torch.tensor([[10.0, 20, 50, 40]]), torch.tensor([[40.0, 20, 20, 20]]))
    expected = [[(30 - 40) / 20 / 0.1, (30 - 20) / 20 / 0.1, math.log(2) / 0.2, 0.0]]
    torch.testing.assert_close(offsets, torch.tensor(expected))


def test_a_prior_that_is_the_box_has_offsets_zero():
    priors = torch.tensor([[40.0, 20, 20, 10]])
    torch.testing.assert_close(encode(to_corners(priors), priors), torch.zeros(1, 4))
    torch.testing.assert_close(decode(torch.zeros(1, 4), priors), to_corners(priors))


@given(st.lists(st.tuples(box, prior), min_size=1, max_size=20))
def test_decode_undoes_encode(pairs):
    boxes = torch.tensor([b for b, _ in pairs], dtype=torch.float64)
    priors = torch.tensor([p for _, p in pairs], dtype=torch.float64)
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, rtol=1e-9, atol=1e-6)


@given(st.lists(st.tuples(prior, *[st.floats(-10, 10, width=32)] * 4), min_size=1, max_size=20))
def test_encode_undoes_decode(rows):
    priors = torch.tensor([row[0] for row in rows], dtype=torch.float64)
    offsets = torch.tensor([row[1:] for row in rows], dtype=torch.float64)
    torch.testing.assert_close(encode(decode(offsets, priors), priors), offsets, rtol=1e-6, atol=1e-6)


def test_empty_and_inverted_boxes_encode_to_finite_offsets():
    priors = torch.tensor([[40.0, 20, 20, 10]]).repeat(2, 1)
    offsets = encode(torch.tensor([[5.0, 5, 5, 5], [9.0, 9, 3, 3]]), priors)
    assert torch.isfinite(offsets).all()
    torch.testing.assert_close(offsets[:, 2], torch.full((2,), math.log(MIN_SIDE / 20) / 0.2))


def test_decode_is_bounded_and_its_gradient_finite():
    offsets = torch.tensor([[0.0, 0, 1e4, -1e4], [0.0, 0, 1e30, -1e30]], requires_grad=True)
    boxes = decode(offsets, torch.tensor([[40.0, 20, 20, 10]]).repeat(2, 1))
    torch.testing.assert_close((boxes[:, 2] - boxes[:, 0]).detach(), torch.full((2,), 20 * MAX_GROWTH))
    boxes.sum().backward()
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(offsets.grad).all()


def test_half_precision_offsets_decode_in_the_precision_of_the_priors():
    priors = torch.tensor([[400.3, 20, 20, 10]])
    assert decode(torch.zeros(1, 4, dtype=torch.bfloat16), priors).dtype == torch.float32


def test_no_boxes():
    none = torch.zeros(0, 4)
    assert encode(none, none).shape == (0, 4)
    assert decode(none, none).shape == (0, 4)
    assert decode(torch.zeros(2, 0, 4), none).shape == (2, 0, 4)
