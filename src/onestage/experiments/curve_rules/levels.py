"""Rules about positives: levels that get none, steps without any, batches that are all alike, jumps."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import BLOCK, Rule, Says
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import Finding

QUIET = 200  # steps without a positive before a level can be called empty
MANY = 2000  # positives the others must have had in that time
MANY_TRUTHS = 1000  # the same in an epoch or more, where every truth goes to the anchors that fit it
SIDE = 0.05  # share of the positives on each side of a hole
EXPECTED = 0.01  # share of the truths that belong on a level for it to be missed
MISSED = 30  # so many steps should have given it positives
ALIKE = 30
SAME = 0.005
JUMP = 3.0
BEFORE, AFTER = 20, 5


class Chapter(Rule):
    """A rule that begins anew with another stage and when augmentation becomes calm."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.chapter: list[Any] = []

    def turned(self, seen: Seen) -> bool:
        """Whether another stage or the calm epochs began with this step."""
        calm = self.facts.calm_epoch is not None and seen.epoch >= self.facts.calm_epoch
        before, self.chapter = self.chapter, [str(seen.stage), calm]
        return bool(before) and before != self.chapter


class EmptyLevel(Chapter):
    """A level of the network that gets no positives although it should, while others do."""

    code = "empty-level"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.totals: list[int] = []
        self.active: list[int] = []  # steps in which the level had positives
        self.quiet: list[int] = []  # steps since then
        self.steps = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Count; every ten steps look at the levels that are quiet."""
        levels = seen.levels
        if not any(levels):  # the business of empty-batches
            return None
        if self.turned(seen) or len(levels) != len(self.totals):
            n = len(levels)
            self.totals, self.active, self.quiet, self.steps = [0] * n, [0] * n, [0] * n, 0
        self.steps += 1
        for level, count in enumerate(levels):
            if count:
                self.totals[level] += count
                self.active[level] += 1
                self.quiet[level] = 0
                if self.raised:
                    self.cured(str(level))
            else:
                self.quiet[level] += 1
        if self.steps % BLOCK or len(levels) < 2:
            return None
        found: list[Finding] = []
        for level, quiet in enumerate(self.quiet):
            if self._is_long(level, quiet) and str(level) not in self.raised:
                found += self._missing(level, quiet, seen.step) or []
        return found

    def _is_long(self, level: int, quiet: int) -> bool:
        """Whether it has been quiet long enough; a level that no truth fits shows after an epoch."""
        total = sum(self.totals)
        if quiet >= QUIET and total >= MANY:
            return True
        epoch = self.facts.steps_per_epoch
        return self.facts.anchored and not self.active[level] and 0 < epoch <= quiet and total >= MANY_TRUTHS

    def _missing(self, level: int, quiet: int, step: int) -> list[Finding] | None:
        reason = self._reason(level, quiet)
        if reason is None:
            return None
        return self.says(Says(
            str(level), step, f"{self._name(level)} has had no positive for {quiet} steps: {reason}",
            "its heads learn only to say no, and objects of its sizes are left to levels whose priors fit them badly",
            "compare the sizes of the boxes with those of the priors (train --dry-run): fit the priors, or change size",
            {"level": level, "steps": quiet, "positives_per_level": list(self.totals)},
        ))  # fmt: skip

    def _name(self, level: int) -> str:
        """The level in words; where run.json has none, its place among levels that come finest first."""
        last = len(self.totals) - 1
        number = f"level {level + 1} of {last + 1}"
        if len(self.facts.level_words) == last + 1:
            return f"{self.facts.level_words[level]}: {number}"
        which = {0: " (the finest, for the smallest objects)", last: " (the coarsest, for the largest objects)"}
        return number + which.get(level, "")

    def _reason(self, level: int, quiet: int) -> str | None:
        """Why the level should have had positives; None where the data may simply hold no objects of its sizes."""
        total = sum(self.totals)
        if self.active[level]:
            due = self.active[level] / (self.steps - quiet) * quiet
            return f"before, {self.active[level]} of {self.steps - quiet} steps had some" if due >= MISSED else None
        below, above = self._finer_and_coarser(level)
        shares = self.facts.level_shares
        if len(shares) == len(self.totals) and shares[level] >= EXPECTED:
            return f"{100 * shares[level]:.1f} % of the truths are of its sizes"
        if min(below, above) >= SIDE * total:
            return f"finer levels had {below} and coarser ones {above}"
        told = f"the other levels had {total}, and truths go to the anchors that fit them"
        return told if self.facts.anchored else None

    def _finer_and_coarser(self, level: int) -> tuple[int, int]:
        """Positives of the levels with smaller cells, and of those with larger ones: darknet's come coarsest first."""
        strides = self.facts.level_strides
        ranks = strides if len(strides) == len(self.totals) else range(len(self.totals))
        paired = list(zip(ranks, self.totals, strict=True))
        return sum(n for rank, n in paired if rank < ranks[level]), sum(n for rank, n in paired if rank > ranks[level])


class EmptyBatches(Rule):
    """Steps and steps without a single positive."""

    code = "empty-batches"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.without = self.truths = self.with_some = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Count steps in a row."""
        if seen.positives is None:
            return None
        if seen.positives > 0:
            self.without = self.truths = 0
            self.with_some += 1
            if self.with_some >= BLOCK:
                self.cured()
            return None
        self.with_some = 0
        self.without += 1
        self.truths += int(seen.truths or 0)
        if self.without < (20 if self.facts.batch >= 4 else 60):
            return None
        why = f"although there were {self.truths} truths" if self.truths else "and the rows name no truth"
        return self.says(Says(
            "", seen.step, f"no prior was positive in the last {self.without} steps, {why}",
            "the box loss is 0 and the class loss teaches that there is nothing anywhere",
            "check that annotations fall inside the images (onestage data show), and the matching threshold"
            if self.truths
            else "check that annotations are found (onestage data show) and survive the augmentation (train --dry-run)",
            {"steps": self.without, "truths": self.truths},
        ))  # fmt: skip


class BatchesAlike(Rule):
    """Every batch has the same positives and the same loss: it is the same batch."""

    code = "batches-alike"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.before: list[int] = []
        self.loss: float | None = None
        self.alike = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare with the step before; a set of one batch, not varied, is alike by right."""
        total = sum(seen.raw.values())
        one_batch = 0 < self.facts.images <= self.facts.batch or self.facts.steps_per_epoch == 1
        if one_batch or total <= 0 or not seen.positives:
            return None
        near = self.loss is not None and abs(math.log(total / self.loss)) < SAME
        self.alike = self.alike + 1 if near and seen.levels == self.before else 0
        if self.alike == 0:
            self.cured()
        self.before, self.loss = seen.levels, total
        if self.alike < ALIKE:
            return None
        return self.says(Says(
            "", seen.step,
            f"the last {self.alike} batches had the same {seen.positives:g} positives and losses within "
            f"{100 * SAME:g} %",
            "the network sees the same images over and over and learns them by heart",
            "check the list of images for repeats, and that the order is drawn anew for each epoch",
            {"steps": self.alike, "positives_per_level": list(seen.levels)},
        ))  # fmt: skip


class PositivesJump(Chapter):
    """Positives per image changed by a factor of three and stayed there."""

    code = "positives-jump"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare the last 50 steps with the 200 before, in means of ten."""
        if not seen.positives or not seen.images:
            return None
        if self.turned(seen):
            self.forget()
        if not self.block("positives", seen.positives / seen.images, BEFORE + AFTER):
            return None
        values = self.blocks["positives"]
        if len(values) < BEFORE + AFTER:
            return None
        before, after = values[:BEFORE], values[BEFORE:]
        middle = median(before)
        if middle <= 0:
            return None
        up = min(after) > JUMP * middle and min(after) > 1.2 * max(before)
        down = max(after) < middle / JUMP and max(after) < min(before) / 1.2
        if not up and not down:
            if max(values) < JUMP * min(values):
                self.cured()
            return None
        now = median(after)
        self.forget()
        return self.says(Says(
            "", seen.step,
            f"positives per image went from {middle:.3g} to {now:.3g} and have stayed there for {AFTER * BLOCK} steps",
            "the loss is an average over positives: it is now made of other objects, and does not compare "
            "with what was before",
            "find what changed at this step: the images (other folder, other filter), their size, or the matching",
            {"before": middle, "after": now},
        ))  # fmt: skip
