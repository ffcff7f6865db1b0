"""Detection files: COCO results lists, written, and read as the images and classes of a dataset."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.data.dataset import Dataset
from onestage.data.formats import coco
from onestage.data.formats.coco_folder import coco_files, load
from onestage.data.formats.files import read_json
from onestage.errors import DataError, did_you_mean
from onestage.records import Detections, ImageId

LISTED = 10


def read_detections(
    path: Path, dataset: Dataset, categories: Mapping[int, int], floor: float = 0.0
) -> dict[ImageId, Detections]:
    """A COCO results list ([{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, …]) as detections by image.

    `image_id` may be the id, the file name or the stem of an image of `dataset`; `categories` maps category_id to
    label (see `coco_labels` and `own_labels`). Rows below score `floor` are left out. Every row must be usable: an
    unknown image or class, a score outside [0, 1] or a box that is none raises DataError with the first of them.
    """
    rows = _rows(path)
    images = _Images(dataset)
    problems: dict[str, list[int]] = defaultdict(list)
    boxes, labels, scores = (defaultdict[ImageId, list[Any]](list) for _ in range(3))
    for index, row in enumerate(rows):
        wrong = _wrong(row)
        image_id = None if wrong else images.find(row["image_id"])
        if wrong is None and image_id is None:
            wrong = f"image {row['image_id']!r} is not in the data{images.near(row['image_id'])}"
        elif wrong is None and row["category_id"] not in categories:
            wrong = f"category_id {row['category_id']!r} is none of {_some(sorted(categories))}"
        if wrong is not None or image_id is None:
            problems[str(wrong)].append(index)
        elif row["score"] >= floor:
            x, y, width, height = map(float, row["bbox"])
            boxes[image_id].append((x, y, x + width, y + height))
            labels[image_id].append(categories[row["category_id"]])
            scores[image_id].append(row["score"])
    if problems:
        raise DataError(
            f"{path.name}: {sum(map(len, problems.values()))} of {len(rows)} detections cannot be judged against "
            f"{len(dataset)} images and {len(dataset.classes)} classes",
            problems=_told(problems),
            hint="is it the right set? split=train, split=all, or data= the file the detections were made for",
        )
    return {i: Detections(boxes[i], labels[i], scores[i]) for i in boxes}  # type: ignore[arg-type]


def coco_results(detections: Mapping[ImageId, Detections]) -> list[dict[str, Any]]:
    """Detections as a COCO results list; category_id is label + 1, boxes xywh.

    Enough digits are kept that judging the list gives the scores of the detections themselves.
    """
    rows = []
    for image_id, found in detections.items():
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            x1, y1, x2, y2 = (round(float(v), 6) for v in box)
            bbox = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
            rows.append(
                {"image_id": image_id, "category_id": int(label) + 1, "bbox": bbox, "score": float(f"{score:.9g}")}
            )
    return rows


def _told(problems: Mapping[str, Sequence[int]]) -> list[str]:
    """One line per kind of problem, with the first row that has it."""
    lines = [
        f"row {rows[0]}{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}: {what}"
        for what, rows in problems.items()
    ]
    return [*lines[:LISTED], *([f"… and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])]


def own_labels(theirs: Sequence[str], ours: Sequence[str]) -> dict[int, int]:
    """category_id → label for files of ours: the id is a class's place in `theirs`, from 1; matched by name."""
    unknown = [f"{name!r}{did_you_mean(name, ours)}" for name in theirs if name not in ours]
    if unknown:
        raise DataError("classes of the detections that the data does not name", problems=unknown)
    return {place: list(ours).index(name) for place, name in enumerate(theirs, 1)}


def coco_labels(data: Path, classes: Sequence[str]) -> dict[int, int] | None:
    """category_id → label by the ids that the COCO files of `data` give their categories; None where it has none."""
    if coco.recognise(data) is None:
        return None
    ids: dict[int, int] = {}
    for file in coco_files(data).values():
        for category in load(file.path)["categories"]:
            if category["name"] in classes:
                ids[category["id"]] = list(classes).index(category["name"])
    return ids


def _rows(path: Path) -> list[Any]:
    rows = read_json(path, str(path))
    if not isinstance(rows, list):
        got = "an object" if isinstance(rows, dict) else type(rows).__name__
        raise DataError(
            f"{path}: expected a COCO results list, got {got}",
            hint='[{"image_id": …, "category_id": …, "bbox": [x, y, width, height], "score": …}, …]',
        )
    return rows


def _wrong(row: Any) -> str | None:
    """What is wrong with a row by itself; None where nothing is."""
    if not isinstance(row, dict):
        return f"expected an object, got {str(row)[:60]!r}"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"no {', '.join(missing)}"
    if not isinstance(row["image_id"], int | str) or not isinstance(row["category_id"], int | str):
        return "image_id and category_id must be numbers or text"
    box, score = row["bbox"], row["score"]
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        return f"score {score!r}: expected a number from 0 to 1"
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(value) for value in box):
        return f"bbox {str(box)[:60]}: expected four finite numbers"
    if box[2] < 0 or box[3] < 0:
        return f"bbox {box}: expected [x, y, width, height], width and height not negative"
    return None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Images:
    """Images of a dataset by id, file name or stem; a name that two images share finds neither."""

    def __init__(self, dataset: Dataset) -> None:
        self.ids = {image.id for image in dataset.images}
        self.names: dict[str, ImageId | None] = {}
        for image in dataset.images:
            for name in dict.fromkeys((str(image.id), image.path.name, image.path.stem)):
                self.names[name] = None if name in self.names else image.id
        for image_id in self.ids:
            self.names[str(image_id)] = image_id

    def find(self, named: int | str) -> ImageId | None:
        if named in self.ids:
            return named
        name = str(named)
        for form in (name, Path(name).name):
            if (found := self.names.get(form)) is not None:
                return found
        return None

    def near(self, named: int | str) -> str:
        return did_you_mean(str(named), self.names)


def _some(values: Sequence[Any], most: int = 12) -> str:
    return ", ".join(map(str, values[:most])) + (f", … ({len(values)} in all)" if len(values) > most else "")
