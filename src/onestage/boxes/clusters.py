"""Anchors from the sides of boxes: k-means and k-medians under IoU, and which head gets which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onestage.errors import DataError
from onestage.records import FloatArray, IntArray

How = Literal["kmeans", "kmedians"]
HOW: tuple[How, ...] = ("kmeans", "kmedians")
RESTARTS = 10
ROUNDS = 300  # of one restart at most; it ends, too, when PATIENCE rounds have not raised the mean IoU by RISE
PATIENCE, RISE = 8, 1e-5
SAMPLED = 20_000  # boxes that the restarts are tried on; the best of them then goes on with all


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centres of box sides: `anchors` (K, 2) width and height, by area; `mean_iou` that of the boxes with the best.

    `start_iou` is the same of the anchors that this restart began with, `sizes` (K,) the boxes of each centre.
    """

    anchors: FloatArray
    mean_iou: float
    start_iou: float
    sizes: IntArray


def shape_iou(sides: FloatArray, anchors: FloatArray) -> FloatArray:
    """IoU (N, K) in (0, 1] of boxes with these sides (N, 2) and (K, 2), laid upon each other at one corner."""
    shared = np.minimum(sides[:, None, 0], anchors[None, :, 0])
    shared *= np.minimum(sides[:, None, 1], anchors[None, :, 1])
    whole = sides.prod(1)[:, None] + anchors.prod(1)[None] - shared
    result: FloatArray = np.divide(shared, whole, out=shared)
    return result


def clusters(
    sides: FloatArray, count: int, how: How = "kmeans", seed: int = 0, restarts: int = RESTARTS,
    start: FloatArray | None = None,
) -> Clusters:  # fmt: skip
    """`count` anchors for boxes with these `sides` (N, 2), in their units, each the mean or median of its boxes.

    A box belongs to the anchor of the highest IoU. Of `restarts` runs the one of the highest mean IoU is kept, of each
    run its best round, for a mean does not always raise it; `start` (count, 2) is tried besides. An anchor that
    loses all its boxes begins anew at the box that fits worst. The order of the boxes does not matter, and the same
    `seed` gives the same anchors. Raises DataError for fewer boxes, or fewer different ones, than anchors;
    ValueError for sides that are not above 0.

    Source: Redmon and Farhadi 2017, section 2, distance 1 - IoU; the start as in Arthur and Vassilvitskii 2007, by the
    distance itself, for the sum of distances is what is to be low. darknet and others start once, at random boxes.
    """
    distinct, weights = _distinct(sides, count)
    centre = _CENTRES[how]
    rng = np.random.default_rng(seed)
    some, their = distinct, weights
    if len(distinct) > SAMPLED:
        drawn = rng.multinomial(SAMPLED, weights / weights.sum())
        some, their = distinct[drawn > 0], drawn[drawn > 0].astype(np.float64)
    starts = [_spread(some, their, count, rng) for _ in range(max(restarts, 1))]
    if start is not None:
        starts.append(np.array(start, np.float64).reshape(count, 2))
    settled = [_settled(some, their, first, centre) for first in starts]
    best = max(range(len(starts)), key=lambda i: settled[i][1])
    anchors = settled[best][0] if some is distinct else _settled(distinct, weights, settled[best][0], centre)[0]
    # A sample may have preferred what fits the whole worse than where it came from.
    known = (anchors, starts[best], *([] if start is None else starts[-1:]))
    anchors = max(known, key=lambda held: _mean_iou(distinct, weights, held))
    anchors = anchors[np.lexsort((anchors[:, 0], anchors.prod(1)))]
    own = shape_iou(distinct, anchors).argmax(1)
    sizes = np.bincount(own, weights, count).astype(np.int64)
    mean, first_mean = (_mean_iou(distinct, weights, held) for held in (anchors, starts[best]))
    return Clusters(anchors, mean, first_mean, sizes)


def shares(count: int, heads: int) -> tuple[int, ...]:
    """How many of `count` anchors each head gets, the finest first: equal shares, what is left over to the finest.

    Raises ValueError for more heads than anchors.
    """
    if not 1 <= heads <= count:
        raise ValueError(f"shares: expected at least one anchor for each of {heads} heads, got {count}")
    return tuple(count // heads + (i < count % heads) for i in range(heads))


def masks(counts: Sequence[int], strides: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Which of the anchors, sorted by area, each head answers with: the smallest go to the smallest stride.

    `counts` are the anchors of each head, `strides` the sides of its cells; both and the result in the heads' order.
    """
    found: list[tuple[int, ...]] = [()] * len(counts)
    first = 0
    for head in sorted(range(len(counts)), key=lambda i: strides[i]):
        found[head] = tuple(range(first, first + counts[head]))
        first += counts[head]
    return tuple(found)


def _distinct(sides: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The different sides, sorted, and how many boxes have them; what cannot be clustered is refused."""
    sides = np.asarray(sides, np.float64).reshape(-1, 2)
    if count < 1:
        raise ValueError(f"clusters: expected at least one anchor, got {count}")
    if not (np.isfinite(sides) & (sides > 0)).all():
        raise ValueError("clusters: expected finite sides above 0")
    pairs, counts = np.unique(sides[:, 0] + 1j * sides[:, 1], return_counts=True)  # faster than by rows
    distinct = np.stack([pairs.real, pairs.imag], 1)
    if len(distinct) < count:
        held = f"{len(sides)} box{'es' * (len(sides) != 1)}"
        few = held if len(sides) < count else f"{held} of {len(distinct)} different sizes"
        raise DataError(
            f"{count} anchors need at least {count} boxes of different sizes, there are {few}",
            hint="fewer anchors, more images, or the model's own anchors",
        )
    return distinct, counts.astype(np.float64)


def _spread(sides: FloatArray, weights: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """`count` different boxes, each drawn by its distance to the nearest drawn before."""
    chosen = [int(rng.choice(len(sides), p=weights / weights.sum()))]
    far = 1 - shape_iou(sides, sides[chosen])[:, 0]
    for _ in range(count - 1):
        far[chosen[-1]] = 0.0  # rounding leaves no chance to what is drawn already
        chances = np.maximum(far, 0) * weights
        if not chances.any():  # what is left differs by less than rounding
            chances = np.ones(len(sides))
            chances[chosen] = 0.0
        chosen.append(int(rng.choice(len(sides), p=chances / chances.sum())))
        far = np.minimum(far, 1 - shape_iou(sides, sides[chosen[-1:]])[:, 0])
    return sides[chosen]


def _settled(
    sides: FloatArray, weights: FloatArray, anchors: FloatArray, centre: Callable[[FloatArray, FloatArray], FloatArray]
) -> tuple[FloatArray, float]:
    """The best anchors that the rounds from here came by, and the mean IoU of the boxes with them."""
    best, highest = anchors, -1.0
    before = np.full(len(sides), -1)
    risen, last = -1.0, 0
    for round_ in range(ROUNDS):
        overlap = shape_iou(sides, anchors)
        own = overlap.argmax(1)
        reached = overlap[np.arange(len(sides)), own]
        mean = float(weights @ reached / weights.sum())
        if mean > highest:
            best, highest = anchors, mean
        if mean > risen + RISE:
            risen, last = mean, round_
        if (own == before).all() or round_ - last >= PATIENCE:
            break
        before = own
        anchors = _centres(sides, weights, own, reached, len(anchors), centre)
    return best, highest


def _centres(
    sides: FloatArray, weights: FloatArray, own: IntArray, reached: FloatArray, count: int,
    centre: Callable[[FloatArray, FloatArray], FloatArray],
) -> FloatArray:  # fmt: skip
    """The centre of each anchor's boxes; an anchor without boxes goes to the box that then fits worst."""
    found = np.empty((count, 2))
    for k in range(count):
        mine = own == k
        if mine.any():
            found[k] = centre(sides[mine], weights[mine])
            continue
        found[k] = sides[reached.argmin()]
        reached = np.maximum(reached, shape_iou(sides, found[k : k + 1])[:, 0])  # the next one goes elsewhere
    return found


def _mean(sides: FloatArray, weights: FloatArray) -> FloatArray:
    result: FloatArray = weights @ sides / weights.sum()
    return result


def _median(sides: FloatArray, weights: FloatArray) -> FloatArray:
    """The median of each column, where a row counts `weights` times; of an even number the middle of the two."""
    found = np.empty(2)
    for axis in range(2):
        order = np.argsort(sides[:, axis], kind="stable")
        values, below = sides[order, axis], np.cumsum(weights[order])
        low, high = (np.searchsorted(below, below[-1] / 2, side=side) for side in ("left", "right"))
        found[axis] = (values[low] + values[min(high, len(values) - 1)]) / 2
    return found


def _mean_iou(sides: FloatArray, weights: FloatArray, anchors: FloatArray) -> float:
    return float(weights @ shape_iou(sides, anchors).max(1) / weights.sum())


_CENTRES: dict[How, Callable[[FloatArray, FloatArray], FloatArray]] = {"kmeans": _mean, "kmedians": _median}
