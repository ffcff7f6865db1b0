"""What each image and each prior did to one step: its part of the loss, its part of the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from onestage.models.detector import Detector, Raw
from onestage.records import ImageId
from onestage.training.loop.evidence import Evidence, Pass
from onestage.training.loop.step import Keepsake

# So many priors with the largest loss are listed.
TOP = 10


@dataclass(frozen=True)
class ImageShare:
    """One image of the batch, `place` counted from 0.

    `parts` are its shares of the raw loss, `loss` that of the weighted one: over all images they sum to the step's.
    `gradient` is the norm of the gradient of its own share, `by_part` the same by part of the network; `share` is its
    part of the step's gradient along the direction of that, which sums to 1 over the batch (negative: it pulls the
    other way); None where the step had no gradient.
    """

    place: int
    id: ImageId
    parts: dict[str, float]
    loss: float
    truths: int
    positives: int
    gradient: float
    by_part: dict[str, float]
    share: float | None


@dataclass(frozen=True)
class PriorShare:
    """One prior: its image's place, its number, its box (xyxy, pixels of the input), its level.

    `truth` is the row of the truth it answers for, None for background; `parts` and `loss` are shares as an image's,
    `terms` the numbers they were computed from, by formula.
    """

    place: int
    prior: int
    box: tuple[float, ...]
    level: int
    truth: int | None
    parts: dict[str, float]
    loss: float
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contributions:
    """All of it: images in the order of the batch, the heaviest priors, the gradient's norm by part before clipping."""

    images: tuple[ImageShare, ...]
    priors: tuple[PriorShare, ...]
    by_part: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


def contributions(
    evidence: Evidence, detector: Detector, engine: Fabric, weights: Mapping[str, float]
) -> Contributions:  # fmt: skip
    """Take the step of `evidence` apart, before the weights change; everything is left as it was.

    Each image's gradient is taken through the batch it was in, so that batch norms see what they saw; one backward
    pass for each image.
    """
    kept = Keepsake(detector)
    normaliser = max(sum(float(one.loss.normaliser.sum()) for one in evidence.passes), 1.0)
    images: list[ImageShare] = []
    priors: list[PriorShare] = []
    groups = _groups(detector)
    for one in evidence.passes:
        place = len(images)
        priors += _priors(one, detector, weights, normaliser, place)
        images += _images(one, detector, engine, weights, normaliser, groups, evidence.grad_norm, place)
        kept.put_back()
    heaviest = sorted(priors, key=lambda prior: -_order(prior.loss))[:TOP]
    step = [p.grad for p in groups.parameters]
    if evidence.grad_norm is None:  # the loss was not finite: there was no backward pass
        return Contributions(tuple(images), tuple(heaviest), {})
    clipped = _norm(step) / evidence.grad_norm if evidence.grad_norm else 1.0
    by_part = {name: norm / clipped for name, norm in _by_part(groups, step).items()} if clipped else {}
    return Contributions(tuple(images), tuple(heaviest), by_part)


@dataclass(frozen=True)
class _Groups:
    """The parameters that learn, and for each part of the network which of them are its own."""

    parameters: list[Tensor]
    members: dict[str, list[int]]


def _groups(detector: Detector) -> _Groups:
    parameters: list[Tensor] = [p for p in detector.parameters() if p.requires_grad]
    rows = {id(p): row for row, p in enumerate(parameters)}
    members = {
        name: [rows[id(p)] for p in part.parameters() if id(p) in rows] for name, part in detector.parts().items()
    }  # fmt: skip
    return _Groups(parameters, {name: mine for name, mine in members.items() if mine})


def _images(
    one: Pass, detector: Detector, engine: Fabric, weights: Mapping[str, float], normaliser: float, groups: _Groups,
    norm: float | None, place: int,
) -> list[ImageShare]:  # fmt: skip
    with torch.enable_grad(), engine.autocast():
        raw = detector(torch.from_numpy(one.batch.images).to(engine.device))
    loss = one.loss_of(detector, Raw(raw.offsets.float(), raw.logits.float()))
    step = [p.grad for p in groups.parameters]
    length = _norm(step)
    found = []
    for i in range(len(one.batch)):
        own = sum(weights.get(name, 1.0) * part[i] for name, part in loss.parts.items()) / normaliser
        gradients: Sequence[Tensor | None] = [None] * len(groups.parameters)
        if isinstance(own, Tensor) and own.requires_grad:
            gradients = torch.autograd.grad(own, groups.parameters, retain_graph=True, allow_unused=True)
        along = None
        if norm and math.isfinite(norm) and length:
            pairs = ((a, b) for a, b in zip(gradients, step, strict=True) if a is not None and b is not None)
            along = sum(float((a * b).sum()) for a, b in pairs) / (length * norm)
        parts = {name: float(part[i]) / normaliser for name, part in one.loss.parts.items()}
        found.append(ImageShare(
            place + i, one.batch.ids[i], parts, sum(weights.get(name, 1.0) * value for name, value in parts.items()),
            len(one.batch.annotations[i]), int(one.loss.positives[i].sum()), _norm(gradients),
            _by_part(groups, gradients), along,
        ))  # fmt: skip
    return found


@torch.no_grad()
def _priors(
    one: Pass, detector: Detector, weights: Mapping[str, float], normaliser: float, place: int
) -> list[PriorShare]:  # fmt: skip
    parts = {name: values / normaliser for name, values in one.prior_losses(detector).items()}
    total: Tensor = sum(weights.get(name, 1.0) * values for name, values in parts.items())  # type: ignore[assignment]
    assigned = detector.assign(one.truths)
    order = torch.where(torch.isfinite(total), total, math.inf).flatten().topk(min(TOP, total.numel())).indices
    found = []
    for image, prior in ((int(at) // total.shape[1], int(at) % total.shape[1]) for at in order):
        truth = int(assigned.match[image, prior])
        found.append(PriorShare(
            place + image, prior, tuple(round(float(v), 2) for v in assigned.boxes[prior]), int(assigned.level[prior]),
            truth if truth >= 0 else None, {name: float(values[image, prior]) for name, values in parts.items()},
            float(total[image, prior]), one.terms(detector, image, prior),
        ))  # fmt: skip
    return found


def _by_part(groups: _Groups, gradients: Sequence[Tensor | None]) -> dict[str, float]:
    return {name: _norm([gradients[row] for row in rows]) for name, rows in groups.members.items()}


@torch.no_grad()
def _norm(gradients: Sequence[Tensor | None]) -> float:
    there = [gradient.detach().float() for gradient in gradients if gradient is not None]
    return float(torch.stack(torch._foreach_norm(there)).norm()) if there else 0.0


def _order(value: float) -> float:
    return value if math.isfinite(value) else math.inf
