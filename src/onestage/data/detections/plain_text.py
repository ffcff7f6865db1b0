"""Text files of rows: words and numbers between blanks, read whole, with the lines that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from onestage.data.formats.files import files_under, leads_out, shown
from onestage.data.formats.rows import is_number
from onestage.data.formats.yolo_folder import NOT_LABELS
from onestage.records import FloatArray

SAMPLED_FILES, SAMPLED_LINES = 30, 5


@dataclass(frozen=True, eq=False)
class Table:
    """N lines of equal form: their numbers from 1, their leading words, and their numbers (N, K)."""

    lines: Sequence[int]
    words: Sequence[Sequence[str]]
    numbers: FloatArray
    refused: Sequence[tuple[int, str]]


def table(lines: Sequence[str], words: int, numbers: int) -> Table:
    """Lines of `words` words, then `numbers` numbers; empty lines are passed over, others that do not fit `refused`.

    `refused` holds (line, why). A number may be nan or inf: whether it can be used is for others to say.
    """
    split = [(at, parts) for at, line in enumerate(lines, 1) if (parts := line.split())]
    refused: list[tuple[int, str]] = []
    try:
        if any(len(parts) != words + numbers for _, parts in split):
            raise ValueError
        values = _numbers([parts for _, parts in split], words)
    except ValueError:
        kept = []
        for at, parts in split:
            why = _misfit(parts, words, numbers)
            if why is None:
                kept.append((at, parts))
            else:
                refused.append((at, why))
        split, values = kept, _numbers([parts for _, parts in kept], words)
    return Table([at for at, _ in split], [parts[:words] for _, parts in split], values.reshape(-1, numbers), refused)


def text_files(path: Path) -> list[Path]:
    """The .txt files of a folder, or the file itself; lists of class names are passed over."""
    if path.is_file():
        return [path]
    return [file for file in files_inside(path, {".txt"}) if file.name.lower() not in NOT_LABELS]


def files_inside(folder: Path, suffixes: Iterable[str], deep: bool = True) -> list[Path]:
    """Files as `files_under` finds them, but for links that lead out of the folder; `tell_of_files` lists these."""
    return [file for file in files_under(folder, suffixes, deep) if not leads_out(file, (folder,))]


def sample(path: Path) -> list[list[str]]:
    """The words of the first lines of the first files that are not empty, to recognise a format by."""
    found: list[list[str]] = []
    held = 0
    for file in text_files(path)[:2000]:
        with file.open("rb") as stream:
            head = stream.read(4096).decode("utf-8-sig", "replace").splitlines()[:SAMPLED_LINES]
        rows = [words for line in head if (words := line.split())]
        found += rows
        held += bool(rows)
        if held == SAMPLED_FILES:
            break
    return found


def mostly(rows: Sequence[Sequence[str]], fits: Callable[[Sequence[str]], bool]) -> bool:
    """Whether more than half of the rows fit: a few bad rows do not make another format."""
    return 2 * sum(map(fits, rows)) > len(rows)


def named(file: Path, path: Path) -> str:
    """What findings call `file`: relative to the folder `path`, or its name."""
    return shown(file, path if path.is_dir() else path.parent)


def _numbers(rows: Sequence[Sequence[str]], start: int) -> FloatArray:
    flat = list(chain.from_iterable(row[start:] for row in rows))
    if "_" in "".join(flat):
        raise ValueError("Python reads 1_000 as a number, no detector writes it")
    return np.fromiter(map(float, flat), np.float64, len(flat))


def _misfit(parts: Sequence[str], words: int, numbers: int) -> str | None:
    raw = " ".join(parts)[:80]
    if len(parts) != words + numbers:
        return f"{raw!r}: {len(parts)} columns, expected {words + numbers}"
    wrong = [part for part in parts[words:] if not is_number(part)]
    return f"{raw!r}: {wrong[0]!r} is no number" if wrong else None
