"""What a run will take: seconds, memory and disk, from steps tried here; what will not fit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from onestage.experiments.naming import runs_root
from onestage.experiments.run import Run
from onestage.records import Finding
from onestage.training.cost.footprint import Share, areas, cached, disk_shares, memory_shares
from onestage.training.cost.shortages import disk_findings, host_findings, memory_findings
from onestage.training.cost.trial import Trial, try_leg
from onestage.training.devices.capacity import Memory, free_disk, machine_memory, memory_for, resident_at_rest
from onestage.training.feed import training_loader
from onestage.training.judging.judge import Judge
from onestage.training.plan import Plan

# Seconds that the whole trial takes, about, shared by the legs of a run; judging and loading get a part each.
BUDGET = 24.0
# The least a forecast may be out by, on a machine that does nothing else; more where less than a whole step was tried.
LEAST_SPREAD, SCALED_SPREAD = 0.1, 0.25
# Steps that would take so much less time without other work on the machine are told of.
BUSY = 0.75


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run with the range they may lie in, bytes of memory at the peak and on disk, each by its parts.

    `memory` is that of the device; `host` that of the machine beside a GPU, else empty. `notes` say how it was found.
    """

    time: tuple[Share, ...]
    seconds: float
    seconds_range: tuple[float, float]
    memory: tuple[Share, ...]
    peak: float
    has: Memory
    host: tuple[Share, ...]
    disk: tuple[Share, ...]
    disk_free: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def disk_bytes(self) -> float:
        """All that the run folder will hold."""
        return sum(share.total for share in self.disk)

    def as_dict(self) -> dict[str, Any]:
        """The estimate as plain values; seconds and bytes."""
        return {
            "time": {"seconds": self.seconds, "range": list(self.seconds_range), "parts": _rows(self.time)},
            "memory": {
                "peak": self.peak, "limit": self.has.limit, "free": self.has.free, "set_by": self.has.set_by,
                "parts": _rows(self.memory), "host": _rows(self.host),
            },
            "disk": {"bytes": self.disk_bytes, "free": self.disk_free, "parts": _rows(self.disk)},
            "notes": list(self.notes), "findings": [finding.as_dict() for finding in self.findings],
        }  # fmt: skip


def estimate(plan: Plan, budget: float = BUDGET, progress: Callable[[str], None] = lambda what: None) -> Estimate:
    """What the plan's run will take, from real steps on a copy of its detector in about `budget` seconds.

    Nothing of the plan changes. `progress` is told in words what is being tried. Raises DataError where an image cannot
    be read, DivergedError where the loss of a first step is not a finite number.
    """
    base, here = resident_at_rest(), machine_memory()
    has = memory_for(plan.device)
    with training_loader(plan, workers=0, prefetch=1) as loader:
        progress("loading the first batches")
        loading = _loading(plan, budget / 6)
        trials: list[Trial] = []
        stages = plan.legs
        for leg in stages:
            progress("trying steps" + (f" of stage {leg.name}" if len(stages) > 1 else ""))
            seen = next((t for t in trials if t.leg.freeze == leg.freeze and t.leg.optimiser == leg.optimiser), None)
            again = seen and replace(seen, leg=leg)
            trials.append(again or try_leg(plan, leg, loader, has, budget / len(stages)))
    progress("judging some validation images")
    judging = _judging(plan, trials, budget / 6)
    times, spread = _times(plan, trials, loading, judging)
    memory, host = memory_shares(plan, trials, base)
    disk = disk_shares(plan, trials)
    seconds = sum(share.total for share in times)
    peak = sum(share.total for share in memory)
    free = free_disk(runs_root())
    findings = [*memory_findings(plan, trials, peak, has), *disk_findings(disk, free)]
    if host:
        findings += host_findings(sum(share.total for share in host), here)
    return Estimate(
        times, seconds, (seconds * (1 - spread[0]), seconds * (1 + spread[1])), memory, peak, has, host, disk, free,
        tuple(_notes(plan, trials)), tuple(findings),
    )  # fmt: skip


def _rows(shares: Sequence[Share]) -> list[dict[str, Any]]:
    return [share.as_dict() for share in shares]


@dataclass(frozen=True)
class _Loading:
    """Seconds of making a batch when its images are read for the first time, and when they are in the cache."""

    cold: float
    warm: float


def _loading(plan: Plan, budget: float) -> _Loading:
    """Seconds per batch of one loader alone, measured on the first batches, twice."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    with training_loader(plan, workers=0, prefetch=0) as loader:
        for taken in seconds.values():
            until = time.perf_counter() + budget / 2
            before = time.perf_counter()
            for _ in islice(loader.epoch(0), len(seconds["cold"]) or 8):
                now = time.perf_counter()
                taken.append(now - before)
                before = now
                if now > until:
                    break
    return _Loading(median(seconds["cold"]), median(seconds["warm"]))


@dataclass(frozen=True)
class _Judging:
    """Seconds of an evaluation in mid-run, and of the final one with intervals, on the whole validation set."""

    each: float
    final: float


def _judging(plan: Plan, trials: Sequence[Trial], budget: float) -> _Judging:
    """Measured on some images of the validation set, linear in them."""
    val = plan.opened.val
    per_image = max(trials[0].step_seconds(t.images, t.pieces, median) / t.images for t in trials)
    count = min(len(val), max(math.ceil(budget / 2 / per_image), min(plan.recipe.batch, 8)))
    places = np.linspace(0, len(val) - 1, count).round().astype(int)
    some = val.only({val.images[place].id for place in places}, val.split)
    part = replace(plan, opened=replace(plan.opened, val=some))
    detector = deepcopy(plan.detector).eval()
    judge = Judge(part, lambda done, total: None)
    try:
        begin = time.perf_counter()
        judge.row(detector, [])
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            judge.final(detector, Run.create(Path(folder)))
        end = time.perf_counter()
    finally:
        judge.close()
    scale = len(val) / len(some)
    return _Judging((middle - begin) * scale, (end - middle) * scale)


def _times(
    plan: Plan, trials: Sequence[Trial], loading: _Loading, judging: _Judging
) -> tuple[tuple[Share, ...], tuple[float, float]]:  # fmt: skip
    """The parts of the run's time, and by which shares it may be less and more."""
    recipe, images = plan.recipe, min(plan.recipe.batch, len(plan.opened.train))
    area, _ = areas(plan)
    kept, _ = cached(plan)
    loaders = max(recipe.workers, 1)
    warm = (loading.warm * kept + loading.cold * (1 - kept)) / loaders
    shares, low, high, total = [], 0.0, 0.0, 0.0
    waits = 0.0
    for trial in trials:
        name = "steps" if len(trials) == 1 else f"steps of {trial.leg.name}"
        one = trial.step_seconds(images, min(recipe.accumulate, images), median) * area
        shares.append(Share(name, one * trial.leg.steps, one, trial.leg.steps))
        waits += max(warm * area - one, 0.0) * trial.leg.steps
        scaled = trial.images < images
        spread = SCALED_SPREAD if scaled else LEAST_SPREAD
        pieces = min(recipe.accumulate, images)
        least, most = trial.alone_seconds(images, pieces) * area, trial.step_seconds(images, pieces, max) * area
        total += one * trial.leg.steps
        low += max(spread * one, one - least) * trial.leg.steps
        high += max(spread * one, most - one) * trial.leg.steps
    first = max(loading.cold / loaders - max(shares[0].each or 0.0, warm), 0.0) * plan.steps_per_epoch
    shares.append(Share("waiting for data", waits + first * kept))
    epochs, every = int(recipe.epochs or 1), int(recipe.validation.every or 1)
    times = sum((e + 1) % every == 0 or e + 1 == epochs for e in range(epochs))
    shares.append(Share("evaluations", judging.each * times, judging.each, times))
    shares.append(Share("final judgement", judging.final, judging.final, 1))
    return tuple(shares), (low / max(total, 1e-9), high / max(total, 1e-9))


def _notes(plan: Plan, trials: Sequence[Trial]) -> list[str]:
    """How the numbers were found."""
    images = min(plan.recipe.batch, len(plan.opened.train))
    notes = []
    for trial in trials:
        if trial.images < images:
            notes.append(
                f"steps were tried with {trial.images} of {images} images and extrapolated linearly, to save time or "
                "memory"
            )
        if not trial.peak:
            notes.append("this system does not tell the peak of memory: working memory is a guess")
    longest = max(trials, key=lambda trial: trial.leg.steps)
    wall, alone = longest.step_seconds(images, longest.pieces, median), longest.alone_seconds(images, longest.pieces)
    if alone < BUSY * wall:
        notes.append(
            f"other work keeps this machine busy: a step takes {wall:.2g} s, alone it would take {alone:.2g} s"
        )
    if areas(plan) != (1.0, 1.0):
        notes.append("multi-scale: seconds for the mean area of the input, memory for the largest")
    if plan.recipe.workers:
        notes.append("loading was measured in one process and divided by the workers; theirs is not in the memory")
    return list(dict.fromkeys(notes))
