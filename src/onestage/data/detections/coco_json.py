"""COCO results lists, written and read; which label a category_id means."""

from __future__ import annotations

import contextlib
import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.rows import Rows
from onestage.data.formats import coco
from onestage.data.formats.coco_folder import coco_files, load
from onestage.data.formats.files import read_json
from onestage.errors import DataError, did_you_mean
from onestage.records import Detections, FloatArray, ImageId

NAME = "COCO results JSON"
LOOKED_FOR = '[{"image_id": …, "category_id": …, "bbox": [x, y, width, height], "score": …}, …]'
KEYS = ("image_id", "category_id", "bbox", "score")
_PIECE, _MARGIN = 1 << 23, 1 << 16  # bytes read at once, and of these how many are searched for a place to cut
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")


def recognise(path: Path) -> str | None:
    """Why `path` (a .json file) is taken for a COCO results list, in words; None where it is not."""
    if not path.is_file() or path.suffix.lower() != ".json":
        return None
    with path.open("rb") as stream:
        head = stream.read(8192).decode("utf-8-sig", "replace").lstrip()
        if head.startswith("{") and '"annotations"' in head:
            rest = stream.read()
            annotated = b'"score"' in rest or '"score"' in head
            truth = b'"categories"' in rest or '"categories"' in head
            return f"{NAME} under annotations" if annotated and not truth else None
    if not head.startswith("["):
        return None
    return NAME if '"image_id"' in head or not head[1:].strip("] \r\n\t") else None


def read(path: Path) -> Rows:
    """The rows of a COCO results list, or of the `annotations` of an object that holds nothing of a truth.

    `image_id` may be an id or a name, `category_id` a number (139.0 is 139) or a class's name; other keys are passed
    over. `line` counts the list's entries from 1. Raises DataError for what is no such file.
    """
    try:
        return _gathered(path, _pieces(path))
    except (OSError, ValueError, RecursionError):  # what cannot be cut is read whole, and errors are told of it
        return _gathered(path, [_listed(path)])


def _gathered(path: Path, pieces: Iterable[list[Any]]) -> Rows:
    gathered = Gathering()
    first = 1
    for rows in pieces:
        columns = _columns(rows)
        lines: Any = np.arange(first, first + len(rows))
        if columns is None:
            rows = list(map(_whole, rows))
            wrong = [_wrong(row) for row in rows]
            for line, why in zip(lines.tolist(), wrong, strict=True):
                if why is not None:
                    gathered.refuse(path.name, None, f"[{line - 1}]: {why}")
            lines = lines[[why is None for why in wrong]]
            columns = _columns([row for row, why in zip(rows, wrong, strict=True) if why is None])
            assert columns is not None, "rows that are right by themselves have columns"  # noqa: S101
        images, categories, xywh, scores = columns
        gathered.add(path.name, lines, images, categories, corners(xywh), scores)
        first += len(rows)
    return gathered.rows(numbering="coco", by_line=False)


def _pieces(path: Path) -> Iterator[list[Any]]:
    """The entries of a list some at a time, so that a gigabyte of text is never a gigabyte of objects.

    The text is cut between "}" and "{". A cut inside a text or an entry leaves something open before it, so that the
    piece is no JSON: then, and where there is no list or no place to cut, ValueError.
    """
    rest, more = b"", True
    with path.open("rb") as stream:
        if not stream.read(_MARGIN).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            raise ValueError
        stream.seek(0)
        while more:
            block = stream.read(_PIECE)
            more = len(block) == _PIECE
            text = rest + block
            end = len(text)
            if more:
                cut = next(iter(reversed([*_BETWEEN.finditer(text, max(0, end - _MARGIN))])), None)
                if cut is None:
                    raise ValueError
                end, rest = cut.start() + 1, b"[" + text[cut.end() :]
            with _uncollected():
                rows = json.loads(text[:end].decode("utf-8-sig") + ("]" if more else ""))
            if not isinstance(rows, list):
                raise ValueError
            yield rows


def _columns(rows: Sequence[Any]) -> tuple[list[Any], list[Any], FloatArray, FloatArray] | None:
    """Images, categories, xywh (N, 4) and scores (N,) of rows that all are as they should be; otherwise None."""
    try:
        images, categories, boxes, scores = ([row[key] for row in rows] for key in KEYS)
        flat = list(chain.from_iterable(boxes))
        if (
            {*map(type, images), *map(type, categories)} <= {int, str}
            and {*map(type, flat), *map(type, scores)} <= {int, float}
            and set(map(type, boxes)) <= {list}
            and set(map(len, boxes)) <= {4}
        ):
            values = np.fromiter(flat, np.float64, len(flat)).reshape(-1, 4)
            return images, categories, values, np.fromiter(scores, np.float64, len(scores))
    except (TypeError, KeyError, OverflowError):
        pass
    return None


def _listed(path: Path) -> list[Any]:
    with _uncollected():
        rows = read_json(path, str(path))
    if isinstance(rows, dict) and isinstance(rows.get("annotations"), list) and not {"images", "categories"} & {*rows}:
        rows = rows["annotations"]
    if not isinstance(rows, list):
        truth = isinstance(rows, dict) and {"images", "annotations"} <= {*rows}
        got = "a truth file" if truth else "an object" if isinstance(rows, dict) else repr(rows)[:40]
        raise DataError(f"{path}: expected a COCO results list, got {got}", hint=LOOKED_FOR)
    return rows


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles, which takes two thirds of the time to read half a million rows."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _whole(row: Any) -> Any:
    """The row with ids written as 139.0, as tables write them, made whole numbers."""
    if not isinstance(row, dict):
        return row
    ids = {key: row.get(key) for key in ("image_id", "category_id")}
    return row | {key: int(one) for key, one in ids.items() if type(one) is float and one.is_integer()}


def _wrong(row: Any) -> str | None:
    """What is wrong with a row by itself; None where nothing is."""
    if not isinstance(row, dict):
        return f"expected an object, got {str(row)[:60]!r}"
    if missing := [key for key in KEYS if key not in row]:
        return f"no {', '.join(missing)}"
    if not {type(row["image_id"]), type(row["category_id"])} <= {int, str}:
        return "image_id and category_id must be numbers or text"
    box, score = row["bbox"], row["score"]
    if not _is_number(score):
        return f"score {score!r}: expected a number"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox {str(box)[:60]}: expected four numbers"
    return None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def coco_results(detections: Mapping[ImageId, Detections]) -> list[dict[str, Any]]:
    """Detections as a COCO results list; category_id is label + 1, boxes xywh.

    Scores are kept to the last bit: judging the list, or cutting it at an operating point, gives what the detections
    themselves would.
    """
    rows = []
    for image_id, found in detections.items():
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            x1, y1, x2, y2 = (round(float(v), 6) for v in box)
            bbox = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
            rows.append({"image_id": image_id, "category_id": int(label) + 1, "bbox": bbox, "score": float(score)})
    return rows


def own_labels(theirs: Sequence[str], ours: Sequence[str]) -> dict[int, int]:
    """category_id → label for files of ours: the id is a class's place in `theirs`, from 1; matched by name."""
    unknown = [f"{name!r}{did_you_mean(name, ours)}" for name in theirs if name not in ours]
    if unknown:
        raise DataError("classes of the detections that the data does not name", problems=unknown)
    return {place: list(ours).index(name) for place, name in enumerate(theirs, 1)}


def coco_labels(data: Path, classes: Sequence[str], split: str) -> dict[int, int] | None:
    """category_id → label by the ids that the COCO file of the set `split` of `data` gives its categories.

    All files of `data` are asked where none is called so ("all"); None where it holds no COCO file. Raises DataError
    for an id that means two classes.
    """
    files = list(coco_files(data).values()) if coco.recognise(data) is not None else []
    ids: dict[int, int] = {}
    for file in [file for file in files if file.split == split] or files:
        for category in load(file.path)["categories"]:
            if category["name"] in classes:
                label = list(classes).index(category["name"])
                if ids.setdefault(category["id"], label) != label:
                    said = (
                        f"{classes[ids[category['id']]]!r} in one file of {data.name} and {classes[label]!r} in another"
                    )
                    raise DataError(f"category id {category['id']} means {said}", hint="split= names one of them")
    return ids if files else None
