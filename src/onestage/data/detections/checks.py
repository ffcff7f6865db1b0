"""Checks of detections in columns: what cannot be judged, and what is judged but should be known."""

from __future__ import annotations

import numpy as np

from onestage.data.detections.faults import Faults, copies, text_of
from onestage.data.detections.rows import Rows
from onestage.records import BoolArray, FloatArray, IntArray

BORDER = 0.5  # pixels by which a box may cross the border before it is told
FEW, SHARE = 10, 0.1  # how many rows, and which share of them beyond the image, show that corners were written


def check_values(rows: Rows, boxes: FloatArray, faults: Faults) -> None:
    """List scores and boxes that are no numbers and boxes inside out; NaN `boxes` of sound shares lack the size."""
    score, given = rows.scores, rows.boxes
    scored = np.asarray(np.isfinite(score), np.bool_)
    if not scored.all():
        faults.rows("not-a-score", ~scored, lambda i: f"score {score[i]:g}")
    sound = np.asarray((np.isfinite(given) & ~np.isinf(boxes)).all(1), np.bool_)
    if not sound.all():
        faults.rows("not-a-box", ~sound, lambda i: text_of(given[i]))
    inverted: BoolArray = sound & (given[:, 2:] < given[:, :2]).any(1)
    if inverted.any():
        faults.rows("inverted-box", inverted, lambda i: f"{text_of(given[i])} ends before it begins")
    sizeless = sound & ~np.isfinite(boxes).all(1) & ~faults.lost
    if sizeless.any():
        faults.rows("unknown-size", sizeless, lambda _: "the size of the image is not known")


def check_places(
    rows: Rows, image: IntArray, label: IntArray, boxes: FloatArray, size: FloatArray, faults: Faults
) -> None:
    """List what is judged although it looks wrong: copies, boxes outside, without area, scores and order.

    `image` and `label` (N,) are those of the dataset, `boxes` (N, 4) pixels, `size` (N, 2) of each row's image, NaN
    where not known. Rows that are lost are passed over.
    """
    kept = ~faults.lost
    columns = [image, label, *boxes.T, rows.scores]
    listed = [
        ("duplicate-row", copies(columns, kept), lambda i: "an exact copy of an earlier row"),
        ("zero-area-box", kept & (boxes[:, 2:] == boxes[:, :2]).any(1), lambda i: f"{text_of(boxes[i])} has no area"),
    ]
    outside = kept & ((boxes[:, :2] >= size) | (boxes[:, 2:] <= 0)).any(1)
    across = kept & ~outside & ((boxes[:, :2] < -BORDER) | (boxes[:, 2:] > size + BORDER)).any(1)
    listed += [
        ("box-outside", outside, lambda i: f"{text_of(boxes[i])} lies outside the image{_sized(size[i])}"),
        ("box-across-border", across, lambda i: f"{text_of(boxes[i])} crosses the image's border{_sized(size[i])}"),
        ("score-outside", kept & ((rows.scores < 0) | (rows.scores > 1)),
         lambda i: f"score {rows.scores[i]:g} is not within 0 and 1"),
    ]  # fmt: skip
    if _are_corners(boxes[kept], size[kept], (across | outside)[kept]):
        said = "many boxes reach beyond their image, and none would if the last two numbers were right and bottom"
        faults.tell("boxes-as-corners", said)
    for code, mask, what in listed:
        if mask.any():
            faults.rows(code, mask, what)
    rising = np.flatnonzero(kept & _rising(rows, image))
    if len(rising):
        first = np.zeros(len(rows), np.bool_)
        first[rising[np.unique(image[rising], return_index=True)[1]]] = True
        faults.rows("unsorted", first, lambda i: f"score {rows.scores[i]:g} stands below a lower one", "images")
    if not rows.relative and kept.any() and boxes[kept].max() <= 1.5 and boxes[kept].max() > 0:
        faults.tell("boxes-in-shares", "no box reaches beyond 1.5 pixels: these are shares of the image's size")


def _are_corners(boxes: FloatArray, size: FloatArray, beyond: BoolArray) -> bool:
    """Whether what was read as width and height must have been right and bottom: a tenth lies beyond its image."""
    if len(boxes) < FEW or beyond.mean() < SHARE:
        return False
    corners = boxes[:, 2:] - boxes[:, :2]
    return bool(((corners >= boxes[:, :2]) & ~(corners > size + BORDER)).all())


def places(image: IntArray) -> IntArray:
    """The place of each row among the rows of its image, from 0, in the order given."""
    order = np.argsort(image, kind="stable")
    starts = np.flatnonzero(np.diff(image[order], prepend=-2))
    within = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    result = np.empty(len(order), np.int64)
    result[order] = within
    return result


def _rising(rows: Rows, image: IntArray) -> BoolArray:
    """Rows that score higher than the row before them of the same image and file."""
    order = np.argsort(image, kind="stable")
    score, one, file = rows.scores[order], image[order], rows.file[order]
    result = np.zeros(len(order), np.bool_)
    result[order[1:]] = (score[1:] > score[:-1]) & (one[1:] == one[:-1]) & (file[1:] == file[:-1])
    return result


def _sized(size: FloatArray) -> str:
    return "" if np.isnan(size).any() else f" of {size[0]:g} x {size[1]:g}"
