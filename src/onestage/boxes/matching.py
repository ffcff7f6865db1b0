"""Which prior answers for which truth: SSD's bipartite-then-threshold, with regions to ignore."""

from __future__ import annotations

import heapq
from typing import Literal

import torch
from torch import Tensor

_AT_ONCE = 4_000_000  # numbers of an overlap matrix that are worked on together
BACKGROUND = -1
IGNORED = -2
Bipartite = Literal["greedy", "last"]


def match_ssd(
    boxes: Tensor,
    priors: Tensor,
    threshold: float = 0.5,
    force: bool = True,
    ignore: Tensor | None = None,
    bipartite: Bipartite = "greedy",
    floor: float = 0.0,
    near: float = 0.0,
) -> Tensor:
    """For each prior (P,) the row of the truth it answers for, or BACKGROUND (-1), or IGNORED (-2).

    `boxes` (N, 4) and `priors` (P, 4) are xyxy in the same units; `ignore` (N,) marks rows of `boxes` that are
    regions to leave alone. A prior takes the truth of its highest IoU where that is at least `threshold`. With
    `force` every truth also gets a prior of its own, whatever their IoU (above 0): of equal ones that of lower index.
    Priors that have no truth and lie by half or more in an ignored region become IGNORED.

    `floor` is the least IoU of a forced pair. Where `near` is above 0, ignored regions may be objects smaller than any
    prior (faces too small to learn): priors that would answer for one, of at least `near` times the highest IoU any
    prior has with it, become IGNORED too, and so do those near a truth that the floor left without any.

    Source: Liu et al. 2016, section 2.2. `bipartite="greedy"` is the paper's and Caffe's matching: the best pair of
    all first, and a truth whose best prior is taken gets its next best. `"last"` is lufficc's and lxg2015's loop:
    each truth claims its best prior and of two that claim the same one the last in the list keeps it, the other may
    be left without any. Theirs adds 1e-5 to the union of relative areas and forces pairs that do not overlap at all.
    The floor is zisianw/FaceBoxes.PyTorch's (0.2), where what lies near such a truth is background, and where a truth
    below the floor may take over a prior that another one has matched.
    """
    match = torch.full((len(priors),), BACKGROUND, dtype=torch.int64, device=priors.device)
    if not len(boxes) or not len(priors):
        return match
    rows = torch.arange(len(boxes), device=boxes.device) if ignore is None else torch.nonzero(~ignore).flatten()
    aside = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device) if ignore is None else ignore
    if len(rows):
        overlap = pairwise_iou(boxes[rows], priors)
        best, truth = overlap.max(0)
        match = torch.where(best >= threshold, rows[truth], match)
        if force:
            able = overlap if floor <= 0 else overlap.masked_fill(overlap < floor, 0)
            truths, owned = _bipartite_greedy(able) if bipartite == "greedy" else _bipartite_last(able)
            match[owned] = rows[truths]
        if floor > 0 and near > 0:
            aside = aside.clone()
            aside[rows[overlap.amax(1) < min(floor, threshold)]] = True
    if ignore is not None and len(rows) < len(boxes):
        covered = _share_inside(priors, boxes[ignore]).amax(1) >= 0.5
        match = torch.where(covered & (match == BACKGROUND), IGNORED, match)
    if near > 0 and bool(aside.any()):
        match = torch.where(_near(boxes[aside], priors, near) & (match == BACKGROUND), IGNORED, match)
    return match


def _near(boxes: Tensor, priors: Tensor, share: float, rows: int = 128) -> Tensor:
    """Whether a prior (P,) has at least `share` of the highest IoU with one of `boxes`; by rows, to save memory."""
    found = torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
    for part in torch.split(boxes, rows):
        overlap = pairwise_iou(part, priors)
        best = overlap.amax(1, keepdim=True)
        found |= ((overlap >= share * best) & (best > 0)).any(0)
    return found


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N, M) in [0, 1] of boxes (N, 4) and (M, 4) xyxy; 0 where a box is empty.

    A large one is made some rows at a time, to the same bits: what a crowd needs beside the result stays small.
    """
    rows = max(_AT_ONCE // max(len(b), 1), 1)
    if len(a) > rows:
        whole = torch.empty(len(a), len(b), dtype=a.dtype, device=a.device)
        for start in range(0, len(a), rows):
            whole[start : start + rows] = pairwise_iou(a[start : start + rows], b)
        return whole
    shared = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def _share_inside(a: Tensor, b: Tensor) -> Tensor:
    """Share (N, M) of each box of `a` that lies in each box of `b`."""
    return _intersection(a, b) / _area(a)[:, None].clamp(min=torch.finfo(a.dtype).tiny)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    width = torch.minimum(a[:, None, 2], b[None, :, 2]).sub_(torch.maximum(a[:, None, 0], b[None, :, 0])).clamp_(min=0)
    height = torch.minimum(a[:, None, 3], b[None, :, 3]).sub_(torch.maximum(a[:, None, 1], b[None, :, 1])).clamp_(min=0)
    return width.mul_(height)


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _bipartite_last(overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Each truth's best prior; of truths that claim the same prior the last keeps it. (truths, priors), distinct."""
    best, prior = overlap.max(1)
    owner = {p: t for t, (p, value) in enumerate(zip(prior.tolist(), best.tolist(), strict=True)) if value > 0}
    return _pairs(owner, overlap)


def _bipartite_greedy(overlap: Tensor) -> tuple[Tensor, Tensor]:
    """The best pair of all, then the best of what is left, until each truth (N) has a prior (of P) it overlaps.

    A heap holds each truth's best prior that was free when last looked; only a truth whose prior was taken in the
    meantime has its row sorted, so the usual cost is that of one maximum over (N, P).
    """
    best, prior = overlap.max(1)
    heap = [(-value, t, p) for t, (value, p) in enumerate(zip(best.tolist(), prior.tolist(), strict=True)) if value > 0]
    heapq.heapify(heap)
    owner: dict[int, int] = {}
    next_best: dict[int, list[tuple[float, int]]] = {}
    while heap:
        _, truth, wanted = heapq.heappop(heap)
        if wanted not in owner:
            owner[wanted] = truth
            continue
        if truth not in next_best:
            next_best[truth] = _ranked(overlap[truth], len(overlap))
        ranked = next_best[truth]
        while ranked and ranked[-1][1] in owner:
            ranked.pop()
        if ranked:
            heapq.heappush(heap, (-ranked[-1][0], truth, ranked[-1][1]))
    return _pairs(owner, overlap)


def _ranked(row: Tensor, most: int) -> list[tuple[float, int]]:
    """The `most` highest positive values of `row` with their indices, the best LAST; equal ones by index."""
    values, order = row.sort(descending=True, stable=True)
    pairs = zip(values[:most].tolist(), order[:most].tolist(), strict=True)
    return [(value, index) for value, index in pairs if value > 0][::-1]


def _pairs(owner: dict[int, int], overlap: Tensor) -> tuple[Tensor, Tensor]:
    """{prior: truth} as two index tensors (truths, priors) on the device of `overlap`."""
    truths = torch.tensor(list(owner.values()), dtype=torch.int64, device=overlap.device)
    return truths, torch.tensor(list(owner), dtype=torch.int64, device=overlap.device)
