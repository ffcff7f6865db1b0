"""What a classification loss is at chance: the best that a head which sees nothing can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np


def entropy(shares: Sequence[float]) -> float:
    """Shannon entropy in nats of counts or shares, which need not sum to 1; 0 where all are 0."""
    total = sum(shares)
    return -sum(n / total * math.log(n / total) for n in shares if n > 0) if total > 0 else 0.0


def mined(ratio: float, class_counts: Sequence[float] = ()) -> float:
    """Cross-entropy per positive, with `ratio` mined negatives each, of a head that always says the shares themselves.

    (1 + r) H(1 / (1 + r)) for background against object, plus the entropy of the classes among the objects: 2.2493 at
    r = 3 and 3.0143 at r = 7 for one class. ssd and faceboxes divide by positives, so the unit is theirs.
    """
    if ratio < 0:
        raise ValueError(f"expected a ratio of 0 or more, got {ratio}")
    share = 1 / (1 + ratio)
    return (1 + ratio) * entropy((share, 1 - share)) + entropy(class_counts)


def untrained(ratio: float, classes: int) -> float:
    """Cross-entropy per positive of a head that gives each of `classes` + 1 columns the same: (1 + r) ln(C + 1)."""
    return (1 + ratio) * math.log(classes + 1)


def focal(negatives: float, shares: Sequence[float], gamma: float = 2.0, alpha: float = 0.25) -> float:
    """Sigmoid focal loss per positive of the best constant scores, with `negatives` background priors per positive.

    `shares` are the classes' shares of the positives. Lin et al. 2017's loss; found on a grid of scores, to 1e-3.
    """
    return sum(_constant(round(math.log1p(negatives), 2), round(share, 3), gamma, alpha) for share in shares if share)


@cache
def _constant(log_priors: float, share: float, gamma: float, alpha: float) -> float:
    """The least focal loss of one class over all constant scores; `log_priors` is ln(1 + negatives)."""
    p = 1 / (1 + np.exp(-np.linspace(-12, 6, 400)))
    wrong = (math.exp(log_priors) - share) * (1 - alpha) * p**gamma * -np.log1p(-p)
    return float(np.min(share * alpha * (1 - p) ** gamma * -np.log(p) + wrong))
