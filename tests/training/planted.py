"""A step without the loop: batches, detectors with faults planted in them, and the evidence they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onestage.models import build
from onestage.models.detector import Assignment, Detector, Loss, Raw, Truth
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.loop.evidence import Evidence, Pass
from onestage.training.recorder import Recorder

SIZE = 64
CLASSES = ("car", "van", "bus")
GOOD = ((10.0, 12.0, 30.0, 36.0), (20.0, 8.0, 60.0, 50.0))


@cache
def _fresh(name: str) -> Detector:
    torch.manual_seed(0)
    return build(name, len(CLASSES), size=(SIZE, SIZE))


def lite(name: str = "ssd-lite0") -> Detector:
    """A small untrained model of one's own."""
    from copy import deepcopy

    return deepcopy(_fresh(name)).train()


def batch(
    *boxes: Sequence[Sequence[float]], labels: dict[tuple[int, int], int] | None = None, pixels: str = "uint8",
    size: tuple[int, int] = (SIZE, SIZE), seed: int = 0,
) -> Batch:  # fmt: skip
    """A batch with these boxes per image; labels are 0, 1, … but where given by (image, row)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(boxes), size[1], size[0], 3), np.uint8).astype(pixels).transpose(0, 3, 1, 2)
    annotations = []
    for image, rows in enumerate(boxes):
        given = [(labels or {}).get((image, row), row % len(CLASSES)) for row in range(len(rows))]
        annotations.append(Annotations(np.array(rows, np.float64).reshape(-1, 4), np.array(given, np.int64)))
    n = len(boxes)
    return Batch(images, annotations, [ImageTransform()] * n, [f"im{i}" for i in range(n)], list(range(100, 100 + n)))


def good(n: int = 4) -> list[Sequence[Sequence[float]]]:
    """Healthy truths for `n` images."""
    return [GOOD] * n


@dataclass
class Bench:
    """Steps of one model under a recorder; `decisions` are what it said of each."""

    detector: Detector
    recorder: Recorder
    precision: str = "fp32"
    lr: float = 1e-3
    scale: float | None = None
    step: int = 0
    decisions: list[str] = field(default_factory=list)

    def __call__(self, one: Batch, update: bool = True) -> str:
        """Do a step; the recorder's word on it."""
        self.step += 1
        evidence = self.evidence(one)
        decision = self.recorder.examine(evidence, self.detector)
        if decision == "go" and update:
            with torch.no_grad():
                for parameter in self.detector.parameters():
                    if parameter.grad is not None:
                        parameter -= self.lr * parameter.grad
        if decision == "go":
            self.recorder.done(evidence, {"data": 0.0, "step": 0.0})
        self.decisions.append(decision)
        return decision

    def evidence(self, one: Batch) -> Evidence:
        """Forward, loss and backward as the loop does them."""
        detector = self.detector
        truths = [Truth.of(annotations, "cpu") for annotations in one.annotations]
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
            raw = Raw(*detector(torch.from_numpy(one.images)))
        raw = Raw(raw.offsets.float(), raw.logits.float())
        loss = detector.loss(raw, truths)
        total = loss.total({})
        value, norm = float(total.detach()), None
        detector.zero_grad(set_to_none=True)
        if math.isfinite(value):
            total.backward()
            gradients = [p.grad for p in detector.parameters() if p.grad is not None]
            norm = float(torch.stack([g.norm() for g in gradients]).norm()) if gradients else 0.0
        kept = Loss(
            {name: part.detach() for name, part in loss.parts.items()}, loss.positives, loss.normaliser.detach()
        )
        divisor = max(float(kept.normaliser.sum()), 1.0)
        parts = {name: float(part.sum()) / divisor for name, part in kept.parts.items()}
        done = Pass(one, truths, Raw(raw.offsets.detach(), raw.logits.detach()), kept)
        height, width = one.images.shape[2:]
        return Evidence(
            self.step, 0, [done], value, parts, parts, kept.positives.sum(0).tolist(), len(one), {"all": self.lr}, norm,
            (width, height), self.scale,
        )  # fmt: skip


def bench(detector: Detector | None = None, folder: Path | None = None, **keys: object) -> Bench:
    """A bench with a recorder that knows files and class names."""
    own = {key: keys.pop(key) for key in ("precision", "lr", "scale") if key in keys}
    recorder = Recorder(
        folder=folder, file_of=lambda image_id: f"photos/{image_id}.jpg", classes=CLASSES,
        precision=str(own.get("precision", "fp32")), **keys,
    )  # fmt: skip
    return Bench(detector or lite(), recorder, **own)


class Planted(Detector):
    """A detector of two levels of square priors whose loss is as bad as its subclass makes it.

    Each truth is given to the prior whose centre is nearest, whatever their overlap: no box is too broken.
    """

    name = "planted"
    default_weights = {"cls": 1.0, "box": 1.0}  # noqa: RUF012
    tells = True

    def __init__(self) -> None:
        super().__init__(len(CLASSES), (SIZE, SIZE), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        centres = [(x, y, side) for side, step in ((16.0, 16), (32.0, 32)) for y in range(step // 2, SIZE, step)
                   for x in range(step // 2, SIZE, step)]  # fmt: skip
        self.register_buffer("priors", torch.tensor([[x, y, s, s] for x, y, s in centres]), persistent=False)
        self.level = torch.tensor([0] * 16 + [1] * 4)
        self.linear = nn.Linear(3, 20 * 7)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)

    def forward(self, images):
        answer = self.linear(self.normalise(images.float()).mean((2, 3))).view(len(images), 20, 7)
        return Raw(answer[..., :4], answer[..., 4:])

    def match(self, truth: Truth) -> torch.Tensor:
        """(P,) rows of `truth`, -1 for background."""
        match = torch.full((20,), -1)
        for row, box in enumerate(truth.boxes.nan_to_num(0.0)):
            centre = (box[:2] + box[2:]) / 2
            match[int((self.priors[:16, :2] - centre).square().sum(1).argmin())] = row
        return match

    def assign(self, truths):
        if not self.tells:
            raise NotImplementedError
        half = self.priors[:, 2:] / 2
        corners = torch.cat([self.priors[:, :2] - half, self.priors[:, :2] + half], 1)
        return Assignment(torch.stack([self.match(one) for one in truths]), corners, self.level)

    def box_loss(self, offsets, box, prior) -> torch.Tensor:
        """The loss of one positive."""
        raise NotImplementedError

    def _per_prior(self, raw, truths):
        cls = torch.nn.functional.softplus(raw.logits).sum(-1)
        match = torch.stack([self.match(one) for one in truths])
        rows = []
        for image, one in enumerate(truths):
            rows.append(torch.stack([
                self.box_loss(raw.offsets[image, p], one.boxes[t], self.priors[p]) if t >= 0 else torch.zeros(())
                for p, t in enumerate(match[image].tolist())
            ]))  # fmt: skip
        return {"cls": cls, "box": torch.stack(rows)}, match

    def prior_losses(self, raw, truths):
        if not self.tells:
            raise NotImplementedError
        return self._per_prior(raw, truths)[0]

    def divide(self, box, counts):
        """How the summed box losses (B,) are divided."""
        return box

    def loss(self, raw, truths):
        parts, match = self._per_prior(raw, truths)
        counts = torch.stack([(match[:, self.level == level] >= 0).sum(1) for level in (0, 1)], 1)
        box = self.divide(parts["box"].sum(1), counts.sum(1))
        return Loss({"cls": parts["cls"].sum(1), "box": box}, counts, counts.sum(1).clamp(min=1).float())

    def decode(self, raw):
        raise NotImplementedError

    def terms(self, raw, truths, image, prior):
        if not self.tells:
            raise NotImplementedError
        row = int(self.match(truths[image])[prior])
        if row < 0:
            return {}
        return self.box_terms(raw.offsets[image, prior], truths[image].boxes[row], self.priors[prior])

    def box_terms(self, offsets, box, prior) -> dict[str, float]:
        """The terms of one positive."""
        return {}

    def parts(self):
        return {"backbone": self.linear, "heads": self.linear}


class Unclamped(Planted):
    """Encodes the truth's width as it is: ln of 0 or of a negative number."""

    def box_loss(self, offsets, box, prior):
        return (offsets[2] - torch.log((box[2] - box[0]) / prior[2]) / 0.2).abs()

    def box_terms(self, offsets, box, prior):
        w = box[2] - box[0]
        return {
            "w": float(w),
            "prior w": float(prior[2]),
            "ln(w / prior w) / 0.2": float(torch.log(w / prior[2]) / 0.2),
        }


class Unbounded(Planted):
    """Decodes the width without a bound: exp of whatever comes; image 1's offsets are driven high."""

    def forward(self, images):
        offsets, logits = super().forward(images)
        push = torch.zeros_like(offsets)
        push[1, :, 2] = 600.0
        return Raw(offsets + push, logits)

    def box_loss(self, offsets, box, prior):
        return (prior[2] * torch.exp(0.2 * offsets[2]) - (box[2] - box[0])).abs()

    def box_terms(self, offsets, box, prior):
        return {"offset w": float(offsets[2]), "exp(0.2 offset w)": float(torch.exp(0.2 * offsets[2]))}


class PerPositive(Planted):
    """Divides by the positives of the batch, which may be none."""

    def box_loss(self, offsets, box, prior):
        return offsets.abs().sum()

    def divide(self, box, counts):
        return box / counts.sum()


class Rooted(Planted):
    """A square root of an offset that is 0 exactly in image 1: a finite loss, an infinite derivative."""

    def forward(self, images):
        offsets, logits = super().forward(images)
        keep = torch.ones_like(offsets)
        keep[1] = 0.0
        return Raw(offsets * keep, logits)

    def box_loss(self, offsets, box, prior):
        return torch.sqrt(offsets[0].abs())


class RootedBody(Planted):
    """A square root within the model, of channel 0, which is 0 exactly where an image is black."""

    def forward(self, images):
        return super().forward(torch.sqrt(self.linear.weight[0, 0] * 0.0 + images.float()))

    def box_loss(self, offsets, box, prior):
        return offsets.abs().sum()
