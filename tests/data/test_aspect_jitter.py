"""Darknet's augmentation against its formulas: where the image lies, where the boxes go, what becomes of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.aspect_jitter import GREY, AspectJitter
from onestage.data.augment import Mosaic, augmentation, calm, with_fit
from onestage.data.photometric import exposed
from onestage.data.policy import Policy
from onestage.errors import RecipeError
from onestage.records import Annotations

PLAIN = {"hue": 0.0, "saturation": 1.0, "exposure": 1.0}
SHARE = st.floats(0, 0.999)


def darknet_box(shape, net, draws, box, jitter=0.3, flip=False):
    """Corners of a box as load_data_detection and fill_truth_detection of darknet's data.c reckon them.

    `draws` are what its four calls of rand_uniform take from 0 … 1. `box` is (cx, cy, w, h) in shares of the image.
    """
    (ow, oh), (w, h) = shape, net
    aspect = (ow + jitter * ow * (2 * draws[0] - 1)) / (oh + jitter * oh * (2 * draws[1] - 1))
    nw, nh = (h * aspect, h) if aspect < 1 else (w, w / aspect)
    dx, dy = draws[2] * (w - nw), draws[3] * (h - nh)
    cx, cy, bw, bh = box
    left, right = ((cx + sign * bw / 2) * nw / w + dx / w for sign in (-1, 1))
    top, bottom = ((cy + sign * bh / 2) * nh / h + dy / h for sign in (-1, 1))
    if flip:
        left, right = 1 - right, 1 - left
    return np.clip([left, top, right, bottom], 0, 1) * [w, h, w, h]


def alexey_box(shape, draws, resized, box, jitter, resize):
    """The same by AlexeyAB's crop: four draws for the sides, two for `resize`; corners in shares of the input."""
    found = []
    for extent, (low, high), place in ((shape[0], draws[:2], 0), (shape[1], draws[2:], 1)):
        outer, inner = extent * (1 - resize) / 2, extent * (1 - 1 / resize) / 2
        start, end = (
            jitter * extent * (2 * draw - 1) + outer + (inner - outer) * more
            for draw, more in ((low, resized[0]), (high, resized[1]))
        )
        scale = (extent - start - end) / extent
        half = box[place + 2] / 2
        found.append([np.clip((box[place] + sign * half) / scale - start / extent / scale, 0, 1) for sign in (-1, 1)])
    return np.array(found).T.ravel()


def corners(shape, box):
    cx, cy, w, h = box
    return np.array(
        [[(cx - w / 2) * shape[0], (cy - h / 2) * shape[1], (cx + w / 2) * shape[0], (cy + h / 2) * shape[1]]]
    )


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(40, 900), st.integers(40, 900)),
    st.sampled_from([(416, 416), (608, 608), (160, 96), (96, 160)]),
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
)
def test_the_same_draws_put_a_box_where_darknet_puts_it(shape, net, seed, box) -> None:
    image = np.zeros((shape[1], shape[0], 3), np.uint8)
    truth = Annotations(corners(shape, box), [0])
    draws = np.random.default_rng(seed).random(8)
    sample = augmentation("darknet")(image, truth, np.random.default_rng(seed), net)
    expected = darknet_box(shape, net, draws, box, flip=sample.transform.scale_x < 0)
    sides = expected[2:] - expected[:2]
    if sides.min() < 2:
        return  # what is cut away to nothing within the rounding of ours
    assert len(sample.annotations) == 1
    # Ours rounds the edges of the image to whole pixels, so that the transform is exact: within a pixel of theirs.
    assert np.abs(sample.annotations.boxes[0] - expected).max() <= 1.0 + max(net) / min(shape)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(200, 900), st.integers(200, 900)), st.lists(SHARE, min_size=8, max_size=8),
    st.sampled_from([1.0, 1.5]), st.tuples(*[st.floats(0.3, 0.7)] * 2, *[st.floats(0.05, 0.3)] * 2),
)  # fmt: skip
def test_the_crop_is_that_of_alexey(shape, draws, resize, box) -> None:
    policy = AspectJitter(jitter=0.2, crop=True, resize=resize, fit="squash")
    x0, y0, x1, y1 = policy.cropped(shape, (416, 416), (416, 416), 1.0, np.array(draws))
    left, top, right, bottom = corners(shape, box)[0]
    ours = np.array(
        [(left - x0) / (x1 - x0), (top - y0) / (y1 - y0), (right - x0) / (x1 - x0), (bottom - y0) / (y1 - y0)]
    )
    order = np.array(draws)[[0, 2, 1, 3]]  # ours draws left, top, right, bottom; theirs left, right, top, bottom
    theirs = alexey_box(shape, order, draws[4:6], box, 0.2, resize)
    assert np.allclose(np.clip(ours, 0, 1), theirs, atol=1e-9)


def test_the_letterbox_of_a_crop_keeps_the_proportions_of_the_image() -> None:
    policy = AspectJitter(jitter=0.0, crop=True)
    x0, y0, x1, y1 = policy.cropped((300, 100), (64, 64), (64, 64), 1.0, np.full(8, 0.5))
    assert (x0, y0, x1, y1) == pytest.approx((0, -100, 300, 200))


def test_placement_is_spread_as_darknets() -> None:
    rng = np.random.default_rng(0)
    policy, found = AspectJitter(), []
    for _ in range(4000):
        x0, y0, x1, y1 = policy.placed((640, 480), (416, 416), (416, 416), 1.0, rng.random(8))
        across, down = 416 / (x1 - x0) * 640, 416 / (y1 - y0) * 480
        free = (416 - across) + (416 - down)
        found.append((across / down, max(across, down), (-x0 / (x1 - x0) - y0 / (y1 - y0)) * 416 / free, free >= 0))
    aspect, longest, place, fits = np.array(found).T
    assert fits.all()
    assert longest == pytest.approx(416)
    assert place.min() < 0.01
    assert place.max() > 0.99
    assert np.histogram(place, 10, (0, 1))[0] == pytest.approx(np.full(10, 400), abs=90)  # even: 4.5 sigma
    assert aspect.min() > 4 / 3 * 0.7 / 1.3
    assert aspect.max() < 4 / 3 * 1.3 / 0.7
    # E[(1 + a) / (1 + b)] with a, b even in ±.3 is ln(1.3 / .7) / .6 = 1.03173
    assert aspect.mean() == pytest.approx(4 / 3 * 1.03173, abs=0.015)


def darknet_colours(image, hue, saturation, exposure):
    """image.c: to HSV with H in 0 … 1, H moved and wrapped, S and V multiplied, back, cut to 0 … 1; grey levels."""
    rgb = image.astype(np.float64) / 255
    value, spread = rgb.max(-1), np.ptp(rgb, -1)
    r, g, b = np.moveaxis(rgb, -1, 0)
    safe = np.where(spread > 0, spread, 1)
    sixth = np.where(r == value, (g - b) / safe, np.where(g == value, 2 + (b - r) / safe, 4 + (r - g) / safe)) % 6
    sat = np.where(value > 0, spread / np.where(value > 0, value, 1), 0) * saturation
    value = value * exposure
    sixth = (sixth + 6 * hue) % 6
    index, part = np.floor(sixth).astype(int) % 6, sixth % 1
    p, q, t = value * (1 - sat), value * (1 - sat * part), value * (1 - sat * (1 - part))
    red = np.choose(index, [value, q, p, p, t, value])
    green = np.choose(index, [t, value, value, q, p, p])
    blue = np.choose(index, [p, p, t, value, value, q])
    return np.clip(np.stack([red, green, blue], -1), 0, 1) * 255


@pytest.mark.parametrize(("saturation", "exposure"), [(1.5, 1.5), (1 / 1.5, 1.5), (1.5, 1 / 1.5), (1.2, 0.8), (1, 1)])
def test_saturation_and_exposure_are_darknets_to_half_a_level(saturation: float, exposure: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    apart = np.abs(exposed(image, 0.0, saturation, exposure) - darknet_colours(image, 0.0, saturation, exposure))
    assert apart.max() <= 0.5 + 1e-9


@pytest.mark.parametrize("turn", [-0.1, -0.0033, 0.0517, 0.1])
@pytest.mark.parametrize(("saturation", "exposure"), [(1.0, 1.0), (1.5, 1.5), (1 / 1.5, 1 / 1.5)])
def test_hue_is_darknets_to_some_levels(turn: float, saturation: float, exposure: float) -> None:
    image = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    theirs = darknet_colours(image, turn, saturation, exposure)
    apart = np.abs(exposed(image, turn, saturation, exposure) - theirs)
    gain = saturation * exposure
    assert apart.mean() < 0.5 * max(gain, 1)
    assert apart.max() < 8 * max(gain, 1)


def test_a_bright_colour_keeps_its_hue_where_exposure_goes_beyond_white() -> None:
    image = np.full((1, 1, 3), (200, 100, 0), np.uint8)
    assert exposed(image, 0.0, 1.0, 1.5)[0, 0].tolist() == [255, 150, 0]  # HSV cut at 1 would give 128


def test_a_grey_picture_knows_no_hue_and_no_saturation() -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)
    assert np.array_equal(exposed(image, 0.1, 1.5, 1.0), image)


def test_draws_of_colours_lie_in_darknets_ranges_up_as_often_as_down() -> None:
    rng = np.random.default_rng(3)
    turn, vivid, bright = np.array([AspectJitter()._colours(rng) for _ in range(4000)]).T
    assert np.abs(turn).max() <= 0.1
    assert turn.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.05)
    for factor in (vivid, bright):
        assert (factor.min(), factor.max()) == (pytest.approx(1 / 1.5, rel=0.01), pytest.approx(1.5, rel=0.01))
        assert (factor > 1).mean() == pytest.approx(0.5, abs=0.04)
        up = np.maximum(factor, 1 / factor)
        assert up.mean() == pytest.approx(1.25, abs=0.01)  # even in 1 … 1.5, then taken or its inverse


def test_the_ground_is_grey_and_changes_with_the_exposure() -> None:
    image, seen = np.full((100, 300, 3), 127, np.uint8), set()
    for seed in range(30):
        sample = augmentation("darknet")(image, Annotations.empty(), np.random.default_rng(seed), (96, 96))
        assert (sample.image == sample.image[0, 0]).all()  # the picture has the ground's own colour
        seen.add(int(sample.image[0, 0, 0]))
    assert min(seen) < 95
    assert max(seen) > 170
    plain = augmentation("darknet", **PLAIN)(image, Annotations.empty(), np.random.default_rng(0), (96, 96))
    assert (plain.image == GREY).all()


def test_a_box_of_a_thousandth_stays_and_a_smaller_one_goes() -> None:
    image = np.zeros((500, 500, 3), np.uint8)
    boxes = np.array([[100, 100, 100.6, 120], [100, 100, 100.4, 120]])  # .5 and .33 px wide at 416; .416 is the border
    sample = augmentation("darknet", jitter=0.0, flip=0.0)(
        image, Annotations(boxes, [0, 1]), np.random.default_rng(0), (416, 416)
    )
    assert sample.annotations.labels.tolist() == [0]


def test_squash_stretches_first_and_jitters_then() -> None:
    policy = with_fit(augmentation("darknet", jitter=0.0, flip=0.0), "squash")
    image, truth = np.zeros((50, 200, 3), np.uint8), Annotations(np.array([[0.0, 0, 200, 50]]), [0])
    sample = policy(image, truth, np.random.default_rng(0), (96, 64))
    # aspect 96 / 64 is wide: as wide as the input, and as high.
    assert sample.annotations.boxes.tolist() == [[0, 0, 96, 64]]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"jitter": 1.0}, "jitter"), ({"hue": 0.7}, "hue"), ({"saturation": 0.5}, "saturation"),
     ({"resize": 1.5}, "crop=true"), ({"crop": True, "jitter": 0.4, "resize": 1.5}, "no width left"),
     ({"flip": 2.0}, "flip"), ({"scale": 1.0}, "no such parameter")],
)  # fmt: skip
def test_values_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        augmentation("darknet", **options)


def mosaic(**options: Any) -> Policy:
    return augmentation("mosaic", probability=1.0, **options)


@pytest.mark.parametrize("zoom", ["darknet", {"policy": "darknet", "jitter": 0.2}, {"policy": "darknet", "crop": True}])
def test_a_mosaic_may_be_of_darknets_pictures(zoom: Any) -> None:
    policy = mosaic(zoom=zoom)
    assert isinstance(policy, Mosaic)
    assert isinstance(policy.zoom, AspectJitter)
    assert calm(policy) is policy.zoom
    assert policy.fit == "letterbox"
    image, truth = np.full((80, 120, 3), 90, np.uint8), Annotations(np.array([[10.0, 10, 60, 60]]), [3])
    for seed in range(20):
        sample = policy(image, truth, np.random.default_rng(seed), (96, 96), lambda _: (image, truth))
        assert sample.image.shape == (96, 96, 3)
        assert 1 <= len(sample.annotations) <= 4
        assert set(sample.annotations.labels) == {3}


def test_an_unknown_policy_within_a_mosaic_is_named() -> None:
    with pytest.raises(RecipeError, match=r"unknown policy 'darkent' \(did you mean 'darknet'\?\)"):
        mosaic(zoom={"policy": "darkent"})
    with pytest.raises(RecipeError, match="jiter"):
        mosaic(zoom={"policy": "darknet", "jiter": 0.2})


def test_a_picture_in_a_mosaic_is_as_large_as_in_a_sample_of_its_own_times_scale() -> None:
    policy = AspectJitter(jitter=0.0, flip=0.0, **PLAIN)
    image = np.zeros((100, 100, 3), np.uint8)
    picture = image, Annotations(np.array([[0.0, 0, 100, 100]]), [0])
    for scale in (0.25, 0.5):
        sample = policy.part(picture, np.random.default_rng(0), (128, 128), (64, 80), (scale, scale))
        x0, y0, x1, y1 = sample.annotations.boxes[0]
        assert (x1 - x0, y1 - y0) == (128 * scale, 128 * scale)
