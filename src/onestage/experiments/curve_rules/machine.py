"""Rules about the machine: waiting for data, memory that grows, a disk that fills."""

from __future__ import annotations

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import BLOCK, Rule, Says, push
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import Finding

WAITING = 0.30
CURED = 0.20
SPAN = 10
WORTH = 5.0  # seconds lost in 100 steps, below which nobody cares
READINGS = 5  # of every tenth step: their least is one value
VALUES = 9
GROWTH, LEAST_GROWTH = 0.2, 512 * 2**20
LITTLE = 256 * 2**20
MEBI = 2**20


class DataWait(Rule):
    """The network waits for its images."""

    code = "data-wait"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare waiting with computing over 100 steps; the first epoch, which fills the cache, does not count."""
        if seen.data is None or seen.work is None or seen.step <= max(20, min(self.facts.steps_per_epoch, 200)):
            return None
        self.block("data", seen.data, SPAN)
        if not self.block("work", seen.work, SPAN) or len(self.blocks["work"]) < SPAN:
            return None
        data, work = self.blocks["data"], self.blocks["work"]
        share = sum(data) / max(sum(data) + sum(work), 1e-9)
        if share < CURED:
            self.cured()
        often = sum(d > WAITING * (d + w) for d, w in zip(data, work, strict=True))
        if share <= WAITING or often < 7 or sum(data) * BLOCK < WORTH:
            return None
        return self.says(Says(
            "", seen.step, f"{100 * share:.0f} % of the last {SPAN * BLOCK} steps' time went into waiting for data",
            f"the run takes {1 / max(1 - share, 0.01):.1f} times as long as its computing",
            "raise workers, keep cache=true, put the images on a local disk, or store them near the input size",
            {"share": share, "seconds_lost": sum(data) * BLOCK},
        ))  # fmt: skip


class Readings(Rule):
    """A rule about a number of bytes that rows carry now and then."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.readings: list[float] = []
        self.values: list[float] = []
        self.steps: list[int] = []

    def reading(self, value: float, step: int) -> bool:
        """Take a reading in; True when the least of five became a value, and there are enough of those."""
        self.readings.append(value)
        if len(self.readings) < READINGS:
            return False
        push(self.values, min(self.readings), VALUES)
        push(self.steps, step, VALUES)
        self.readings = []
        return len(self.values) == VALUES

    def per_step(self) -> float:
        """Bytes a step, between the first and the last value."""
        return (self.values[-1] - self.values[0]) / max(self.steps[-1] - self.steps[0], 1)


class MemoryGrows(Readings):
    """Memory grows from value to value after the caches are full."""

    code = "memory-grows"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare values of fifty steps, after two epochs and 200 steps."""
        if seen.memory is None or seen.step <= max(200, 2 * self.facts.steps_per_epoch):
            return None
        if not self.reading(seen.memory, seen.step):
            return None
        first, last = self.values[0], self.values[-1]
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            self.cured()
            return None
        limit, left = self.facts.memory_limit, max(self.facts.steps - seen.step, 0)
        ends = limit is not None and last + self.per_step() * left > limit and last - first > LEAST_GROWTH / 4
        if not ends and (last < first * (1 + GROWTH) or last - first < LEAST_GROWTH):
            return None
        until = ""
        if limit is not None and self.per_step() > 0:
            end = seen.step + (limit - last) / self.per_step()
            until = f"; the limit of {limit / MEBI:.0f} MiB is reached at step {end:.0f}"
        return self.says(Says(
            "", seen.step,
            f"memory grew from {first / MEBI:.0f} to {last / MEBI:.0f} MiB in "
            f"{self.steps[-1] - self.steps[0]} steps, at every reading",
            f"the system will end the run when there is no more{until}",
            "set cache=false and workers=0 and see which of them ends the growth",
            {"first": first, "last": last, "per_step": self.per_step()},
        ))  # fmt: skip


class DiskFills(Readings):
    """The disk of the run will be full before the run ends, or is."""

    code = "disk-fills"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Look at the free bytes."""
        if seen.disk_free is None:
            return None
        if seen.disk_free > 2 * LITTLE:
            self.cured("little")
        elif seen.disk_free < LITTLE:
            return self._full("little", seen, "less than a state and two weights may need")
        if not self.reading(seen.disk_free, seen.step):
            return None
        steady = all(b < a for a, b in zip(self.values, self.values[1:], strict=False))
        left = max(self.facts.steps - seen.step, 0)
        if not steady or seen.disk_free + self.per_step() * left > 0:
            self.cured("soon")
            return None
        end = seen.step + seen.disk_free / -self.per_step()
        return self._full("soon", seen, f"{-self.per_step() / 1024:.0f} KiB fewer a step: none left at step {end:.0f}")

    def _full(self, about: str, seen: Seen, why: str) -> list[Finding] | None:
        return self.says(Says(
            about, seen.step, f"the run's disk has {(seen.disk_free or 0) / MEBI:.0f} MiB left, {why}",
            "the run ends when it cannot be written to; the last state that was saved stays usable",
            "make room, or put the runs elsewhere (ONESTAGE_RUNS)",
            {"free": seen.disk_free},
        ))  # fmt: skip
