"""`onestage report`: the HTML page of a run, written again."""

from __future__ import annotations

from typing import Annotated

import typer

from onestage.cli.verb import Json, verb

EXAMPLES = (("report ssd-lite0-trees-001", "write report.html into the run's folder"),)

Runs = Annotated[list[str], typer.Argument(metavar="RUN…", show_default=False)]


@verb(EXAMPLES)
def report(runs: Runs, as_json: Json = False) -> None:
    """Write the page of one or more runs: self-contained, opens offline."""
    from onestage.cli.terminal import Terminal
    from onestage.experiments.run import Run
    from onestage.report.page import write_report

    terminal = Terminal(as_json)
    opened = [Run.open(name) for name in runs]  # all names are checked before the first page is written
    pages = []
    for run in opened:
        pages.append(str(write_report(run)))
        terminal.say(pages[-1])
    terminal.result({"reports": pages})
