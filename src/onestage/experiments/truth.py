"""The validation truth a run was judged by, kept in its folder as COCO JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestage.boxes.geometry import corners
from onestage.errors import DataError
from onestage.experiments.run import Run
from onestage.experiments.storage import as_json, lively, read_json
from onestage.records import Annotations, ImageId, ImageInfo

TRUTH_FILE = "validation.json"
KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True, eq=False)
class Truth:
    """What the judge compared with: images, their annotations by id, and the class names by label."""

    images: tuple[ImageInfo, ...]
    annotations: Mapping[ImageId, Annotations]
    classes: tuple[str, ...]


def write_truth(
    run: Run, images: Sequence[ImageInfo], annotations: Mapping[ImageId, Annotations], classes: Sequence[str]
) -> None:
    """Keep the validation truth in the run folder as validation.json, so that the report needs no data reader.

    COCO JSON with absolute image paths; category_id is label + 1; `difficult` and `ignore` are extra keys of each
    annotation, and `extra` holds the numeric columns of `Annotations.extra`, so that every protocol gives the run's
    scores again; other columns are not kept. "area" is the given one, else that of the box. Raises StorageError.
    """
    rows: list[dict[str, Any]] = []
    for image in images:
        truth = annotations[image.id]
        for box, label, difficult, ignore, crowd, extra in zip(
            truth.boxes.tolist(), truth.labels.tolist(), truth.difficult, truth.ignore, truth.crowd,
            _extra_rows(truth), strict=True,
        ):  # fmt: skip
            width, height = box[2] - box[0], box[3] - box[1]
            given = extra.get("area", math.nan)
            area = given if math.isfinite(given) else max(width, 0.0) * max(height, 0.0)
            rows.append({
                "id": len(rows) + 1, "image_id": image.id, "category_id": label + 1,
                "bbox": [box[0], box[1], width, height], "area": area,
                "iscrowd": int(crowd), "difficult": int(difficult), "ignore": int(ignore),
                **({"extra": extra} if extra else {}),
            })  # fmt: skip
    truth_json = {
        "images": [
            {"id": image.id, "file_name": str(Path(image.path).absolute()), "width": image.width,
             "height": image.height} for image in images
        ],
        "annotations": rows,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(classes)],
    }  # fmt: skip
    parts = (f'"{key}": {as_json(value).rstrip()}' for key, value in truth_json.items())
    run.write_file(TRUTH_FILE, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def read_truth(run: Run) -> Truth | None:
    """What `write_truth` kept; None where the run has no validation.json, DataError where it cannot be read."""
    path = run.folder / TRUTH_FILE
    try:
        found = read_json(path)
        listed = found if isinstance(found, dict) else {}
        if lacks := [f"{key}: expected a list" for key in KEYS if not isinstance(listed.get(key), list)]:
            raise DataError(f"{path} cannot be read as COCO JSON", problems=lacks)
        images = tuple(
            ImageInfo(row["id"], Path(row["file_name"]), row["width"], row["height"]) for row in found["images"]
        )
        classes = tuple(row["name"] for row in sorted(found["categories"], key=lambda row: int(row["id"])))
        rows: dict[ImageId, list[dict[str, Any]]] = {image.id: [] for image in images}
        for row in found["annotations"]:
            rows[row["image_id"]].append(row)
        return Truth(images, {image_id: _annotations(found) for image_id, found in rows.items()}, classes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} cannot be read as COCO JSON: {why}", hint="was it cut short, or edited?") from error


def _annotations(rows: Sequence[Mapping[str, Any]]) -> Annotations:
    boxes = corners(np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4))
    labels = np.array([row["category_id"] - 1 for row in rows], np.int64)
    difficult, ignore, crowd = (
        np.array([row.get(key, 0) for row in rows], bool) for key in ("difficult", "ignore", "iscrowd")
    )
    extras = [lively(row.get("extra", {})) for row in rows]
    names = dict.fromkeys(name for extra in extras for name in extra)
    columns = {name: np.array([extra[name] for extra in extras]) for name in names}
    return Annotations(boxes, labels, difficult, ignore, crowd, columns)


def _extra_rows(truth: Annotations) -> list[dict[str, Any]]:
    """The numeric extra columns of each annotation, as JSON has them."""
    kept = {name: column.tolist() for name, column in truth.extra.items() if column.dtype.kind in "biuf"}
    return [{name: values[row] for name, values in kept.items()} for row in range(len(truth))]
