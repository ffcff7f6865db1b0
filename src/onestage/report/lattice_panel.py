"""Where priors stand: their centres over a dimmed picture, and some cells seen closely."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np

from onestage.boxes.tiling import Tiling, densified, size_name, sizes_name, verdict
from onestage.records import FloatArray
from onestage.report.draw import Colour, Image
from onestage.report.sheet import DARK, INK, PALE, SMALL, WHITE, WRONG, ascii_only, blank, darker, write_words

WIDTH = 520  # pixels of a panel
INSET = 236  # pixels of the side of the close view
APART = 3.0  # pixels that neighbouring dots are apart at least
_HEAD, _LINE = 30, 19
_FRACTION = 4  # bits behind the point in what cv2 draws
_GRID: Colour = (150, 150, 150)


def lattice_panel(image: Image, same: Sequence[Tiling], priors: FloatArray, colour: Colour) -> Image:
    """A panel for priors that share their centres: title, dots over the `image`, a close view, facts and a verdict.

    `image` is uint8 RGB at the network's size, `priors` (P, 4) are all priors, xyxy in its pixels, `same` those of the
    panel. The white frame in the picture is the part that is seen closely: there thin lines are cells, one of them
    white, dots the centres, and one prior of each size is drawn about one of them.
    """
    height, width = image.shape[:2]
    scale = WIDTH / width
    picture = _dimmed(image, (WIDTH, max(1, round(height * scale))))
    first = priors[same[0].index]
    centres = (first[:, :2] + first[:, 2:]) / 2
    window = _window(same, (width, height))
    every = _thinning(same[0], scale)
    spacing = (same[0].lattice.spacing or width) * scale
    _dots(picture, _thinned(centres, same[0], every) * scale, spacing * every, colour)
    x1, y1, x2, y2 = (round(float(v) * scale) for v in window)
    cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), WHITE, 1)
    close = _close(image, window, same, priors, colour)
    panel = blank(_HEAD + picture.shape[0] + 10 + max(close.shape[0], INSET), WIDTH)
    cv2.rectangle(panel, (0, 8), (13, 21), colour, -1)
    write_words(panel, [(f"level {same[0].level}: {sizes_name(same, 4)}", INK)], 22, 20, size=0.52)
    panel[_HEAD : _HEAD + picture.shape[0]] = picture
    top = _HEAD + picture.shape[0] + 10
    panel[top : top + close.shape[0], : close.shape[1]] = close
    _facts(panel, same, top, colour)
    if every > 1:
        words = f"above one dot in {every}x{every} is drawn"
        write_words(panel, [(words, PALE)], INSET + 16, top + INSET - 22, size=0.38)
    return panel


def _thinning(one: Tiling, scale: float) -> int:
    """Of how many columns and rows one is drawn, so that dots are told apart."""
    steps = [step * scale for step in (one.lattice.spacing_x, one.lattice.spacing_y) if step]
    return max(int(np.ceil(APART / min(steps))), 1) if steps else 1


def _thinned(centres: FloatArray, one: Tiling, every: int) -> FloatArray:
    """The centres in every `every`-th column and row."""
    if every == 1:
        return centres
    steps = np.array([one.lattice.spacing_x or 1.0, one.lattice.spacing_y or 1.0])
    place = np.round((centres - np.array(one.lattice.offset)) / steps).astype(np.int64)
    return np.asarray(centres[(place % every == 0).all(1)], np.float64)


def _dimmed(image: Image, size: tuple[int, int]) -> Image:
    """The picture at `size`, nearly grey and dark, as ground for dots."""
    how = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=how).astype(np.float32)
    grey = small.mean(2, keepdims=True)
    dim: Image = ((0.75 * grey + 0.25 * small) * 0.42 + 12).clip(0, 255).astype(np.uint8)
    return dim


def _dots(canvas: Image, centres: FloatArray, spacing: float, colour: Colour) -> None:
    """Dots at `centres` (N, 2), pixels of the canvas, of a size that leaves ground between them."""
    radius = float(np.clip(0.17 * spacing, 0.8, 4.5))
    if radius < 1.2:  # so dense that a circle's soft edge would blur into haze
        side = 2 if spacing >= 3.5 else 1
        x, y = (np.clip(np.round(centres[:, i] - 0.5).astype(int), 0, canvas.shape[1 - i] - side) for i in (0, 1))
        for dx in range(side):
            for dy in range(side):
                canvas[y + dy, x + dx] = colour
        return
    for x, y in centres:
        _disc(canvas, (float(x), float(y)), radius, colour)


def _disc(canvas: Image, centre: tuple[float, float], radius: float, colour: Colour) -> None:
    one = 1 << _FRACTION
    place = (round((centre[0] - 0.5) * one), round((centre[1] - 0.5) * one))
    cv2.circle(canvas, place, round(radius * one), colour, -1, cv2.LINE_AA, _FRACTION)


def _window(same: Sequence[Tiling], size: tuple[int, int]) -> FloatArray:
    """The square that is seen closely, xyxy: some cells in the middle that hold the largest prior, if they can."""
    stride = max(same[0].stride)
    longest = max(max(one.width, one.height) for one in same)
    side = min(max(3 * stride, 1.35 * longest), *map(float, size))
    corner = []
    for middle, step, most in zip(size, same[0].stride, size, strict=True):
        low = min(max(round((middle - side) / 2 / step) * step, 0.0), most - side)
        corner.append(low)
    return np.array([*corner, corner[0] + side, corner[1] + side])


def _close(image: Image, window: FloatArray, same: Sequence[Tiling], priors: FloatArray, colour: Colour) -> Image:
    """The window, INSET pixels wide: borders of cells, centres, and about one of them a prior of each size."""
    x1, y1, x2, y2 = (round(float(v)) for v in window)
    scale = INSET / (x2 - x1)
    canvas = _dimmed(image[y1:y2, x1:x2], (INSET, max(1, round((y2 - y1) * scale))))
    one, corner = same[0], np.array([x1, y1], np.float64)
    for axis, step in enumerate(one.stride):
        low = -(-float(corner[axis]) // step) * step
        for at in np.arange(low, corner[axis] + canvas.shape[1 - axis] / scale, step):
            place = round((float(at) - float(corner[axis])) * scale)
            if axis == 0:
                canvas[:, min(place, canvas.shape[1] - 1)] = _GRID
            else:
                canvas[min(place, canvas.shape[0] - 1)] = _GRID
    centres = (priors[one.index, :2] + priors[one.index, 2:]) / 2
    inside = ((centres >= window[:2]) & (centres <= window[2:])).all(1)
    _dots(canvas, (centres[inside] - corner) * scale, (one.lattice.spacing or 1e4) * scale, colour)
    middle = int(np.argmin(((centres - (window[:2] + window[2:]) / 2) ** 2).sum(1)))
    for tiling in same:
        box = (priors[tiling.index[middle]] - np.tile(corner, 2)) * scale
        left, top, right, bottom = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), DARK, 4)
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, 2)
    stride = np.array(one.stride)
    cell = ((np.floor(centres[middle] / stride + 1e-6) * stride) - corner) * scale
    left, top, right, bottom = (round(float(v)) for v in (*cell, *(cell + stride * scale)))
    cv2.rectangle(canvas, (left, top), (right, bottom), WHITE, 1)
    x, y = (float(v) for v in (centres[middle] - corner) * scale)
    _disc(canvas, (x, y), 4.5, WHITE)
    return canvas


def _facts(panel: Image, same: Sequence[Tiling], top: int, colour: Colour) -> None:
    """Numbers and verdict, to the right of the close view."""
    one, mine = same[0], same[0].lattice
    across, down = one.cells
    priors = sum(map(len, same))
    per_cell = f"{densified(one) or '1'} in a cell" + (f", {len(same)} sizes" if len(same) > 1 else "")
    low, high = (f"{pick(t.density or 0 for t in same):.3g}" for pick in (min, max))
    lines = [
        (f"{priors:,} priors", INK),
        (f"cells {across}x{down}, stride {_pair(one.stride)} px", INK),
        (per_cell, INK),
        (f"centres {mine.columns}x{mine.rows}, the first ({mine.offset[0]:g}, {mine.offset[1]:g})", INK),
    ]
    if mine.spacing is not None:
        lines.append((f"tiling density {low if low == high else f'{low} to {high}'}", INK))
    row = top + 12
    for text, ink in lines:
        write_words(panel, [(ascii_only(text), ink)], INSET + 16, row, size=SMALL)
        row += _LINE
    good = mine.sound or len(one) == 1
    row += 6
    for text in textwrap.wrap(ascii_only(verdict(same)), 36):
        write_words(panel, [(text, darker(colour) if good else WRONG)], INSET + 16, row)
        row += _LINE
    write_words(panel, [(f"close view: {_view(same)}", PALE)], INSET + 16, top + INSET - 4, size=0.38)


def _view(same: Sequence[Tiling]) -> str:
    shown = size_name(same[0].width, same[0].height)
    return f"cells, centres, a prior of {shown} px" if len(same) == 1 else "cells, centres, one of each size"


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else f"{values[0]:g}x{values[1]:g}"
