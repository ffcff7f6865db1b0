"""Overlaps of predicted boxes with truths: the best of each, row by row, and of shapes alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onestage.models.darknet.options import BoxLoss
from onestage.models.multibox import generalised_iou

_AT_ONCE = 400_000  # overlaps that are worked on together: small enough for the cache of a core


@torch.no_grad()
def best_overlap(boxes: Tensor, truths: Tensor, rows: bool = True) -> tuple[Tensor, Tensor]:
    """The highest IoU (P,) that each of `boxes` (P, 4) xyxy has with some of `truths` (N, 4), and the row of that one.

    0 and row 0 where it overlaps none; of equal ones the first, as in darknet. Without `rows` all are 0, in less time.
    """
    best = torch.zeros_like(boxes[:, 0])
    which = torch.zeros_like(best, dtype=torch.int64)
    if not len(truths):
        return best, which
    x1, y1, x2, y2 = boxes.t().contiguous()
    area = (x2 - x1) * (y2 - y1)
    first = 0
    for part in torch.split(truths, max(_AT_ONCE // max(len(boxes), 1), 1)):
        u1, v1, u2, v2 = part.t()[..., None]
        shared = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
        shared.mul_(torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0))
        union = (area + (u2 - u1).clamp(min=0) * (v2 - v1).clamp(min=0)).sub_(shared)
        overlap = shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))
        if rows:
            highest, row = overlap.max(0)
            which = torch.where(highest > best, row + first, which)
        best = torch.maximum(best, overlap.amax(0))
        first += len(part)
    return best, which


@torch.no_grad()
def covered(boxes: Tensor, regions: Tensor, share: float) -> Tensor:
    """Whether at least `share` of each of `boxes` (P, 4) lies in one of `regions` (N, 4); never where none touches."""
    found = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for part in torch.split(regions, max(_AT_ONCE // max(len(boxes), 1), 1)):
        low = torch.maximum(boxes[None, :, :2], part[:, None, :2])
        shared = (torch.minimum(boxes[None, :, 2:], part[:, None, 2:]) - low).clamp(min=0).prod(2)
        found |= ((shared > 0) & (shared >= share * area)).any(0)
    return found


def shape_overlap(sides: Tensor, anchors: Tensor) -> Tensor:
    """IoU (T, N) of `sides` (T, 2) and `anchors` (N, 2) about one centre; 0 for an empty side."""
    shared = torch.minimum(sides[:, None], anchors[None]).prod(2)
    return shared / (sides.prod(1)[:, None] + anchors.prod(1)[None] - shared)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (M,) of boxes (M, 4) xyxy, row by row; 0 where both are empty."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    return shared / (_area(a) + _area(b) - shared).clamp(min=1e-9)


def agreement(a: Tensor, b: Tensor, kind: BoxLoss) -> Tensor:
    """IoU, GIoU, DIoU or CIoU (M,) of predictions `a` (M, 4) and truths `b` (M, 4) xyxy, row by row, at most 1.

    Source: Zheng et al. 2020 for CIoU, whose weight of the aspect ratio is a constant of the gradient.
    """
    if kind == "iou":
        return paired_iou(a, b)
    if kind == "giou":
        return generalised_iou(a, b, "giou")
    near = generalised_iou(a, b, "diou")
    return near if kind == "diou" else near - aspect_term(a, b)


def aspect_term(a: Tensor, b: Tensor) -> Tensor:
    """CIoU's alpha v (M,): how far the ratios of width and height of two boxes lie apart."""
    tiny = 1e-9
    mine, wanted = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    turn = torch.atan(wanted[:, 0] / (wanted[:, 1] + tiny)) - torch.atan(mine[:, 0] / (mine[:, 1] + tiny))
    apart = 4 / math.pi**2 * turn.square()
    with torch.no_grad():
        alpha = apart / (1 - paired_iou(a, b) + apart + tiny)
    return alpha * apart


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
