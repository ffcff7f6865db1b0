"""Detections on every image of a dataset, ready for the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.boxes.selection import Selection, select_in_image
from onestage.data.dataset import Dataset
from onestage.data.loader import Loader
from onestage.errors import DivergedError
from onestage.models.detector import Truth
from onestage.models.inference import TorchPredictor
from onestage.records import Batch, Detections, ImageId

Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


class Measured:
    """Answers batches of validation images, and adds up the loss they would have had in training."""

    def __init__(self, predictor: TorchPredictor) -> None:
        self.predictor = predictor
        self.sums: dict[str, float] = {}
        self.normaliser = 0.0

    def __call__(self, batch: Batch) -> Answer:
        """Boxes and scores of the batch, as `TorchPredictor` gives them."""
        raw = self.predictor.raw(batch.images)
        detector = self.predictor.detector
        with torch.inference_mode():
            loss = detector.loss(raw, [Truth.of(truth, raw.logits.device) for truth in batch.annotations])
        for name, part in loss.parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(part.sum())
        self.normaliser += float(loss.normaliser.sum())
        return self.predictor.decoded(raw)

    def add(self, *shares: tuple[Mapping[str, float], float]) -> None:
        """Take in the sums and normalisers of other processes."""
        for sums, normaliser in shares:
            self.sums = {name: self.sums.get(name, 0.0) + sums.get(name, 0.0) for name in {**self.sums, **sums}}
            self.normaliser += normaliser

    def losses(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weighted parts of the loss over all images answered, normalised as a training batch's are."""
        return {name: weights.get(name, 1.0) * total / max(self.normaliser, 1.0) for name, total in self.sums.items()}


def detect_dataset(
    answer: Callable[[Batch], Answer],
    dataset: Dataset,
    loader: Loader,
    selection: Selection,
    progress: Callable[[int], None] = lambda done: None,
    explain: Callable[[Batch], DivergedError] | None = None,
) -> dict[ImageId, Detections]:
    """The detections on each image, boxes in pixels of the image and cut at its borders.

    `answer` gives the boxes and scores of a batch, as `Measured` does. `loader` must go over `dataset` unchanged
    (policy "none", no shuffling). Raises DivergedError where the network's answers are not finite: what `explain` says
    of the batch.
    """
    infos = {image.id: image for image in dataset.images}
    found: dict[ImageId, Detections] = {}
    for batch in loader.epoch(0):
        boxes, scores = answer(batch)
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            if explain is not None:
                raise explain(batch)
            raise DivergedError(
                "the network's answers are not finite numbers: its weights have overflowed",
                hint="a lower optimiser.lr, or a longer schedule.warmup",
            )
        for i, image_id in enumerate(batch.ids):
            info = infos[image_id]
            found[image_id] = select_in_image(
                boxes[i], scores[i], selection, batch.transforms[i], info.width, info.height
            )
        progress(len(found))
    return found
