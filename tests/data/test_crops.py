from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes import geometry
from onestage.data.crops import expanded, overlapping_crop

CANVAS = (-20.0, -10.0, 280.0, 190.0)
BOXES = np.array([[20.0, 10.0, 240.0, 160.0], [150.0, 30.0, 170.0, 60.0]])


class OneWay:
    """A generator that always picks the same condition."""

    def __init__(self, way: int, seed: int) -> None:
        self.way, self.rng = way, np.random.default_rng(seed)

    def integers(self, _n: int) -> int:
        return self.way

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        return self.rng.random(shape)


@given(st.integers(0, 2**32), st.integers(1, 900), st.integers(1, 900))
def test_expanded_canvas_holds_the_image(seed: int, width: int, height: int) -> None:
    x0, y0, x1, y1 = expanded(width, height, (1.0, 4.0), np.random.default_rng(seed))
    assert x0 <= 0
    assert y0 <= 0
    assert x1 >= width - 1e-9
    assert y1 >= height - 1e-9
    assert (x1 - x0) / width == pytest.approx((y1 - y0) / height)
    assert 1 - 1e-9 <= (x1 - x0) / width <= 4


@pytest.mark.parametrize("way", range(1, 7))
def test_every_condition_is_met(way: int) -> None:
    least = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 0)[way]
    crops = 0
    for seed in range(60):
        window = overlapping_crop(BOXES, CANVAS, OneWay(way, seed), rounds=2)  # type: ignore[arg-type]
        if window == CANVAS:
            continue
        crops += 1
        x0, y0, x1, y1 = window
        assert CANVAS[0] <= x0 < x1 <= CANVAS[2]
        assert CANVAS[1] <= y0 < y1 <= CANVAS[3]
        assert 0.5 <= (y1 - y0) / (x1 - x0) <= 2
        assert x1 - x0 >= 0.3 * 300 - 1e-9
        assert y1 - y0 >= 0.3 * 200 - 1e-9
        assert geometry.iou(BOXES, np.array([window])).max() >= least
        centres = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        assert ((centres >= (x0, y0)) & (centres < (x1, y1))).all(1).any()
    assert crops >= (2 if least == 0.9 else 40)


def test_whole_and_hopeless_give_the_canvas() -> None:
    assert overlapping_crop(BOXES, CANVAS, OneWay(0, 0)) == CANVAS  # type: ignore[arg-type]
    speck = np.array([[10.0, 10.0, 11.0, 11.0]])
    assert overlapping_crop(speck, CANVAS, OneWay(5, 0), rounds=3) == CANVAS  # type: ignore[arg-type]


def test_all_seven_ways_come_and_no_boxes_means_free_crops() -> None:
    none = np.zeros((0, 4))
    whole = sum(overlapping_crop(none, CANVAS, np.random.default_rng(seed)) == CANVAS for seed in range(700))
    assert 70 <= whole <= 130  # one way in seven


def loop(boxes: np.ndarray, rng: np.random.Generator) -> tuple[float, ...]:
    """The same rule in the order the paper tells it, one try after another."""
    x0, y0, x1, y1 = CANVAS
    while True:
        least = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)[rng.integers(7)]
        if least is None:
            return CANVAS
        for _ in range(50):
            w, h = rng.uniform(0.3, 1) * (x1 - x0), rng.uniform(0.3, 1) * (y1 - y0)
            if not 0.5 <= h / w <= 2:
                continue
            left, top = x0 + rng.uniform(0, x1 - x0 - w), y0 + rng.uniform(0, y1 - y0 - h)
            window = np.array([[left, top, left + w, top + h]])
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centres >= window[0, :2]) & (centres < window[0, 2:])).all(1).any()
            if inside and geometry.iou(boxes, window).max() >= least:
                return tuple(window[0])


def test_windows_are_distributed_as_by_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    ours = np.array([overlapping_crop(BOXES, CANVAS, rng) for _ in range(1500)])
    theirs = np.array([loop(BOXES, rng) for _ in range(1500)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 1500)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)
