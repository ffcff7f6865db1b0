"""The ends of help pages: examples, and keys in groups with default and meaning."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def print_page_end(examples: Sequence[tuple[str, str]], keys: Sequence[tuple[str, str, str]], after: str) -> None:
    """Print examples, keys and closing words beneath a help page, in its style."""
    console = Console(highlight=False)
    if examples:
        console.print(_panel("Examples", _examples(examples)))
    if keys:
        console.print(_panel("Keys", _keys(keys)))
    if after:
        console.print(Text(f" {after}\n", style="dim"))


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim")


def _examples(examples: Sequence[tuple[str, str]]) -> RenderableType:
    lines: list[RenderableType] = []
    for command, meaning in examples:
        lines.append(Text(f"onestage {command}", style="bold"))
        lines.append(Padding(Text(meaning, style="dim"), (0, 0, 0, 4)))
    return Group(*lines)


def _keys(keys: Sequence[tuple[str, str, str]]) -> RenderableType:
    """One row per key; keys with a dot stand beneath those of their group."""
    table = Table(box=None, show_header=True, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("key", "default", "meaning"):
        table.add_column(column, overflow="fold")
    ordered = [key for key in keys if "." not in key[0]] + [key for key in keys if "." in key[0]]
    group = ""
    for key, default, meaning in ordered:
        owner = key.partition(".")[0] if "." in key else ""
        if owner != group:
            table.add_row("", "", "")
            group = owner
        table.add_row(Text(key, style="cyan"), Text(default, style="dim"), Text(meaning))
    return table
