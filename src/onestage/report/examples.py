"""Twelve validation images for a page: the best, the typical and the worst, always the same ones."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from onestage.boxes.geometry import corners
from onestage.errors import OnestageError
from onestage.experiments.truth import Truth
from onestage.records import Annotations, Detections, ImageId, ImageInfo
from onestage.report.draw import Image, draw
from onestage.report.pairing import Outcome, pair

Kind = Literal["best", "typical", "worst"]
Decode = Callable[[Path], Image]


@dataclass(frozen=True, eq=False)
class Example:
    """One validation image, what was said of it at the operating point, and why it was chosen."""

    image: ImageInfo
    annotations: Annotations
    detections: Detections
    outcome: Outcome
    kind: Kind


def detections_by_image(predictions: Sequence[Mapping[str, Any]]) -> dict[ImageId, Detections]:
    """A COCO results list as detections per image; labels are category_id - 1. Raises KeyError for a damaged row."""
    rows: dict[ImageId, list[Mapping[str, Any]]] = {}
    for row in predictions:
        rows.setdefault(row["image_id"], []).append(row)
    found = {}
    for image_id, own in rows.items():
        boxes = corners(np.array([row["bbox"] for row in own], np.float64).reshape(-1, 4))
        found[image_id] = Detections(
            boxes, np.array([row["category_id"] - 1 for row in own]), np.array([row["score"] for row in own])
        )
    return found


def choose(truth: Truth, detections: Mapping[ImageId, Detections], score: float, count: int = 12) -> list[Example]:
    """`count` images, worst first: a third each of the worst, those around the median, and the best.

    Ranked by F1 at `score` and IoU 0.5, then by fewer mistakes, more objects found, and the order of the set; images
    with neither truths nor detections are left out while others are there. Of `count` images or fewer all are given.
    """
    judged = []
    for place, image in enumerate(truth.images):
        annotations = truth.annotations[image.id]
        said = detections.get(image.id, Detections.empty()).above(score)
        outcome = pair(said, annotations)
        wrong, right = int(outcome.false.sum() + outcome.missed.sum()), int(outcome.right.sum())
        judged.append(((outcome.f1, -wrong, right, -place), image, annotations, said, outcome))
    ranked = sorted([row for row in judged if len(row[2]) or len(row[3])] or judged, key=lambda row: row[0])
    total, third = len(ranked), count // 3
    if total > count:
        middle = (total - third) // 2
        ranked = ranked[:third] + ranked[middle : middle + third] + ranked[total - third :]
    kinds: tuple[Kind, ...] = ("worst", "typical", "best")
    return [
        Example(image, annotations, said, outcome, kinds[3 * index // len(ranked)])
        for index, (_, image, annotations, said, outcome) in enumerate(ranked)
    ]


def picture(example: Example, classes: Sequence[str], decode: Decode, longest: int = 480) -> str | None:
    """The example as a JPEG data URI with its boxes drawn, `longest` pixels wide or high; None if unreadable."""
    try:
        image = decode(example.image.path)
    except (OnestageError, OSError, ValueError, cv2.error):
        return None
    drawn = draw(image, example.detections, example.annotations, classes, outcome=example.outcome, longest=longest)
    done, data = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode() if done else None
