"""The detections of a class in order of score, with what became of each: what most protocols come to."""

from __future__ import annotations

from dataclasses import dataclass

from onestage.records import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """The detections of one class in order of score, and what became of each at T overlap thresholds.

    `image` (n,) is an index into the set's images, `score` (n,) descends, `rank` (n,) is the place within its own
    image, 0 for the best. `hit` and `counted` are (T, n): a detection that is counted but no hit is false; one that
    is not counted fell on a truth that counts neither way. Every hit is counted. `truths` (I,) is the number of
    truths that count in each image.
    """

    image: IntArray
    score: FloatArray
    rank: IntArray
    hit: BoolArray
    counted: BoolArray
    truths: IntArray

    @property
    def n_truths(self) -> int:
        """How many truths count."""
        return int(self.truths.sum())
