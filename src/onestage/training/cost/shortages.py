"""What will not fit on this machine: findings about memory and disk, with what would fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onestage.experiments.naming import runs_root
from onestage.records import Finding, Where
from onestage.training.cost.footprint import Share, areas, in_bytes
from onestage.training.cost.trial import Trial
from onestage.training.devices.capacity import Memory, resident_at_rest
from onestage.training.plan import Plan

# A micro-batch fits that leaves a tenth of the memory alone.
ROOM = 0.9


def memory_findings(plan: Plan, trials: Sequence[Trial], peak: float, has: Memory) -> list[Finding]:
    """What is said where the peak is above what there is, and how many micro-batches would fit."""
    own = resident_at_rest() if plan.device == "cpu" else trials[0].weights  # there already, and part of the peak
    room = has.limit if has.free is None else min(has.free + own, has.limit)
    if peak <= room:
        return []
    too_much = peak > has.limit
    images = min(plan.recipe.batch, len(plan.opened.train))
    _, area = areas(plan)
    worst = max(trials, key=lambda trial: trial.growing(1))
    micro = math.ceil(images / plan.recipe.accumulate)
    rest = peak - worst.growing(micro) * area
    fits = next((n for n in range(plan.recipe.accumulate + 1, images + 1)
                 if rest + worst.growing(math.ceil(images / n)) * area <= ROOM * room), None)  # fmt: skip
    learns = fits is not None and math.ceil(images / fits) > 1
    remedy = "a smaller size or a lighter model: not even micro-batches of two images would fit"
    if learns:
        remedy = f"accumulate={fits}: the same update in micro-batches of {math.ceil(images / (fits or 1))}"
    of = "has" if too_much else "has free now"
    return [
        Finding(
            "memory-short", "error" if too_much else "warning", Where(),
            f"the run needs about {in_bytes(peak)} of memory at its peak; {has.set_by} {of} "
            f"{in_bytes(has.limit if too_much else room)}",
            "it would be ended by the system, or the machine would begin to swap", remedy,
            {"peak": peak, "limit": has.limit, "free": has.free, "accumulate": fits if learns else None},
        )
    ]  # fmt: skip


def host_findings(needed: float, has: Memory) -> list[Finding]:
    """What is said where the machine beside a GPU cannot hold what the loader keeps."""
    room = has.limit if has.free is None else has.free + resident_at_rest()
    if needed <= min(room, has.limit):
        return []
    return [
        Finding(
            "memory-short", "error" if needed > has.limit else "warning", Where(),
            f"decoded images and batches need about {in_bytes(needed)} of memory; {has.set_by} has {in_bytes(room)}",
            "it would be ended by the system, or the machine would begin to swap", "cache=false, or fewer workers",
            {"peak": needed, "limit": has.limit, "free": has.free},
        )
    ]  # fmt: skip


def disk_findings(disk: Sequence[Share], free: int) -> list[Finding]:
    """What is said where the run folder will hold more than is free."""
    needed = sum(share.total for share in disk)
    if needed <= free:
        return []
    return [
        Finding(
            "disk-short", "error", Where(file=str(runs_root())),
            f"the run folder will hold up to {in_bytes(needed)}; {in_bytes(free)} are free",
            "the run would end when the disk is full, with its last state kept",
            "free some space, or ONESTAGE_RUNS=/path on another disk", {"bytes": needed, "free": free},
        )
    ]  # fmt: skip
