"""The first batch exactly as training would see it, and which priors would answer for its truths."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.assigned import Assigned
from onestage.models.detector import Detector, Truth
from onestage.records import Annotations, Batch
from onestage.training.feed import training_loader
from onestage.training.multiscale import Sizes
from onestage.training.plan import Plan


@dataclass(frozen=True, eq=False)
class FirstBatch:
    """Plain arrays of a batch: `images` (B, H, W, 3) uint8 RGB, and per image its file's name, truths and priors.

    `assigned` is None where the model does not say how its priors are assigned.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    annotations: tuple[Annotations, ...]
    assigned: tuple[Assigned, ...] | None
    classes: tuple[str, ...]
    policy: str

    def rows(self) -> list[dict[str, Any]]:
        """What each image brings to the first step, as plain values."""
        return [self._row(i) for i in range(len(self.names))]

    def _row(self, i: int) -> dict[str, Any]:
        truths = self.annotations[i]
        row: dict[str, Any] = {
            "file": self.names[i], "truths": int((~(truths.ignore | truths.crowd)).sum()),
            "ignored": int((truths.ignore | truths.crowd).sum()),
        }  # fmt: skip
        if self.assigned is not None:
            mine = self.assigned[i]
            best = mine.best_iou[~mine.ignore]
            row |= {
                "positives_per_level": mine.per_level,
                "unanswered": [[round(float(v), 1) for v in mine.truths[t]] for t in mine.unanswered],
                "poorly_fitted": mine.poorly_fitted,
                "best_iou": {"least": round(float(best.min()), 3), "median": round(float(np.median(best)), 3)}
                if len(best)
                else None,
            }
        return row


def first_batch(plan: Plan) -> FirstBatch:
    """The first batch of the plan's run: order, augmentation and size as training would draw them.

    Raises DataError naming the file where an image cannot be read.
    """
    size = Sizes.of(plan.recipe, plan.detector.size).at(0)
    detector = plan.detector
    if size != detector.size:
        detector = deepcopy(detector)
        detector.resized(size)
    with training_loader(plan, workers=0, prefetch=0, cache=False) as loader:
        batch = next(loader.epoch(0, size_of=lambda number: size))
    files = {image.id: image.path.name for image in plan.opened.train.images}
    pixels = np.clip(batch.images, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return FirstBatch(
        np.ascontiguousarray(pixels), tuple(files[image_id] for image_id in batch.ids), tuple(batch.annotations),
        assigned_of(detector, batch), tuple(plan.opened.classes), plan.recipe.augmentation.policy,
    )  # fmt: skip


def assigned_of(detector: Detector, batch: Batch) -> tuple[Assigned, ...] | None:
    """The priors of each image of the batch as plain arrays; None where the model does not tell them."""
    return assigned_to(detector, batch.annotations)


def assigned_to(detector: Detector, given: Sequence[Annotations]) -> tuple[Assigned, ...] | None:
    """The priors of images with these annotations, in pixels of the input; None where the model does not tell them."""
    device = next(detector.parameters()).device
    truths = [Truth.of(annotations, device) for annotations in given]
    try:
        found = detector.assign(truths)
    except NotImplementedError:
        return None
    match, priors, level = found.match.cpu().numpy(), found.boxes.cpu().double().numpy(), found.level.cpu().numpy()
    levels = int(level.max()) + 1 if len(level) else 0
    return tuple(
        Assigned(match[i], priors, level, levels, truth.boxes, truth.ignore | truth.crowd)
        for i, truth in enumerate(given)
    )
