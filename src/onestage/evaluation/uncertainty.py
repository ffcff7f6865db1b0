"""How sure a score is: bootstrap over images with true multiplicities, and intervals from it."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from onestage.evaluation.significance import quantile
from onestage.records import FloatArray, IntArray

RESAMPLES = 500
FEW = 5


def multiplicities(n_images: int, resamples: int = RESAMPLES, seed: int = 0) -> IntArray:
    """How often each image is drawn in each resample of a set of `n_images`, with replacement: (B, I), rows sum to I.

    The same seed gives the same draws, so that two runs judged on the same images can be compared in pairs.
    """
    if n_images == 0:
        return np.zeros((resamples, 0), np.int64)
    drawn = np.random.default_rng(seed).integers(0, n_images, (resamples, n_images))
    for row in drawn:
        row[:] = np.bincount(row, minlength=n_images)
    return drawn


def interval(values: FloatArray, n_images: int, level: float = 0.95) -> tuple[float, float] | None:
    """The plain percentile interval of bootstrap values (B,), such as differences; of scores see `score_interval`.

    The percentiles are moved outwards for small sets, as a t interval is wider than a normal one: at 95 % they are
    2.3 and 97.7 for 100 images, 1.8 and 98.2 for 25. Undefined values are left out. None for fewer than two images,
    and where fewer than half of the resamples are defined: an interval would then speak of another set.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap (expanded percentile interval).
    """
    defined = _defined(values, n_images)
    if defined is None:
        return None
    z = _half_width(n_images, level)
    return _quantile(defined, -z), _quantile(defined, z)


def score_interval(
    values: FloatArray, score: float, n_images: int, truths: int, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval of a `score` in [0, 1] that rests on `truths` objects, from its bootstrap values (B,).

    Percentiles as in `interval`, with three corrections, each for a fault that simulation showed. Skewness: the
    percentiles move as those of the accelerated bootstrap, the skewness of the values over 6 for its constant.
    Leaning: average precision of small sets is too high, most at strict overlaps, for the envelope takes the best of
    noisy precisions; resamples lean the same way. The end away from which they lean moves by three times the
    leaning (in normal quantiles), the other stays, so the score is never left outside. Ends: where fewer than
    FEW truths' worth of score are missing (or there), resamples may show no error at all; the interval is then
    at least that of Wilson for a share of `truths`. None as in `interval`, and where the score is not defined.

    Source: Efron 1987, Better Bootstrap Confidence Intervals; Wilson 1927, for a share. The leaning is
    taken 1.5 times as Efron takes it, for resamples show a third to a half of it. docs/uncertainty.md gives the
    coverage by simulation, and where it fails.
    """
    defined = _defined(values, n_images)
    if defined is None or np.isnan(score):
        return None
    z = _half_width(n_images, level)
    skewed = [_accelerated(end, 0.0, _skewness(defined) / 6) for end in (-z, z)]
    leaning = [_accelerated(end, 1.5 * _leaning(defined, score), _skewness(defined) / 6) for end in (-z, z)]
    low = min(_quantile(defined, skewed[0]), _quantile(defined, leaning[0]))
    high = max(_quantile(defined, skewed[1]), _quantile(defined, leaning[1]))
    if 0 <= score <= 1 and truths and min(score, 1 - score) * truths < FEW:
        least, most = wilson(score, truths, NormalDist().inv_cdf(0.5 + level / 2))
        low, high = min(low, least), max(high, most)
    return min(low, score), max(high, score)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a `share` of `n` things, `z` standard errors to either side, within [0, 1]."""
    middle = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return max(0.0, float(low)), min(1.0, float(high))


def _defined(values: FloatArray, n_images: int) -> FloatArray | None:
    """The defined values in order, or None where they are too few for an interval."""
    defined = np.sort(values[~np.isnan(values)])
    return None if n_images < 2 or len(defined) == 0 or 2 * len(defined) < len(values) else defined


def _half_width(n_images: int, level: float) -> float:
    return quantile(0.5 + level / 2, n_images - 1) * float(np.sqrt(n_images / (n_images - 1)))


def _quantile(ordered: FloatArray, z: float) -> float:
    return float(np.percentile(ordered, 100 * NormalDist().cdf(z)))


def _accelerated(z: float, leaning: float, acceleration: float) -> float:
    """Efron's quantile for `z`, its constants kept within what a set of a few images can bear."""
    moved = leaning + z
    return leaning + moved / max(1 - float(np.clip(acceleration, -0.3, 0.3)) * moved, 0.2)


def _skewness(values: FloatArray) -> float:
    spread = values.std()
    return float(((values - values.mean()) ** 3).mean() / spread**3) if spread > 1e-9 else 0.0


def _leaning(ordered: FloatArray, score: float) -> float:
    """The normal quantile of the share of resamples below the score, half of those at it included."""
    below, upto = np.searchsorted(ordered, [score - 1e-9, score + 1e-9])
    share = (int(below) + int(upto)) / 2 / len(ordered)
    return NormalDist().inv_cdf(float(np.clip(share, 1 / len(ordered), 1 - 1 / len(ordered))))
