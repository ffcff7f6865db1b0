"""Detections on every image of a dataset, ready for the judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.selection import Selection, select_in_image
from onestage.data.dataset import Dataset
from onestage.data.loader import Loader
from onestage.errors import DivergedError
from onestage.records import Detections, ImageId

Predictor = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


def detect_dataset(
    predictor: Predictor,
    dataset: Dataset,
    loader: Loader,
    selection: Selection,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[ImageId, Detections]:
    """The detections of `predictor` on each image, boxes in pixels of the image and cut at its borders.

    `loader` must go over `dataset` unchanged (policy "none", no shuffling). Raises DivergedError where the network's
    scores are not finite.
    """
    infos = {image.id: image for image in dataset.images}
    found: dict[ImageId, Detections] = {}
    for batch in loader.epoch(0):
        boxes, scores = predictor(batch.images)
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
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
