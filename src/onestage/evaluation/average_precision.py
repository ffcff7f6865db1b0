"""Precision, recall and the ways to take the area, for one or many weightings of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation import resampled_areas, resampling
from onestage.evaluation.ranking import Ranking
from onestage.records import BoolArray, FloatArray, IntArray

AreaRule = Callable[[FloatArray, FloatArray], FloatArray]
_Small = NDArray[np.int32]  # half the memory of IntArray, and no set has 2**31 detections
_CELLS = 1 << 20


def area_under_envelope(precision: FloatArray, recall: FloatArray) -> FloatArray:
    """The whole area under the falling envelope of precision over recall: VOC 2010 to 2012, "every point".

    Both are (…, n): the values at the hits, in order of score. Returns (…,) in [0, 1]; without hits 0.
    """
    steps = np.diff(recall, axis=-1, prepend=0.0)
    result: FloatArray = np.einsum("...n,...n->...", _envelope(precision), steps)
    return result


def mean_at_points(precision: FloatArray, recall: FloatArray, points: FloatArray) -> FloatArray:
    """The mean over `points` of the best precision at that recall or beyond: VOC 2007's 11, COCO's 101.

    Arguments as `area_under_envelope`; `points` are evenly spaced from 0 to 1. A hit earns its envelope
    once for every point that it is the first to reach, which needs no search: points and recalls are compared as the
    same doubles as in the official tools.
    """
    last = len(points) - 1
    nearest = np.rint(recall * last).astype(np.int64)
    reached = nearest + (points[nearest] <= recall)
    newly = np.diff(reached, axis=-1, prepend=0)
    result: FloatArray = np.einsum("...n,...n->...", _envelope(precision), newly) / len(points)
    return result


@dataclass(frozen=True, eq=False)
class AtPoints:
    """`mean_at_points` with its points (R,), as an area rule."""

    points: FloatArray

    def __call__(self, precision: FloatArray, recall: FloatArray) -> FloatArray:
        """The area under one or many curves, (…,)."""
        return mean_at_points(precision, recall, self.points)


# Points as doubles: i * 0.1, as numpy's and Octave's 0:0.1:1, so 0.3 and 0.6 lie a hair above 3/10 and 6/10.
ELEVEN_POINTS = AtPoints(np.arange(11, dtype=np.float64) * 0.1)
HUNDRED_AND_ONE_POINTS = AtPoints(np.linspace(0.0, 1.0, 101))


def average_precisions(rankings: Sequence[Ranking], rule: AreaRule, weights: IntArray) -> FloatArray:
    """AP of every class (C), threshold (T) and weighting of the images (B): (C, T, B); NaN where no truth counts.

    `weights` (B, I) says how often each image is in the set: a row of ones for the score itself, multinomial
    counts for a bootstrap. An image with weight 2 is two images, its rows never merged.
    """
    if not rankings:
        return np.zeros((0, 1, len(weights)))
    if len(weights) < resampled_areas.FEWEST or not (isinstance(rule, AtPoints) or rule is area_under_envelope):
        return np.stack([_average_precision(ranking, rule, weights) for ranking in rankings])
    points = rule.points if isinstance(rule, AtPoints) else None
    result = np.full((len(rankings), len(rankings[0].hit), len(weights)), np.nan)
    for part, some in resampling.parts(weights):
        for k, ranking in enumerate(rankings):
            if ranking.n_truths:
                result[k, :, part] = resampled_areas.average_precision(ranking, points, some)
    return result


def recalls(rankings: Sequence[Ranking], per_image: int, weights: IntArray) -> FloatArray:
    """Share of the truths found by the first `per_image` detections of each image: (C, T, B), NaN where no truth."""
    if not rankings:
        return np.zeros((0, 1, len(weights)))
    result = np.full((len(rankings), len(rankings[0].hit), len(weights)), np.nan)
    hits = [ranking.hit & (ranking.rank < per_image) for ranking in rankings]
    for part, some in resampling.parts(weights):
        for k, ranking in enumerate(rankings):
            if ranking.n_truths:
                truths = ranking.truths.astype(np.float64) @ some
                found = resampling.sums([ranking.image[hit] for hit in hits[k]], some)
                np.divide(found, truths, out=result[k, :, part], where=truths > 0)
    return result


def per_image_count(ranking: Ranking, rows: BoolArray) -> IntArray:
    """How many of the chosen `rows` (n,) each image holds: (I,)."""
    return np.bincount(ranking.image[rows], minlength=len(ranking.truths))


def mean_present(values: FloatArray, axis: int | tuple[int, ...] = 0) -> FloatArray:
    """Mean along `axis` of what is defined (not NaN); NaN where nothing is."""
    there = ~np.isnan(values)
    n = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    result: FloatArray = np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0)
    return result


def precision_recall(ranking: Ranking, t: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Recall, precision and score after each counted detection at threshold `t`: three (m,) arrays, score falling.

    Recall is NaN where no truth counts. The raw curve, not its envelope.
    """
    rows = np.flatnonzero(ranking.counted[t])
    hits = np.cumsum(ranking.hit[t][rows])
    recall = hits / ranking.n_truths if ranking.n_truths else np.full(len(rows), np.nan)
    return recall, hits / np.arange(1, len(rows) + 1), ranking.score[rows]


def _average_precision(ranking: Ranking, rule: AreaRule, weights: IntArray) -> FloatArray:
    """AP of one class: (T, B)."""
    out = np.full((len(ranking.hit), len(weights)), np.nan)
    if not ranking.n_truths:
        return out
    truths = weights @ ranking.truths
    layout = [_layout(ranking, t) for t in range(len(ranking.hit))]
    common = np.flatnonzero(ranking.counted[0])
    for part in _parts(len(weights), len(common)):
        some = weights[part].astype(np.int32)
        running = _running(some, ranking.image[common])
        known = np.maximum(truths[part], 1)[:, None]
        for t, (hits, before, odd, sign, odd_before) in enumerate(layout):
            found = np.cumsum(some[:, ranking.image[hits]], axis=1, dtype=np.int32)
            counted = running[:, before]
            if len(odd):
                counted = counted + _running(some, ranking.image[odd], sign)[:, odd_before]
            out[t, part] = rule(found / np.maximum(counted, 1), found / known)
    out[:, truths == 0] = np.nan
    return out


_Layout = tuple[IntArray, IntArray, IntArray, _Small, IntArray]


def _layout(ranking: Ranking, t: int) -> _Layout:
    """Where the hits stand among the detections counted at threshold 0, and which count differently at `t`.

    Most detections count alike at all thresholds, so their running sum is taken once and mended by few.
    """
    hits: IntArray = np.flatnonzero(ranking.hit[t])
    odd: IntArray = np.flatnonzero(ranking.counted[t] != ranking.counted[0])
    before = np.cumsum(ranking.counted[0])[hits]
    sign = np.where(ranking.counted[t][odd], 1, -1).astype(np.int32)
    return hits, before, odd, sign, np.searchsorted(odd, hits, side="right").astype(np.int64)


def _running(weights: _Small, image: IntArray, sign: _Small | None = None) -> _Small:
    """Running sum of the weights of rows that lie in `image` (m,), with a leading zero: (B, m + 1)."""
    result = np.zeros((len(weights), len(image) + 1), np.int32)
    rows = weights[:, image] if sign is None else weights[:, image] * sign
    np.cumsum(rows, axis=1, out=result[:, 1:])
    return result


def _parts(n: int, width: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _envelope(precision: FloatArray) -> FloatArray:
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
