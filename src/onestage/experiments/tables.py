"""Rows of a run as they are merged, read back and put in order after a resume."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def time_now() -> str:
    """The time in UTC as ISO 8601 to the millisecond, so that runs sort by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`; where both hold a mapping, these are merged in turn."""
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def rising(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count, "step" rising: a row takes the place of all earlier ones at its step or later.

    This is what a resume means: it goes back to a saved step and does the following ones again. Rows without a
    number as their step are left out.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row.get("step"), int | float) or row["step"] != row["step"]:
            continue
        while kept and kept[-1]["step"] >= row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV file; a missing file has none, a short row has empty cells."""
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        columns, *rows = list(csv.reader(file)) or [[]]
    return columns, [dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=False)) for row in rows if row]


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The inverse of `read_csv`; a row without a column has an empty cell there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def number(cell: str) -> float | str:
    """A cell as a number where it is one."""
    try:
        return float(cell)
    except ValueError:
        return cell
