"""What a run takes of memory at its peak and of the disk, by its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.data.loader import GIB
from onestage.training.cost.trial import Trial
from onestage.training.multiscale import Sizes
from onestage.training.plan import Plan

# Bytes of a line of steps.jsonl and of each level that it tells of, of a truth in validation.json, of a detection in
# predictions.json, of report.html.
LINE, LEVEL, TRUTH, DETECTION, REPORT = 560, 140, 260, 130, 4_000_000
# States that lie in a run's folder at once: the last, the one before, one being written.
STATES = 3


@dataclass(frozen=True)
class Share:
    """A line of an estimate: so many `times` `each` (seconds or bytes), `total` in all."""

    name: str
    total: float
    each: float | None = None
    times: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The line as plain values."""
        return {"name": self.name, "total": self.total, "each": self.each, "times": self.times}


def areas(plan: Plan) -> tuple[float, float]:
    """Pixels of an input as a share of those at the recipe's size, by multi-scale: on average, and at most."""
    width, height = plan.detector.size
    sizes = Sizes.of(plan.recipe, plan.detector.size).possible
    shares = [one[0] * one[1] / (width * height) for one in sizes] or [1.0]
    return sum(shares) / len(shares), max(shares)


def cached(plan: Plan) -> tuple[float, int]:
    """The share of the training images that the loader keeps decoded, and their bytes over all its processes."""
    if not plan.recipe.cache:
        return 0.0, 0
    workers = max(plan.recipe.workers, 1)
    ends = np.cumsum([3 * image.width * image.height for image in plan.opened.train.images])
    kept = int(np.searchsorted(ends, 2 * GIB // workers, side="right"))
    return kept / len(ends), int(ends[kept - 1]) * workers if kept else 0


def memory_shares(plan: Plan, trials: Sequence[Trial], base: int) -> tuple[tuple[Share, ...], tuple[Share, ...]]:
    """The parts of the device's memory at the peak, and of the machine's where the device is another."""
    _, area = areas(plan)
    images = min(plan.recipe.batch, len(plan.opened.train))
    micro = math.ceil(images / plan.recipe.accumulate)
    worst = max(trials, key=lambda trial: trial.fixed + trial.growing(micro) * area)
    kept = worst.kept * micro * area
    width, height = plan.detector.size
    of_batch = 3 * width * height * images * area
    _, decoded = cached(plan)
    on_host = [
        Share("process and data set", base), Share("decoded images", decoded),
        Share("batches made ahead", of_batch * (3 + 2 * plan.recipe.workers)),
    ]  # fmt: skip
    step = [
        Share("gradients", worst.gradients), Share("optimiser", worst.optimiser),
        Share("averaged weights", worst.averaged),
        Share("activations", kept, worst.kept * area, micro),
        Share("working memory of a step", max(worst.growing(micro) * area - kept, 0.0)),
    ]  # fmt: skip
    weights = Share("weights", worst.weights)
    if plan.device == "cpu":
        inside = Share("process and data set", max(base - worst.weights, 0.0))
        return (inside, weights, *step, *on_host[1:]), ()
    return (weights, *step), tuple(on_host)


def disk_shares(plan: Plan, trials: Sequence[Trial]) -> tuple[Share, ...]:
    """What the run folder will hold, at most."""
    val = plan.opened.val
    line = LINE + LEVEL * len(plan.detector.level_layers)
    state = max(trial.weights + trial.optimiser + trial.averaged for trial in trials)
    return (
        Share("weights, best and last", 2 * trials[0].weights, trials[0].weights, 2),
        Share("states", STATES * state, state, STATES),
        Share("steps.jsonl", plan.steps * line, line, plan.steps),
        Share("predictions and truth", len(val) * plan.recipe.validation.most * DETECTION + val.boxes * TRUTH),
        Share("report and the rest", REPORT),
    )


def in_bytes(value: float) -> str:
    """Bytes as people read them: 12 kB, 3.4 MB, 1.2 GB (powers of 1000)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}" if value < 10 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} B"
