"""Tables on terminals of any width: nothing is cut."""

from __future__ import annotations

import pytest
from rich.console import Console

from onestage.cli.terminal import Terminal

COLUMNS = ("class", "best score", "95 % interval", "precision", "recall", "F1", "95 % interval", "ECE", "by chance")
ROWS = [
    ("Platelets", "0.515", "0.478–0.525", "0.810", "0.410", "0.544", "0.431–0.658", "0.164", "0.048"),
    ("a long name of a class indeed", "0.004", "0.001–0.040", "0.737", "0.760", "0.749", "0.729–0.765", "0.302", "0.9"),
]


def shown(width: int) -> str:
    terminal = Terminal()
    terminal.console = Console(width=width, highlight=False, force_terminal=False)
    with terminal.console.capture() as caught:
        terminal.table(COLUMNS, ROWS)
    return caught.get()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_no_cell_and_no_header_is_cut(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    for row in (COLUMNS, *ROWS):
        for cell in row[1:]:
            assert cell in text
    assert "Platelets" in text


def test_what_fits_is_one_table_and_what_does_not_tells_the_class_again() -> None:
    assert shown(200).count("Platelets") == 1
    assert shown(80).count("Platelets") == 2
    assert [line.split()[0] for line in shown(80).splitlines()].count("class") == 2
