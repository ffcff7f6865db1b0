"""`onestage replay`: one step of a run again, exactly, and what each of its images did."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from pathlib import Path

    from onestage.cli.terminal import Terminal

EXAMPLES = (
    ("replay ssd-lite0-trees-001 --step 123", "a table, and a page with the images in the run's folder"),
    ("replay ssd-lite0-trees-001 --step 123 --json | jq '.images | max_by(.gradient).file'", "for programs"),
)  # fmt: skip
AFTER = (
    "The step is done again from the nearest saved state before it, or from the start of the run, and compared with "
    "what steps.jsonl says of it. Nothing of the run changes; recorder/replay-000123/ is added to its folder. On other "
    "hardware or with other threads the numbers may differ in their last digits, which is then told."
)

RunName = Annotated[str, typer.Argument(metavar="RUN", show_default=False)]
Step = Annotated[int, typer.Option("--step", metavar="K", help="The step, counted from 1.", show_default=False)]
# So many images and priors stand in the terminal's tables; the page has all.
IMAGES_SHOWN, PRIORS_SHOWN = 16, 5


@verb(EXAMPLES, (), AFTER)
def replay(run: RunName, step: Step, as_json: Json = False) -> None:
    """Do one step of a run again, bit for bit, and show what each image did in it."""
    from onestage.cli.terminal import Terminal
    from onestage.errors import StorageError
    from onestage.experiments.run import Run

    terminal = Terminal(as_json)
    opened = Run.open(run)
    with terminal.waiting("loading torch"):
        import onestage.runs as again
    with _bar(terminal, step) as progress:
        done = again.replay(opened, step, progress=progress)
    facts = done.as_dict()
    page, unwritten = None, None
    try:
        page = again.write_page(opened, done)
    except StorageError as error:  # someone else's run, a full disk: the numbers are there all the same
        hint = f'onestage.replay({opened.name!r}, {step}, page="a/folder") in Python writes them elsewhere'
        unwritten = StorageError(f"page and pictures were not written: {error.message}", hint=hint)
    _show(terminal, facts, page)
    terminal.result({**facts, "page": None if page is None else str(page)})
    if unwritten is not None:
        raise unwritten


@contextlib.contextmanager
def _bar(terminal: Terminal, step: int) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over the steps on the way, where there is a terminal."""
    if not terminal.live:
        yield None
        return
    from rich.progress import MofNCompleteColumn, Progress

    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=terminal.console, transient=True)
    task = bar.add_task(f"on the way to step {step}", total=None)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(terminal: Terminal, told: dict[str, Any], page: Path | None) -> None:
    from onestage.report.replayed import image_rows, number, prior_rows, verdict

    row = told["row"]
    losses = ", ".join(f"{name} {number(value)}" for name, value in row["raw"].items())
    start = f"the state after step {told['from_step']}" if told["from_step"] else "the start of the run"
    terminal.say(f"step {told['step']}, epoch {told['epoch'] + 1}, done again from {start}")
    terminal.say(verdict(told), style="green" if told["identical"] else "yellow")
    for line in told["differences"][:8]:
        terminal.say(f"  {line}")
    terminal.say(f"loss {number(row['loss'])} ({losses}), gradient {number(row['grad_norm'])}, "
                 f"{row['positives']} positives in {row['images']} images")  # fmt: skip
    terminal.say()
    columns, rows = image_rows(told, IMAGES_SHOWN)
    if rows:
        terminal.table(columns, rows, title="What each image did, the largest gradient first")
        terminal.say()
        terminal.table(*prior_rows(told, PRIORS_SHOWN), left=4, title="The priors with the largest loss")
        terminal.say()
        parts = (
            "the loss is not finite: there is none"
            if not told["by_part"]
            else ", ".join(f"{name} {number(norm)}" for name, norm in told["by_part"].items())
        )
        terminal.facts([("gradient by part", parts)])
    if page is not None:
        terminal.facts([("page", str(page))])
