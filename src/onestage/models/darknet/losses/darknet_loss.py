"""The loss of darknet's [yolo] and [region]: best of all anchors, predictions ignored, sums per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.head_weights import BoxWeights, HeadWeights
from onestage.models.darknet.losses.overlaps import agreement, best_overlap, paired_iou
from onestage.models.darknet.losses.parts import (
    centre_of,
    class_loss,
    class_scores,
    classes_wanted,
    smoothed,
    softmax_rows,
    spread,
    targets,
    wide,
)
from onestage.models.darknet.losses.targets import Assigned, Claims, covered_boxes, last_claims
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Raw


def darknet_parts(
    raw: Raw, given: Assigned, at: Geometry, options: YoloOptions, heads: Sequence[HeadWeights] | None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The parts "box", "obj" and "cls" of every box (B, P), darknet's cost (B,), and who owns each box (B, P).

    Boxes that answer for a truth learn it: objectness 1 (or their IoU, `rescore`), the classes of all truths that
    claim them, the box of the last one. All others learn objectness 0, unless their best IoU with some truth exceeds
    `ignore` or a region to ignore covers them. Centres: cross-entropy of the logit with the place in the cell; sides:
    half the square of the difference of logarithms; both times 2 - the truth's share of the input. Or 1 - IoU and its
    kin of the decoded box.

    Source: pjreddie's darknet, yolo_layer.c and region_layer.c (bias_match=1; without its pull towards the anchors
    in the first 12,800 images): it has no loss, only deltas, which are the gradients of this one; under scale_xy those
    of AlexeyAB's. The cost is the sum of the squared deltas over all levels, divided by the levels, as printed. Ours
    differs in the centre of a prediction beyond `truth` that lies in another cell: it learns the border of its own,
    where theirs pushes the logit without end. AlexeyAB ignores only predictions with a class above 0.25, and adds up
    the deltas of truths that share a box. Its deltas under IoU and GIoU are the derivative of this loss but for factors
    (of the centre the slope of the sigmoid and the side of the cell, of the sides the anchor and one half) where boxes
    overlap; where they do not it multiplies two negative sides, and DIoU and CIoU mix these scales. Ours are the
    derivative of what is reported. The cost has 1 - IoU in place of those deltas.
    """
    claims, owner, aside = with_predictions(raw, given, at, options)
    image, prior = torch.nonzero(owner >= 0, as_tuple=True)
    offsets, logits = wide(raw.offsets[image, prior]), wide(raw.logits[image, prior])
    truth = given.truths.boxes[claims.truth[owner[image, prior]]].to(offsets.dtype)
    rows = BoxWeights(heads, at)
    box, box_cost = _box(offsets, truth, prior, at, options, rows.box(prior))
    wanted = _classes(claims, given, owner, (image, prior), logits[:, 1:], at)
    cls, cls_cost = _cls(logits[:, 1:], wanted, prior, at, options, rows.cls(prior))
    target, weight = torch.zeros_like(owner, dtype=offsets.dtype), rows.noobj(slice(None)).expand(owner.shape)
    weight = torch.where(aside, 0.0, weight).to(offsets.dtype)
    found = paired_iou(at.decode(offsets.detach(), prior), truth)
    target[image, prior] = torch.where(rows.rescored(prior), found, 1.0).to(target.dtype)
    weight[image, prior] = rows.obj(prior).to(weight.dtype)
    said = wide(raw.logits[..., 0])
    obj = weight * F.binary_cross_entropy_with_logits(said, target, reduction="none")
    with torch.no_grad():
        squares = (weight * (target - torch.sigmoid(said))).square()
        squares += spread((box_cost + cls_cost).to(squares.dtype), image, prior, owner.shape)
    parts = {"box": spread(box, image, prior, owner.shape), "obj": obj, "cls": spread(cls, image, prior, owner.shape)}
    return parts, squares.sum(1) / len(at.levels), owner


@torch.no_grad()
def with_predictions(
    raw: Raw, given: Assigned, at: Geometry, options: YoloOptions
) -> tuple[Claims, Tensor, Tensor]:  # fmt: skip
    """What a network's predictions change: the claims, those of predictions beyond `truth` before all others, the
    owners (B, P) then, and the boxes (B, P) that are left alone."""
    truths, boxes = given.truths, at.decode(wide(raw.offsets))
    best = torch.zeros(boxes.shape[:2], dtype=boxes.dtype, device=boxes.device)
    which = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
    counts = torch.bincount(truths.image, minlength=truths.images).tolist()
    first = 0
    for i, count in enumerate(counts):
        if count:
            mine = truths.boxes[first : first + count].to(boxes.dtype)
            best[i], row = best_overlap(boxes[i], mine, rows=options.truth < 1)
            which[i] = row + first
        first += count
    claims, owner = given.claims, given.owner
    if options.truth < 1:
        image, prior = torch.nonzero(best > options.truth, as_tuple=True)
        early = Claims(image, prior, which[image, prior])
        claims = Claims(*(torch.cat(pair) for pair in zip(early, claims, strict=True)))
        owner = last_claims(claims, truths.images, at.count)
    aside = given.aside | (best > options.ignore) | covered_boxes(boxes, truths, options)
    return claims, owner, aside & (owner < 0)


def _box(
    offsets: Tensor, truth: Tensor, prior: Tensor, at: Geometry, options: YoloOptions, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The box part (U,) and its share of the cost (U,)."""
    if options.box != "mse":
        loss = scale * (1 - agreement(at.decode(offsets, prior), truth, options.box))
        return loss, loss.detach()
    share, growth = targets(truth, prior, at)
    sides = (truth[:, 2:] - truth[:, :2]).clamp(min=0)
    weight = (scale * (2 - sides.prod(1) / (at.size[0] * at.size[1])))[:, None]
    reach = at.scale_xy[prior, None]
    inner = (share - 0.5) / reach + 0.5
    centre = reach * F.binary_cross_entropy_with_logits(offsets[:, :2], inner.to(offsets.dtype), reduction="none")
    side = 0.5 * (offsets[:, 2:] - growth).square()
    with torch.no_grad():
        deltas = torch.cat([share - centre_of(offsets, prior, at), growth - offsets[:, 2:]], 1) * weight
    return (weight * (centre + side)).sum(1), deltas.square().sum(1)


def _classes(
    claims: Claims, given: Assigned, owner: Tensor, boxes: tuple[Tensor, Tensor], logits: Tensor, at: Geometry
) -> Tensor:
    """Which classes each of `boxes` (U,) learns (U, C): those of all its claims, under softmax that of the last."""
    image, prior = boxes
    labels = given.truths.labels[claims.truth]
    slot = torch.full_like(owner, -1)
    slot[image, prior] = torch.arange(len(prior), device=prior.device)
    last = classes_wanted(labels[owner[image, prior]], slot[image, prior], len(prior), logits)
    every = classes_wanted(labels, slot[claims.image, claims.prior], len(prior), logits)
    return torch.where(softmax_rows(prior, at)[:, None], last, every)


def _cls(
    logits: Tensor, wanted: Tensor, prior: Tensor, at: Geometry, options: YoloOptions, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The class part (U,) and its share of the cost (U,)."""
    softmax = softmax_rows(prior, at)
    wanted = smoothed(wanted, options.label_smoothing, softmax)
    with torch.no_grad():
        deltas = scale[:, None] * (wanted - class_scores(logits, softmax))
    return scale * class_loss(logits, wanted, softmax), deltas.square().sum(1)
