"""Pairs of a detection and a truth of the same image and class, with their overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onestage.boxes import geometry
from onestage.evaluation.pool import Pool
from onestage.records import FloatArray, IntArray

Pairs = tuple[IntArray, IntArray, FloatArray]  # detection, truth, overlap: (P,) each


def ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """The concatenation of start, start + 1, … for each start and count: ranges([5, 0], [2, 1]) is [5, 6, 0]."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    result: IntArray = np.arange(total) + np.repeat(starts - ends + counts, counts)
    return result


def pairs(pool: Pool, rows: IntArray, at_once: int = 1 << 19) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs (detection, truth) of the detections `rows` (ascending), about `at_once` at a time to save memory.

    A detection's pairs lie together, in the order of the truths. Detections whose group has no truth do not occur.
    """
    group = pool.group[rows]
    first_of_group = np.flatnonzero(np.diff(group, prepend=-1))
    size = np.diff(first_of_group, append=len(group))
    low = np.searchsorted(pool.truth_group, group[first_of_group])
    high = np.searchsorted(pool.truth_group, group[first_of_group], side="right")
    starts, counts = np.repeat(low, size), np.repeat(high - low, size)
    rows, starts, counts = rows[counts > 0], starts[counts > 0], counts[counts > 0]
    ends = np.cumsum(counts)
    first = 0
    while first < len(rows):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + at_once, side="right")))
        part = slice(first, last)
        yield np.repeat(rows[part], counts[part]), ranges(starts[part], counts[part])
        first = last


def joined(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several blocks, one after the other; none of none."""
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    detection, truth, overlap = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    return detection, truth, overlap


def paired_intersection(a: FloatArray, b: FloatArray, offset: float = 0.0) -> FloatArray:
    """Area that each box of `a` (P, 4) shares with the box of `b` (P, 4) of the same row: (P,)."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + offset
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + offset
    result: FloatArray = np.clip(width, 0, None) * np.clip(height, 0, None)
    return result


def paired_iou(a: FloatArray, b: FloatArray, offset: float = 0.0) -> FloatArray:
    """Intersection over union of each box of `a` (P, 4) with the box of `b` of the same row: (P,) in [0, 1]."""
    shared = paired_intersection(a, b, offset)
    union = geometry.area(a, offset) + geometry.area(b, offset) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
