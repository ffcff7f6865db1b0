"""Decoding pictures as a viewer shows them, and windows onto them at the network's size."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onestage.data.orientation import TIFF_HEADS, orientation_tag
from onestage.errors import DataError
from onestage.records import ImageTransform

if "OPENCV_LOG_LEVEL" not in os.environ:  # its remarks name no file; what fails comes out as a DataError that does
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Size = tuple[int, int]
Window = tuple[float, float, float, float]
Fit = Literal["squash", "letterbox", "native"]

MEAN_COLOUR: Colour = (123, 117, 104)
"""The mean colour of ImageNet, RGB: what fills ground that no image covers, near zero once normalised."""

LARGEST = 2**28
"""Pixels of the largest image that is shown to a network at its own size."""

_FIT_HOW = ("squash", "letterbox", "native")


def decode(source: Path | str | bytes, name: str | None = None) -> Pixels:
    """An image file, or its bytes, as RGB uint8 (H, W, 3), the way a viewer shows it.

    Grey and palette images become RGB. 16 bits are scaled by 1/257, so that 65535 is 255. CMYK is read as browsers
    read it, inks inverted as Adobe writes them. Transparent parts are laid on white. The orientation of EXIF (JPEG,
    PNG, WebP, TIFF) is applied, so width and height are those a viewer would tell. Of several frames the first counts.

    `name` is what an error calls the image; a path names itself. Raises DataError when the file is missing, empty,
    cut short, of an unknown kind, or of a depth other than 8 or 16 bits.
    """
    label = name or ("image bytes" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {label}: {error.strerror or error}") from None
    if not data:
        raise DataError(f"cannot decode image {label}: the file is empty")
    tag = orientation_tag(data)
    turn = 1 if tag is None else tag[1]
    if tag is not None and data[:4] in TIFF_HEADS:
        position = tag[0]  # OpenCV would half apply it to a TIFF file: we take it away, then it is ours alone
        data = data[:position] + struct.pack(TIFF_HEADS[data[:4]] + "H", 1) + data[position + 2 :]
    if data[:2] == b"\xff\xd8":  # JPEG is the hot path: always 8 bits, never transparent
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = np.asarray(_imdecode(data, flags, label), np.uint8)
    else:
        image = _opaque_rgb(_imdecode(data, cv2.IMREAD_UNCHANGED, label), label)
    return image if turn == 1 else _turned(image, turn)


def view(
    image: Pixels,
    window: Window,
    size: Size,
    fill: Colour = MEAN_COLOUR,
    *,
    mirror: bool = False,
    upside_down: bool = False,
    paint: Callable[[Pixels], Pixels] | None = None,
) -> tuple[Pixels, ImageTransform]:
    """What a window onto the image shows, at `size` (width, height): pixels (H, W, 3) and how they came there.

    `window` is xyxy in pixels of the image and may leave it; ground outside is filled (of a window wholly beside the
    image one pixel still shows the nearest of it, so that a transform exists). `paint` changes the colours of
    the part that shows the image, after resizing. Of a mirrored view the transform has a negative `scale_x`, of one
    turned upside down a negative `scale_y`: `to_net` then gives boxes with these two edges swapped.

    The window is rounded to whole pixels of source and result, and the transform is made from the rounded numbers: so
    it tells where each pixel lies exactly, whatever was asked for. Images shrunk to half or less are averaged over
    areas, else interpolated.
    """
    width, height = size
    x0, x1, left, right = across = _span(window[0], window[2], image.shape[1], width)
    y0, y1, top, bottom = down = _span(window[1], window[3], image.shape[0], height)
    part = _resized(image[y0:y1, x0:x1], (right - left, bottom - top))
    if paint is not None:
        part = paint(part)
    if part.shape[:2] == (height, width):
        shown = part
    else:
        shown = _blank(size, fill).copy()
        shown[top:bottom, left:right] = part
    (scale_x, pad_x), (scale_y, pad_y) = _scale_and_pad(across), _scale_and_pad(down)
    if mirror:
        scale_x, pad_x = -scale_x, width - pad_x
    if upside_down:
        scale_y, pad_y = -scale_y, height - pad_y
    if mirror or upside_down:
        shown = np.asarray(cv2.flip(shown, -1 if mirror and upside_down else int(mirror)), np.uint8)
    return shown, ImageTransform(scale_x, scale_y, pad_x, pad_y)


def frame(image_size: tuple[float, float], size: Size, how: Fit = "squash") -> Window:
    """The window that shows the whole image: itself, or for a letterbox itself widened to the result's proportions."""
    width, height = image_size
    if how in ("squash", "native"):
        return 0.0, 0.0, float(width), float(height)
    if how != "letterbox":
        raise ValueError(f"frame: expected one of {_FIT_HOW}, got {how!r}")
    scale = min(size[0] / width, size[1] / height)
    extra_x, extra_y = max(0.0, size[0] / scale - width) / 2, max(0.0, size[1] / scale - height) / 2
    return -extra_x, -extra_y, width + extra_x, height + extra_y


def native_size(image_size: tuple[int, int], scale: float = 1.0) -> Size:
    """(width, height) of an image of `image_size` at `scale` times its own pixels, whole, at least one of each.

    DataError for more than `LARGEST` pixels: a network needs some ten gigabytes for them.
    """
    size = max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
    if size[0] * size[1] > LARGEST:
        raise DataError(
            f"{size[0]}x{size[1]} pixels, {scale:g} times {image_size[0]}x{image_size[1]}, are more than a network is "
            f"shown at once ({LARGEST:,})", hint="a smaller scale, or fit=letterbox",
        )  # fmt: skip
    return size


def fit(
    image: Pixels, size: Size, how: Fit = "squash", fill: Colour = MEAN_COLOUR, scale: float = 1.0
) -> tuple[Pixels, ImageTransform]:  # fmt: skip
    """The whole image at `size` (width, height): squashed, or letterboxed with its proportions kept, centred.

    "native" has no use for `size`: it shows the image at its own pixels, or at `scale` times as many.
    """
    height, width = image.shape[:2]
    if how == "native":
        size = native_size((width, height), scale)
    return view(image, frame((width, height), size, how), size, fill)


def fit_transform(image_size: Size, size: Size, how: Fit = "squash") -> ImageTransform:
    """How `fit` brings an image of `image_size` (width, height) to `size`, to the bit, without its pixels."""
    window = frame(image_size, size, how)
    scale_x, pad_x = _scale_and_pad(_span(window[0], window[2], image_size[0], size[0]))
    scale_y, pad_y = _scale_and_pad(_span(window[1], window[3], image_size[1], size[1]))
    return ImageTransform(scale_x, scale_y, pad_x, pad_y)


def _imdecode(data: bytes, flags: int, label: str) -> NDArray[Any]:
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"cannot decode image {label}: {error.err}") from None
    if image is None:
        raise DataError(
            f"cannot decode image {label}: damaged, cut short, or not an image ({len(data)} bytes)",
            hint="fetch or export the file again, or take it and its annotations out of the set",
        )
    return image


def _opaque_rgb(image: NDArray[Any], label: str) -> Pixels:
    """OpenCV's unchanged form, grey, BGR or BGRA of 8 or 16 bits, as RGB uint8 on white ground."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.dtype != np.uint8:
        raise DataError(f"cannot decode image {label}: expected 8 or 16 bits per channel, got {image.dtype}")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels in (1, 3):
        code = cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(image, code), np.uint8)
    if channels != 4:
        raise DataError(f"cannot decode image {label}: expected 1, 3 or 4 channels, got {channels}")
    rgba = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA), np.uint8)
    colours, cover = rgba[:, :, :3], rgba[:, :, 3:]
    if cover.min() == 255:
        return np.ascontiguousarray(colours)
    ground = 255 - cover.astype(np.uint16)
    return ((colours.astype(np.uint16) * cover + 255 * ground + 127) // 255).astype(np.uint8)


def _turned(image: Pixels, orientation: int) -> Pixels:
    """An image as EXIF's orientation (2 … 8) wants it shown."""
    if orientation in (5, 6, 7, 8):
        image = np.asarray(cv2.transpose(image), np.uint8)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return np.asarray(cv2.flip(image, flips[orientation]), np.uint8) if orientation in flips else image


def _span(low: float, high: float, length: int, out: int) -> tuple[int, int, int, int]:
    """One axis of a view: source pixels [a, b) shown at result pixels [c, d), at least one of each."""
    if not low < high:
        raise ValueError(f"view: expected a window of positive size, got {low} to {high}")
    scale = out / (high - low)
    a = min(max(0, round(low)), length - 1)
    b = max(min(length, round(high)), a + 1)
    c = min(round(max(0.0, -low) * scale), out - 1)
    d = max(out - round(max(0.0, high - length) * scale), c + 1)
    return a, b, c, d


def _scale_and_pad(span: tuple[int, int, int, int]) -> tuple[float, float]:
    """Scale and shift of one axis whose source pixels [a, b) are shown at [c, d)."""
    a, b, c, d = span
    scale = (d - c) / (b - a)
    return scale, c - a * scale


def _resized(part: Pixels, size: Size) -> Pixels:
    height, width = part.shape[:2]
    if (width, height) == size:
        return part.copy()
    shrink = width / size[0], height / size[1]
    averaged = min(shrink) >= 1 and max(shrink) >= 2
    how = cv2.INTER_AREA if averaged else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=how), np.uint8)


@lru_cache(maxsize=16)
def _blank(size: Size, fill: Colour) -> Pixels:
    return np.full((size[1], size[0], 3), fill, np.uint8)
