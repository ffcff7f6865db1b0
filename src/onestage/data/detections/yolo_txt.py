"""YOLO txt with confidence: one file per image, `class cx cy w h confidence` in shares of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onestage.data.detections.faults import fault
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.plain_text import Table, mostly, named, sample, table, text_files
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import file_stem, put_text, text_lines
from onestage.data.formats.rows import is_number
from onestage.records import BoolArray, Detections, FloatArray, ImageId, ImageInfo, Where

NAME = "YOLO txt with confidence"
LOOKED_FOR = "IMAGE.txt, rows `class cx cy w h confidence` in shares of the image (save_txt with save_conf)"
PAST = 0.02  # how far beyond the image's border a box in shares may lie and still be one


def recognise(path: Path) -> str | None:
    """Why `path` (a folder or one image's file) is taken for YOLO's output, in words; None where it is not."""
    if not (path.is_dir() or path.suffix.lower() == ".txt"):
        return None
    files, rows = text_files(path), sample(path)
    if not rows:
        empty = files and not any(file.stem.startswith("comp") for file in files)
        return f"{NAME}: {len(files)} text files without a row" if empty else None
    if not mostly(rows, _is_share_row):
        return None
    return f"{NAME}: {len(files)} file{'s' * (len(files) != 1)}, rows such as {' '.join(rows[0])}"


def read(path: Path) -> Rows:
    """The rows of all files of a folder, or of one; the file's name without .txt is the image's.

    Classes count from 0. Where the last five columns cannot be a box's shares and a confidence, but the second is one
    and the others a box, the rows are read as `class confidence cx cy w h`, which some programs write; if both would
    do for every row, the usual order is taken and a note says so. A file without rows is an image without detections.
    """
    gathered, tables = Gathering(), []
    for file in text_files(path):
        image = Path(named(file, path)).with_suffix("").as_posix()
        gathered.speak_of(image)
        rows = table(text_lines(file), 0, 6)
        for line, why in rows.refused:
            lacks = "; there is no confidence: save_conf=True writes it" if ": 5 columns" in why else ""
            gathered.refuse(named(file, path), line, f"{why}: class cx cy w h confidence{lacks}", image)
        tables.append((named(file, path), image, rows))
    second = _confidence_second([rows for _, _, rows in tables], path, gathered)
    for name, image, rows in tables:
        _add(gathered, name, image, rows, second)
    return gathered.rows(relative=True)


def write(detections: Mapping[ImageId, Detections], images: Sequence[ImageInfo], folder: Path) -> None:
    """Write IMAGE.txt for every image, also for those without detections."""
    for image in images:
        found = detections.get(image.id, Detections.empty())
        size = np.array([image.width, image.height])
        centre, extent = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 / size, _extent(found.boxes) / size
        lines = [
            f"{label} {x:.9g} {y:.9g} {w:.9g} {h:.9g} {score:.9g}\n"
            for label, (x, y), (w, h), score in zip(found.labels, centre, extent, found.scores, strict=True)
        ]
        put_text(folder / f"{file_stem(image.id)}.txt", "".join(lines))


def _extent(boxes: FloatArray) -> FloatArray:
    return boxes[:, 2:] - boxes[:, :2]


def _is_share_row(words: Sequence[str]) -> bool:
    if len(words) not in (5, 6) or not all(map(is_number, words)) or not words[0].isdecimal():
        return False
    values = np.array(words[1:], np.float64)
    return not (np.isfinite(values).all() and (values.min() < -0.5 or values.max() > 1.5))


def _confidence_second(tables: Sequence[Table], path: Path, gathered: Gathering) -> bool:
    values = np.concatenate([rows.numbers for rows in tables]) if tables else np.zeros((0, 6))
    values = values[np.isfinite(values).all(1)]
    last, second = _are_boxes(values[:, 1:5], values[:, 5]), _are_boxes(values[:, 2:6], values[:, 1])
    if len(values) and last.all() and second.all():
        said = "the confidence could be the last column or the second; the last is taken, as Ultralytics writes it"
        gathered.note(fault("column-order", said, Where(path.name)))
    return bool(second.sum() > last.sum())


def _are_boxes(shares: FloatArray, confidence: FloatArray) -> BoolArray:
    low, high = shares[:, :2] - shares[:, 2:] / 2, shares[:, :2] + shares[:, 2:] / 2
    inside: BoolArray = (low.min(1, initial=1) >= -PAST) & (high.max(1, initial=0) <= 1 + PAST)
    result: BoolArray = inside & (confidence >= 0) & (confidence <= 1)
    return result


def _add(gathered: Gathering, name: str, image: str, rows: Table, second: bool) -> None:
    values = rows.numbers[:, [0, 2, 3, 4, 5, 1]] if second else rows.numbers
    whole = (
        np.isfinite(values[:, 0])
        & (values[:, 0] == np.floor(values[:, 0]))
        & (values[:, 0] >= 0)
        & (values[:, 0] < 1e9)
    )
    for at in np.flatnonzero(~whole):
        gathered.refuse(name, rows.lines[int(at)], f"class {values[at, 0]:g}: expected a whole number from 0", image)
    lines, values = np.asarray(rows.lines, np.int64)[whole], values[whole]
    centre, half = values[:, 1:3], values[:, 3:5] / 2
    gathered.add(
        name, lines, image, values[:, 0].astype(np.int64).tolist(), np.hstack([centre - half, centre + half]),
        values[:, 5],
    )  # fmt: skip
