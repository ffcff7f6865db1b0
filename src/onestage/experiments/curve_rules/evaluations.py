"""Rules about evaluations: overfitting, too good a validation, plateaus, exchanged classes, nan."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import Rule, Says
from onestage.experiments.curve_rules.seen import Evaluated, Seen
from onestage.records import Finding

BETTER = 0.5
IN_A_ROW = 3
SINCE = 4  # evaluations after the best one
WORSE, WORSE_BY = 0.9, 0.02  # of the best score, and below it
FALLING = 0.98
FAR = 3.0
RISEN = 1.2
STILL, STILL_BY = 1.01, 0.005
LEVEL = 0.97
ZERO = 1e-3
LEARNT = 0.7
ANSWERS, EACH = 20, 8  # of all classes that are exchanged, and of each of them
MOSTLY, HARDLY = 0.6, 0.1
NO_CLASS = ("", "background", "missed", "none", "None")


def between(a: Mapping[str, float], b: Mapping[str, float]) -> float | None:
    """The geometric mean of a / b over the parts both have: weights of the loss fall out of it."""
    logs = [math.log(a[part] / b[part]) for part in a if a[part] > 0 and b.get(part, 0) > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


class ValidationBetter(Rule):
    """The validation losses lie far below the training losses."""

    code = "val-better"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.count = 0

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Count evaluations in a row."""
        ratio = between(seen.val, seen.train)
        if ratio is None:
            return None
        self.count = self.count + 1 if ratio < BETTER else 0
        if not self.count:
            self.cured()
        if self.count < IN_A_ROW:
            return None
        return self.says(Says(
            "", seen.step,
            f"the validation losses are {ratio:.2f} times the training losses, {self.count} times in a row",
            "either training is made much harder than the task (augmentation), or its labels are worse, or "
            "validation images are in it",
            "look for images in both sets, check the training labels, and try a milder augmentation.policy",
            {"ratio": ratio, "evaluations": self.count},
        ))  # fmt: skip


class Overfit(Rule):
    """The score falls, or the validation loss rises, while the training loss goes on falling."""

    code = "overfit"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.best: float | None = None
        self.best_epoch = 0
        self.since = self.low = self.since_least = 0
        self.train: dict[str, float] = {}
        self.least: dict[str, float] = {}

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Compare with the best evaluation, and with the least validation loss."""
        risen = self._risen(seen)
        if seen.score is None:
            return None
        if self.best is None or seen.score > self.best:
            self.best, self.best_epoch, self.train = seen.score, seen.epoch, dict(seen.train)
            self.since = self.low = 0
            self.cured()
            return None
        self.since += 1
        self.low = self.low + 1 if seen.score < (1 + WORSE) / 2 * self.best else 0
        fell = between(seen.train, self.train)
        learning = fell is None or fell < FALLING
        worse = seen.score < WORSE * self.best and self.best - seen.score > WORSE_BY and self.low >= IN_A_ROW
        by_score = worse and self.since >= SINCE and (risen is None or risen > 1 / FALLING)
        ratio = between(seen.val, seen.train)
        by_loss = (
            ratio is not None and ratio > FAR and risen is not None and risen > RISEN
            and self.since_least >= IN_A_ROW and self.since >= IN_A_ROW
        )  # fmt: skip
        if self.best <= ZERO or not learning or not (by_score or by_loss):
            return None
        return self._overfit(seen, ratio)

    def _overfit(self, seen: Evaluated, ratio: float | None) -> list[Finding] | None:
        beside = "" if ratio is None else f"; validation losses are {ratio:.1f} times the training losses"
        return self.says(Says(
            "", seen.step,
            f"{self.facts.metric} was best at epoch {self.best_epoch} ({self.best:.3f}) and is "
            f"{seen.score:.3f} at epoch {seen.epoch}{beside}",
            "the network learns the training images by heart; what comes now makes it worse on others",
            f"end the run near epoch {self.best_epoch} (best.safetensors is of there), or add images, "
            "augmentation, or freeze more",
            {"best": self.best, "best_epoch": self.best_epoch, "score": seen.score, "epoch": seen.epoch,
             "ratio": ratio},
        ))  # fmt: skip

    def _risen(self, seen: Evaluated) -> float | None:
        """The validation losses as a multiple of their least."""
        if not seen.val:
            return None
        risen = between(seen.val, self.least)
        if risen is None or risen < 1:
            self.least, self.since_least = dict(seen.val), 0
            return 1.0
        self.since_least += 1
        return risen


class Plateau(Rule):
    """The score and the training loss have both come to rest with much of the run left."""

    code = "plateau"
    severity = "note"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.best: float | None = None
        self.best_epoch = 0
        self.since = 0
        self.train: dict[str, float] = {}
        self.lr = self.highest = self.before = 0.0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Keep the learning rate: a score that stands before the rate falls is as it should be."""
        if seen.lr is not None:
            self.lr = seen.lr
            self.highest = max(self.highest, seen.lr)
        return None

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Count evaluations without a better score worth the name, since the rate last fell at once."""
        planned, epochs = self.facts.evaluations, self.facts.epochs
        if seen.score is None or not planned or not epochs:
            return None
        if self.best is None or seen.score > max(self.best * STILL, self.best + STILL_BY):
            self.best, self.best_epoch, self.train, self.since = seen.score, seen.epoch, dict(seen.train), 0
            self.cured()
            return None
        self.since = 0 if self.lr < self.before / 1.5 else self.since + 1
        self.before = self.lr
        left = 1 - seen.epoch / epochs
        fell = between(seen.train, self.train)
        moving = fell is None or not LEVEL < fell < 1 / LEVEL
        to_come = not self.facts.constant and self.lr > 0.1 * self.highest
        if self.since < max(5, 0.4 * planned) or left < 0.3 or moving or to_come:
            return None
        return self.says(Says(
            "", seen.step,
            f"{self.facts.metric} has stood at {self.best:.3f} since epoch {self.best_epoch} ({self.since} "
            "evaluations), the training loss too",
            f"the remaining {100 * left:.0f} % of the run will change little at this learning rate",
            "let the learning rate fall now (schedule.name=cosine or step) or end the run",
            {"best": self.best, "best_epoch": self.best_epoch, "evaluations": self.since, "left": left},
        ))  # fmt: skip


class ZeroScore(Rule):
    """The training loss falls as it should, and not one detection is right."""

    code = "zero-score"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.start: float | None = None
        self.count = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Keep the loss of the first ten steps and of the last ten."""
        if seen.raw and self.block("loss", sum(seen.raw.values()), 1) and self.start is None:
            self.start = self.blocks["loss"][-1]
        return None

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Count evaluations whose mAP50 is 0."""
        if seen.found is None:
            return None
        self.count = self.count + 1 if seen.found < ZERO else 0
        if not self.count:
            self.cured()
        loss = (self.blocks.get("loss") or [math.inf])[-1]
        learnt = self.start is not None and loss < LEARNT * self.start
        if self.count < IN_A_ROW or not learnt or seen.step < max(200, 0.3 * self.facts.steps):
            return None
        return self.says(Says(
            "", seen.step,
            f"mAP50 is {seen.found:.4f} for the {self.count}. time, while the training loss fell from "
            f"{self.start:.3g} to {loss:.3g}",
            "what is learnt is not what is judged: other classes, other boxes or other pixels in validation "
            "than in training",
            "compare the class lists and the box formats of the two sets, and draw a few predictions "
            "(onestage predict)",
            {"mAP50": seen.found, "evaluations": self.count, "loss": loss, "start": self.start},
        ))  # fmt: skip


class ValidationNotFinite(Rule):
    """The validation loss is no number, evaluation after evaluation."""

    code = "val-not-finite"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.count = 0

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Count evaluations in a row."""
        self.count = self.count + 1 if seen.broken else 0
        if not self.count:
            self.cured()
        if self.count < 2:
            return None
        return self.says(Says(
            "", seen.step,
            f"the validation loss of {', '.join(seen.broken)} is not a finite number, {self.count} times in a row",
            "one image is enough: the score may be right, but overfitting cannot be seen, and exp or 16 bits "
            "overflow on it",
            "judge with precision=fp32 once; if it stays, look for empty or inverted boxes in the validation "
            "set (onestage data show)",
            {"parts": seen.broken, "evaluations": self.count},
        ))  # fmt: skip


class ClassesExchanged(Rule):
    """Objects of one class are answered as another, whose own objects are answered as a third or as the first."""

    code = "classes-exchanged"
    severity = "error"

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Look for two or more classes that are displaced at once: one alone is a confusion, not a wrong map."""
        taken: dict[str, tuple[str, float]] = {}
        answered: dict[str, float] = {}
        for true, row in seen.confusion.items():
            answers = {str(found): float(n) for found, n in row.items() if str(found) not in NO_CLASS}
            total = sum(answers.values())
            if total < EACH:
                continue
            first = max(answers, key=answers.__getitem__)
            own = answers.get(str(true), 0.0) / total
            if first != str(true) and answers[first] / total >= MOSTLY and own <= HARDLY:
                taken[str(true)] = (first, answers[first] / total)
                answered[str(true)] = total
        moved = {true: found for true, found in taken.items() if found[0] in taken}
        if sum(answered[true] for true in moved) < ANSWERS:
            if seen.confusion:
                self.cured()
            return None
        said = ", ".join(f"{true} as {found} ({100 * share:.0f} %)" for true, (found, share) in list(taken.items())[:4])
        return self.says(Says(
            "", seen.step, f"classes are answered by others' names: {said}",
            "the names or numbers of the classes differ between training and validation: boxes may be right, "
            "the score is near 0",
            "compare the order of the class names in both sets (data.yaml, classes, category ids), and set classes=[…]",
            {"answered": {true: found for true, (found, _) in taken.items()}},
        ))  # fmt: skip
