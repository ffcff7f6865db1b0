"""A run's train.log: its steps in the words of another program, where the recipe asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onestage.experiments.dialects import DIALECTS, Place, Words
from onestage.experiments.run import Run
from onestage.training.plan import Plan

NAME = "train.log"


class TrainLog:
    """Appends the lines of each step to train.log and hands them to `tell`; nothing where `log` is "own".

    The file has the lines of every step that counts, once: where a step does not follow the one before (a run taken up
    again, gone back, or one whose log had been "own") it is first written anew from steps.jsonl, which keeps all that
    was done. Steps that the guard left out have no part in the mean since the epoch's start.
    """

    def __init__(self, run: Run, plan: Plan, tell: Callable[[Sequence[str]], None]) -> None:
        self.run, self.tell = run, tell
        self.dialect = DIALECTS.get(plan.recipe.log)
        self.words: Words | None = None
        self.layers = tuple(plan.detector.level_layers)
        self.epochs, self.per_epoch = int(plan.recipe.epochs or 0), plan.steps_per_epoch
        self.last: int | None = None  # the step up to which the file is known to be right
        self.epoch: int | None = None
        self.sum, self.count = 0.0, 0

    def stepped(self, row: Mapping[str, Any]) -> None:
        """Write what there is to say of a step, whose row is the last of steps.jsonl."""
        if self.dialect is None:
            return
        if self.words is None or self.last != row["step"] - 1:
            self.words = self.dialect()
            self._write_anew(self.words, int(row["step"]))
        lines = self._lines(self.words, row)
        self.run.append_log(lines)
        self.tell(lines)

    def _write_anew(self, words: Words, step: int) -> None:
        """Let the file hold the steps before `step` alone."""
        self.epoch = None
        earlier = [row for row in self.run.steps if row["step"] < step]
        lines = [line for row in earlier for line in self._lines(words, row)]
        if lines or (self.run.folder / NAME).exists():
            self.run.write_file(NAME, "".join(f"{line}\n" for line in lines).encode())

    def _lines(self, words: Words, row: Mapping[str, Any]) -> list[str]:
        epoch, done = divmod(int(row["step"]) - 1, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.sum, self.count = epoch, 0.0, 0
        if not row.get("skipped"):
            self.sum, self.count = self.sum + row["loss"], self.count + 1
        self.last = int(row["step"])
        mean = self.sum / self.count if self.count else math.nan
        return words(row, Place(epoch + 1, self.epochs, done + 1, self.per_epoch, mean, self.layers))
