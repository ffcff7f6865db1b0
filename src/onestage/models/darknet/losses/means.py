"""The numbers that losses of means are divided by, level by level, over a whole batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.targets import Assigned
from onestage.models.darknet.options import YoloOptions


class Counts(NamedTuple):
    """What means are taken over: `matches` (L,), `others` (L,), `images` (1,), whole numbers.

    "ratio": the pairs of a box and a truth it answers for, and the boxes that learn objectness; "per-scale": the boxes
    that answer for a truth, and those of background. Boxes near regions to ignore are in neither of the latter.
    """

    matches: Tensor
    others: Tensor
    images: Tensor

    @classmethod
    def of(cls, given: Assigned, at: Geometry, options: YoloOptions) -> Counts:
        """Those of a batch."""
        taken = given.owner >= 0
        if options.loss == "ratio":
            level = at.level[given.claims.prior]
            matches = level.new_zeros(len(at.levels)).index_add(0, level, torch.ones_like(level))
            others = _per_level(~given.aside, at)
        else:
            matches, others = _per_level(taken, at), _per_level(~taken & ~given.aside, at)
        return cls(matches, others, matches.new_tensor([given.truths.images]))

    @classmethod
    def read(cls, whole: Tensor) -> Counts:
        """Those that `together` put in one row."""
        levels = (len(whole) - 1) // 2
        return cls(whole[:levels], whole[levels : 2 * levels], whole[2 * levels :])

    def together(self) -> Tensor:
        """All of them in one row (2 L + 1,); rows of micro-batches and ranks add up."""
        return torch.cat(self)

    def share(self, among: Tensor, prior: Tensor | slice, at: Geometry, like: Tensor) -> Tensor:
        """What one of `among` (L,) adds to its mean at boxes `prior`, times the images: the loss is their mean again.

        In the precision of `like`; over nothing it is never asked for.
        """
        each = self.images.to(like.dtype) / among.to(like.dtype).clamp(min=1)
        return each[at.level[prior]]


def _per_level(boxes: Tensor, at: Geometry) -> Tensor:
    return torch.stack([boxes[:, level.first : level.last].sum() for level in at.levels])
