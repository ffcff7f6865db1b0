"""What a protocol hands back: its scores for any weighting of the images, made into metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onestage.evaluation.average_precision import AreaRule
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.uncertainty import score_interval
from onestage.records import FloatArray, IntArray, Metric, Metrics

Key = tuple[str, str | None]


@dataclass(frozen=True, eq=False)
class Judgement:
    """A set judged by one protocol.

    `scores` maps weights (B, I) of the images to values (B,) per (name, class): with a row of ones the score, with
    multinomial rows its bootstrap, by the same code. `count` gives the number of truths a score rests on.
    `rankings` holds each class's detections per area range ("" where a protocol has none; empty where a protocol
    ranks otherwise). `curves` are a protocol's own curves by name, ready for JSON. `notes` are sentences that
    belong beside the scores: what of the official rule could not be followed, and why. `absent_as_zero` says that
    classes without truths lower the mean, as 0. `whole_curve` says that the scores rest on detections of every score,
    as average precision does; where not, the protocol's own notes say what a score floor takes from them. `some`
    computes at least the scores of some keys, where that is cheaper; ask through `chosen`.
    """

    protocol: str
    scores: Callable[[IntArray], Mapping[Key, FloatArray]]
    count: Callable[[Key], int]
    n_images: int
    rankings: Mapping[str, Sequence[Ranking]]
    rule: AreaRule | None = None
    curves: Mapping[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    absent_as_zero: bool = False
    whole_curve: bool = True
    some: Callable[[IntArray, Collection[Key]], Mapping[Key, FloatArray]] | None = None

    def chosen(self, weights: IntArray, keys: Collection[Key]) -> dict[Key, FloatArray]:
        """The scores of `keys` alone, for `weights` (B, I): quicker than all where the protocol knows how."""
        known = self.scores(weights) if self.some is None else self.some(weights, keys)
        return {key: known[key] for key in keys}

    def values(self) -> dict[Key, float]:
        """The scores themselves; NaN where no truth counts."""
        return dict(self._values)

    @cached_property
    def _values(self) -> dict[Key, float]:
        ones = np.ones((1, self.n_images), np.int64)
        return {key: float(value[0]) for key, value in self.scores(ones).items()}

    def metrics(self, weights: IntArray | None = None) -> Metrics:
        """The scores as rows, with a 95 % interval each where bootstrap `weights` (B, I) are given."""
        spread = {} if weights is None else self.scores(weights)
        return Metrics(tuple(
            Metric(
                self.protocol, key[0], value, self.count(key), key[1],
                score_interval(spread[key], value, self.n_images, self.count(key)) if spread else None,
            )
            for key, value in self.values().items()
        ))  # fmt: skip


def _fits(pool: Pool) -> str | None:
    return None


@dataclass(frozen=True)
class Protocol:
    """One way of judging, by its name in `PROTOCOLS`: call it with a pool.

    `headline` is the row it is known by; `about` the tool whose numbers these are. `unfit` says in words why a set
    cannot be judged so, for lack of something that only its own truth has; None where it can.
    """

    judge: Callable[[Pool], Judgement]
    headline: str
    about: str
    unfit: Callable[[Pool], str | None] = _fits

    def __call__(self, pool: Pool) -> Judgement:
        """The judgement of `pool`."""
        return self.judge(pool)
