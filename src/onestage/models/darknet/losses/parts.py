"""What the losses of YOLO are made of: targets of a box's offsets, its classes, its objectness."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.boxes.coding import MIN_SIDE
from onestage.models.darknet.geometry import Geometry


def wide(values: Tensor) -> Tensor:
    """In float32 at least, whatever the precision of the network."""
    return values if values.dtype == torch.float64 else values.float()


def targets(boxes: Tensor, prior: Tensor, at: Geometry) -> tuple[Tensor, Tensor]:
    """What boxes `prior` (M,) of the network should say to be `boxes` (M, 4) xyxy in pixels.

    The centre (M, 2) as share of the cell, in [0, 1]; the sides (M, 2) as logarithm of how many anchors they are, those
    below MIN_SIDE pixels as of that many.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    share = ((centre - at.cells[prior]) / at.stride[prior, None]).clamp(0, 1)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MIN_SIDE)
    return share, torch.log(sides / at.sides[prior])


def centre_of(offsets: Tensor, prior: Tensor, at: Geometry) -> Tensor:
    """Where in its cell each box says its centre is (M, 2): 0 at the left or top, 1 at the right or bottom."""
    scale = at.scale_xy[prior, None]
    return torch.sigmoid(offsets[:, :2]) * scale - (scale - 1) / 2


def classes_wanted(truth_labels: Tensor, slots: Tensor, count: int, like: Tensor) -> Tensor:
    """Targets (U, C) of zeros and ones: 1 at every label of the claims `slots` (M,) of `count` boxes."""
    wanted = like.new_zeros(count, like.shape[1])
    wanted[slots, truth_labels] = 1
    return wanted


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Targets (M, C) of `labels` (M,), as many classes as `like` (M, C) has columns."""
    return torch.zeros_like(like).scatter(1, labels[:, None], 1)


def smoothed(wanted: Tensor, by: float, softmax: Tensor) -> Tensor:
    """Targets softened by `by`: each class towards a half, under `softmax` (U,) towards all of them evenly."""
    if not by:
        return wanted
    middle = torch.where(softmax, 1 / max(wanted.shape[1], 1), 0.5)[:, None]
    return wanted * (1 - by) + by * middle


def class_loss(logits: Tensor, wanted: Tensor, softmax: Tensor) -> Tensor:
    """Cross-entropy (U,) of `logits` (U, C): of every class by itself, or of all together under `softmax` (U,)."""
    alone = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
    if not bool(softmax.any()):
        return alone
    return torch.where(softmax, -(wanted * F.log_softmax(logits, 1)).sum(1), alone)


def class_means(logits: Tensor, wanted: Tensor, softmax: Tensor) -> Tensor:
    """`class_loss` as mean over the classes (U,); that of all together, under `softmax` (U,), as it is."""
    return class_loss(logits, wanted, softmax) / torch.where(softmax, 1, logits.shape[1])


def class_scores(logits: Tensor, softmax: Tensor) -> Tensor:
    """How likely each class is (U, C), by itself or among all of them."""
    scores = torch.sigmoid(logits)
    return torch.where(softmax[:, None], torch.softmax(logits, 1), scores) if bool(softmax.any()) else scores


def softmax_rows(prior: Tensor, at: Geometry) -> Tensor:
    """Whether the classes of boxes `prior` (M,) exclude each other."""
    return torch.tensor([level.softmax for level in at.levels], device=prior.device)[at.level[prior]]


def spread(values: Tensor, image: Tensor, prior: Tensor, shape: torch.Size) -> Tensor:
    """`values` (M,) at their boxes, (B, P), 0 elsewhere; of several on one box the sum."""
    return values.new_zeros(shape).index_put((image, prior), values, accumulate=True)
