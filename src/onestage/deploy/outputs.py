"""Predictions as JSON, as a COCO results list, as YOLO text files, and in the formats of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from onestage.data.detections.coco_json import coco_results
from onestage.data.detections.writing import write_detections
from onestage.data.formats.files import printable, put_text
from onestage.deploy.predict import Prediction
from onestage.records import ImageInfo


def as_json(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """One entry per image: {"image", "path", "width", "height", "detections": [{"box", "label", "class", "score"}]}.

    `image` is the prediction's name, `box` xyxy in pixels of the image, `label` counts classes from 0.
    """
    return [
        {
            "image": found.name, "path": None if found.path is None else printable(str(found.path)),
            "width": found.width, "height": found.height, "detections": [_as_json(found, *row) for row in _rows(found)],
        }
        for found in predictions
    ]  # fmt: skip


def _as_json(found: Prediction, box: list[float], label: int, score: float) -> dict[str, Any]:
    corners = [round(v, 2) for v in box]
    return {"box": corners, "label": label, "class": found.classes[label], "score": round(score, 5)}


def as_coco(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """A COCO results list: image_id, category_id (label + 1), bbox xywh in pixels, score.

    `image_id` is the prediction's name; where all names are numbers, as in COCO itself, the number.
    `onestage val` takes the list with data= the set the images belong to.
    """
    numbered = all(found.name.isascii() and found.name.isdigit() for found in predictions)
    numbered = numbered and len({int(found.name) for found in predictions}) == len(predictions)
    ids: list[int | str] = [int(found.name) if numbered else found.name for found in predictions]
    return coco_results(dict(zip(ids, (found.detections for found in predictions), strict=True)))


def write_yolo_txt(predictions: Iterable[Prediction], folder: Path) -> list[Path]:
    """One file per image, `folder`/NAME.txt, with a line "class cx cy width height score" for each detection.

    Lengths are shares of the image's width and height, classes count from 0; an image in which nothing was found gets
    an empty file. The paths written. Raises StorageError where a file cannot be written.
    """
    written = []
    for found in predictions:
        lines = []
        for (x1, y1, x2, y2), label, score in _rows(found):
            place = ((x1 + x2) / 2 / found.width, (y1 + y2) / 2 / found.height)
            sides = ((x2 - x1) / found.width, (y2 - y1) / found.height)
            lines.append(" ".join([str(label), *(f"{v:.6f}" for v in (*place, *sides)), f"{score:.5f}"]) + "\n")
        path = folder / f"{found.name}.txt"
        put_text(path, "".join(lines))
        written.append(path)
    return written


def write_benchmark(predictions: Sequence[Prediction], format: str, folder: Path, plus_one: bool = False) -> str:
    """Write the predictions of a detector in a format of `data.detections.writing.WRITTEN`; in words what was written.

    WIDER FACE's events are the folders that the images lie in. Raises as `write_detections` does.
    """
    images = [
        ImageInfo(found.name, found.path or Path("arrays", f"{found.name}.png"), found.width, found.height)
        for found in predictions
    ]
    classes = predictions[0].classes if predictions else ("face",)
    detections = {image.id: found.detections for image, found in zip(images, predictions, strict=True)}
    return write_detections(format, detections, images, classes, folder, split="found", plus_one=plus_one)


def _rows(found: Prediction) -> list[tuple[list[float], int, float]]:
    return list(zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True))
