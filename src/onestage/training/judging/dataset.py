"""Judges a detector on one set of a dataset, as training's end does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from onestage.boxes.selection import PRESETS, Selection
from onestage.data.dataset import Dataset
from onestage.data.images import Fit
from onestage.data.loader import Loader
from onestage.evaluation import Evaluation, evaluate, lay_out, usual_protocols
from onestage.models.detector import Detector
from onestage.models.inference import TorchPredictor, refuse_one_size, size_kept
from onestage.records import Detections, ImageId
from onestage.training.devices.machine import choose_device
from onestage.training.judging.detect import detect_dataset


def judge(
    detector: Detector,
    dataset: Dataset,
    protocols: Sequence[str] = (),
    *,
    score: float = PRESETS["evaluate"].score,
    iou: float = 0.5,
    candidates: int = PRESETS["evaluate"].per_class,
    most: int = PRESETS["evaluate"].per_image,
    fit: Fit = "squash",
    scale: float = 1.0,
    precision: str = "fp32",
    batch: int = 16,
    device: str | None = None,
    at: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Evaluation, dict[ImageId, Detections]]:
    """The evaluation of `detector` on every image of `dataset`, with intervals, and the detections it rests on.

    Without `protocols` those of `evaluation.usual_protocols` judge it. `score` is the floor below which nothing is
    kept, `iou` that of non-maximum suppression, which looks at the
    `candidates` highest of each class and keeps `most` of an image; `fit` is how images come to the network, for
    "native" at `scale` times their own pixels; `at` the score of the operating point (automatic: of best mean F1). With
    the values of a run's recipe it gives that run's metrics. Raises ModelError for "native" with a model of one size.
    """
    if fit == "native":
        refuse_one_size(detector)
    chosen = choose_device(device)
    detector = detector.to(device=chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    selection = Selection(score, iou, candidates, most)
    predictor = TorchPredictor(detector, precision)
    loader = Loader(dataset, detector.size, "none", batch=batch, shuffle=False, fit=fit, scale=scale)
    with loader, size_kept(detector):
        found = detect_dataset(lambda batch: predictor(batch.images), dataset, loader, selection, progress)
    usual = usual_protocols(dataset.format, lay_out(dataset.truths, found, dataset.classes, dataset.sizes))
    evaluation = evaluate(
        dataset.truths, found, dataset.classes, protocols or usual, sizes=dataset.sizes, score_floor=score, score=at
    )
    return evaluation, found
