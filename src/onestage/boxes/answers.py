"""How the truths of many images are answered by priors: how many, how well, which not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.boxes.assigned import Assigned
from onestage.boxes.geometry import area
from onestage.records import BoolArray, FloatArray, IntArray

# Where truths are told apart by their side: square roots of areas, in pixels of the network's input.
SIDES = (0, 4, 8, 16, 32, 64, 128, 256, 512)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BINS = 20  # of IoU, from 0 to 1


@dataclass(frozen=True, eq=False)
class Answers:
    """The truths of some images and the priors that answer for them, a row per truth; `images` is how many.

    `side` is the root of a truth's area in pixels of the input, `best` its highest IoU with any prior, `own` that with
    the priors that answer for it (0: none does), `priors` how many do, `group` that of the best of them (-1: none),
    `ignore` marks truths that do not count. `positives` (G,) and `passed` (G,) count priors of each group that answer
    for a truth, and that are left alone for an ignored region. `threshold` is the IoU below which a match was forced;
    None where the model does not say. `lost` truths came to the input with a side below one pixel and are in no row.
    """

    images: int
    side: FloatArray
    best: FloatArray
    own: FloatArray
    priors: IntArray
    group: IntArray
    ignore: BoolArray
    positives: IntArray
    passed: IntArray
    threshold: float | None
    lost: int = 0

    @classmethod
    def of(
        cls, mine: Assigned, group: IntArray, groups: int, threshold: float | None, lost: int = 0
    ) -> Answers:  # fmt: skip
        """The answers of one image; `group` (P,) is the group of each prior, from 0 to `groups` - 1."""
        best_prior = np.full(len(mine.truths), -1, np.int64)
        rising = mine.positives[np.argsort(mine.positive_iou, kind="stable")]
        best_prior[mine.match[rising]] = group[rising]  # of several writes to a row the last, best one stays
        left_alone = np.flatnonzero(mine.match < -1)
        return cls(
            1, np.sqrt(area(mine.truths)), mine.best_iou, mine.answer_iou, mine.per_truth, best_prior, mine.ignore,
            np.bincount(group[mine.positives], minlength=groups), np.bincount(group[left_alone], minlength=groups),
            threshold, lost,
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Iterable[Answers]) -> Answers:
        """The answers of several images in one; ValueError where there is none."""
        held = list(parts)
        if not held:
            raise ValueError("Answers.joined: expected at least one image")
        return cls(
            sum(one.images for one in held), np.concatenate([one.side for one in held]),
            np.concatenate([one.best for one in held]), np.concatenate([one.own for one in held]),
            np.concatenate([one.priors for one in held]), np.concatenate([one.group for one in held]),
            np.concatenate([one.ignore for one in held]), np.sum([one.positives for one in held], 0),
            np.sum([one.passed for one in held], 0), held[0].threshold, sum(one.lost for one in held),
        )  # fmt: skip

    @property
    def counted(self) -> BoolArray:
        """The truths that count."""
        return ~self.ignore

    @property
    def unanswered(self) -> BoolArray:
        """The truths that count and that no prior answers for."""
        return np.asarray(self.counted & (self.priors == 0), np.bool_)

    @property
    def forced(self) -> BoolArray:
        """The truths that count and whose priors all overlap them by less than `threshold`."""
        if self.threshold is None:
            return np.zeros(len(self.side), np.bool_)
        return np.asarray(self.counted & (self.priors > 0) & (self.own < self.threshold), np.bool_)

    def by_side(self) -> list[dict[str, Any]]:
        """A row for each range of SIDES that holds a truth: counts, priors per truth, median best IoU."""
        place = np.digitize(self.side, SIDES) - 1
        rows = []
        for i, low in enumerate(SIDES):
            mine = self.counted & (place == i)
            if mine.any():
                high = SIDES[i + 1] if i + 1 < len(SIDES) else None
                rows.append({"from": low, "to": high, **self._row(mine)})
        return rows

    def by_group(self) -> list[dict[str, Any]]:
        """A row for each group: its positives, and of the truths whose best prior it has how they fit."""
        return [
            {"positives": int(self.positives[i]), "ignored_priors": int(self.passed[i]),
             **self._row(self.counted & (self.group == i))}
            for i in range(len(self.positives))
        ]  # fmt: skip

    def regrouped(self, to: IntArray, groups: int) -> Answers:
        """The same with coarser groups: `to` (G,) is the new group of each."""
        known = self.group >= 0
        group = np.where(known, to[np.maximum(self.group, 0)], -1) if len(to) else self.group
        positives, passed = (
            np.bincount(to, counts, groups).astype(np.int64) for counts in (self.positives, self.passed)
        )
        return Answers(
            self.images, self.side, self.best, self.own, self.priors, group, self.ignore, positives, passed,
            self.threshold, self.lost,
        )  # fmt: skip

    def _row(self, mine: BoolArray) -> dict[str, Any]:
        count = int(mine.sum())
        return {
            "truths": count, "unanswered": int((self.unanswered & mine).sum()),
            "forced": None if self.threshold is None else int((self.forced & mine).sum()),
            "priors_per_truth": round(float(self.priors[mine].mean()), 2) if count else None,
            "median_best_iou": round(float(np.median(self.best[mine])), 3) if count else None,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Plain values: counts, quantiles and histogram of the best IoU, rows by side."""
        best, side = self.best[self.counted], self.side[self.counted]
        return {
            "images": self.images, "truths": len(best), "ignored": int(self.ignore.sum()), "lost": self.lost,
            "positives": int(self.positives.sum()),
            "ignored_priors": int(self.passed.sum()),
            "unanswered": int(self.unanswered.sum()), "threshold": self.threshold,
            "forced": None if self.threshold is None else int(self.forced.sum()),
            "best_iou": _quantiles(best), "side": _quantiles(side),
            "histogram": np.histogram(best, BINS, (0, 1))[0].tolist(), "by_side": self.by_side(),
        }  # fmt: skip


def _quantiles(values: FloatArray) -> dict[str, float] | None:
    """{"0": least, "0.05": …, "1": greatest}; None without values."""
    if not len(values):
        return None
    return {f"{q:g}": round(float(v), 3) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
