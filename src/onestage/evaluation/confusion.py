"""Which class is taken for which: the confusion matrix with missed truths and detections on nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.evaluation.overlap import Pairs, joined, paired_iou, ranges
from onestage.evaluation.pool import Pool
from onestage.evaluation.voc import compared_boxes
from onestage.records import BoolArray, FloatArray, IntArray

MOST_DENSE = 100  # classes; the matrix of more is kept as its cells that are not zero
MOST_NAMED = 3  # confusions that are named for each class
_AT_ONCE = 1 << 19


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts (C + 1, C + 1) at a score and IoU: rows are classes of truth and last "background", columns classes
    said and last "missed".

    `twice` (C,) are the detections in the background row that lie on a truth of their class which another had found.
    """

    classes: tuple[str, ...]
    counts: IntArray
    score: float | None
    iou: float
    twice: IntArray

    def shares(self) -> FloatArray:
        """Each row by its sum: what becomes of the truths of a class; rows without any are 0."""
        total = self.counts.sum(1, keepdims=True)
        result: FloatArray = np.divide(self.counts, total, out=np.zeros(self.counts.shape), where=total > 0)
        return result

    def most_confused(self, most: int = MOST_NAMED) -> list[dict[str, Any]]:
        """Per class of truth the `most` classes it is taken for most often, the surest confusions first of all."""
        between = self.counts[:-1, :-1].copy()
        np.fill_diagonal(between, 0)
        total = self.counts[:-1].sum(1)
        rows = []
        for truth in np.flatnonzero(between.any(1)).tolist():
            for said in np.argsort(-between[truth], kind="stable")[:most].tolist():
                if n := int(between[truth, said]):
                    names = {"truth": self.classes[truth], "said": self.classes[said]}
                    rows.append({**names, "n": n, "share": n / int(total[truth])})
        return sorted(rows, key=lambda row: -int(row["n"]))

    def as_dict(self) -> dict[str, Any]:
        """As JSON: "counts" up to 100 classes, beyond that "cells", the triples row, column, count that are not 0."""
        kept: dict[str, Any] = {
            "score": self.score, "iou": self.iou, "rows": [*self.classes, "background"],
            "columns": [*self.classes, "missed"], "twice": self.twice.tolist(), "most_confused": self.most_confused(),
        }  # fmt: skip
        if len(self.classes) <= MOST_DENSE:
            return kept | {"counts": self.counts.tolist(), "shares": self.shares().round(5).tolist()}
        row, column = np.nonzero(self.counts)
        return kept | {"cells": np.stack([row, column, self.counts[row, column]], axis=1).tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Confusion:
        """The inverse of `as_dict`."""
        classes = tuple(content["rows"][:-1])
        if "counts" in content:
            counts = np.array(content["counts"], np.int64)
        else:
            counts = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
            cells = np.array(content["cells"], np.int64).reshape(-1, 3)
            counts[cells[:, 0], cells[:, 1]] = cells[:, 2]
        return cls(classes, counts, content["score"], content["iou"], np.array(content["twice"], np.int64))


def confusion(pool: Pool, score: float | None, iou: float = 0.5, pixel_offset: float = 0.0) -> Confusion:
    """Set the detections from `score` on (None: none of them) against the truths of their images, whatever the class.

    First the rule of VOC, so that the diagonal holds the hits that precision and recall rest on: each detection turns
    to the truth of its own class that it overlaps most, and the highest score at IoU >= `iou` takes it. Then the
    detections that took nothing, highest score first, each take the truth of another class that they overlap most
    (IoU >= `iou`) among those still free. What truths remain are missed, what detections remain lie on background,
    second boxes on a truth already found included. So each truth and each detection counts exactly once.

    Truths that are difficult, ignored, crowds or regions are in no row; a detection whose best truth of its own class
    is such a one is in no column. Row sums are therefore the truths that count, column sums the detections that
    count, as in the protocol: diagonal over row sum is recall, over column sum precision. Equal scores go by class,
    then row; equal overlaps to the first truth.

    Differences from ConfusionMatrix of Ultralytics 8.3: it pairs by overlap alone, whatever class and score, so
    that of two boxes on a truth the closer one counts even where it names the wrong class, and its diagonal is not the
    hits of its precision and recall; IoU must exceed 0.45, the score 0.25 where validation has its default; rows are
    what was said and columns the truth; and it knows no difficult, ignored or crowd truths.
    """
    n = len(pool.classes)
    counted = ~(pool.truth_difficult | pool.truth_ignore | pool.truth_crowd)
    keep = np.flatnonzero(pool.score >= (np.inf if score is None else score))
    keep = keep[np.lexsort((pool.rank[keep], pool.group[keep], -pool.score[keep]))]
    found, truth, overlap = _pairs(pool, keep, iou, pixel_offset)
    label, truth_label = pool.label_of(pool.group[keep]), pool.label_of(pool.truth_group)
    own = truth_label[truth] == label[found]
    best = _best(found[own], truth[own], overlap[own], len(keep))
    there = np.flatnonzero(best >= 0)
    aside = there[~counted[best[there]]]
    claims = there[counted[best[there]]]
    _, first = np.unique(best[claims], return_index=True)
    hits = claims[first]
    counts = np.zeros((n + 1, n + 1), np.int64)
    counts[np.arange(n), np.arange(n)] = np.bincount(label[hits], minlength=n)
    free, idle = counted.copy(), np.ones(len(keep), np.bool_)
    free[best[hits]] = False
    idle[aside] = idle[hits] = False
    late = idle.copy()
    others = ~own & idle[found] & free[truth]
    for row, taken in _greedy(found[others], truth[others], overlap[others], free):
        counts[truth_label[taken], label[row]] += 1
        idle[row] = False
    counts[:n, n] = np.bincount(truth_label[free], minlength=n)[:n]
    counts[n, :n] = np.bincount(label[idle], minlength=n)[:n]
    second = late & idle & (best >= 0)
    return Confusion(pool.classes, counts, score, iou, np.bincount(label[second], minlength=n))


def _pairs(pool: Pool, keep: IntArray, iou: float, pixel_offset: float) -> Pairs:
    """Pairs of one image at IoU >= `iou` whatever the class: place in `keep`, truth, overlap; by place, then truth."""
    image = pool.image_of(pool.truth_group)
    by_image = np.argsort(image, kind="stable")
    own = pool.image_of(pool.group[keep])
    starts = np.searchsorted(image[by_image], own)
    sizes = np.searchsorted(image[by_image], own, side="right") - starts
    ends = np.cumsum(sizes)
    box, truth_box, offset = compared_boxes(pool, pixel_offset)
    parts: list[Pairs] = []
    first = 0
    while first < len(keep):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        found = np.repeat(np.arange(first, min(last, len(keep))), sizes[first:last])
        truth = by_image[ranges(starts[first:last], sizes[first:last])]
        overlap = paired_iou(box[keep[found]], truth_box[truth], offset)
        near = overlap >= iou
        parts.append((found[near], truth[near], overlap[near]))
        first = last
    return joined(parts)


def _best(found: IntArray, truth: IntArray, overlap: FloatArray, n: int) -> IntArray:
    """The truth that each of `n` detections overlaps most, the first of equals; -1 where it has no pair: (n,)."""
    result = np.full(n, -1, np.int64)
    order = np.lexsort((truth, -overlap, found))
    rows, first = np.unique(found[order], return_index=True)
    result[rows] = truth[order][first]
    return result


def _greedy(found: IntArray, truth: IntArray, overlap: FloatArray, free: BoolArray) -> list[tuple[int, int]]:
    """Detections in turn (rising `found`) with the free truth each takes; `free` (G,) is marked as they go."""
    taken: list[tuple[int, int]] = []
    last = -1
    order = np.lexsort((truth, -overlap, found))
    for row, place in zip(found[order].tolist(), truth[order].tolist(), strict=True):
        if row != last and free[place]:
            free[place], last = False, row
            taken.append((row, place))
    return taken
