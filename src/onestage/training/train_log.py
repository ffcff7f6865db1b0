"""A run's train.log: its steps in the words of another program, where the recipe asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onestage.experiments.dialects import DIALECTS, Place
from onestage.experiments.run import Run
from onestage.training.plan import Plan


class TrainLog:
    """Appends the lines of each step to train.log and hands them to `tell`; nothing where `log` is "own".

    Like every file of a run it is never cut: what a resume does again stands in it again, in the same words, for the
    mean since the epoch's start is taken up from steps.jsonl. Steps that the guard left out have no part in the mean.
    """

    def __init__(self, run: Run, plan: Plan, tell: Callable[[Sequence[str]], None]) -> None:
        self.run, self.tell = run, tell
        self.words = DIALECTS.get(plan.recipe.log)
        self.epochs, self.per_epoch = int(plan.recipe.epochs or 0), plan.steps_per_epoch
        self.last = 0  # the step that the sum was taken up to
        self.sum, self.count = 0.0, 0

    def stepped(self, row: Mapping[str, Any]) -> None:
        """Write what there is to say of a step."""
        if self.words is None:
            return
        epoch, done = divmod(row["step"] - 1, self.per_epoch)
        if done == 0 or self.last != row["step"] - 1:
            self.sum, self.count = 0.0, 0
            for earlier in self.run.steps if done else ():
                if epoch * self.per_epoch < earlier["step"] < row["step"]:
                    self._add(earlier)
        self._add(row)
        self.last = row["step"]
        mean = self.sum / self.count if self.count else math.nan
        lines = self.words(row, Place(epoch + 1, self.epochs, done + 1, self.per_epoch, mean))
        self.run.append_log(lines)
        self.tell(lines)

    def _add(self, row: Mapping[str, Any]) -> None:
        if not row.get("skipped"):
            self.sum, self.count = self.sum + row["loss"], self.count + 1
