"""How well the anchors of a network's heads fit boxes, and whether others would by a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from onestage.boxes.clusters import RESTARTS, How, clusters, masks, shape_iou, shares
from onestage.errors import DataError
from onestage.records import FloatArray, IntArray

RATIO = 4.0  # of sides, up to which an anchor can answer in the losses of YOLOv5 and its kin
GOOD = 0.5
# What is called a margin. A rise of less than NEARLY in the mean IoU is called none, whatever its interval.
NEARLY = 0.02
REACHED = 0.98  # share of boxes within RATIO from which YOLOv5 leaves anchors as they are
RECALLED = 0.1  # rise of the share of boxes with IoU of GOOD
Advice = Literal["keep", "doubtful", "try"]
WARNING = (
    "a better fit is no proof of a better detector: one run whose anchors fitted with 71.9 % instead of 64.4 % gained "
    "nothing (mAP 27.7, 29.9 with the usual ones), another fell from 53 to 40; trained heads know only their own"
)


@dataclass(frozen=True)
class Heads:
    """The anchors of a network: `anchors` (width, height) in pixels, `masks` those of each head, `strides` in pixels.

    Heads come in the network's order; an anchor may be in several masks, or in none. `unit` is how many pixels the
    network's own file calls 1 where it lists anchors.
    """

    anchors: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, ...], ...]
    strides: tuple[float, ...]
    unit: float = 1.0

    @property
    def sides(self) -> FloatArray:
        """The anchors (K, 2)."""
        return np.array(self.anchors, np.float64).reshape(-1, 2)

    @property
    def owner(self) -> IntArray:
        """The head of each anchor (K,), the first of several; -1 for none."""
        found = np.full(len(self.anchors), -1, np.int64)
        for head in reversed(range(len(self.masks))):
            found[list(self.masks[head])] = head
        return found

    @property
    def counts(self) -> tuple[int, ...]:
        """How many anchors each head answers with."""
        return tuple(map(len, self.masks))

    @property
    def finest_first(self) -> list[int]:
        """The heads, that of the smallest stride first."""
        return sorted(range(len(self.strides)), key=lambda head: self.strides[head])

    @property
    def unsorted(self) -> list[tuple[int, int]]:
        """Pairs of heads, finer and next coarser, where the finer's largest anchor is above the coarser's smallest."""
        area = self.sides.prod(1)
        order = [head for head in self.finest_first if self.masks[head]]
        return [
            (fine, coarse) for fine, coarse in pairwise(order)
            if area[list(self.masks[fine])].max() > area[list(self.masks[coarse])].min()
        ]  # fmt: skip

    def with_anchors(self, anchors: FloatArray, counts: Sequence[int] | None = None) -> Heads:
        """The same heads with other `anchors` (K, 2), sorted by area: the smallest go to the smallest stride."""
        pairs = tuple((float(w), float(h)) for w, h in anchors)
        return Heads(pairs, masks(counts or self.counts, self.strides), self.strides, self.unit)


@dataclass(frozen=True)
class AnchorFit:
    """How anchors fit boxes, by shape alone; shares are of 0 … 1.

    `mean_iou` is the mean over the `boxes` of the IoU with the best anchor of any head, `recall` the share of boxes for
    which it is GOOD or more, `within` that of boxes with an anchor whose sides differ by less than RATIO, `below`
    that of boxes smaller in area than every anchor. `load` is for each head the share of boxes whose best anchor of
    all it has, `unowned` that of boxes whose best anchor no head has.
    """

    boxes: int
    mean_iou: float
    recall: float
    within: float
    below: float
    load: tuple[float, ...]
    unowned: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {
            "boxes": self.boxes, "mean_iou": round(self.mean_iou, 4), "recall": round(self.recall, 4),
            "within_ratio": round(self.within, 4), "below_smallest": round(self.below, 4),
            "load": [round(share, 4) for share in self.load], "unowned": round(self.unowned, 4),
        }  # fmt: skip


@dataclass(frozen=True)
class Gain:
    """How much higher the mean IoU of boxes is with other anchors: `value`, and its interval at 95 %.

    The interval is over `images`. `held_out`: each image was judged with anchors made from other images.
    """

    value: float
    low: float
    high: float
    images: int
    held_out: bool = False


@dataclass(frozen=True)
class Refit:
    """Anchors made from a set beside those a network has: `heads` and `fit` of each, the gain, and what to think."""

    old: Heads
    new: Heads
    old_fit: AnchorFit
    new_fit: AnchorFit
    gain: Gain
    how: How
    seed: int

    @property
    def cramped(self) -> list[int]:
        """Heads whose new anchors are all smaller than their cells, where those of the network were not."""
        mine = [head.sides.prod(1) ** 0.5 for head in (self.old, self.new)]
        own, new = ([side[list(mask)].max() for mask in heads.masks]
                    for side, heads in zip(mine, (self.old, self.new), strict=True))  # fmt: skip
        return [head for head in self.old.finest_first if new[head] < self.old.strides[head] <= own[head]]

    @property
    def advice(self) -> Advice:
        """ "keep" the network's own, "try" the new ones, or "doubtful"."""
        if self.gain.low <= 0 or self.gain.high < NEARLY or self.gain.value < NEARLY:
            return "keep"
        if self.cramped:
            return "doubtful"
        missed_now, missed_then = 1 - self.old_fit.within, 1 - self.new_fit.within
        reaches = missed_now > 1 - REACHED and missed_then <= missed_now / 2
        reaches |= self.old_fit.unowned > 1 - REACHED
        return "try" if reaches or self.new_fit.recall - self.old_fit.recall >= RECALLED else "doubtful"

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence without the full stop; WARNING goes with every advice but "keep"."""
        gain = self.gain
        by = (
            f"{100 * gain.value:+.1f} points of mean IoU{' on held-out images' * gain.held_out} "
            f"(95 %: {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )
        if self.advice == "keep":
            return f"keep the model's own anchors: others change the fit by {by}, no margin that matters"
        if self.cramped:
            return (
                f"they fit better, {by}, but {_listed([f'{self.old.strides[head]:g}' for head in self.cramped])} "
                "px cells would answer for objects smaller than a cell, several to one: objects are too small for this "
                "input, and a larger size or tiles help more than anchors"
            )
        if self.advice == "doubtful":
            return (
                f"they fit better, {by}, but the model's own already reach {_percent(self.old_fit.within)} of the "
                f"objects within a ratio of {RATIO:g}: hardly worth it"
            )
        old, new = self.old_fit, self.new_fit
        ownerless = f"; {_percent(old.unowned)} fit an anchor best that no head has" * bool(old.unowned)
        return (
            f"they fit better where it may matter: {by}; IoU {GOOD:g} or more for {_percent(new.recall)} of objects "
            f"instead of {_percent(old.recall)}, beyond ratio {RATIO:g} {_percent(1 - new.within)} instead of "
            f"{_percent(1 - old.within)}{ownerless}: worth a run beside one with the model's own"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        gain = self.gain
        sets = {
            name: {"anchors": [list(pair) for pair in heads.anchors], "masks": [list(mask) for mask in heads.masks],
                   **fit.as_dict()}
            for name, heads, fit in (("own", self.old, self.old_fit), ("new", self.new, self.new_fit))
        }  # fmt: skip
        return {
            "how": self.how, "seed": self.seed, "strides": list(self.old.strides), **sets,
            "gain": {"value": round(gain.value, 4), "low": round(gain.low, 4), "high": round(gain.high, 4),
                     "images": gain.images, "held_out": gain.held_out},
            "advice": self.advice, "verdict": self.verdict, "cramped_heads": self.cramped,
            "warning": None if self.advice == "keep" else WARNING,
        }  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def anchor_fit(sides: FloatArray, heads: Heads) -> AnchorFit:
    """How the anchors fit boxes with these `sides` (N, 2) in pixels of the input; N = 0 gives zeros."""
    owner, count = heads.owner, len(sides)
    if not count:
        return AnchorFit(0, 0.0, 0.0, 0.0, 0.0, (0.0,) * len(heads.masks), 0.0)
    overlap = shape_iou(sides, heads.sides)
    head = owner[overlap.argmax(1)]
    best = overlap[:, owner >= 0].max(1)
    mine = heads.sides[owner >= 0]
    ratio = sides[:, None] / mine[None]
    worst = np.maximum(ratio, 1 / ratio).max(2)
    below = sides.prod(1) < mine.prod(1).min()
    load = np.bincount(head[head >= 0], minlength=len(heads.masks)) / count
    return AnchorFit(
        count, float(best.mean()), float((best >= GOOD).mean()), float((worst.min(1) < RATIO).mean()),
        float(below.mean()), tuple(load.tolist()), float((head < 0).mean()),
    )  # fmt: skip


def refit(
    sides: FloatArray, image: IntArray, heads: Heads, how: How = "kmeans", *, count: int | None = None, seed: int = 0,
    restarts: int = RESTARTS,
) -> Refit:  # fmt: skip
    """Anchors made from boxes with `sides` (N, 2) of images `image` (N,), beside those of `heads`.

    They are rounded to a tenth of a pixel. Without `count` each head gets as many as it has; else equal shares. The
    gain is measured on held-out images: each half is judged with anchors made from the other, where both have boxes
    enough. Raises DataError for too few boxes.
    """
    counts = heads.counts
    if count is not None and count != sum(counts):
        each = dict(zip(heads.finest_first, shares(count, len(counts)), strict=True))
        counts = tuple(each[head] for head in range(len(counts)))
    owned = heads.sides[heads.owner >= 0]

    def made(boxes: FloatArray) -> FloatArray:
        start = owned if len(owned) == sum(counts) else None
        return np.maximum(clusters(boxes, sum(counts), how, seed, restarts, start).anchors.round(1), 0.1)

    new = heads.with_anchors(made(sides), counts)
    before = shape_iou(sides, owned).max(1)
    after, held_out = _held_out(sides, image, made, seed)
    if not held_out:
        after = shape_iou(sides, new.sides).max(1)
    gain = _gain(after - before, image, held_out)
    return Refit(heads, new, anchor_fit(sides, heads), anchor_fit(sides, new), gain, how, seed)


def _held_out(sides: FloatArray, image: IntArray, made: Any, seed: int) -> tuple[FloatArray, bool]:
    """The best IoU of each box with anchors made from the other half of the images; False where a half has too few."""
    images = np.unique(image)
    first = np.random.default_rng(seed).permutation(images)[: len(images) // 2]
    half = np.isin(image, first)
    best = np.zeros(len(sides))
    try:
        for mine in (half, ~half):
            best[mine] = shape_iou(sides[mine], made(sides[~mine])).max(1)
    except DataError:
        return best, False
    return best, True


def _gain(difference: FloatArray, image: IntArray, held_out: bool) -> Gain:
    """The mean difference over boxes, its interval over images: a ratio of sums, by linearisation, Student's t."""
    _, where = np.unique(image, return_inverse=True)
    total, number = np.bincount(where, difference), np.bincount(where)
    images = len(number)
    mean = float(total.sum() / number.sum())
    if images < 2:
        return Gain(mean, -1.0, 1.0, images, held_out)
    from scipy.special import stdtrit  # late: it is slow to import

    spread = total - mean * number
    error = float(np.sqrt((spread**2).sum() * images / (images - 1)) / number.sum())
    away = float(stdtrit(images - 1, 0.975)) * error
    return Gain(mean, mean - away, mean + away, images, held_out)
