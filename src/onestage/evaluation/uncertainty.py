"""How sure a score is: percentile bootstrap over images, with true multiplicities."""

from __future__ import annotations

import numpy as np

from onestage.records import FloatArray, IntArray

RESAMPLES = 500


def multiplicities(n_images: int, resamples: int = RESAMPLES, seed: int = 0) -> IntArray:
    """How often each image is drawn in each resample of a set of `n_images`, with replacement: (B, I), rows sum to I.

    The same seed gives the same draws, so that two runs judged on the same images can be compared in pairs.
    """
    if n_images == 0:
        return np.zeros((resamples, 0), np.int64)
    drawn = np.random.default_rng(seed).integers(0, n_images, (resamples, n_images))
    drawn += np.arange(resamples)[:, None] * n_images
    return np.bincount(drawn.ravel(), minlength=resamples * n_images).reshape(resamples, n_images)


def interval(values: FloatArray, level: float = 0.95) -> tuple[float, float] | None:
    """The middle `level` of bootstrap values (B,), ignoring resamples in which the score is undefined.

    None where fewer than half of the resamples are defined: an interval would then speak of another set.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return None
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
