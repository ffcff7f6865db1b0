"""Who is told what happens in a run: the terminal, a notebook, a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onestage.evaluation import Evaluation
from onestage.experiments.run import Run
from onestage.records import Finding
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import Plan


class Watcher:
    """Here every method does nothing; override some."""

    def planned(self, run: Run, plan: Plan, resumed_at: int) -> None:
        """The run is about to start."""

    def told(self, notes: Sequence[str]) -> None:
        """What should be known of a run that goes on: what was changed, what jumps, what could not be read."""

    def stopping(self, by: str) -> None:
        """The signal called `by` asked to stop; the present step is finished first. Called in the signal's handler."""

    def stepped(self, record: StepRecord, plan: Plan) -> None:
        """A step was done; a KeyboardInterrupt raised here stops the run after it."""

    def logged(self, lines: Sequence[str]) -> None:
        """The step as another program would print it, where the recipe's `log` asks for it; before `stepped`."""

    def found(self, finding: Finding) -> None:
        """Something about the training was found that its user should know."""

    def evaluated(self, row: Mapping[str, Any], best: bool) -> None:
        """The model was judged; `row` is that of results.csv."""

    def judging(self, done: int, total: int) -> None:
        """So many of the validation images are done."""

    def finished(self, run: Run, evaluation: Evaluation) -> None:
        """The run is over and judged."""
