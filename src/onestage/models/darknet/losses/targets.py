"""Which boxes of a YOLO network answer for which truths, independent of what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from onestage.boxes.matching import BACKGROUND, IGNORED
from onestage.models.darknet.geometry import Geometry, Level
from onestage.models.darknet.losses.overlaps import covered, shape_overlap
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Truth


class Truths(NamedTuple):
    """The truths of a batch in one list, T of them, by image and row; only those that count.

    `boxes` (T, 4), `labels` (T,), `image` (T,), `row` (T,) in its image. `regions` (R, 4) are those to ignore and
    `region_image` (R,) where they are; `capped` (B,) how many truths of each image are beyond `most`.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    row: Tensor
    regions: Tensor
    region_image: Tensor
    capped: Tensor

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.capped)


class Claims(NamedTuple):
    """Boxes that answer for truths, M pairs: box `prior` (M,) of `image` (M,) for `truth` (M,) of the list.

    Of several claims on one box a later one stands after an earlier one.
    """

    image: Tensor
    prior: Tensor
    truth: Tensor


class Assigned(NamedTuple):
    """`claims` on the boxes of a batch; `owner` (B, P) is each box's last claim, -1 for none; `aside` (B, P) are the
    boxes without a claim that are left alone."""

    truths: Truths
    claims: Claims
    owner: Tensor
    aside: Tensor


@torch.no_grad()
def listed(truths: Sequence[Truth], options: YoloOptions, device: torch.device) -> Truths:
    """The truths of a batch in one list."""
    counts = torch.tensor([len(truth.boxes) for truth in truths], dtype=torch.int64, device=device)
    image = torch.repeat_interleave(torch.arange(len(truths), device=device), counts)
    boxes = torch.cat([truth.boxes.reshape(-1, 4) for truth in truths]).to(device)
    labels = torch.cat([truth.labels for truth in truths]).to(device)
    ignore = torch.cat([truth.ignore for truth in truths]).to(device)
    start = counts.cumsum(0) - counts
    row = torch.arange(len(boxes), device=device) - start[image]
    keep = ~ignore
    if options.most:
        before = torch.cat([counts.new_zeros(1), keep.long().cumsum(0)])
        keep &= before[1:] - before[start][image] <= options.most
    capped = per_image((~ignore & ~keep).long(), image, len(truths))
    return Truths(boxes[keep], labels[keep].long(), image[keep], row[keep], boxes[ignore], image[ignore], capped)


def per_image(values: Tensor, image: Tensor, images: int) -> Tensor:
    """The sums (B,) of `values` (M,) over each image."""
    return values.new_zeros(images).index_add(0, image, values)


@torch.no_grad()
def assigned(truths: Sequence[Truth], at: Geometry, options: YoloOptions) -> Assigned:
    """Which boxes answer for which truths, and which are left alone whatever they predict.

    A truth whose centre lies on or beyond the right or lower border belongs to the last cell (darknet writes outside
    its array there). Regions to ignore never claim a box: those whose anchor they cover are left alone, and so are
    those that would answer for the region were it an object, which in a small one cover more than it.
    """
    found = listed(truths, options, at.anchors.device)
    aside = covered_boxes(at.priors, found, options)
    together, near = _claims(found, at, options)
    silent = [near]
    if len(found.regions):
        silent += _claims(found._replace(boxes=found.regions, image=found.region_image), at, options)
    for one in silent:
        aside[one.image, one.prior] = True
    owner = last_claims(together, found.images, at.count)
    return Assigned(found, together, owner, aside & (owner < 0))


def _claims(found: Truths, at: Geometry, options: YoloOptions) -> tuple[Claims, Claims]:
    """The boxes that answer for the truths, and those that are left alone beside them: near in shape, "per-scale"."""
    best = _best_of_all(found, at, options) if options.loss == "darknet" else None
    claims: list[Claims] = []
    beside: list[Claims] = []
    for level in at.levels:
        near: Tensor | None = None
        if best is not None:
            wanted = best[:, list(level.mask)]
        elif options.loss == "ratio":
            wanted = _within_ratio(found, level, options)
        else:
            wanted, near = _best_of_level(found, level, options)
        for pairs, some in ((claims, wanted), (beside, torch.zeros_like(wanted) if near is None else near)):
            prior, truth = _boxes_at(found, level, some)
            pairs.append(Claims(found.image[truth], prior, truth))
    together, left = (Claims(*(torch.cat(column) for column in zip(*one, strict=True))) for one in (claims, beside))
    return together, left


def covered_boxes(boxes: Tensor, truths: Truths, options: YoloOptions) -> Tensor:
    """Which of `boxes` (P, 4) or (B, P, 4) lie by `near` or more in a region to ignore of each image: (B, P)."""
    found = torch.zeros(truths.images, boxes.shape[-2], dtype=torch.bool, device=boxes.device)
    if len(truths.regions):
        for image in torch.unique(truths.region_image).tolist():
            regions = truths.regions[truths.region_image == image]
            found[image] = covered(boxes if boxes.ndim == 2 else boxes[image], regions, options.near)
    return found


def last_claims(claims: Claims, images: int, count: int) -> Tensor:
    """The last claim on each box (B, P), -1 where there is none."""
    order = torch.arange(len(claims.prior), device=claims.prior.device)
    owner = torch.full((images * count,), -1, device=order.device)
    return owner.scatter_reduce(0, claims.image * count + claims.prior, order, "amax").view(images, count)


def match_rows(given: Assigned) -> Tensor:
    """For each box (B, P) the row of the truth whose box it learns, or BACKGROUND, or IGNORED."""
    rows = given.truths.row[given.claims.truth]
    match = torch.cat([rows, rows.new_full((1,), BACKGROUND)])[given.owner]
    return torch.where(given.aside, IGNORED, match)


def unanswered(given: Assigned) -> Tensor:
    """How many truths of each image (B,) no box answers for."""
    lost = torch.ones_like(given.truths.image)
    lost[given.claims.truth] = 0
    return per_image(lost, given.truths.image, given.truths.images)


def rewritten(given: Assigned) -> Tensor:
    """How many truths of each image (B,) have lost a box to a later one; darknet counts each such box."""
    image, prior, truth = given.claims
    lost = torch.zeros_like(given.truths.image)
    taken = given.owner[image, prior] != torch.arange(len(truth), device=truth.device)
    lost[truth[taken]] = 1
    return per_image(lost, given.truths.image, given.truths.images)


def _best_of_all(truths: Truths, at: Geometry, options: YoloOptions) -> Tensor:
    """Which of all anchors of the cfg (T, N) answer for each truth."""
    overlap = shape_overlap(_sides(truths), at.anchors)
    return _best(overlap) | (overlap > options.also)


def _best_of_level(truths: Truths, level: Level, options: YoloOptions) -> tuple[Tensor, Tensor]:
    """Which anchors of a level (T, A) answer for each truth, and which are near it in shape."""
    overlap = shape_overlap(_sides(truths), level.anchors)
    return _best(overlap), overlap > options.ignore


def _within_ratio(truths: Truths, level: Level, options: YoloOptions) -> Tensor:
    ratio = _sides(truths)[:, None] / level.anchors[None]
    return torch.maximum(ratio, 1 / ratio).amax(2) < options.ratio


def _best(overlap: Tensor) -> Tensor:
    """Where each row is highest: of equal ones the first, as in darknet."""
    first = overlap.max(1).indices
    return torch.arange(overlap.shape[1], device=overlap.device)[None] == first[:, None]


def _sides(truths: Truths) -> Tensor:
    return (truths.boxes[:, 2:] - truths.boxes[:, :2]).clamp(min=0)


def _boxes_at(truths: Truths, level: Level, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes (M,) at the cells of the truths' centres whose anchors are `wanted` (T, A), and the truths (M,)."""
    centre = ((truths.boxes[:, :2] + truths.boxes[:, 2:]) / 2 / level.stride).floor()
    column = centre[:, 0].clamp(0, level.columns - 1).long()
    row = centre[:, 1].clamp(0, level.rows - 1).long()
    truth, anchor = torch.nonzero(wanted, as_tuple=True)
    return level.first + (row[truth] * level.columns + column[truth]) * len(level.mask) + anchor, truth
