"""Darknet's own output: `-out result.json`, or the text of `-ext_output`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.detections.faults import fault
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import read_json, text_lines
from onestage.errors import DataError
from onestage.records import Where

NAME = "darknet output"
LOOKED_FOR = "result.json of `darknet detector test … -out`, or the text of `-ext_output` with left_x, top_y"
_IMAGE = re.compile(r"(?:.*Enter Image Path:)?\s*(.+?): Predicted in [\d.eE+-]+ (?:milli-)?seconds\.")
_OBJECT = re.compile(
    r"(.+): (-?\w+)%\s*\(left_x:\s*(-?\d+)\s+top_y:\s*(-?\d+)\s+width:\s*(-?\d+)\s+height:\s*(-?\d+)\)"
)
_PLACELESS = re.compile(r".+: -?\d+%\s*")


def recognise(path: Path) -> str | None:
    """Why `path` (one file) is taken for darknet's output, in words; None where it is not."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        head = stream.read(1 << 16).decode("utf-8-sig", "replace")
    if head.lstrip().startswith("["):
        is_json = '"frame_id"' in head and '"objects"' in head
        return f"{NAME}, JSON of -out" if is_json else None
    return f"{NAME}, text of -ext_output" if ": Predicted in " in head else None


def read(path: Path) -> Rows:
    """The detections of a file: classes by name, images by path.

    The text holds scores in whole percent and boxes in whole pixels, so that many scores tie; a note says so.
    """
    if path.read_bytes()[:64].decode("utf-8-sig", "replace").lstrip().startswith("["):
        return _json(path)
    return _text(path)


def _json(path: Path) -> Rows:
    gathered, count = Gathering(), 0
    document = read_json(path, str(path))
    if not isinstance(document, list):
        raise DataError(f"{path}: expected darknet's list of frames, got {type(document).__name__}", hint=LOOKED_FOR)
    rows: list[tuple[int, str, str, list[float], float]] = []
    for at, frame in enumerate(document):
        if not isinstance(frame, dict) or not isinstance(frame.get("filename"), str):
            gathered.refuse(path.name, None, f"[{at}]: expected frame_id, filename and objects, got {str(frame)[:60]}")
            continue
        image = frame["filename"]
        gathered.speak_of(image)
        objects = frame.get("objects")
        for found in objects if isinstance(objects, list) else [objects]:
            count += 1
            values = _object(found)
            if values is None:
                gathered.refuse(
                    path.name, None, f"[{at}]: {str(found)[:80]}: no name, relative_coordinates, confidence"
                )
            else:
                rows.append((count, image, *values))
    centre = np.array([row[3] for row in rows], np.float64).reshape(-1, 4)
    half = centre[:, 2:] / 2
    boxes = np.hstack([centre[:, :2] - half, centre[:, :2] + half])
    gathered.add(
        path.name, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], boxes,
        [row[4] for row in rows],
    )  # fmt: skip
    return gathered.rows(relative=True, by_line=False)


def _object(found: Any) -> tuple[str, list[float], float] | None:
    try:
        place = found["relative_coordinates"]
        values = [float(place[key]) for key in ("center_x", "center_y", "width", "height")]
        return str(found["name"]), values, float(found["confidence"])
    except (TypeError, KeyError, ValueError):
        return None


def _text(path: Path) -> Rows:
    gathered = Gathering()
    image: str | None = None
    rows: list[tuple[int, str, str, tuple[float, ...], float]] = []
    for line, text in enumerate(text_lines(path), 1):
        if start := _IMAGE.match(text):
            image = start[1].strip()
            gathered.speak_of(image)
        elif found := _OBJECT.match(text):
            x, y, width, height = map(float, found.groups()[2:])
            score = float(found[2]) if found[2].lstrip("-").isdecimal() else float("nan")
            if image is None:
                gathered.refuse(path.name, line, f"{text.strip()!r}: no line says which image it belongs to")
            else:
                rows.append((line, image, found[1].strip(), (x, y, x + width, y + height), score / 100))
        elif _PLACELESS.fullmatch(text):
            gathered.refuse(path.name, line, f"{text.strip()!r}: no place; run darknet with -ext_output", image)
    if rows:
        said = "scores are whole percents and boxes whole pixels"
        gathered.note(fault("coarse-scores", said, Where(path.name)))
    gathered.add(
        path.name, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows],
        np.array([row[3] for row in rows], np.float64).reshape(-1, 4), [row[4] for row in rows],
    )  # fmt: skip
    return gathered.rows()
