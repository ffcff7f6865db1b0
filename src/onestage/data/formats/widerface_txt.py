"""WIDER FACE's txt: an image's name, a count, ten columns per face; every fault listed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onestage.data.formats.files import IMAGE_SUFFIXES, text_lines
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import number
from onestage.data.formats.widerface_mat import ATTRIBUTES, UNKNOWN, Record
from onestage.records import FloatArray, IntArray

_COLUMNS = 4 + len(ATTRIBUTES)


@dataclass
class _Open:
    """A record while its lines are read; `count` is None until it is known."""

    name: str
    line: int
    count: int | None = None
    rows: list[list[float]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    told: int = 0


def txt_records(path: Path, listing: Listing) -> list[Record]:
    """Every image of a wider_face_SET_bbx_gt.txt, in its order; names as written.

    Numbers may be apart by spaces, tabs or commas. A count of 0 may be followed by one row of zeros, which is no face.
    Where count and rows disagree the rows are believed. Where the file is cut short its last row is left out if it
    lacks columns, and its last image if it has faces of which no row is left. Rows behind a damaged name are kept
    apart, as a record without name, so that they do not go to the image before. All of this is listed.
    """
    cut = path.read_bytes()[-1:] not in (b"\n", b"\r")
    numbered = [(line, text.strip()) for line, text in enumerate(text_lines(path), 1) if text.strip()]
    records: list[_Open] = []
    for place, (line, text) in enumerate(numbered):
        words = text.replace(",", " ").split()
        after = numbered[place + 1][1] if place + 1 < len(numbered) else ""
        if _names_image(text):
            records.append(_Open(text, line))
        elif records and _is_damaged_name(text, words, after, records[-1]):
            records.append(_Open("", line, int(text) if _is_count(text) else None))
        elif not records:
            listing.add("bad-row", f"{text[:60]!r} stands before any image's name", file=path, line=line)
        elif records[-1].count is None and not records[-1].told and _is_count(text):
            records[-1].count = int(text)
        else:
            _add_row(records[-1], words, line, cut and line == numbered[-1][0], path, listing)
    if cut and numbered:
        listing.add("no-line-end", "the last line has no line end", file=path, line=numbered[-1][0])
    return [
        record for last, item in enumerate(records, 1 - len(records))
        if (record := _closed(item, last == 0, path, listing)) is not None
    ]  # fmt: skip


def _names_image(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix.lower() in IMAGE_SUFFIXES


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _is_damaged_name(text: str, words: Sequence[str], after: str, before: _Open) -> bool:
    """Whether a line begins another image though it names none: a count follows, or it is one that no row asks for."""
    if _is_count(text):
        return before.count is not None and before.told >= before.count and (before.told > 0 or text != "0")
    return _is_count(after) and not math.isfinite(number(words[0]))


def _add_row(record: _Open, words: Sequence[str], line: int, cut: bool, path: Path, listing: Listing) -> None:
    record.told += 1
    values = [number(word) for word in words[:_COLUMNS]]
    if cut and len(values) < (_COLUMNS if not record.rows else len(record.rows[-1])):
        listing.add("cut-short", f"the file ends within a row: {' '.join(words)!r}", file=path, line=line)
    elif len(values) < 4 or not all(map(math.isfinite, values)):
        what = f"{' '.join(words)[:60]!r}: expected x, y, width, height and {', '.join(ATTRIBUTES)}"
        listing.add("bad-row", what, file=path, line=line, image=record.name)
    else:
        record.rows.append(values)
        record.lines.append(line)


def _closed(record: _Open, last: bool, path: Path, listing: Listing) -> Record | None:
    count = record.count
    if not record.name:
        what = f"no image's name stands before {record.told} row{'s' * (record.told != 1)}"
        listing.add("misfit-line", what, file=path, line=record.line)
        return Record("", *_columns(record.rows), line=record.line, lost=record.told - len(record.rows))
    if count == 0 and len(record.rows) == record.told == 1 and not any(record.rows[0][:4]):
        record.rows, record.lines, record.told = [], [], 0  # the row of zeros that stands for "no face"
    if last and count != 0 and not record.rows:
        what = f"the file ends within image {record.name!r}: {'its count is missing' if count is None else 'no row'}"
        listing.add("cut-short", f"{what}; the image is left out", file=path, line=record.line)
        return None
    if count != record.told:
        said = "no count" if count is None else f"a count of {count}"
        short = last and count is not None and record.told < count
        listing.add(
            "cut-short" if short else "count-mismatch",
            f"{said}, {record.told} row{'s' * (record.told != 1)}" + (" at the end of the file" if short else ""),
            file=path, line=record.line, image=record.name,
        )  # fmt: skip
    lines, lost = np.array(record.lines, np.int64), record.told - len(record.rows)
    return Record(record.name, *_columns(record.rows), lines, record.line, lost)


def _columns(rows: Sequence[Sequence[float]]) -> tuple[FloatArray, IntArray]:
    table = np.full((len(rows), _COLUMNS), float(UNKNOWN))
    for table_row, row in zip(table, rows, strict=True):
        table_row[: len(row)] = row
    return table[:, :4].copy(), table[:, 4:].astype(np.int64)
