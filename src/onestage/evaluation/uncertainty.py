"""How sure a score is: percentile bootstrap over images, with true multiplicities."""

from __future__ import annotations

from statistics import NormalDist

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


def interval(values: FloatArray, n_images: int, level: float = 0.95) -> tuple[float, float] | None:
    """The interval that bootstrap values (B,) of a set of `n_images` span at `level`, ignoring undefined ones.

    The percentiles are moved outwards for small sets, as a t interval is wider than a normal one: at 95 % they are
    2.3 and 97.7 for 100 images, 1.8 and 98.2 for 25. None for fewer than two images, and where fewer than half of the
    resamples are defined: an interval would then speak of another set.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap (expanded percentile interval). In
    simulation mAP50 of 25 and of 100 images lay inside in 93 to 95 of 100 sets, COCO's mean AP in 92; the reverse
    ("basic") interval failed with 11 points, whose jumps make the bootstrap lean.
    """
    defined = values[~np.isnan(values)]
    if n_images < 2 or len(defined) == 0 or 2 * len(defined) < len(values):
        return None
    tail = 100 * NormalDist().cdf(-_student(0.5 + level / 2, n_images - 1) * np.sqrt(n_images / (n_images - 1)))
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def _student(quantile: float, freedom: int) -> float:
    """Quantile of Student's t by its expansion in 1 / freedom: within 1 % of it from 4 degrees of freedom on."""
    z = NormalDist().inv_cdf(quantile)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
