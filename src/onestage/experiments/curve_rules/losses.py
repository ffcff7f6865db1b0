"""Rules about the loss itself: stuck at chance, huge at the start, flat, or all in one part."""

from __future__ import annotations

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import BLOCK, Rule, Says, mean
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import Finding

NEAR = 0.03  # of the chance level: batches of other objects move the class loss of a blind head by so much
PROGRESS = 0.005
FALL = 0.02
DOMINANT = 0.95
HEAVIER = 10.0
HIGH = 10.0
FEW = 1e-12


class ChanceLevel(Rule):
    """The class loss stays at the level of a head that says the same of every prior."""

    code = "chance-level"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare means of ten steps with the chance level, after the warm-up."""
        loss = seen.raw.get(self.facts.class_part)
        if loss is None or not seen.positives or not seen.images or seen.step <= self.facts.warmup:
            return None
        span = min(max(self.facts.steps // 100, 5), 20) if self.facts.steps else 20
        full = self.block("loss", loss, span)
        if seen.negatives is not None:
            self.block("ratio", seen.negatives / seen.positives, span)
        if not self.block("positives", seen.positives / seen.images, span) or not full:
            return None
        losses, crowd = self.blocks["loss"], self.blocks["positives"]
        level = self.facts.chance_level(mean(crowd), mean(ratios) if (ratios := self.blocks.get("ratio")) else None)
        if level is None or level <= 0:
            return None
        if losses[-1] < level * (1 - NEAR):
            self.cured()
        half = len(losses) // 2
        stuck = len(losses) == span and all(abs(value / level - 1) <= NEAR for value in losses)
        if not stuck or mean(losses[-half:]) < mean(losses[:half]) * (1 - PROGRESS):
            return None
        off = abs(mean(losses) / level - 1)
        return self.says(Says(
            "", seen.step,
            f"the class loss has stood at {mean(losses):.4f} for {span * BLOCK} steps, {100 * off:.1f} % from the "
            f"chance level {level:.4f}",
            "the head gives every prior the same scores: it has learnt how rare objects are and nothing of the image",
            "look for a dead part or labels that do not fit the images, then try a lower optimiser.lr or "
            "pretrained weights",
            {"loss": mean(losses), "chance": level, "steps": span * BLOCK},
        ))  # fmt: skip


class HighStart(Rule):
    """The class loss of the first steps is many times that of a head with equal scores."""

    code = "high-start"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.first: list[float] = []

    def step(self, seen: Seen) -> list[Finding] | None:
        """Look at the first five steps alone."""
        if len(self.first) >= 5 or seen.step > BLOCK:
            return None
        loss, level = seen.raw.get(self.facts.class_part), self.facts.start_level()
        if loss is None or level is None or not self.facts.fresh:
            return None
        self.first.append(loss)
        middle = sorted(self.first)[len(self.first) // 2]
        if len(self.first) < 5 or middle <= HIGH * level:
            return None
        return self.says(Says(
            "", seen.step,
            f"the class loss starts at {middle:.1f}, {middle / level:.0f} times the {level:.2f} of equal scores",
            "a fresh head is that sure and wrong only when its input is far too large: the first steps are "
            "spent on undoing it",
            "check that images are normalised as the weights expect, and that all of the backbone was loaded",
            {"loss": middle, "untrained": level},
        ))  # fmt: skip


class LossFlat(Rule):
    """Fresh heads, and the loss has not fallen since the first steps."""

    code = "loss-flat"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.start: float | None = None
        self.least: float | None = None
        self.trained = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare the least mean of ten steps with the first one."""
        if not self.facts.fresh or not seen.raw or self.raised:
            return None
        full = self.block("loss", sum(seen.raw.values()), 1)
        self.trained += seen.step > self.facts.warmup
        if not full:
            return None
        value = self.blocks["loss"][-1]
        if self.start is None or self.least is None:
            self.start = self.least = value
            return None
        self.least = min(self.least, value)
        patience = min(max(self.facts.steps // 4, 100), 1000) if self.facts.steps else 300
        if self.trained < patience or self.least < self.start * (1 - FALL):
            return None
        return self.says(Says(
            "", seen.step,
            f"the unweighted loss has not fallen in {seen.step} steps: {self.start:.4g} at the start, {self.least:.4g} "
            "at its least",
            "no step so far made the answers fit the truth better; heads that start at random fall within "
            "the first hundreds",
            "raise optimiser.lr tenfold or lower it tenfold, and look at a batch with --dry-run: boxes must "
            "lie on objects",
            {"start": self.start, "least": self.least, "now": value},
        ))  # fmt: skip


class OnePart(Rule):
    """The weights of the loss leave only one part that counts."""

    code = "one-part-loss"

    def step(self, seen: Seen) -> list[Finding] | None:
        """Compare each part's share of the weighted loss, over 100 steps after the warm-up."""
        if len(seen.raw) < 2 or seen.step <= max(self.facts.warmup, 100):
            return None
        full = False
        for part, value in seen.raw.items():
            self.block(f"raw {part}", abs(value), 10)
            full = self.block(f"weighted {part}", abs(seen.weighted.get(part, value)), 10)
        parts = sorted(seen.raw)
        if not full or any(len(self.blocks.get(f"weighted {part}", ())) < 10 for part in parts):
            return None
        raw = {part: mean(self.blocks[f"raw {part}"]) for part in parts}
        weighted = {part: mean(self.blocks[f"weighted {part}"]) for part in parts}
        total = sum(weighted.values())
        first = max(weighted, key=weighted.__getitem__)
        others = [part for part in parts if part != first and raw[part] > FEW]
        if total <= FEW or weighted[first] <= DOMINANT * total or not others:
            self.cured()
            return None
        weights = {part: weighted[part] / raw[part] for part in (first, *others)}
        if any(weights[first] < HEAVIER * weights[part] for part in others):
            return None
        return self.says(Says(
            "", seen.step,
            f"{first} is {100 * weighted[first] / total:.1f} % of the weighted loss; its weight is "
            + ", ".join(f"{weights[first]:g} against {weights[part]:g} of {part}" for part in others),
            f"the gradient says next to nothing about {' and '.join(others)}, which stays as it was",
            f"bring loss.{first} down, or the others up, until each part has a tenth of the loss or more",
            {"shares": {part: weighted[part] / total for part in parts}, "weights": weights},
        ))  # fmt: skip
