"""Which priors answer for the truths of an image: forced, missed, ignored, and a closer look."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from onestage.boxes.assigned import Assigned
from onestage.records import BoolArray, FloatArray, IntArray
from onestage.report.draw import Colour, Image
from onestage.report.sheet import DARK, GREY, WHITE, WRONG, Corners, Place, dashed, level_colour, tag

# Priors drawn for each truth, and for all together, so that a crowd stays legible; each answered truth gets one.
_PER_TRUTH, _IN_ALL = 4, 60
_FEW = 20  # up to so many answered truths have the best of their priors drawn thicker
_TAGGED = 26  # pixels of the longer side of a truth's box from which it has a tag


@dataclass(frozen=True, eq=False)
class Matched:
    """An image at the network's size, the priors its truths were given, and which group (colour) each prior has."""

    image: Image
    assigned: Assigned
    group: IntArray
    threshold: float | None

    @property
    def forced(self) -> BoolArray:
        """Truths (N,) answered only by priors below the threshold."""
        mine = self.assigned
        return np.zeros(len(mine.truths), np.bool_) if self.threshold is None else mine.forced(self.threshold)


def matched_picture(one: Matched, longest: int, window: tuple[int, int, int, int] | None = None) -> Image:
    """The image, or a window of it (xyxy), with its longer side `longest` pixels, with truths and their priors.

    Truths are white, priors thin in the colour of their group, dashed where the match was forced. A truth that no
    prior answers for is red, a region to ignore grey and dashed. Tags tell how many priors a truth has and the IoU of
    the best of them.
    """
    left, top, right, bottom = window or (0, 0, one.image.shape[1], one.image.shape[0])
    scale = longest / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = cv2.resize(np.ascontiguousarray(one.image[top:bottom, left:right]), size, interpolation=how)
    canvas: Image = (part.astype(np.float32) * 0.68).astype(np.uint8)
    corner = np.array([left, top, left, top], np.float64)
    mine = one.assigned
    truths, priors = (mine.truths - corner) * scale, (mine.priors - corner) * scale
    seen = _meets(truths, size)
    _draw_priors(canvas, one, priors, seen)
    _draw_truths(canvas, one, truths, seen)
    return canvas


def busiest(one: Matched, share: float = 0.22) -> tuple[int, int, int, int] | None:
    """The window, `share` of the shorter side, that holds most truths, those the model fits worst counting double.

    None where a closer look would show nothing new: no truth, or one that would not fit into it.
    """
    mine = one.assigned
    height, width = one.image.shape[:2]
    side = max(round(share * min(width, height)), 16)
    fits = ~mine.ignore & ((mine.truths[:, 2:] - mine.truths[:, :2]).max(1, initial=0) < 0.6 * side)
    if not fits.any():
        return None
    centres = (mine.truths[fits, :2] + mine.truths[fits, 2:]) / 2
    hard = one.forced | (mine.per_truth == 0)
    weights = np.where(hard[fits], 2.0, 1.0)
    kept = np.argsort(-weights, kind="stable")[:400]  # places to look at: their neighbours decide
    near = (np.abs(centres[kept, None] - centres[None]) < side / 2).all(2)
    x, y = centres[kept[int(np.argmax(near @ weights))]]
    left = int(np.clip(round(float(x) - side / 2), 0, width - side))
    top = int(np.clip(round(float(y) - side / 2), 0, height - side))
    return left, top, left + side, top + side


def _meets(boxes: FloatArray, size: tuple[int, int]) -> IntArray:
    """Rows of the boxes that show on a canvas of `size`."""
    shows = (boxes[:, :2] < np.array(size)) & (boxes[:, 2:] > 0)
    return np.flatnonzero(shows.all(1))


def _draw_priors(canvas: Image, one: Matched, priors: FloatArray, seen: IntArray) -> None:
    mine, forced = one.assigned, one.forced
    answered = [int(row) for row in seen if mine.per_truth[row]]
    most = int(np.clip(_IN_ALL // max(len(answered), 1), 1, _PER_TRUTH))
    shade = canvas.copy()
    drawn = []
    for row in answered:
        best_first = [int(prior) for prior in mine.priors_of(row, most)]
        pens = [2 if len(answered) <= _FEW else 1, *[1] * (len(best_first) - 1)]
        drawn += [(prior, bool(forced[row]), pen) for prior, pen in zip(best_first, pens, strict=True)][::-1]
    for prior, _, pen in drawn:
        cv2.rectangle(shade, *_corners(priors[prior]), DARK, pen + 2)
    canvas[:] = cv2.addWeighted(shade, 0.4, canvas, 0.6, 0)
    for prior, weak, pen in drawn:
        colour = level_colour(int(one.group[prior]))
        if weak:
            dashed(canvas, _corners(priors[prior]), colour, 2 + 3 * pen, pen, ground=False)
        else:
            cv2.rectangle(canvas, *_corners(priors[prior]), colour, pen)


def _draw_truths(canvas: Image, one: Matched, truths: FloatArray, seen: IntArray) -> None:
    mine = one.assigned
    sides = truths[:, 2:] - truths[:, :2]
    order = seen[np.argsort(-sides[seen].prod(1), kind="stable")]
    for row in map(int, order):
        corners = _corners(truths[row])
        pen = 2 if sides[row].max() > 40 else 1
        if mine.ignore[row]:
            dashed(canvas, corners, GREY, 4, pen, ground=False)
            continue
        colour = WHITE if mine.per_truth[row] else WRONG
        cv2.rectangle(canvas, *corners, DARK, pen + 2)
        cv2.rectangle(canvas, *corners, colour, pen)
    taken: list[Place] = []
    for row in map(int, order[::-1]):  # the small ones' tags first: they have the least room elsewhere
        if mine.ignore[row] or (sides[row].max() < _TAGGED and len(order) > 12):
            continue
        text, colour = _tag_of(one, row)
        tag(canvas, _corners(truths[row]), text, colour, taken, 0.36)


def _tag_of(one: Matched, row: int) -> tuple[str, Colour]:
    mine = one.assigned
    count = int(mine.per_truth[row])
    if not count:
        return f"none, {_share(mine.best_iou[row])}", WRONG
    best = int(mine.priors_of(row, 1)[0])
    return f"{count}: {_share(mine.answer_iou[row])}", level_colour(int(one.group[best]))


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _corners(box: FloatArray) -> Corners:
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.nan_to_num(np.round(box)), -4000, 8000))
    return (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1))
