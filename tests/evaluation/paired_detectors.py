"""Detectors whose true difference is known, on the same images: their hits are correlated, their seeds differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.records import Annotations, Detections

Found = dict[int, Detections]


@dataclass
class Scene:
    """A set of images: objects of some difficulty, in images of some difficulty; the last classes are rarer."""

    truths: dict[int, Annotations]
    difficulty: dict[int, np.ndarray]

    @classmethod
    def drawn(cls, rng: np.random.Generator, images: int, classes: int = 2, objects: float = 3.0) -> Scene:
        share = 1.0 / np.arange(1, classes + 1)
        truths, difficulty = {}, {}
        for image in range(images):
            n = int(rng.poisson(objects))
            corner = np.arange(n)[:, None] * 200.0 + rng.uniform(0, 50, (n, 2))
            boxes = np.c_[corner, corner + np.exp(rng.uniform(2.7, 4.9, (n, 2)))]
            truths[image] = Annotations(boxes, rng.choice(classes, n, p=share / share.sum()))
            difficulty[image] = 0.6 * rng.normal() + 0.6 * rng.normal(size=n)
        return cls(truths, difficulty)

    def detections(self, rng: np.random.Generator, quality: float, classes: int = 2, own: float = 0.5) -> Found:
        """What a detector of that `quality` finds; `own` is how much of each hit is its own luck."""
        found = {}
        for image, truth in self.truths.items():
            n = len(truth)
            seen = self.difficulty[image] + own * rng.normal(size=n) < quality
            boxes, labels = truth.boxes[seen], truth.labels[seen]
            moved = boxes + rng.normal(0, 0.06, (len(boxes), 4)) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            false = int(rng.poisson(2))
            wrong = rng.uniform(0, 400, (false, 2)) - 900
            scores = np.r_[rng.beta(4, 2, len(boxes)), rng.beta(2, 4, false)]
            found[image] = Detections(
                np.r_[moved, np.c_[wrong, wrong + 40]], np.r_[labels, rng.integers(0, classes, false)], scores
            )
        return found
