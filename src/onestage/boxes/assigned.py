"""Which priors answer for the truths of one image: counts by level, truths without any, overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.geometry import area, iou
from onestage.records import BoolArray, FloatArray, IntArray

# Numbers of an overlap matrix held at once: 1,968 faces against 21,824 priors would take gigabytes whole.
_AT_ONCE = 2_000_000
# Below this IoU with every prior a truth is learnt from a prior that looks mostly elsewhere.
POOR_FIT = 0.3


@dataclass(frozen=True, eq=False)
class Assigned:
    """The priors of one image and the truths they were given.

    `match` (P,) is the row of a truth, or negative: background and ignored priors. `priors` (P, 4) and `truths` (N, 4)
    are xyxy in pixels of the network's input, `level` (P,) the level of each prior from 0 to `levels` - 1; `ignore`
    (N,) marks truths that are regions to leave alone.
    """

    match: IntArray
    priors: FloatArray
    level: IntArray
    levels: int
    truths: FloatArray
    ignore: BoolArray

    @cached_property
    def positives(self) -> IntArray:
        """Indices of the priors that answer for a truth."""
        return np.flatnonzero(self.match >= 0)

    @property
    def per_level(self) -> list[int]:
        """How many priors of each level answer for a truth."""
        return np.bincount(self.level[self.positives], minlength=self.levels).tolist()  # type: ignore[no-any-return]

    @property
    def per_truth(self) -> IntArray:
        """How many priors answer for each truth (N,)."""
        return np.bincount(self.match[self.positives], minlength=len(self.truths))

    @property
    def unanswered(self) -> IntArray:
        """Rows of the truths that count but that no prior answers for: the step learns nothing from them."""
        return np.flatnonzero((self.per_truth == 0) & ~self.ignore)

    @cached_property
    def best_iou(self) -> FloatArray:
        """The highest IoU of each truth (N,) with any prior, in [0, 1], whichever truth that prior was given."""
        if not len(self.truths) or not len(self.priors):
            return np.zeros(len(self.truths))
        rows = max(_AT_ONCE // len(self.priors), 1)
        parts = [iou(self.truths[i : i + rows], self.priors).max(1) for i in range(0, len(self.truths), rows)]
        return np.concatenate(parts)

    @cached_property
    def positive_iou(self) -> FloatArray:
        """The IoU of each positive, in the order of `positives`, with the truth it answers for."""
        mine, theirs = self.priors[self.positives], self.truths[self.match[self.positives]]
        sides = np.minimum(mine[:, 2:], theirs[:, 2:]) - np.maximum(mine[:, :2], theirs[:, :2])
        shared = sides.clip(0).prod(1)
        return shared / np.maximum(area(mine) + area(theirs) - shared, np.finfo(np.float64).tiny)  # type: ignore[no-any-return]

    @cached_property
    def answer_iou(self) -> FloatArray:
        """The IoU of each truth (N,) with the best of the priors that answer for it, 0 where none does."""
        best = np.zeros(len(self.truths))
        np.maximum.at(best, self.match[self.positives], self.positive_iou)
        return best

    def forced(self, threshold: float) -> BoolArray:
        """Which truths (N,) are answered only by priors whose IoU with them is below `threshold`."""
        return (self.per_truth > 0) & (self.answer_iou < threshold)

    @property
    def poorly_fitted(self) -> int:
        """How many truths that count have an IoU below POOR_FIT with every prior."""
        return int(((self.best_iou < POOR_FIT) & ~self.ignore).sum())

    def priors_of(self, truth: int, most: int | None = None) -> IntArray:
        """Indices of the priors that answer for the truth, the best fitting first, at most `most` of them."""
        mine = np.flatnonzero(self.match == truth)
        overlap = iou(self.truths[truth : truth + 1], self.priors[mine])[0] if len(mine) else np.zeros(0)
        return mine[np.argsort(-overlap, kind="stable")][:most]


def level_sides(priors: FloatArray, level: IntArray, levels: int) -> NDArray[np.float64]:
    """The usual side of each level's priors: the median of sqrt(area), in pixels; NaN where a level has none."""
    sides = np.sqrt(area(priors))
    return np.array([np.median(sides[level == i]) if (level == i).any() else np.nan for i in range(levels)])
