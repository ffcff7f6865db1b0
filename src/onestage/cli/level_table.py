"""What each level of a network did, as a small table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onestage.experiments.levels import COLUMNS, EXPLAINED, Level, Tally, last_epoch, levels_in

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
        self.tally.add({**record.extra, "step": record.step, "images": record.images, "truths": record.truths})

    @property
    def is_due(self) -> bool:
        """Whether it has long been silent."""
        return self.tally.first is not None and self.tally.last - self.tally.first + 1 >= MOST_STEPS

    def show(self, terminal: Terminal) -> None:
        """The table of the steps since it was last shown; what its columns mean is said the first time."""
        if _table(terminal, self.tally, self.levels) and not self.explained:
            terminal.say(EXPLAINED, style="dim")
            self.explained = True
        self.tally = Tally()


def show_levels(
    terminal: Terminal, info: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The table of a run's last epoch, and the same for machines; nothing where its steps do not tell of levels."""
    levels, tally = levels_in(info), Tally.of(last_epoch(steps))
    if not tally.counts:
        return []
    terminal.say()
    _table(terminal, tally, levels)
    terminal.say(EXPLAINED, style="dim")
    return [{"level": name, **asdict(did)} for name, did in zip(tally.names(levels), tally.rows(), strict=True)]


def _table(terminal: Terminal, tally: Tally, levels: Sequence[Level]) -> bool:
    """Show it where there is one."""
    rows = tally.table(levels)
    if rows:
        terminal.table(COLUMNS, rows, title=f"levels in {tally.when}: {tally.counted}")
    return bool(rows)
