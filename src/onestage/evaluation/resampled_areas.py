"""The same areas under the curve for hundreds of weightings of the images at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import sums, sums_of_runs
from onestage.records import FloatArray, IntArray

FEWEST = 150  # below this many weightings, arrays along the detections are the quicker ones
_CELLS = 1 << 21
_TABLE = 1 << 24


def average_precision(ranking: Ranking, points: FloatArray | None, weights: FloatArray) -> FloatArray:
    """AP of one class for `weights` (I, b): (T, b); the mean at recall `points`, or the whole area with None.

    Only hits, and rows that count at some thresholds alone, are visited, last one first; of what lies between, only
    the weighted number matters, and what lies behind the last hit does not. All sums are of whole numbers, so
    nothing is lost by taking them in this order. NaN where no truth counts.
    """
    truths = ranking.truths.astype(np.float64) @ weights
    steps = _Steps.of(ranking)
    result = np.zeros((len(ranking.hit), weights.shape[1]))
    if len(steps.row):
        _walk(steps, ranking, weights, None if points is None else _Reached(points, truths), result)
    with np.errstate(divide="ignore", invalid="ignore"):
        result /= np.where(truths > 0, truths if points is None else float(len(points)), np.nan)
    return result


@dataclass(frozen=True, eq=False)
class _Steps:
    """The rows to visit, in order: `row` (n,) of the ranking; before[k] rows of `common` lie up to and with step k.

    `common` holds the images of the rows that count at threshold 0. `runs` are, for each step, the blocks of
    thresholds at which the row is a hit; `odd` (n, T) tells where it counts other than at threshold 0 (+1, -1).
    """

    row: IntArray
    before: IntArray
    common: IntArray
    runs: list[list[slice]]
    odd: FloatArray | None

    @classmethod
    def of(cls, ranking: Ranking) -> _Steps:
        hit, counted = ranking.hit, ranking.counted
        any_hit = np.logical_or.reduce(hit, axis=0)
        last = int(np.flatnonzero(any_hit)[-1]) + 1 if any_hit.any() else 0
        differs = (counted[:, :last] != counted[:1, :last]).any(0)
        row: IntArray = np.flatnonzero(any_hit[:last] | differs)
        common = ranking.image[:last][counted[0, :last]]
        before: IntArray = np.cumsum(counted[0, :last], dtype=np.int64)[row]
        edge = np.diff(hit[:, row].T.astype(np.int8), axis=1, prepend=0, append=0)
        step, first = np.nonzero(edge == 1)
        _, end = np.nonzero(edge == -1)
        runs: list[list[slice]] = [[] for _ in row]
        for k, a, z in zip(step.tolist(), first.tolist(), end.tolist(), strict=True):
            runs[k].append(slice(a, z))
        odd = (counted[:, row].astype(np.float64) - counted[0, row]).T if differs.any() else None
        return cls(row, before, common, runs, odd)


class _Reached:
    """How many recall points a number of found truths reaches, for every weighting of the images.

    Recall is compared with the points as the same doubles as in `mean_at_points`: looked up in a table, or worked
    out anew where that would be large. The point 0 is reached by the first truth found.
    """

    def __init__(self, points: FloatArray, truths: FloatArray) -> None:
        self.points, self.truths = points, np.maximum(truths, 1.0)
        some, which = np.unique(self.truths, return_inverse=True)
        width = int(some[-1]) + 1
        self.table = self._of(np.arange(width) / some[:, None]).ravel() if len(some) * width <= _TABLE else None
        self.start = which.reshape(-1) * width

    def look(self, found: FloatArray, place: IntArray, out: FloatArray) -> None:
        """Write the points reached with `found` (t, b) truths, which stand at `place` in the table, to `out`."""
        if self.table is None:
            out[...] = self._of(found / self.truths)
        else:
            self.table.take(place, out=out, mode="clip")

    def _of(self, recall: FloatArray) -> FloatArray:
        known = np.minimum(recall, 1.0)
        nearest = np.rint(known * (len(self.points) - 1)).astype(np.int64)
        result: FloatArray = np.where(known > 0, nearest + (self.points[nearest] <= known), 0.0)
        return result


def _walk(steps: _Steps, ranking: Ranking, weights: FloatArray, reached: _Reached | None, area: FloatArray) -> None:
    """Add each step's share to `area` (T, b): its envelope times the points, or truths, that it is first to reach."""
    t, b = area.shape
    found = sums([ranking.image[hit] for hit in ranking.hit], weights)
    counted = sums([steps.common[: steps.before[-1]]], weights)
    image = ranking.image[steps.row]
    if steps.odd is not None:
        counted = np.repeat(counted, t, axis=0)
        for k in np.flatnonzero(steps.odd.any(1)).tolist():
            counted += steps.odd[k][:, None] * weights[image[k]]
    top, share, below = np.zeros((3, t, b))
    place = found.astype(np.int64) + (0 if reached is None else reached.start)
    now = np.zeros((t, b))
    if reached is not None:
        reached.look(found, place, now)
    for first, gaps in _gaps(steps, weights):
        whole = weights[image[first : first + len(gaps)]]
        whole_int = whole.astype(np.int64)
        for k in range(len(gaps) - 1, -1, -1):
            weight = whole[k]
            for run in steps.runs[first + k]:
                part = share[run]
                np.maximum(counted if len(counted) == 1 else counted[run], 1.0, out=part)
                np.divide(found[run], part, out=part)
                np.maximum(top[run], part, out=top[run])
                found[run] -= weight
                if reached is None:
                    np.multiply(top[run], weight, out=part)
                else:
                    place[run] -= whole_int[k]
                    reached.look(found[run], place[run], below[run])
                    np.subtract(now[run], below[run], out=part)
                    now[run] = below[run]
                    part *= top[run]
                area[run] += part
            counted -= gaps[k]
            if steps.odd is not None and steps.odd[first + k].any():
                counted -= steps.odd[first + k][:, None] * weight


def _gaps(steps: _Steps, weights: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """For blocks of steps, the last first: the first step, and the weight counted from each step back to the one
    before it, itself included: (steps, b)."""
    size = max(1, _CELLS // weights.shape[1])
    for end in range(len(steps.row), 0, -size):
        first = max(0, end - size)
        edges = np.r_[steps.before[first - 1] if first else 0, steps.before[first:end]]
        yield first, sums_of_runs(steps.common[edges[0] : edges[-1]], edges - edges[0], weights)
