"""What each level of a network did since the last judgement, as a small table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onestage.experiments.levels import COLUMNS, EXPLAINED, Level, Tally

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.training.loop.step_record import StepRecord

# Without a judgement for so many steps the table is shown all the same.
MOST_STEPS = 1000


class LevelTable:
    """Gathers steps and shows their means, weighted by counts; nothing for a loss that does not tell of levels."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = levels
        self.tally = Tally()
        self.explained = False

    def add(self, record: StepRecord) -> None:
        """Take in a step."""
        self.tally.add({**record.extra, "step": record.step, "images": record.images})

    @property
    def is_due(self) -> bool:
        """Whether it has long been silent."""
        return self.tally.first is not None and self.tally.last - self.tally.first + 1 >= MOST_STEPS

    def show(self, terminal: Terminal) -> None:
        """The table of the steps since it was last shown; what its columns mean is said the first time."""
        rows = self.tally.table(self.levels)
        if not rows:
            return
        first, last, truths = self.tally.first, self.tally.last, sum(self.tally.counts)
        steps = f"steps {first} to {last}" if first != last else f"step {last}"
        terminal.table(COLUMNS, rows, title=f"levels in {steps}: {truths:,} truths and the boxes that learn them")
        if not self.explained:
            terminal.say(EXPLAINED, style="dim")
            self.explained = True
        self.tally = Tally()
