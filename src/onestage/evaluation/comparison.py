"""Is one detector better than another? The bootstrapped difference of two arms on the same images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.pool import Pool
from onestage.evaluation.significance import benjamini_hochberg, holm, quantile, two_sided
from onestage.evaluation.spread import Spread, measured
from onestage.records import BoolArray, FloatArray, IntArray

RESAMPLES = 1000
FEWEST_IMAGES = 10
_DEFINED = 0.99  # share of resamples in which a score must be defined


@dataclass(frozen=True, eq=False)
class Drawn:
    """An arm judged on the set (K,) and on its resamples (K, B), per score; K seeds."""

    scores: Mapping[Key, FloatArray]
    resampled: Mapping[Key, FloatArray]

    @property
    def seeds(self) -> int:
        """How many seeds the arm has."""
        return len(next(iter(self.scores.values()), ()))


@dataclass(frozen=True)
class Difference:
    """B minus A in one score, and how sure it is; scores in [0, 1].

    `n` truths and `images` with such truths it rests on. `interval` and `p` come from the same t distribution, of
    `freedom` degrees, so that the interval leaves out 0 just where p < 1 - level; both are None where there is too
    little to tell (`too_few`). `holm` and `bh` are p corrected for all classes of that score. `smallest` is the true
    difference that would be found in 80 of 100 such sets, at `level`.
    """

    name: str
    class_name: str | None
    a: float
    b: float
    n: int
    images: int
    error: float = math.nan
    freedom: float = math.nan
    interval: tuple[float, float] | None = None
    p: float | None = None
    smallest: float | None = None
    spread: Spread | None = None
    holm: float | None = None
    bh: float | None = None
    too_few: str = ""

    @property
    def value(self) -> float:
        """B minus A; NaN where either is undefined."""
        return self.b - self.a

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON; what is undefined becomes null."""
        numbers = {
            "a": self.a, "b": self.b, "difference": self.value, "standard_error": self.error,
            "degrees_of_freedom": self.freedom, "p": self.p, "holm": self.holm, "bh": self.bh,
            "smallest": self.smallest,
        }  # fmt: skip
        kept = {key: None if v is None or not math.isfinite(v) else float(v) for key, v in numbers.items()}
        interval = None if self.interval is None else list(self.interval)
        return {
            "name": self.name, "class": self.class_name, "n": self.n, "images": self.images, **kept,
            "interval": interval, "too_few": self.too_few or None,
        }  # fmt: skip


def draw(judgements: Iterable[Judgement], weights: IntArray) -> Drawn:
    """Judge an arm, one judgement per seed, on its images and on the resamples `weights` (B, I), the same for all.

    Judgements are taken one by one and not kept, so that they need not all be in memory. All scores are drawn: the
    rows over all classes are means over those of the classes, which therefore cost nothing more.
    """
    scores, resampled = [], []
    for judgement in judgements:
        scores.append(judgement.values())
        resampled.append(judgement.scores(weights))
        del judgement
    keys = scores[0] if scores else {}
    return Drawn(
        {key: np.array([part[key] for part in scores]) for key in keys},
        {key: np.stack([part[key] for part in resampled]) for key in keys},
    )


def differences(
    a: Drawn, b: Drawn, n_images: int, counts: Mapping[Key, tuple[int, int]], *,
    differing: int | None = None, level: float = 0.95,
) -> tuple[Difference, ...]:  # fmt: skip
    """B minus A for every score both arms have, with Holm's and Benjamini and Hochberg's correction over the classes.

    `counts` gives (truths, images with such truths) per score. `differing` is in how many images the arms' detections
    differ, where known. `level` is that of the intervals.

    In simulation (tests/evaluation/paired_detectors.py, docs/compare.md) 95 % intervals held the true difference in
    93 to 96 of 100 sets of 25 to 400 images, and 2 to 5 seeds of the same recipe were called different in 4 to 6.
    """
    rows = [
        _difference(key, a, b, n_images, counts.get(key, (0, 0)), differing, level)
        for key in a.scores
        if key in b.scores
    ]
    for name in dict.fromkeys(row.name for row in rows if row.class_name is not None):
        family = [i for i, row in enumerate(rows) if row.name == name and row.class_name is not None]
        p = [math.nan if (value := rows[i].p) is None else value for i in family]
        for i, strict, loose in zip(family, holm(p), benjamini_hochberg(p), strict=True):
            if rows[i].p is not None:
                rows[i] = replace(rows[i], holm=float(strict), bh=float(loose))
    return tuple(rows)


def fewest_images(level: float = 0.95) -> int:
    """How many images a difference must show in before any p can fall below 1 - level, or can be trusted.

    Where all of m images speak for one arm, chance alone does so in 2 of 2**m sets (the sign test): p is never said
    to be less.
    """
    return max(FEWEST_IMAGES, 2 + int(-math.log2(1 - level)))


def _difference(
    key: Key, a: Drawn, b: Drawn, n_images: int, count: tuple[int, int], differing: int | None, level: float
) -> Difference:  # fmt: skip
    own, other = a.scores[key], b.scores[key]
    row = Difference(key[0], key[1], float(own.mean()), float(other.mean()), *count)
    speaking = count[1] if differing is None else min(count[1], differing)
    there = ~np.isnan(a.resampled[key]).any(0) & ~np.isnan(b.resampled[key]).any(0)
    if math.isnan(row.value):
        return replace(row, too_few="no truth")
    if count[1] < FEWEST_IMAGES or there.mean() < _DEFINED:
        return replace(row, too_few=f"in {count[1]} images")
    if differing == 0:
        return replace(row, error=0.0, interval=(0.0, 0.0), p=1.0)
    if speaking < fewest_images(level):
        return replace(row, too_few=f"the detections differ in {speaking} images")
    drawn = (a.resampled[key][:, there], b.resampled[key][:, there])
    spread = measured(own, drawn[0], other, drawn[1], n_images, speaking)
    error, freedom = math.sqrt(spread.variance()), spread.freedom()
    p = two_sided(row.value / error, freedom) if error else float(row.value == 0)
    reach = error * quantile(0.5 + level / 2, freedom)
    return replace(
        row, error=error, freedom=freedom, p=max(p, 2.0 ** (1 - speaking)), smallest=spread.smallest(level),
        interval=(max(row.value - reach, -1.0), min(row.value + reach, 1.0)), spread=spread,
    )  # fmt: skip


def counts(judgement: Judgement, pool: Pool) -> dict[Key, tuple[int, int]]:
    """(truths, images with such truths) that each score rests on.

    Images are counted by the protocol's own rule of what counts where it ranks by class, else by the flags of the
    truth; a score over all classes rests on every image with a truth of any class.
    """
    ranked = judgement.rankings.get("all") or judgement.rankings.get("") or []
    counted = ~(pool.truth_ignore | pool.truth_crowd)
    slices = pool.class_slices(pool.truth_group)
    per_class = [r.truths > 0 for r in ranked] or [pool.truths_per_image(rows, counted) > 0 for rows in slices]
    there: dict[str | None, BoolArray] = dict(zip(pool.classes, per_class, strict=True))
    anywhere: BoolArray = np.any(per_class, axis=0) if per_class else np.zeros(len(pool.images), np.bool_)
    result = {}
    for key in judgement.values():
        n = judgement.count(key)
        result[key] = (n, min(n, int(there.get(key[1], anywhere).sum())))
    return result


def differing_images(prints: Sequence[NDArray[np.uint64]]) -> int:
    """In how many images detections are not all the same, by their `fingerprints` for the same images and classes."""
    return int(np.any([own != prints[0] for own in prints], axis=0).sum()) if prints else 0


def fingerprints(pool: Pool) -> NDArray[np.uint64]:
    """A number per image (I,) that stands for its detections, whatever their order."""
    label = pool.label_of(pool.group)
    mixed = np.zeros(len(label), np.uint64)
    for column in (label, *pool.box.T, pool.score):
        words = (column.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
        mixed = (mixed ^ words) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    result = np.zeros(len(pool.images), np.uint64)
    np.add.at(result, pool.image_of(pool.group), mixed)
    return result
