"""Networks as they are served: bytes in, offsets and scores out, norms folded into the convolutions."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from onestage.models.detector import Raw

if TYPE_CHECKING:
    from onestage.models.detector import Detector
    from onestage.models.ssd import Multibox


class Served(nn.Module, ABC):
    """A copy of a detector that takes RGB uint8 (B, H, W, 3) and gives offsets (B, P, 4) and scores (B, P, C).

    Made for inference alone: batch norms are part of the convolutions before them, and pixels are normalised row by
    row, which every engine does quickly. Decoding is left to `Detector.coding`: few boxes need it. Answers are the
    detector's to rounding. Where the network is in bfloat16, `kind` is that type; scores come in float32 always.
    `any_size` says that nothing in it computes with H and W, so that one graph serves all sizes, multiples of `step`.
    `exact` names the weights of convolutions that stay in float32 where all others are in integers.
    """

    any_size = False
    step = 1
    exact: tuple[str, ...] = ()

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = cast("Detector", folded(detector))
        self.register_buffer("mean", cast(Tensor, detector.mean).flatten().clone())
        self.register_buffer("std", cast(Tensor, detector.std).flatten().clone())
        self.divides = bool((cast(Tensor, self.std) != 1).any())
        self.kind = torch.float32
        self.network.normalise = _as_it_is  # type: ignore[method-assign]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and scores, float32, of RGB uint8 images (B, H, W, 3)."""
        raw = self.raw(self.planes(images))
        return raw.offsets.float(), self.scores(raw.logits.float())

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Scores (B, P, C) of what the heads say of classes, as `Detector.decode` makes them."""

    def quickened(self, size: tuple[int, int]) -> None:
        """Make of it what torch on a CPU runs faster, images being mostly of `size`; cannot be exported afterwards.

        Nothing by default. Answers stay equal to rounding.
        """

    def planes(self, images: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W), channels last in memory."""
        batch, height, width, _ = images.shape
        rows = images.reshape(batch, height, width * 3).float() - cast(Tensor, self.mean).repeat(width)
        if self.divides:
            rows = rows / cast(Tensor, self.std).repeat(width)
        return rows.to(self.kind).reshape(batch, height, width, 3).permute(0, 3, 1, 2)

    def raw(self, planes: Tensor) -> Raw:
        """What the heads say of normalised pixels."""
        return Raw(*self.network(planes))


class ServedMultibox(Served):
    """`Served` for detectors with priors: sigmoids, or a softmax whose first column is the background."""

    def __init__(self, detector: Multibox) -> None:
        super().__init__(detector)
        self.sigmoid = detector.options.class_loss != "softmax-ohem"

    def scores(self, logits: Tensor) -> Tensor:
        """See `Served`."""
        return torch.sigmoid(logits) if self.sigmoid else F.softmax(logits, -1)[..., 1:]


def folded(network: nn.Module) -> nn.Module:
    """A copy, in evaluation mode and without gradients, whose batch norms are folded into the convolutions before them.

    Pairs are those of `nn.Sequential` and of modules that call them `conv` and `bn`; other norms stay.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(copied.modules()):
        for (name, conv), (after, norm) in pairwise(list(module.named_children())):
            beside = isinstance(module, nn.Sequential) or (name, after) == ("conv", "bn")
            if beside and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                settled = getattr(norm, "settled", None)  # of norms that divide otherwise
                setattr(module, name, _fused(conv, norm if settled is None else settled()))
                setattr(module, after, nn.Identity())
    return copied


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    fused = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,  # type: ignore[arg-type]
        device=conv.weight.device,
    )  # fmt: skip
    kernel = conv.weight.flip(1) if getattr(conv, "turns", False) else conv.weight
    weight, bias = fuse_conv_bn_weights(
        kernel, conv.bias, cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var), norm.eps, norm.weight,
        norm.bias,
    )  # fmt: skip
    fused.weight, fused.bias = nn.Parameter(weight.detach(), False), nn.Parameter(bias.detach(), False)
    return fused


def _as_it_is(images: Tensor) -> Tensor:
    return images
