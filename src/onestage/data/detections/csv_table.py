"""Detections as a table with a header: comma, semicolon or tab; columns by their names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import text_lines
from onestage.data.formats.rows import is_number
from onestage.errors import DataError, did_you_mean
from onestage.records import FloatArray

NAME = "CSV"
LOOKED_FOR = "a header line with image, class, score and xmin ymin xmax ymax or x y width height"
IMAGE = ("image", "image_id", "imageid", "image_name", "image_path", "img", "file", "filename", "file_name", "path")
CLASS = ("class", "class_name", "label", "category", "category_name", "name", "cls", "class_id", "label_id",
         "category_id")  # fmt: skip
SCORE = ("score", "confidence", "conf", "probability", "prob")
LEFT, TOP = ("xmin", "x1", "left", "x_min", "x"), ("ymin", "y1", "top", "y_min", "y")
RIGHT, BOTTOM = ("xmax", "x2", "right", "x_max"), ("ymax", "y2", "bottom", "y_max")
WIDTH, HEIGHT = ("width", "w", "box_width"), ("height", "h", "box_height")
_AT_ONCE = 1 << 17
WANTED = {
    "image": IMAGE, "class": CLASS, "score": SCORE, "left": LEFT, "top": TOP, "right": (*RIGHT, *WIDTH),
    "bottom": (*BOTTOM, *HEIGHT),
}  # fmt: skip


def recognise(path: Path) -> str | None:
    """Why `path` (one file) is taken for a table, in words; None where it is not."""
    if not path.is_file() or path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    with path.open("rb") as stream:
        first = stream.read(4096).decode("utf-8-sig", "replace").splitlines()[:1]
    names = _header(first[0] if first else "")
    known = sum(_place(names, choices) is not None for choices in WANTED.values())
    table = path.suffix.lower() != ".txt" and len(names) > 1 and not any(map(is_number, names))
    return f"{NAME} with columns {', '.join(names[:10])}" if known >= 4 or table else None


def read(path: Path) -> Rows:
    """The rows of a table, whose boxes are in pixels.

    Names of columns may differ in case and blanks. Where there are right and bottom, they are edges; else width and
    height. Classes go by name, or by number: from 0, but those of a column category_id as in COCO results. Raises
    DataError that names every column that is missing.
    """
    lines = text_lines(path)
    if not lines:
        raise DataError(f"{path} is empty", hint=f"expected {LOOKED_FOR}")
    delimiter = _delimiter(lines[0])
    names = _header(lines[0])
    at, sized = _found(names, path)
    gathered = Gathering()
    for rows, numbers_of_lines in _cells(lines[1:], delimiter, path):
        _add(gathered, path.name, rows, numbers_of_lines, names, at, sized)
    return gathered.rows(numbering="coco" if names[at["class"]] == "category_id" else "indices")


def _add(
    gathered: Gathering, file: str, rows: list[list[str]], numbers_of_lines: list[int], names: Sequence[str],
    at: dict[str, int], sized: bool,
) -> None:  # fmt: skip
    try:
        if any(len(row) != len(names) for row in rows):
            raise ValueError
        values = _numbers(rows, at)
    except ValueError:
        wrong = [_misfit(row, names, at) for row in rows]
        for line, why in zip(numbers_of_lines, wrong, strict=True):
            if why is not None:
                gathered.refuse(file, line, why)
        good = [i for i, why in enumerate(wrong) if why is None]
        rows, numbers_of_lines = [rows[i] for i in good], [numbers_of_lines[i] for i in good]
        values = _numbers(rows, at)
    boxes = corners(values[:, 1:]) if sized else values[:, 1:]
    gathered.add(
        file, numbers_of_lines, [row[at["image"]].strip() for row in rows],
        [row[at["class"]].strip() for row in rows], boxes, values[:, 0],
    )  # fmt: skip


def _cells(lines: Sequence[str], delimiter: str, path: Path) -> Iterator[tuple[list[list[str]], list[int]]]:
    """The rows that are not empty, and the line of the file on which each ends; some at a time, to save memory."""
    reader = csv.reader(lines, delimiter=delimiter)
    rows, ends = [], []
    try:
        for row in reader:
            if row:
                rows.append(row)
                ends.append(reader.line_num + 1)
            if len(rows) == _AT_ONCE:
                yield rows, ends
                rows, ends = [], []
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + 1}: not a table: {error}") from error
    yield rows, ends


def _delimiter(line: str) -> str:
    return max((",", ";", "\t"), key=line.count)


def _header(line: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []
    return [cell.strip().lower().replace(" ", "_") for cell in cells]


def _place(names: Sequence[str], choices: Sequence[str]) -> int | None:
    return next((names.index(name) for name in choices if name in names), None)


def _found(names: Sequence[str], path: Path) -> tuple[dict[str, int], bool]:
    """Where each wanted column is, and whether the last two are width and height."""
    edges = _place(names, RIGHT) is not None and _place(names, BOTTOM) is not None
    wanted = WANTED | ({"right": RIGHT, "bottom": BOTTOM} if edges else {"right": WIDTH, "bottom": HEIGHT})
    at = {what: place for what, choices in wanted.items() if (place := _place(names, choices)) is not None}
    missing = [
        f"{what}: none of {', '.join(WANTED[what])}{_near(names, WANTED[what])}" for what in WANTED if what not in at
    ]
    if missing:
        named = ", ".join(repr(name[:40]) for name in names[:20]) + " …" * (len(names) > 20)
        raise DataError(
            f"{path}: columns are missing; its header names {named or 'none'}", problems=missing,
            hint=f"expected {LOOKED_FOR}",
        )  # fmt: skip
    return at, not edges


def _near(names: Sequence[str], choices: Sequence[str]) -> str:
    return next((f"; is it {name!r}?" for name in names if did_you_mean(name, choices)), "")


def _numbers(rows: Sequence[Sequence[str]], at: dict[str, int]) -> FloatArray:
    columns = [at[key] for key in ("score", "left", "top", "right", "bottom")]
    flat = [row[column] for row in rows for column in columns]
    return np.fromiter(map(float, flat), np.float64, len(flat)).reshape(-1, 5)


def _misfit(row: Sequence[str], names: Sequence[str], at: dict[str, int]) -> str | None:
    if len(row) != len(names):
        return f"{len(row)} cells, but the header names {len(names)}"
    for key in ("score", "left", "top", "right", "bottom"):
        if not is_number(row[at[key]]):
            return f"{names[at[key]]} {row[at[key]]!r} is no number"
    return None
