"""COCO's greedy assignment of detections to truths, for all images, thresholds and areas side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation.overlap import Pairs, joined, paired_intersection, pairs, ranges
from onestage.evaluation.pool import Pool
from onestage.records import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the detections that overlap any truth enough.

    `place` (D,) is the row of a detection in `state` (N, T, A), or -1 where it overlaps none: then it is FREE.
    """

    FREE: ClassVar[int] = 0
    HIT: ClassVar[int] = 1
    ASIDE: ClassVar[int] = 2

    place: IntArray
    state: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs at or above the lowest threshold, by turn, then detection, best pair last: all columns are (P,)."""

    detection: IntArray
    truth: IntArray
    overlap: FloatArray
    turn: IntArray

    @classmethod
    def ordered(cls, detection: IntArray, truth: IntArray, overlap: FloatArray, group: IntArray) -> Candidates:
        """Pairs in the order they are played, from columns (P,) by detection; `group` (D,) is each detection's own."""
        turn = _turns(group[detection], detection)
        order = np.lexsort((truth, overlap, detection, turn))
        return cls(detection[order], truth[order], overlap[order], turn[order])


def match(
    pool: Pool, ignored: BoolArray, thresholds: FloatArray, max_detections: int, unseen: BoolArray | None = None
) -> Outcome:  # fmt: skip
    """Give each detection its truth as pycocotools does, per threshold (T,) and area range: `ignored` is (G, A).

    Within an image and class, detections take turns from the highest score down, at most `max_detections`. Each
    takes, of the truths at IoU >= threshold that are still free, the one it overlaps most (the last of equals);
    ignored truths only if no other is left. Crowds are never used up, and overlap with them is the share of the
    detection inside. A detection that takes one of the truths `unseen` (G,) is left as FREE, though it uses it up.

    The k-th turns of all images and classes are played together, over all T x A columns; only pairs that
    overlap enough are kept, so the cost grows with them and not with detections x truths.
    """
    found = _candidates(pool, float(thresholds.min()), max_detections)
    return assign(found, pool.truth_crowd, ignored, np.minimum(thresholds, 1 - 1e-10), len(pool.group), unseen)


def assign(
    found: Candidates, crowd: BoolArray, ignored: BoolArray, thresholds: FloatArray, detections: int,
    unseen: BoolArray | None = None,
) -> Outcome:  # fmt: skip
    """Play the turns of the pairs found: `crowd` (G,) truths are never used up; else as `match`, for D detections."""
    columns = len(thresholds) * ignored.shape[1]
    unseen = np.zeros(len(ignored), np.bool_) if unseen is None else unseen
    limit = np.repeat(thresholds, ignored.shape[1])
    aside = np.tile(ignored, (1, len(thresholds)))
    taken = np.zeros((len(ignored), columns), np.bool_)
    place = np.full(detections, -1, np.int64)
    place[found.detection] = 0
    paired = np.flatnonzero(place == 0)
    place[paired] = np.arange(len(paired))
    state = np.zeros((len(paired), columns), np.int8)
    edges = np.searchsorted(found.turn, np.arange(found.turn[-1] + 2 if len(found.turn) else 1))
    for first, last in pairwise(edges):
        _play(found, slice(int(first), int(last)), crowd, unseen, aside, limit, taken, state, place)
    return Outcome(place, state.reshape(len(paired), len(thresholds), ignored.shape[1]))


def sides(boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Width and height (N,) of boxes as a COCO file wrote them, before x + width was rounded to a double.

    A decimal of up to six places that leads to the same far edge is taken for the one in the file; without this,
    a box of exactly 32 x 32 at x = 0.1 would fall on the wrong side of an area limit.
    """
    near, far = boxes[:, :2], boxes[:, 2:]
    plain = far - near
    decimal = np.round(plain, 6)
    size = np.where(near + decimal == far, decimal, plain)
    return size[:, 0], size[:, 1]


def _candidates(pool: Pool, threshold: float, max_detections: int) -> Candidates:
    parts: list[Pairs] = []
    rows = np.flatnonzero(pool.rank < max_detections)
    area = np.multiply(*sides(pool.box))
    truth_area = np.multiply(*sides(pool.truth_box))
    for detection, truth in pairs(pool, rows):
        shared = paired_intersection(pool.box[detection], pool.truth_box[truth])
        whole = area[detection] + np.where(pool.truth_crowd[truth], 0.0, truth_area[truth] - shared)
        overlap = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
        near = overlap >= min(threshold, 1 - 1e-10)
        parts.append((detection[near], truth[near], overlap[near]))
    return Candidates.ordered(*joined(parts), pool.group)


def _turns(group: IntArray, detection: IntArray) -> IntArray:
    """The turn of each pair's detection among those of its group that have pairs; rows lie by group, detection."""
    index = np.cumsum(np.diff(detection, prepend=-1) > 0) - 1
    result: IntArray = index - index[np.searchsorted(group, group)]
    return result


def _play(
    found: Candidates, rows: slice, crowd: BoolArray, unseen: BoolArray, aside: BoolArray, limit: FloatArray,
    taken: BoolArray, state: NDArray[np.int8], place: IntArray,
) -> None:  # fmt: skip
    """One turn of every image and class: writes `taken` (G, T x A) and `state` (N, T x A)."""
    detection, truth = found.detection[rows], found.truth[rows]
    starts = np.flatnonzero(np.diff(detection, prepend=-1))
    counts = np.diff(starts, append=len(detection))
    free = (found.overlap[rows, None] >= limit) & (~taken[truth] | crowd[truth, None])
    many = len(detection)
    worth = (ranges(np.zeros_like(starts), counts) + 1)[:, None] + np.where(aside[truth], 0, many)
    best = np.maximum.reduceat(np.where(free, worth, 0), starts, axis=0)
    row, column = np.nonzero(best)
    value = best[row, column]
    chosen = truth[starts[row] + (value - 1) % many]
    taken[chosen, column] = True
    state[place[detection[starts[row]]], column] = np.where(
        value <= many, Outcome.ASIDE, np.where(unseen[chosen], Outcome.FREE, Outcome.HIT)
    )
