"""What a run will train, before it does: the table of parameter groups of each stage."""

from __future__ import annotations

from collections.abc import Sequence

from onestage.cli.terminal import Terminal
from onestage.training.loop.groups import GroupRow
from onestage.training.plan import Plan
from onestage.training.recipe.spans import in_steps
from onestage.training.recipe.stages import Leg

COLUMNS = ("group", "norms", "tensors", "parameters", "lr", "decay")


def show_groups(terminal: Terminal, plan: Plan) -> None:
    """The parameter groups of each stage: what learns, how fast, and what its norms do."""
    groups = list(plan.groups)
    for leg, rows in groups:
        terminal.table(COLUMNS, _cells(rows), title=_title(leg, len(groups)), left=2)


def how_many(count: int, word: str) -> str:
    """A count with its word: "1 epoch", "2,000 steps"."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def _cells(rows: Sequence[GroupRow]) -> list[tuple[str, ...]]:
    return [
        (
            row.group, row.norms, f"{row.tensors}", f"{row.parameters:,}",
            "frozen" if row.lr is None else f"{row.lr:g}", "–" if row.decay is None else f"{row.decay:g}",
        )
        for row in rows
    ]  # fmt: skip


def _title(leg: Leg, count: int) -> str:
    """The stage in a line: what it is called, how long, by which optimiser and schedule."""
    schedule = leg.schedule
    warmup = in_steps(schedule.warmup or 0, leg.steps)
    head = f"stage {leg.index + 1} of {count}, {leg.name}: " if count > 1 else ""
    words = [f"{how_many(leg.epochs, 'epoch')}, {how_many(leg.steps, 'step')}", leg.optimiser.name, schedule.name]
    if schedule.milestones:
        words[-1] += f" at {', '.join(str(in_steps(at, leg.steps)) for at in schedule.milestones)}"
    if schedule.every is not None:
        words[-1] += f" every {schedule.every}"
    if warmup:
        words.append(f"warm-up {how_many(warmup, 'step')}")
    return head + ", ".join(words)
