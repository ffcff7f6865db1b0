"""VisDrone detections: a folder of one txt per image, eight columns, the last two -1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.detections.plain_text import files_inside
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import printable
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import number
from onestage.data.formats.visdrone_folder import CLASSES, COLUMNS, OTHERS, REGION, looks_like, numbered_rows

NAME = "VisDrone detections"
LOOKED_FOR = "a folder of one txt per image with rows left,top,width,height,score,category,-1,-1"


def recognise(path: Path) -> str | None:
    """Why a folder is taken for VisDrone's detections, in words; None where it is not."""
    if not path.is_dir() or not looks_like(path, _is_row, commas=False):
        return None
    return f"{NAME}: txt files of eight columns with a category from 1 to {len(CLASSES)}"


def read(path: Path) -> Rows:
    """All rows of a folder of VisDrone's detections, or of one file; an image is called after its file.

    Columns are divided by commas or spaces; truncation and occlusion (the last two) may be missing. Boxes are left,
    top, width, height and are kept as written in `extra["xywh"]`; `extra["row"]` is the row's place in its file, blank
    and broken rows not counted. Rows of category 0 and 11 are none of the ten classes: they are counted in one
    finding and left out, but keep their place, as they do for the official judge. A row that cannot be read becomes a
    finding.
    """
    listing = Listing(path if path.is_dir() else path.parent)
    files = files_inside(path, {".txt"}, deep=False) if path.is_dir() else [path]
    table: list[list[float]] = []
    at: list[tuple[int, int, int]] = []
    others: dict[int, int] = {}
    for index, file in enumerate(files):
        place = 0
        for line, raw, values in numbered_rows(file):
            if _refused(file, line, raw, values, listing):
                continue
            if values[5] in (REGION, OTHERS):
                others[index] = others.get(index, 0) + 1
            else:
                table.append(values[:6])
                at.append((index, line, place))
            place += 1
    if others:
        rows = f"{sum(others.values())} rows of category {REGION} or {OTHERS} in {len(others)} of {len(files)} files"
        listing.add("no-object-category", rows, file=files[next(iter(others))], rows=sum(others.values()))
    columns = np.array(table, np.float64).reshape(-1, 6)
    places = np.array(at, np.int64).reshape(-1, 3)
    xywh = columns[:, :4]
    return Rows(
        images=tuple(printable(file.stem) for file in files),
        classes=CLASSES,
        files=tuple(printable(file.name) for file in files),
        image=places[:, 0],
        label=columns[:, 5].astype(np.int64) - 1,
        file=places[:, 0],
        line=places[:, 1],
        boxes=corners(xywh),
        scores=columns[:, 4],
        extra={"row": places[:, 2], "xywh": xywh},
        findings=tuple(listing.findings),
    )


def _is_row(words: Sequence[str]) -> bool:
    values = [number(word) for word in words]
    return (
        len(values) == len(COLUMNS)
        and all(map(math.isfinite, values[:5]))
        and values[5] in range(OTHERS + 1)
        and all(value in range(-1, 4) for value in values[6:])
    )


def _refused(file: Path, line: int, raw: str, values: Sequence[float], listing: Listing) -> bool:
    """Whether a row cannot be used, which is listed."""
    code, what, raw = "bad-row", "", raw[:80]
    if not 6 <= len(values) <= len(COLUMNS):
        what = f"{raw}: {len(values)} columns, expected {', '.join(COLUMNS)}"
    elif math.isnan(values[5]) or not all(map(math.isfinite, values[:4])):
        code, what = "not-a-number", f"{raw}: expected numbers"
    elif values[5] not in range(OTHERS + 1):
        code, what = "unknown-class", f"{raw}: category {values[5]:g}, expected 1 to {len(CLASSES)}"
    if what:
        listing.add(code, what, file=file, line=line, image=printable(file.stem))
    return bool(what)
