"""The loss of a YOLO network by name: per image, per box, its counts, its matches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.losses.darknet_loss import darknet_parts
from onestage.models.darknet.losses.head_weights import HeadWeights
from onestage.models.darknet.losses.means import Counts
from onestage.models.darknet.losses.per_scale_loss import per_scale_parts
from onestage.models.darknet.losses.ratio_loss import ratio_parts
from onestage.models.darknet.losses.scales import level_sums
from onestage.models.darknet.losses.targets import Assigned, assigned, match_rows, rewritten, unanswered
from onestage.models.darknet.losses.terms import box_terms
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Loss, Raw, Truth


def head_weights(network: Architecture) -> tuple[HeadWeights, ...]:
    """What the cfg of a network says of the loss of each head; ModelError where something in it is no number."""
    return tuple(HeadWeights.of(head) for head in network.heads)


def yolo_loss(
    raw: Raw,
    truths: Sequence[Truth],
    at: Geometry,
    options: YoloOptions,
    heads: Sequence[HeadWeights] | None = None,
    whole: Tensor | None = None,
) -> Loss:
    """The loss `options.loss` of each image, in float32 at least; finite for finite predictions, N = 0 included.

    `raw` are offsets (B, P, 4) tx, ty, tw, th and logits (B, P, 1 + C), objectness first; `truths` one per image, in
    pixels of the input. `heads` are the weights that the cfg gives each head ("darknet" alone heeds them). `whole` are
    the `yolo_counts` of the whole batch where these images are only some of it. Parts are sums per image that are to be
    divided by the number of images (`normaliser`); see `darknet_parts`, `ratio_parts` and `per_scale_parts`.
    """
    given = assigned(truths, at, options)
    parts, cost, owner = _parts(raw, given, at, options, heads, whole)
    taken = owner >= 0
    positives = torch.stack([taken[:, level.first : level.last].sum(1) for level in at.levels], 1)
    summed = {name: part.sum(1) for name, part in parts.items()}
    told = {"unanswered": unanswered(given), "rewritten": rewritten(given), "capped": given.truths.capped}
    sums = {name: value.float() for name, value in told.items()} | ({} if cost is None else {"cost": cost.detach()})
    ones = torch.ones_like(summed["obj"])
    return Loss(summed, positives, ones, scales=level_sums(raw, given, at), sums=sums)


def yolo_prior_losses(
    raw: Raw,
    truths: Sequence[Truth],
    at: Geometry,
    options: YoloOptions,
    heads: Sequence[HeadWeights] | None = None,
    whole: Tensor | None = None,
) -> dict[str, Tensor]:
    """The parts of every box (B, P), whose sums are those of `yolo_loss`."""
    return _parts(raw, assigned(truths, at, options), at, options, heads, whole)[0]


def yolo_counts(truths: Sequence[Truth], at: Geometry, options: YoloOptions) -> Tensor | None:
    """What the means of the loss are taken over; adds up over micro-batches and ranks. None for "darknet", a sum.

    Level by level (2 L + 1,): how many boxes answer for truths ("ratio": each as often as it does), then how many
    have objectness to learn ("ratio") or are background ("per-scale"), and the number of images.
    """
    if options.loss == "darknet":
        return None
    return Counts.of(assigned(truths, at, options), at, options).together()


def yolo_match(truths: Sequence[Truth], at: Geometry, options: YoloOptions) -> Tensor:
    """For each box (B, P) the row of the truth it learns, or BACKGROUND, or IGNORED, whatever the network predicts.

    What "darknet" ignores or adds because of its predictions (`ignore`, `truth`) is not seen here.
    """
    return match_rows(assigned(truths, at, options))


def yolo_terms(
    raw: Raw,
    truths: Sequence[Truth],
    image: int,
    prior: int,
    at: Geometry,
    options: YoloOptions,
    heads: Sequence[HeadWeights] | None = None,
    whole: Tensor | None = None,
) -> dict[str, float]:
    """The terms of the loss of box `prior` of `image` by formula, the parts last; see `terms.box_terms`."""
    whole = yolo_counts(truths, at, options) if whole is None else whole
    truth = truths[image : image + 1]
    said = Raw(raw.offsets[image : image + 1].detach().double(), raw.logits[image : image + 1].detach().double())
    told = box_terms(said, truth, prior, at, options, heads, None if whole is None else Counts.read(whole))
    parts = yolo_prior_losses(said, truth, at, options, heads, whole)
    return told | {name: float(part[0, prior]) for name, part in parts.items()}


def _parts(
    raw: Raw,
    given: Assigned,
    at: Geometry,
    options: YoloOptions,
    heads: Sequence[HeadWeights] | None,
    whole: Tensor | None,
) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:  # fmt: skip
    """The parts of every box, the cost where there is one, and the owners."""
    if options.loss == "darknet":
        return darknet_parts(raw, given, at, options, heads)
    counts = Counts.of(given, at, options) if whole is None else Counts.read(whole.to(given.owner.device))
    of = ratio_parts if options.loss == "ratio" else per_scale_parts
    return of(raw, given, at, options, counts), None, given.owner
