"""Convolutions and the activations after them as one, for inference by torch on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from onestage.models.darknet.network import LEAK

# Our names of activations → what oneDNN calls them, and their numbers.
KNOWN: Mapping[str, tuple[str, list[float]]] = {
    "linear": ("none", []), "relu": ("relu", []), "leaky": ("leaky_relu", [LEAK]), "logistic": ("sigmoid", []),
    "swish": ("swish", []),
}  # fmt: skip


class FusedConv2d(nn.Module):
    """A convolution of oneDNN's with its activation, weights in its own order; float32 or bfloat16, on a CPU.

    One pass over the map in place of two, and no reordering of the weights for each image, as `nn.Conv2d` does.
    `height`, `width` are those of a map it will see; others are right too.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, activation: str, height: int, width: int) -> None:
        super().__init__()
        self.settings = (conv.padding, conv.stride, conv.dilation, conv.groups)
        shape = (1, conv.in_channels, height, width)
        packed = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self.settings, shape)
        self.weight, self.bias = packed, None if conv.bias is None else conv.bias.detach()
        self.activation = KNOWN[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, …), channels last in memory."""
        name, numbers = self.activation
        fused = torch.ops.mkldnn._convolution_pointwise
        return cast(Tensor, fused(x, self.weight, self.bias, *self.settings, name, numbers, ""))


def can_fuse() -> bool:
    """Whether this torch has the operation: it is torch.compile's own, and may change from version to version."""
    try:
        with torch.inference_mode():
            conv = nn.Conv2d(3, 2, 3, padding=1)
            x = torch.ones(1, 3, 4, 4)
            fused = FusedConv2d(conv, "leaky", 4, 4)(x)
            return bool(torch.allclose(fused, nn.functional.leaky_relu(conv(x), LEAK), atol=1e-5))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


def fuse(units: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Replace in each unit its `conv` and `activation`, where oneDNN knows that, by one of both.

    `shapes` are (height, width) of the map that comes into each. Units whose norm is not folded stay.
    """
    for name, unit in units.items():
        plain = isinstance(unit.conv, nn.Conv2d) and isinstance(unit.conv.padding, tuple)
        folded = not unit.normalised or isinstance(unit.bn, nn.Identity)
        if plain and folded and unit.activation in KNOWN and name in shapes:
            unit.conv = FusedConv2d(unit.conv, unit.activation, *shapes[name])
            unit.activation = "linear"
