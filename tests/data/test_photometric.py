from __future__ import annotations

import cv2
import numpy as np
import pytest

from onestage.data.photometric import Photometric

STILL = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0, "channel_swap": False}


def colours(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)


def only(image: np.ndarray, seed: int = 0, **changed: object) -> np.ndarray:
    return Photometric(**{**STILL, "probability": 1.0, **changed})(image, np.random.default_rng(seed))


def test_probability_zero_changes_nothing() -> None:
    out = Photometric(probability=0.0)(colours(), np.random.default_rng(1))
    np.testing.assert_array_equal(out, colours())


@pytest.mark.parametrize("seed", range(4))  # first or last of all, it is the same here
def test_contrast_multiplies_and_clips(seed: int) -> None:
    out = only(colours(), seed, contrast=(1.5, 1.5)).astype(int)
    np.testing.assert_array_equal(out, np.clip(np.rint(colours() * 1.5), 0, 255))


def test_saturation_zero_is_grey_at_the_largest_channel() -> None:
    out = only(colours(), saturation=(0.0, 0.0))
    np.testing.assert_array_equal(out, np.repeat(colours().max(2, keepdims=True), 3, 2))


def test_brightness_shifts_all_alike() -> None:
    middle = (colours() // 2 + 64).astype(np.uint8)
    shifts = []
    for seed in range(20):
        difference = only(middle, seed, brightness=32.0).astype(int) - middle
        assert np.ptp(difference) == 0
        shifts.append(np.median(difference))
    assert -32 <= min(shifts) < -10
    assert 10 < max(shifts) <= 32


def test_hue_turns_and_keeps_value_and_saturation() -> None:
    vivid = cv2.cvtColor(np.dstack([np.arange(256), [220] * 256, [200] * 256]).astype(np.uint8), cv2.COLOR_HSV2RGB_FULL)
    turns = []
    for seed in range(20):
        out = cv2.cvtColor(only(vivid, seed, hue=36.0), cv2.COLOR_RGB2HSV_FULL).astype(int)
        before = cv2.cvtColor(vivid, cv2.COLOR_RGB2HSV_FULL).astype(int)
        assert np.abs(out - before)[:, :, 1:].max() <= 4
        turned = (out - before)[:, :, 0] % 256
        turns.append((np.median(turned) + 128) % 256 - 128)
    assert -26 <= min(turns) < -8
    assert 8 < max(turns) <= 26


def test_channel_swap_reorders_and_every_order_comes() -> None:
    seen = set()
    for seed in range(60):
        out = only(colours(), seed, channel_swap=True)
        orders = [
            order
            for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
            if (out == colours()[:, :, order]).all()
        ]
        assert len(orders) == 1
        seen.add(orders[0])
    assert len(seen) == 6


def test_near_the_float_pipeline() -> None:
    """Saturation and contrast by OpenCV in float32, as lufficc/SSD has them, on a soft image without clipping."""
    soft = cv2.GaussianBlur(colours(), (0, 0), 3)
    hsv = cv2.cvtColor(soft.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 1] *= 0.7
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 0.8
    for seed in range(4):
        out = only(soft, seed, saturation=(0.7, 0.7), contrast=(0.8, 0.8)).astype(float)
        assert np.abs(out - expected).max() < 4
        assert np.abs(out - expected).mean() < 1


def test_the_input_is_left_alone_and_draws_do_not_depend_on_it() -> None:
    image, one, other = colours(), np.random.default_rng(3), np.random.default_rng(3)
    Photometric()(image, one)
    np.testing.assert_array_equal(image, colours())
    Photometric()(np.zeros((1, 1, 3), np.uint8), other)
    assert one.random() == other.random()


def test_bad_ranges_are_refused() -> None:
    for bad in (
        {"darken": 1.1},
        {"contrast": (1.5, 0.5)},
        {"saturation": (-1.0, 1.0)},
        {"probability": 1.5},
        {"hue": 200.0},
    ):
        with pytest.raises(ValueError, match="expected"):
            Photometric(**bad)


def test_darkening_is_that_of_the_diary_and_off_by_default() -> None:
    """lxg2015/faceboxes, dataset.py: alpha of 0 … 1, where above .3 times alpha and -16 … 15 added."""
    policy, grey = Photometric(**{**STILL, "probability": 0.0, "darken": 0.7}), np.full((1, 2, 3), 200, np.uint8)
    grey[0, 1] = 100
    seen = np.array([policy(grey, np.random.default_rng(seed))[0, :, 0] for seed in range(3000)]).astype(float)
    changed = seen[:, 0] != 200
    assert abs(changed.mean() - 0.7) < 0.03
    factor = (seen[changed, 0] - seen[changed, 1]) / 100  # what is added is the same for both
    level = seen[changed, 0] - 200 * factor
    assert abs(factor.mean() - 0.65) < 0.015
    assert 0.28 <= factor.min() < 0.33 < 0.97 < factor.max() <= 1.01
    assert -18 <= level.min() < -14
    assert 13 < level.max() <= 17
    assert Photometric().darken == 0


def test_nothing_is_drawn_for_darkening_where_it_is_off() -> None:
    rngs = [np.random.default_rng(3) for _ in range(2)]
    Photometric()(colours(), rngs[0])
    rngs[1].random(5)
    rngs[1].uniform(size=4)
    rngs[1].random()
    rngs[1].integers(6)
    assert rngs[0].random() == rngs[1].random()
