"""Rules about steps: dead parts, clipping, skipping, rates at nothing, frozen parts that move."""

from __future__ import annotations

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import BLOCK, Rule, Says, mean, push
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import Finding

SAMPLES = 5  # gradient norms of a part in a row, one in ten steps
NOTHING = 1e-10  # share of the whole gradient
CLIPPED = 0.5
SKIPPED = 0.05
SETTLED = 50  # steps an fp16 scale takes to find its place
FALLEN = 16.0
LEFT = 0.25  # of the stage: a schedule may well end at nothing
TINY = 1e-3  # of what the weights could move so far
UNMOVED = 2e-4  # sum of Adam's learning rates: no weight moves further than that
SPAN = 20


class DeadPart(Rule):
    """A part that is trained gets no gradient."""

    code = "dead-part"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.dead: dict[str, int] = {}
        self.layers: dict[str, int] = {}
        self.still = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Count gradient norms of 0, per part where the row gives them, and of the whole network."""
        if seen.grad_norm is None or seen.skipped or not seen.positives:
            return None
        self.still = self.still + 1 if seen.grad_norm == 0 else 0
        if self.still >= SPAN:
            return self._dead("", "the network", self.still, seen.step)
        if not self.still:
            self.cured("")
        if not seen.norms:
            return None
        found: list[Finding] = []
        for part, norm in seen.norms.items():
            if norm > NOTHING * seen.grad_norm:
                self.dead[part] = 0
                self.cured(part)
                continue
            self.dead[part] = self.dead.get(part, 0) + 1
            if self.dead[part] >= SAMPLES and not self._frozen(part) and seen.grad_norm > 0:
                found += self._dead(part, part, self.dead[part] * BLOCK, seen.step) or []
        self.layers = {name: self.layers.get(name, 0) + 1 for name in seen.without}
        return found + ([] if found or self.raised else self._layers(seen))

    def _layers(self, seen: Seen) -> list[Finding]:
        """Layers of a backbone that learns otherwise: what is dead in its midst cuts off all that lies before it."""
        dead = [name for name, count in self.layers.items() if count >= SAMPLES and not self._frozen(name)]
        if not dead or not seen.grad_norm:
            self.cured("layers")
            return []
        more = f" to {dead[-1]} ({len(dead)} layers)" if len(dead) > 1 else ""
        return self._dead("layers", f"{dead[0]}{more}", self.layers[dead[0]] * BLOCK, seen.step) or []

    def _frozen(self, part: str) -> bool:
        return any(part == name or part.startswith(f"{name}.") for name in self.facts.frozen)

    def _dead(self, about: str, name: str, steps: int, step: int) -> list[Finding] | None:
        return self.says(Says(
            about, step, f"the gradient of {name} has been 0 for about {steps} steps",
            "its weights stay as they are: activations at 0 everywhere (dead ReLUs), a cut in the graph, or "
            "a loss without its part",
            "lower optimiser.lr and start again from earlier weights; if it was so from step 1, check that "
            "the loss reaches this part",
            {"part": about or None, "steps": steps},
        ))  # fmt: skip


class ClippedGradient(Rule):
    """More than half of all steps are clipped."""

    code = "clipped-gradient"
    severity = "note"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Take the share over 200 steps after the warm-up."""
        if self.facts.clip <= 0 or seen.grad_norm is None or seen.step <= self.facts.warmup:
            return None
        full = self.block("clipped", float(seen.grad_norm > self.facts.clip), SPAN)
        self.block("norm", seen.grad_norm, SPAN)
        if not full or len(self.blocks["clipped"]) < SPAN:
            return None
        share = mean(self.blocks["clipped"])
        if share < 0.8 * CLIPPED:
            self.cured()
        if share <= CLIPPED:
            return None
        norm = mean(self.blocks["norm"])
        return self.says(Says(
            "", seen.step,
            f"{100 * share:.0f} % of the last {SPAN * BLOCK} gradients were clipped: mean norm {norm:.3g}, "
            f"clip {self.facts.clip:g}",
            "steps have one length whatever the gradient says: clip acts as the learning rate, and "
            "optimiser.lr hardly does",
            f"lower optimiser.lr, lengthen schedule.warmup, or set clip to {2 * norm:.2g} if these norms are "
            "usual for the model",
            {"share": share, "norm": norm, "clip": self.facts.clip},
        ))  # fmt: skip


class SkippedSteps(Rule):
    """Steps are skipped again and again."""

    code = "skipped-steps"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Take the share over 200 steps, not counting the first, in which an fp16 scale finds its place."""
        if seen.step <= SETTLED or not self.block("skipped", float(seen.skipped), SPAN):
            return None
        values = self.blocks["skipped"]
        share = mean(values)
        if len(values) < SPAN or share <= SKIPPED:
            if share < SKIPPED / 2:
                self.cured()
            return None
        return self.says(Says(
            "", seen.step, f"{round(share * SPAN * BLOCK)} of the last {SPAN * BLOCK} steps were skipped",
            "their images teach nothing, and the cause is still there: the run goes on with a smaller set "
            "than it was given",
            "read the reports in recorder/: mend the images they name, or set precision=fp32 or bf16 where "
            "the scale overflowed",
            {"share": share, "steps": SPAN * BLOCK},
        ))  # fmt: skip


class ScaleFalling(Rule):
    """The fp16 loss scale falls and falls."""

    code = "scale-falling"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.scales: list[float] = []

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare the scale of every tenth step with the highest of the last 200."""
        if seen.scale is None or seen.step <= SETTLED or seen.step % BLOCK:
            return None
        push(self.scales, seen.scale, SPAN)
        highest = max(self.scales)
        if seen.scale >= highest / 2 and seen.scale > 1:
            self.cured()
        if seen.scale > highest / FALLEN and seen.scale >= 1:
            return None
        return self.says(Says(
            "", seen.step, f"the fp16 loss scale fell to {seen.scale:g}, from {highest:g} within the last 200 steps",
            "gradients overflow 16 bits ever more often; small ones vanish at this scale, and a growing loss is near",
            "set precision=bf16 or fp32, and look for weights or activations that grow",
            {"scale": seen.scale, "highest": highest},
        ))  # fmt: skip


class NothingMoves(Rule):
    """The learning rate is at nothing long before the stage ends."""

    code = "lr-at-nothing"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.spent = 0.0
        self.before: float | None = None
        self.update: float | None = None
        self.low = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Add up the rates; every twenty steps compare with what is left of the stage."""
        if seen.lr is None:
            return None
        self.spent += seen.lr
        self.update = seen.update_norm if seen.update_norm is not None else self.update
        if seen.step % SPAN or not self.facts.steps:
            return None
        before, self.before = self.before, seen.lr
        starts = [0, *self.facts.legs, self.facts.steps]
        start = max((first for first in starts[:-1] if first < seen.step), default=0)
        end = min((first for first in starts[1:] if first >= seen.step), default=self.facts.steps)
        left = end - seen.step
        rising = before is None or seen.lr > before
        if seen.step - start <= max(self.facts.warmup, SPAN) or left < 50 or left <= LEFT * (end - start):
            return None
        reason = None if rising else self._reason(seen.lr, left)
        if reason is None:
            self.low = 0
            self.cured()
            return None
        self.low += 1
        if self.low < min(max(self.facts.steps // 100, 2), 5):  # a rate drawn at random is low now and then
            return None
        return self.says(Says(
            "", seen.step, f"the learning rate is {seen.lr:.3g} with {left} steps left: {reason}",
            "the rest of this stage costs its time and changes nothing that can be measured",
            "let the schedule count in the steps of this run, raise the stage's lr, or end the stage here",
            {"lr": seen.lr, "left": left, "can_move": seen.lr * left, "moved": self.spent},
        ))  # fmt: skip

    def _reason(self, lr: float, left: int) -> str | None:
        """Why so little can still happen; None where enough can."""
        ahead = lr * left
        if lr <= 0:
            return "no weight will move"
        if ahead < TINY * self.spent:
            return f"lr x steps is {ahead:.1e}, {100 * ahead / self.spent:.2g} % of the {self.spent:.1e} so far"
        if self.facts.optimiser.lower() in ("adam", "adamw", "nadam") and self.spent + ahead < UNMOVED:
            return f"{self.facts.optimiser} moves no weight by more than about {self.spent + ahead:.1e} in all"
        if self.update and self.facts.weight_norm and self.update * left < 0.1 * TINY * self.facts.weight_norm:
            total = self.facts.weight_norm
            return f"all updates to come are at most {self.update * left:.1e} of weights of norm {total:.3g}"
        return None


class FrozenMoved(Rule):
    """Weights or statistics that should be frozen have changed."""

    code = "frozen-moved"
    severity = "error"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Report what moved the most, where anything did at all."""
        moved = {name: change for name, change in seen.moved.items() if change > 0}
        if not moved:
            return None
        first = max(moved, key=moved.__getitem__)
        more = f", as have {len(moved) - 1} other frozen tensors" if len(moved) > 1 else ""
        return self.says(Says(
            "", seen.step,
            f"{first} is frozen, yet a value of it has moved by {moved[first]:.3g} since the start{more}",
            "the run is not what its recipe says: weight decay, momentum or the statistics of batch norms reach it",
            "report this with run.json; until then norms=frozen keeps the statistics in place",
            {"part": first, "change": moved[first], "tensors": sorted(moved)},
        ))  # fmt: skip
