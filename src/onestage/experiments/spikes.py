"""Spikes in a training curve: how far a step lies above those before it, robustly, as they come."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MINIMUM = 30
"""Steps that must have been seen before one can be called a spike."""
# What is watched → least robust deviation in log units, and least factor above the median. A quiet curve has a tiny
# spread, and eight times nothing is nothing; calibrated in docs/findings.md.
FLOORS = {"loss": (0.08, 2.0), "grad_norm": (0.15, 4.0), "positives": (0.15, 3.0)}
CROWD = 1.2  # positives per image above all in memory by so much are told beside a spike of loss or gradient
LR_JUMP = 1.5  # a learning rate that changes by more than so much from one step to the next starts a new chapter
UNSEEN_SIZES = 64
RESIZED = 5  # steps after another input size at which loss and gradient may be as far off again


@dataclass(frozen=True)
class Spike:
    """A value far above what the steps before it led to expect; `what` is loss, grad_norm or positives (per image).

    `expected` is the rolling median, `sigmas` the distance in robust deviations of the logarithm.
    """

    what: str
    value: float
    expected: float
    sigmas: float

    def as_dict(self) -> dict[str, Any]:
        """The spike as JSON."""
        return asdict(self)


class Rolling:
    """The last `window` values in order of size: median, median deviation and upper tail without sorting anew."""

    def __init__(self, window: int, values: Sequence[float] = ()) -> None:
        self.window = window
        self.order: list[float] = []
        self.sorted: list[float] = []
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return len(self.order)

    def add(self, value: float) -> None:
        """Take in a value; the oldest leaves when there are more than `window`."""
        self.order.append(value)
        insort(self.sorted, value)
        if len(self.order) > self.window:
            self.sorted.pop(bisect_left(self.sorted, self.order.pop(0)))

    def median(self) -> float:
        """The middle value; the mean of the two in the middle of an even number."""
        n = len(self.sorted)
        return (self.sorted[(n - 1) // 2] + self.sorted[n // 2]) / 2

    def deviation(self, median: float) -> float:
        """Robust standard deviation upwards: 1.4826 times the MAD, or what the upper 2.5 % say, whichever is more.

        The second keeps heavy tails (small batches, crowds) from passing for spikes: for normal values both agree.
        """
        n = len(self.sorted)
        tail = self.sorted[min(n - 1, math.ceil(0.975 * n) - 1)] - median
        return max(1.4826 * _nearest(self.sorted, median, n // 2), tail / 1.96)


def _nearest(values: Sequence[float], centre: float, rank: int) -> float:
    """The distance of the `rank`-th nearest (0-based) of the sorted `values` from `centre`, in O(log n).

    The nearest values are a stretch of the sorted ones: its first place is found by halving.
    """
    size = rank + 1
    low, high = 0, len(values) - size
    while low < high:
        middle = (low + high) // 2
        if centre - values[middle] > values[middle + size] - centre:
            low = middle + 1
        else:
            high = middle
    return max(centre - values[low], values[low + size - 1] - centre)


class Spikes:
    """Watches loss, gradient norm and positives per image of one run, step by step.

    `look` takes the rows of steps.jsonl as they come. Spikes are not learnt from, unless they stay: after as many in a
    row as make up a quarter of the window, the curve has come to another place and is learnt anew. Warm-up, a jump of
    the learning rate, another stage, a size not seen before and the epoch from which augmentation is calm
    (`calm_epoch`, 0-based) each open a new chapter: the old one is kept for comparison at twice the distance until
    MINIMUM steps of the new one are known. Of another stage's losses and gradients nothing is kept,
    and RESIZED steps after each change of size are compared at twice the distance too.
    """

    def __init__(
        self, sigmas: float = 8.0, window: int = 100, *, warmup: int = 0, calm_epoch: int | None = None
    ) -> None:
        if sigmas <= 0 or window < MINIMUM:
            raise ValueError(f"expected sigmas > 0 and a window of {MINIMUM} steps or more, got {sigmas}, {window}")
        self.sigmas, self.window, self.warmup, self.calm_epoch = sigmas, window, warmup, calm_epoch
        self.past = {what: Rolling(window) for what in FLOORS}
        self.in_a_row = dict.fromkeys(FLOORS, 0)
        self.chapter_steps = 0
        self.chapters = 0
        self.lr: float | None = None
        self.stage: Any = None
        self.calm = False
        self.sizes: list[str] = []
        self.size: str | None = None
        self.resized = RESIZED  # steps since the size changed

    def look(self, row: Mapping[str, Any]) -> list[Spike]:
        """The spikes of a step; empty for most. Values that are missing or not finite are no business of this."""
        self._turn_page(row)
        values = _values(row)
        found, quiet = [], {}
        for what, value in values.items():
            spike = self._compare(what, value)
            if spike is None:
                quiet[what] = value
                self.in_a_row[what] = 0
            else:
                found.append(spike)
                self._insist(what, value)
        if found and "positives" in quiet and (crowd := self._crowd(quiet["positives"])):
            found.append(crowd)
        for what, value in quiet.items():
            if not (found and what == "positives"):
                self.past[what].add(math.log(value))
        self.chapter_steps += 1
        return found

    def _compare(self, what: str, value: float) -> Spike | None:
        past = self.past[what]
        if len(past) < MINIMUM:
            return None
        floor, factor = FLOORS[what]
        median = past.median()
        above = math.log(value) - median
        if above < math.log(factor):
            return None
        sigmas = above / max(past.deviation(median), floor)
        new_chapter = self.chapters > 0 and self.chapter_steps < MINIMUM
        if sigmas < self.sigmas * (2 if new_chapter or self.resized < RESIZED else 1):
            return None
        return Spike(what, value, math.exp(median), sigmas)

    def _insist(self, what: str, value: float) -> None:
        """Where spike follows spike this is the new level."""
        self.in_a_row[what] += 1
        if self.in_a_row[what] >= self.window // 4:
            self.past[what] = Rolling(self.window, [math.log(value)])
            self.in_a_row[what] = 0

    def _crowd(self, value: float) -> Spike | None:
        """More positives per image than in any step in memory: no spike in itself, but told beside one."""
        past = self.past["positives"]
        if len(past) < MINIMUM or math.log(value) < past.sorted[-1] + math.log(CROWD):
            return None
        median = past.median()
        floor = FLOORS["positives"][0]
        deviation = max(past.deviation(median), floor)
        return Spike("positives", value, math.exp(median), (math.log(value) - median) / deviation)

    def _turn_page(self, row: Mapping[str, Any]) -> None:
        """Open a new chapter where the row says that something else is trained now, or otherwise."""
        lr = _highest(row.get("lr"))
        jump = lr is not None and self.lr is not None and _ratio(lr, self.lr) > LR_JUMP
        warming = _number(row.get("step")) is not None and float(row["step"]) <= self.warmup
        stage = row.get("stage")
        epoch = _number(row.get("epoch"))
        calm = self.calm_epoch is not None and epoch is not None and epoch >= self.calm_epoch
        size = str(row.get("size"))
        self.resized = self.resized + 1 if self.size in (None, size) else 0
        self.size = size
        unseen = size not in self.sizes and len(self.sizes) < UNSEEN_SIZES
        if self.lr is not None and ((jump and not warming) or stage != self.stage or calm != self.calm or unseen):
            self.chapters += 1
            self.chapter_steps = 0
            if stage != self.stage:  # other weights learn, norms behave otherwise: nothing before compares
                self.past |= {what: Rolling(self.window) for what in ("loss", "grad_norm")}
        if self.chapters and self.chapter_steps == MINIMUM:
            for what, past in self.past.items():
                self.past[what] = Rolling(self.window, past.order[-MINIMUM:])
        self.lr = lr if lr is not None else self.lr
        self.stage, self.calm = stage, calm
        if unseen:
            self.sizes.append(size)

    def to_dict(self) -> dict[str, Any]:
        """All that has been seen as plain data, for an exact resume."""
        plain = ("sigmas", "window", "warmup", "calm_epoch", "chapter_steps", "chapters", "lr", "stage", "calm",
                 "size", "resized")  # fmt: skip
        return {
            **{key: getattr(self, key) for key in plain}, "sizes": list(self.sizes), "in_a_row": dict(self.in_a_row),
            "past": {what: list(past.order) for what, past in self.past.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Spikes:
        """The inverse of `to_dict`."""
        spikes = cls(state["sigmas"], state["window"], warmup=state["warmup"], calm_epoch=state["calm_epoch"])
        for key in ("chapter_steps", "chapters", "lr", "stage", "calm"):
            setattr(spikes, key, state[key])
        spikes.size, spikes.resized = state.get("size"), state.get("resized", RESIZED)
        spikes.sizes, spikes.in_a_row = list(state["sizes"]), dict(state["in_a_row"])
        spikes.past = {what: Rolling(spikes.window, order) for what, order in state["past"].items()}
        return spikes


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """What is watched of a row, where it is a positive finite number."""
    positives, images = _number(row.get("positives")), _number(row.get("images"))
    per_image = positives / images if positives is not None and images else None
    values = {"loss": _number(row.get("loss")), "grad_norm": _number(row.get("grad_norm")), "positives": per_image}
    return {what: value for what, value in values.items() if value is not None and value > 0}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _highest(lr: Any) -> float | None:
    """The highest learning rate of a row's groups; None where it has none."""
    if isinstance(lr, Mapping):
        return max((float(value) for value in lr.values() if _number(value) is not None), default=None)
    return _number(lr)


def _ratio(a: float, b: float) -> float:
    """By how much two rates differ, 1 or more."""
    if a == b:
        return 1.0
    return math.inf if min(a, b) <= 0 else max(a, b) / min(a, b)
