"""Whether a training sample shows its image where its boxes are, told by the image's own edges."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from onestage.data.images import Pixels
from onestage.records import FloatArray, ImageTransform

SIDE = 64
"""Pixels of the longer side at which image and sample are compared."""

_SCALES = tuple(float(scale) for scale in np.exp(np.arange(-8, 11) * math.log(1.1)))  # 0.47 … 2.6
_REACH = 0.3  # shifts looked at, as a share of the side
_NEAR = 2  # pixels of SIDE by which a place may miss
_SOFT = 1.2  # sigma of the blur that makes up for the steps between scales
_CLEAR = 0.6  # so alike that no other place needs to be tried
_BEYOND = 1.15  # an unlike scale


class Alignment(NamedTuple):
    """How alike a sample and its image are (-1 … 1): at the place told, and at the best place found.

    `scale`, `shift` (x, y, pixels of the sample) and `mirrored` say how the picture lies there against what was told.
    """

    told: float
    best: float
    scale: float
    shift: tuple[float, float]
    mirrored: bool

    @property
    def astray(self) -> bool:
        """Whether the image is plainly to be seen, and plainly elsewhere."""
        return self.best >= 0.5 and self.told <= self.best - 0.25

    @property
    def agrees(self) -> bool:
        """Whether the image is to be seen where it should."""
        return self.told >= 0.4 and not self.astray

    def way(self) -> str:
        """Where the picture lies against its boxes, in words."""
        told = [f"{self.scale:.2g} times as large"] * (abs(math.log(self.scale)) > 0.05)
        told += ["mirrored"] * self.mirrored
        x, y = (round(value) for value in self.shift)
        told += [f"{x:+d}, {y:+d} pixels away"] * bool(x or y)
        return ", ".join(told) or "elsewhere"


def alignment(image: Pixels, shown: Pixels, transform: ImageTransform) -> Alignment | None:
    """Compare a sample `shown` (H, W, 3) with its `image` as read, RGB uint8; None where there is nothing to compare.

    Edges are compared, which survive changes of colour, at 64 pixels: with the image brought to the sample by
    `transform`, and by it with another scale (0.47 to 2.6 about the middle), mirrored, and shifted by up to .3 of a
    side. Of a transposed image the transform speaks of the transposed one, which is tried too.
    """
    height, width = shown.shape[:2]
    small = min(1.0, SIDE / max(width, height))
    size = max(8, round(width * small)), max(8, round(height * small))
    ratio = size[0] / width, size[1] / height
    seen = _spectrum(_edges(cv2.resize(shown, size, interpolation=cv2.INTER_AREA)))
    if seen is None:
        return None
    told, best = -1.0, None
    for turned in (cv2.transpose(image), image):
        own = _shrunk(np.asarray(turned, np.uint8), transform, ratio)
        found = _compared(seen, _placed(*own, transform, ratio, size, 1.0, False))
        if found is not None:
            told = max(told, float(found[_near(found.shape)].max()))
    if told >= _CLEAR:
        return Alignment(told, told, 1.0, (0.0, 0.0), False)
    for mirrored in (False, True):
        for scale in _SCALES:
            found = _compared(seen, _placed(*own, transform, ratio, size, scale, mirrored))
            if found is None:
                continue
            place = np.unravel_index(int((found * _within(found.shape)).argmax()), found.shape)
            value = float(found[place])
            if best is None or value > best.best:
                y, x = ((int(at) + side // 2) % side - side // 2 for at, side in zip(place, found.shape, strict=True))
                best = Alignment(told, value, scale, (x / ratio[0], y / ratio[1]), mirrored)
    if best is None:
        return None
    if (
        not best.mirrored
        and 1 / _BEYOND < best.scale < _BEYOND
        and max(abs(best.shift[0]) * ratio[0], abs(best.shift[1]) * ratio[1]) <= 2 * _NEAR
    ):
        return best._replace(told=max(told, best.best))
    return best._replace(best=max(told, best.best))


def _shrunk(image: Pixels, transform: ImageTransform, ratio: tuple[float, float]) -> tuple[Pixels, float, float]:
    """The image made about as small as it is to be compared, and by how much, so that nothing is skipped later."""
    height, width = image.shape[:2]
    wide = min(width, max(4, math.ceil(2 * width * abs(transform.scale_x) * ratio[0])))
    high = min(height, max(4, math.ceil(2 * height * abs(transform.scale_y) * ratio[1])))
    return (
        np.asarray(cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA), np.uint8),
        wide / width,
        high / height,
    )


def _placed(
    image: Pixels, by_x: float, by_y: float, transform: ImageTransform, ratio: tuple[float, float],
    size: tuple[int, int], scale: float, mirrored: bool,
) -> FloatArray:  # fmt: skip
    """Edges (H, W) of the image as the transform shows it, magnified about the middle, mirrored."""
    x, y = transform.scale_x * ratio[0] * scale / by_x, transform.scale_y * ratio[1] * scale / by_y
    left = (transform.pad_x * ratio[0] - size[0] / 2) * scale + size[0] / 2
    top = (transform.pad_y * ratio[1] - size[1] / 2) * scale + size[1] / 2
    if mirrored:
        x, left = -x, size[0] - left
    # OpenCV counts from the middle of the first pixel, we from its corner.
    matrix = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(image.shape[:2], np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    return _edges(moved) * (np.asarray(inside) > 0.99)


def _edges(image: np.ndarray) -> FloatArray:
    """How much the colours change about each pixel (H, W), somewhat blurred."""
    pixels = np.asarray(image, np.float32)
    across, down = cv2.Sobel(pixels, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(pixels, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.sqrt(np.hypot(across, down).max(2))  # of the root, so that few strong edges do not decide alone
    return np.asarray(cv2.GaussianBlur(strength, (0, 0), _SOFT), np.float64)


def _spectrum(edges: FloatArray) -> np.ndarray | None:
    """The Fourier transform of edges about their mean, of length 1; None where all is even."""
    apart = edges - edges.mean()
    length = math.sqrt(float((apart**2).sum()))
    return None if length < 1e-3 * edges.size else np.fft.rfft2(apart / length, _padded(edges.shape))


def _compared(seen: np.ndarray, edges: FloatArray) -> FloatArray | None:
    """Correlation for every shift (circular, of the padded extent); None where there is nothing to compare."""
    other = _spectrum(edges)
    return None if other is None else np.fft.irfft2(seen * np.conj(other), _padded(edges.shape))


def _padded(shape: tuple[int, ...]) -> tuple[int, int]:
    return 2 * shape[0], 2 * shape[1]


@lru_cache(maxsize=16)
def _within(shape: tuple[int, int]) -> FloatArray:
    """1 for the shifts that are looked at, 0 elsewhere."""
    return _reach(shape, tuple(round(side / 2 * _REACH) for side in shape))


@lru_cache(maxsize=16)
def _near(shape: tuple[int, int]) -> np.ndarray:
    return _reach(shape, (_NEAR, _NEAR)) > 0


def _reach(shape: tuple[int, int], most: tuple[int, ...]) -> FloatArray:
    rows, columns = (
        np.minimum(np.arange(side), side - np.arange(side)) <= far for side, far in zip(shape, most, strict=True)
    )
    return (rows[:, None] & columns).astype(np.float64)
