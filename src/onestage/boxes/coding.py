"""Boxes to offsets from priors and back: SSD's variances, encode and decode side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onestage.boxes.offsets import MAX_GROWTH, VARIANCES

# Sides below this many pixels are encoded as this many, so that the logarithm of a valid box is finite.
MIN_SIDE = 1e-2


def encode(boxes: Tensor, priors: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Offsets (..., 4) of `boxes` (..., 4) xyxy from `priors` (..., 4) cx, cy, w, h, row by row, in the same pixels.

    Centres: (c - c_prior) / side_prior / 0.1; sides: ln(side / side_prior) / 0.2. Finite for finite boxes: sides are
    taken as at least MIN_SIDE pixels.

    Source: Liu et al. 2016 with the variances of its Caffe release; ours bounds the logarithm, theirs does not.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=MIN_SIDE)
    shift = (centres - priors[..., :2]) / priors[..., 2:] / variances[0]
    growth = torch.log(sides / priors[..., 2:]) / variances[1]
    return torch.cat([shift, growth], -1)


def decode(offsets: Tensor, priors: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Boxes (..., P, 4) xyxy for `offsets` (..., P, 4) from `priors` (P, 4) cx, cy, w, h; the inverse of `encode`.

    In the units of the priors, float32 at least. Sides are cut at MAX_GROWTH times the prior's, so finite offsets
    give finite boxes.

    Source: as `encode`; the bound is Detectron's.
    """
    offsets = offsets.to(priors.dtype)
    centres = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    growth = (offsets[..., 2:] * variances[1]).clamp(max=math.log(MAX_GROWTH))
    half = priors[..., 2:] * torch.exp(growth) / 2
    return torch.cat([centres - half, centres + half], -1)


def to_corners(priors: Tensor) -> Tensor:
    """Priors (..., 4) from cx, cy, w, h to x1, y1, x2, y2."""
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], -1)
