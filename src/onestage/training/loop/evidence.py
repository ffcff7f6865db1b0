"""What one step did, before it changes the weights: what the flight recorder sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from onestage.errors import DivergedError
from onestage.models.detector import Detector, Loss, Raw, Truth
from onestage.records import Batch

Action = Literal["go", "skip", "stop", "rollback"]
NO_IMAGE = "every image's own loss is finite: the weights or gradients overflowed"


@dataclass
class Pass:
    """One micro-batch that went through the network: what went in, what the heads said (float32), its loss.

    `whole` are the counts of the batch it is a part of, where its detector divides by such (`Detector.counts`).
    """

    batch: Batch
    truths: list[Truth]
    raw: Raw
    loss: Loss
    whole: Tensor | None = None

    def loss_of(self, detector: Detector, raw: Raw) -> Loss:
        """The loss of the same images for another answer of the heads."""
        return loss_of(detector, raw, self.truths, self.whole)

    def prior_losses(self, detector: Detector) -> dict[str, Tensor]:
        """The parts of the loss of each prior; see `Detector.prior_losses`."""
        if self.whole is None:
            return detector.prior_losses(self.raw, self.truths)
        return detector.prior_losses(self.raw, self.truths, self.whole)

    def terms(self, detector: Detector, image: int, prior: int) -> dict[str, float]:
        """What the loss of one prior is made of; see `Detector.terms`."""
        if self.whole is None:
            return detector.terms(self.raw, self.truths, image, prior)
        return detector.terms(self.raw, self.truths, image, prior, self.whole)


def loss_of(detector: Detector, raw: Raw, truths: list[Truth], whole: Tensor | None) -> Loss:
    """The loss of some images of a batch whose counts are `whole`; models without counts are not told of them."""
    return detector.loss(raw, truths) if whole is None else detector.loss(raw, truths, whole)


@dataclass
class Evidence:
    """A step before the optimiser moves the weights.

    `step` is the number the step will have (from 1). `loss`, `raw` and `weighted` are over the whole batch and all
    processes, `passes` those of this process. `grad_norm` is None where the loss was not finite and no gradient was
    taken. `scale` is the loss scale of fp16. `grad_norms` are those of the parts that learn, before clipping;
    they are taken every tenth step, as is `update_norm`, which is set after it. `stage` is the leg's index.
    `without_gradient` names layers of the backbone that should learn and get no gradient, every tenth step too.
    `filtered` is how many truths augmentation made `ignore`, by reason, where it says so; `negatives` how many boxes of
    background were picked for the class loss, where they are picked. `scales` and `sums` are those of `Loss`, over
    the whole batch.
    """

    step: int
    epoch: int
    passes: list[Pass]
    loss: float
    raw: dict[str, float]
    weighted: dict[str, float]
    positives_per_level: list[int]
    images: int
    lr: dict[str, float]
    grad_norm: float | None
    size: tuple[int, int]
    scale: float | None = None
    update_norm: float | None = None
    truths: int = 0
    grad_norms: dict[str, float] | None = None
    stage: int = 0
    without_gradient: list[str] = field(default_factory=list)
    filtered: dict[str, int] | None = None
    negatives: int | None = None
    scales: list[list[float]] | None = None
    sums: dict[str, float] = field(default_factory=dict)


class Observer(Protocol):
    """Who looks at every step and decides what becomes of it."""

    def before(self, step: int, epoch: int, batch: Batch, detector: Detector) -> Action:
        """Before the forward pass: anything but "go" says that it must not be made."""

    def examine(self, evidence: Evidence, detector: Detector) -> Action:
        """Before the weights change: "go", or what the recipe's guard says where something is wrong."""

    def done(self, evidence: Evidence, seconds: Mapping[str, float]) -> None:
        """After the step."""

    def error(self) -> DivergedError:
        """Why "stop" was said."""


class Finite:
    """The least an observer can do: stop where the loss or the gradient is not a finite number."""

    def before(self, step: int, epoch: int, batch: Batch, detector: Detector) -> Action:
        """Always "go"."""
        return "go"

    def examine(self, evidence: Evidence, detector: Detector) -> Action:
        """ "stop" for a loss or gradient that is not finite; a gradient under fp16 is its scaler's business."""
        if evidence.grad_norm is not None and (math.isfinite(evidence.grad_norm) or evidence.scale is not None):
            return "go"
        self._seen = evidence
        return "stop"

    def done(self, evidence: Evidence, seconds: Mapping[str, float]) -> None:
        """Nothing."""

    def error(self) -> DivergedError:
        """The error that names the images whose part of the loss is not finite."""
        seen, problems = self._seen, []
        for one in seen.passes:
            for name, part in one.loss.parts.items():
                for image_id, share, truth in zip(one.batch.ids, part.tolist(), one.batch.annotations, strict=True):
                    if not math.isfinite(share):
                        problems.append(f"image {image_id}: {name} loss {share}, {len(truth)} boxes after augmentation")
        what = "the loss" if seen.grad_norm is None else "the gradient"
        return DivergedError(
            f"{what} is not a finite number at step {seen.step} (epoch {seen.epoch + 1})",
            problems=problems or [NO_IMAGE],
            hint="a lower optimiser.lr, a longer schedule.warmup, or precision=fp32",
        )


def one_error(errors: Sequence[DivergedError]) -> DivergedError:
    """What several processes say of their own images, as one error; there is one at least."""
    if len(errors) == 1:
        return errors[0]
    problems = dict.fromkeys(problem for error in errors for problem in error.problems)
    if len(problems) > 1:
        problems.pop(NO_IMAGE, None)
    return DivergedError(errors[0].message, problems=list(problems), hint=errors[0].hint)
