"""Where a command's words go: to people, or with --json to machines on stdout and to people on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from onestage.experiments.storage import plain

# Columns of a line where no terminal says how wide it is: a file, a pipe.
WIDTH = 120
# Blanks between the columns of a table, and how narrow its columns of text may be folded.
GAP, FOLDED = 2, 20


class Reader(Console):
    """A console whose vanished reader (`onestage … | head`) ends neither the command nor the training."""

    def on_broken_pipe(self) -> None:
        """Be silent from here on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())


class Terminal:
    """Says things to people; `as_json` moves what people read to stderr, so that stdout holds one JSON document."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        stream = sys.stderr if as_json else sys.stdout
        self.console = Reader(stderr=as_json, highlight=False, width=None if stream.isatty() else WIDTH)

    @property
    def live(self) -> bool:
        """Whether a bar can be drawn and redrawn."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A turning sign on a terminal, nothing elsewhere, while something takes seconds."""
        if not self.live:
            yield
            return
        with self.console.status(what):
            yield

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar on a terminal, nothing elsewhere: call what you are given with each of `total` things that is done."""
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=not self.live, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)

    @contextlib.contextmanager
    def steps(self) -> Iterator[Callable[[str], None]]:
        """As `waiting`, but what is being done is told as it goes on: call what you are given with each step."""
        if not self.live:
            yield lambda what: None
            return
        with self.console.status("") as status:
            yield status.update

    def say(self, text: str = "", style: str | None = None) -> None:
        """One line or paragraph, never cut or broken, its brackets left as they are."""
        self.console.print(Text(text), style=style, soft_wrap=True)

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and values beneath each other; off a terminal one line each, however long."""
        rows = list(rows)
        if not self.console.is_terminal:
            width = max((len(name) for name, _ in rows), default=0)
            for name, value in rows:
                self.say(f"{name:<{width}}  {value}")
            return
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, Text(value))
        self.show(table)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", left: int = 1) -> None:
        """A table; the first `left` columns are text, the others numbers at the right.

        Where the terminal is too narrow, text is folded; where that does not do, the numbers stand in several tables
        beneath each other, each with the text again. No number is cut.
        """
        rows = [tuple(row) for row in rows]
        if title:
            self.say(title, style="bold")
        widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
        text = sum(min(width, FOLDED) + GAP for width in widths[:left])
        for numbers in _fitting([width + GAP for width in widths[left:]], self.console.width - text):
            shown = [*range(left), *(left + place for place in numbers)]
            table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
            for i in shown:
                table.add_column(
                    columns[i], justify="left" if i < left else "right", overflow="fold", no_wrap=i >= left,
                    min_width=None if i < left else widths[i],
                )  # fmt: skip
            for row in rows:
                table.add_row(*(Text(row[i]) for i in shown))
            self.show(table)

    def show(self, thing: RenderableType) -> None:
        """Anything rich can draw."""
        self.console.print(thing)

    def result(self, value: Any) -> None:
        """The answer for machines: JSON on stdout where it was asked for, nothing elsewhere."""
        if self.as_json:
            try:
                print(json.dumps(plain(value), ensure_ascii=False, allow_nan=False), flush=True)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fitting(widths: Sequence[int], room: int) -> list[range]:
    """Columns of these widths in groups that each fit into `room`; a column wider than that stands alone."""
    groups = [range(0)]
    for place, width in enumerate(widths):
        last = groups[-1]
        if last and sum(widths[i] for i in last) + width - GAP > room:
            groups.append(range(place, place + 1))
        else:
            groups[-1] = range(last.start, place + 1)
    return groups
