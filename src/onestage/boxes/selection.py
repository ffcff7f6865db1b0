"""From scored boxes to detections: score floor, NMS per class, cap; the presets `view` and `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.geometry import area, clip, nms_per_class
from onestage.records import Detections, ImageTransform


@dataclass(frozen=True)
class Selection:
    """Which of a detector's boxes become detections.

    `score` is the floor, `iou` the NMS threshold, `per_class` the candidates of each class that enter NMS (highest
    first), `per_image` the detections kept in all.
    """

    score: float
    iou: float = 0.45
    per_class: int = 400
    per_image: int = 100


PRESETS = {
    # AP needs the low scores: nothing above 0.01 is cut. Source: SSD's evaluation (Liu et al. 2016, Caffe release).
    "evaluate": Selection(score=0.01, per_image=300),
    # For people to look at.
    "view": Selection(score=0.4),
}


def select(boxes: NDArray[np.floating], scores: NDArray[np.floating], selection: Selection) -> Detections:
    """The detections of one image from all its boxes (P, 4) and their scores per class (P, C).

    A box may be kept for more than one class. Raises ValueError where scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("select: expected finite scores, got NaN or infinity: the weights or the input are not finite")
    rows, labels = np.nonzero(scores >= selection.score)
    values = scores[rows, labels].astype(np.float64)
    keep = _highest_per_class(values, labels, selection.per_class)
    rows, labels, values = rows[keep], labels[keep], values[keep]
    candidates = boxes[rows].astype(np.float64)
    winners = nms_per_class(candidates, values, labels, selection.iou)[: selection.per_image]
    return Detections(candidates[winners], labels[winners], np.clip(values[winners], 0, 1))


def select_in_image(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], selection: Selection, transform: ImageTransform,
    width: int, height: int,
) -> Detections:  # fmt: skip
    """The detections of one image in its own pixels: `select`, brought back by `transform`, cut at the image's borders.

    Boxes that lie wholly on padding, of which nothing is left, are dropped.
    """
    found = select(boxes, scores, selection)
    inside = clip(transform.to_image(found.boxes), width, height)
    keep = area(inside) > 0
    return Detections(inside[keep], found.labels[keep], found.scores[keep])


def _highest_per_class(values: NDArray[np.float64], labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Indices of the `most` highest values of each label."""
    order = np.lexsort((np.arange(len(values)), -values, labels))
    ordered = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    result: NDArray[np.int64] = order[rank < most]
    return result
