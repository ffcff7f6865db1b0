"""What a standard error says: p-values by Student's t, corrections for many tests, power."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from onestage.records import FloatArray

POWER = 0.8


def quantile(probability: float, freedom: float) -> float:
    """The value that Student's t with `freedom` degrees of freedom (inf: the normal) stays below so often."""
    from scipy import special

    value = special.ndtri(probability) if math.isinf(freedom) else special.stdtrit(freedom, probability)
    return float(value)


def two_sided(t: float, freedom: float) -> float:
    """How often |t| is at least so large where there is no difference: p in [0, 1]."""
    from scipy import special

    tail = special.ndtr(-abs(t)) if math.isinf(freedom) else special.stdtr(freedom, -abs(t))
    return min(1.0, 2 * float(tail))


def holm(p: Sequence[float]) -> FloatArray:
    """Holm's corrected p-values (n,): the chance of one or more false finds among all is at most the p accepted.

    NaN stands for a test that was not made; it stays NaN and is not counted. Source: Holm 1979.
    """
    return _stepwise(p, lambda ordered, m: np.maximum.accumulate(ordered * (m - np.arange(m))))


def benjamini_hochberg(p: Sequence[float]) -> FloatArray:
    """Benjamini and Hochberg's corrected p-values (n,): of the finds accepted, on average that share is false.

    NaN as in `holm`. Source: Benjamini and Hochberg 1995.
    """
    return _stepwise(p, lambda ordered, m: np.minimum.accumulate((ordered * m / np.arange(1, m + 1))[::-1])[::-1])


@lru_cache(maxsize=4096)
def detectable(freedom: float, level: float = 0.95, power: float = POWER) -> float:
    """How many standard errors a true difference must measure, to be found at `level` so often as `power` says.

    2.80 for many degrees of freedom at 95 % and 80 %; by the noncentral t, so that few seeds cost what they do.
    """
    from scipy import optimize, special

    at = quantile(0.5 + level / 2, freedom)
    if freedom > 1e4:
        return at + quantile(power, math.inf)

    # a noncentral t as the mean over the error's own chance: scipy's nctdtr has holes at few degrees of freedom
    share = (np.arange(4000) + 0.5) / 4000
    bar = at * np.sqrt(2 * special.gammaincinv(freedom / 2, share) / freedom)

    def missing(size: float) -> float:
        return float(special.ndtr(size - bar).mean()) - power

    return float(optimize.brentq(missing, 0.0, float(bar[-1]) + 10.0, xtol=1e-6))


def _stepwise(p: Sequence[float], correct: Callable[[FloatArray, int], FloatArray]) -> FloatArray:
    values = np.asarray(p, np.float64)
    result = np.full(len(values), np.nan)
    made = np.flatnonzero(~np.isnan(values))
    order = made[np.argsort(values[made], kind="stable")]
    result[order] = np.minimum(correct(values[order], len(order)), 1.0)
    return result
