"""Which detection found which truth in one image, for pictures; scores come from the judge alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.boxes.geometry import iou
from onestage.records import Annotations, BoolArray, Detections


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of each detection (M,) and each truth (N,) of one image.

    A detection is `right`, or on a truth that does not count (`excused`), or else false. A truth is `found`, or does
    not count (`uncounted`: difficult, ignore, crowd), or else missed.
    """

    right: BoolArray
    excused: BoolArray
    found: BoolArray
    uncounted: BoolArray

    @property
    def false(self) -> BoolArray:
        """Detections (M,) of nothing."""
        return ~self.right & ~self.excused

    @property
    def missed(self) -> BoolArray:
        """Truths (N,) that count and were not found."""
        return ~self.found & ~self.uncounted

    @property
    def f1(self) -> float:
        """2 right / (2 right + false + missed) in [0, 1]; 1 where nothing was there and nothing was said."""
        right, wrong = int(self.right.sum()), int(self.false.sum() + self.missed.sum())
        return 2 * right / (2 * right + wrong) if right + wrong else 1.0


def pair(detections: Detections, annotations: Annotations, threshold: float = 0.5) -> Outcome:
    """Pair the detections of one image with its truths: highest score first, the best free truth of the same class.

    `threshold` is the least IoU. VOC's rule, except that a detection whose best truth is taken may have the next
    best, as in COCO; good for pictures, while the numbers on a page come from `onestage.evaluation`.
    """
    overlaps = iou(detections.boxes, annotations.boxes)
    overlaps[detections.labels[:, None] != annotations.labels[None, :]] = 0
    uncounted = annotations.difficult | annotations.ignore | annotations.crowd
    found = np.zeros(len(annotations), np.bool_)
    right, excused = (np.zeros(len(detections), np.bool_) for _ in range(2))
    for index, row in enumerate(overlaps):
        free = np.where(found | uncounted, -1.0, row)
        if free.size and free.max() >= threshold:
            found[free.argmax()] = right[index] = True
        else:
            excused[index] = bool((row[uncounted] >= threshold).any())
    return Outcome(right, excused, found, uncounted)
