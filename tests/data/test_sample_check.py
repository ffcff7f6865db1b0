"""Samples against their images: what every policy makes agrees, what is moved behind its back is seen to be astray."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from onestage.data.augment import POLICIES, augmentation
from onestage.data.sample_check import Alignment, alignment
from onestage.records import Annotations, ImageTransform


def scenery(seed: int, width: int = 180, height: int = 130) -> np.ndarray:
    """A picture with things of several sizes on it, no two alike."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        x, y = (int(v) for v in rng.integers(0, (width, height)))
        colour = tuple(int(v) for v in rng.integers(0, 255, 3))
        cv2.ellipse(
            image, (x, y), tuple(int(v) for v in rng.integers(3, 30, 2)), int(rng.integers(180)), 0, 360, colour, -1
        )
    return np.asarray(image, np.uint8)


PICTURES = [scenery(seed) for seed in range(10)]


def magnified(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    scale, (x, y) = rng.uniform(1.0, 2.5), rng.uniform(-0.1, 0.1, 2) * (width, height)
    matrix = np.array([[scale, 0, (1 - scale) * width / 2 + x], [0, scale, (1 - scale) * height / 2 + y]])
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)), np.uint8)


def found(name: str, change: Any = None, **options: Any) -> list[Alignment]:
    policy, result = augmentation(name, **options), []
    for seed, image in enumerate(PICTURES):
        rng = np.random.default_rng(seed)
        others = lambda chance: (PICTURES[int(chance.integers(len(PICTURES)))], Annotations.empty())  # noqa: E731
        sample = policy(image, Annotations.empty(), rng, (128, 96), others)
        one = alignment(image, sample.image if change is None else change(sample.image, rng), sample.transform)
        result += [one] if one is not None else []  # a sample may show next to nothing of its image
    return result


OWN = [(name, {}) for name in POLICIES] + [
    ("zoom", {"transpose": 0.5, "upside_down": 0.5}),
    ("darknet", {"crop": True}),
]


@pytest.mark.parametrize(("name", "options"), OWN, ids=str)
def test_what_a_policy_makes_is_never_astray(name: str, options: dict[str, Any]) -> None:
    all_found = found(name, **options)
    assert not any(one.astray for one in all_found)
    assert sum(one.agrees for one in all_found) >= (4 if name == "mosaic" else 9)


@pytest.mark.parametrize("name", ["none", "zoom", "ssd", "darknet"])
def test_an_affine_map_of_pixels_alone_is_astray(name: str) -> None:
    assert sum(one.astray for one in found(name, magnified)) >= 5


def test_a_mirror_of_pixels_alone_is_called_one() -> None:
    all_found = found("none", lambda image, _: np.ascontiguousarray(image[:, ::-1]))
    assert sum(one.astray and one.mirrored for one in all_found) >= 8
    assert "mirrored" in all_found[0].way()


def test_scale_and_shift_are_told_as_they_were() -> None:
    matrix = np.array([[1.5, 0, -0.25 * 128 + 12], [0, 1.5, -0.25 * 96 - 6]])
    one = found("none", lambda image, _: np.asarray(cv2.warpAffine(image, matrix, (128, 96)), np.uint8))[0]
    assert one.astray
    assert one.scale == pytest.approx(1.5, rel=0.08)
    assert one.shift == pytest.approx((12, -6), abs=4)
    assert "times as large" in one.way()


def test_an_even_picture_says_nothing() -> None:
    even = np.full((40, 60, 3), 90, np.uint8)
    assert alignment(even, even, ImageTransform()) is None
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert not alignment(even, noise, ImageTransform()) or not alignment(even, noise, ImageTransform()).astray  # type: ignore[union-attr]
