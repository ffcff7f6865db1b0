"""How sure a score is: bootstrap over images with true multiplicities, and intervals from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from onestage.evaluation.significance import quantile
from onestage.records import FloatArray, IntArray

RESAMPLES = 500
FEW = 5
FARTHEST = 2.8  # normal quantiles: a percentile of 0.26, the outermost that 500 resamples can tell


def multiplicities(n_images: int, resamples: int = RESAMPLES, seed: int = 0) -> IntArray:
    """How often each image is drawn in each resample of a set of `n_images`, with replacement: (B, I), rows sum to I.

    The same seed gives the same draws, so that two runs judged on the same images can be compared in pairs. Integers
    of 4 bytes: 1,000 resamples of 100,000 images take 0.4 GB.
    """
    counts = np.zeros((resamples, n_images), np.int32)
    rng = np.random.default_rng(seed)
    for row in counts if n_images else ():
        row[:] = np.bincount(rng.integers(0, n_images, n_images), minlength=n_images)
    return counts  # type: ignore[return-value]  # weights of any integers will do


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
    low, high = _quantiles(defined, (-z, z))
    return low, high


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
    acceleration = _skewness(defined) / 6
    lean = 1.5 * _leaning(defined, score)
    ends = [_accelerated(end, moved, acceleration) for end in (-z, z) for moved in (0.0, lean)]
    *lows, last, least_sure = _quantiles(defined, ends)
    low, high = min(lows), max(last, least_sure)
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


def _quantiles(ordered: FloatArray, ends: Sequence[float]) -> list[float]:
    """The values that lie at these normal quantiles, as numpy's percentile has them."""
    place = [NormalDist().cdf(z) * (len(ordered) - 1) for z in ends]
    below = [min(int(at), len(ordered) - 2) if len(ordered) > 1 else 0 for at in place]
    above = [min(k + 1, len(ordered) - 1) for k in below]
    low, high, share = ordered[below], ordered[above], np.subtract(place, below)
    result: FloatArray = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    return [float(value) for value in result]


def _accelerated(z: float, leaning: float, acceleration: float) -> float:
    """Efron's quantile for `z`, kept within FARTHEST and its constants within what a set of a few images can bear."""
    moved = leaning + z
    far = leaning + moved / max(1 - float(np.clip(acceleration, -0.3, 0.3)) * moved, 0.2)
    return float(np.clip(far, -FARTHEST, FARTHEST))


def _skewness(values: FloatArray) -> float:
    spread = values.std()
    return float(((values - values.mean()) ** 3).mean() / spread**3) if spread > 1e-9 else 0.0


def _leaning(ordered: FloatArray, score: float) -> float:
    """The normal quantile of the share of resamples below the score, half of those at it included."""
    below, upto = np.searchsorted(ordered, [score - 1e-9, score + 1e-9])
    share = (int(below) + int(upto)) / 2 / len(ordered)
    least = min(1 / len(ordered), 0.5)
    return NormalDist().inv_cdf(min(max(share, least), 1 - least))
