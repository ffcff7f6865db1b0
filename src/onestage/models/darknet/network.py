"""The torch network of a darknet cfg: layer by layer what darknet computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.models.darknet.layers import (
    Architecture,
    Convolution,
    Head,
    Layer,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
)  # fmt: skip

# What pjreddie's darknet adds to the square root of a norm's variance, and AlexeyAB's to the variance itself.
TINY, INSIDE = 1e-6, 1e-5
LEAK = 0.1

ACTIVATE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "leaky": lambda x: F.leaky_relu(x, LEAK, inplace=True),
    "linear": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "mish": F.mish,
    "swish": F.silu,
    "logistic": torch.sigmoid,
}
RISING = ("leaky", "linear", "relu", "logistic")


class DarknetNorm(nn.BatchNorm2d):
    """A batch norm that divides by sqrt(variance) + 1e-6, as darknet does, with its rolling averages of 0.99 and 0.01.

    In training it divides by sqrt(variance + 1e-12), which is the same where the variance is 0 and where it is not
    tiny. With `inside` it divides by sqrt(variance + inside), in training too, as AlexeyAB's darknet does with 1e-5.

    Source: normalize_cpu and forward_batchnorm_layer of pjreddie/darknet and of AlexeyAB/darknet.
    """

    def __init__(self, channels: int, inside: float = 0.0) -> None:
        super().__init__(channels, eps=inside or TINY**2, momentum=0.01)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.BatchNorm2d`."""
        if self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self._divisor(), self.weight, self.bias, False, 0.0, 0.0)

    def settled(self) -> nn.BatchNorm2d:
        """An ordinary norm that does the same in evaluation, for what folds norms into convolutions."""
        plain = nn.BatchNorm2d(self.num_features, eps=0.0)
        plain.load_state_dict({**self.state_dict(), "running_var": self._divisor()})
        return plain.to(self.weight.device).eval()

    def _divisor(self) -> Tensor:
        """The variance whose square root is what darknet divides by."""
        assert self.running_var is not None  # noqa: S101  # it is made with statistics
        if self.inside:
            return self.running_var + self.inside
        return (self.running_var.sqrt() + TINY) ** 2


class Unit(nn.Module):
    """A [convolutional] layer: convolution, norm or bias, activation."""

    def __init__(self, layer: Convolution, inside: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            layer.inputs, layer.shape.channels, layer.size, layer.stride, layer.pad, groups=layer.groups,
            bias=not layer.normalised,
        )  # fmt: skip
        if layer.normalised:
            self.bn = DarknetNorm(layer.shape.channels, inside)
        self.normalised, self.activation = layer.normalised, layer.activation
        self.initialise()

    def initialise(self) -> None:
        """First weights as darknet's: normal, of deviation sqrt(2 / inputs of a filter), bias 0, scale 1."""
        nn.init.normal_(self.conv.weight, 0.0, math.sqrt(2 / self.conv.weight[0].numel()))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, pool: MaxPool | None = None) -> Tensor:
        """(B, inputs, H, W) → (B, filters, …), pooled where the next layer does nothing else.

        Where the activation only rises, pooling first gives the same numbers and leaves it a quarter of them.
        """
        x = self.conv(x)
        if self.normalised:
            x = self.bn(x)
        if pool is None:
            return ACTIVATE[self.activation](x)
        if self.activation in RISING:
            return ACTIVATE[self.activation](pooled(x, pool.size, pool.stride, pool.padding))
        return pooled(ACTIVATE[self.activation](x), pool.size, pool.stride, pool.padding)


def units(architecture: Architecture) -> nn.ModuleDict:
    """The convolutions of a network by their index as darknet counts; nothing else has tensors."""
    inside = INSIDE if architecture.cfg.is_alexeys else 0.0
    return nn.ModuleDict({str(one.index): Unit(one, inside) for one in architecture.convolutions})


def answers(architecture: Architecture, layers: nn.ModuleDict, x: Tensor) -> list[Tensor]:
    """The input of each head (B, A (5 + C), rows, columns) for normalised images (B, 3, H, W), through `units`."""
    kept: dict[int, Tensor] = {}
    said = []
    pooled_before = _pools(architecture)
    for layer in architecture.layers:
        if isinstance(layer, Convolution):
            x = layers[str(layer.index)](x, pooled_before.get(layer.index + 1))
        elif layer.index in pooled_before:
            pass
        elif isinstance(layer, Head):
            said.append(x)
        else:
            x = _through(layer, x, kept)
        if layer.index in architecture.saved:
            kept[layer.index] = x
    return said


def _pools(architecture: Architecture) -> dict[int, MaxPool]:
    """The pools, by index, of convolutions that nothing else asks for: these do them themselves."""
    pairs = pairwise(architecture.layers)
    return {
        after.index: after
        for before, after in pairs
        if isinstance(before, Convolution) and isinstance(after, MaxPool) and before.index not in architecture.saved
    }


def _through(layer: Layer, x: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    """A layer without weights."""
    if isinstance(layer, MaxPool):
        return pooled(x, layer.size, layer.stride, layer.padding)
    if isinstance(layer, Upsample):
        return F.interpolate(x, scale_factor=float(layer.factor), mode="nearest")
    if isinstance(layer, Route):
        parts = [_group(kept[at], layer.groups, layer.group) for at in layer.layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    assert isinstance(layer, Shortcut)  # noqa: S101  # there are no others
    return ACTIVATE[layer.activation](_added(x, kept[layer.source]))


def _added(x: Tensor, other: Tensor) -> Tensor:
    """x plus the other's channels; those that only one has stay, or are left out."""
    wide, width = other.shape[1], x.shape[1]
    if wide == width:
        return x + other
    return x + other[:, :width] if wide > width else torch.cat([x[:, :wide] + other, x[:, wide:]], 1)


def _group(x: Tensor, groups: int, group: int) -> Tensor:
    width = x.shape[1] // groups
    return x if groups == 1 else x[:, group * width : (group + 1) * width]


def pooled(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Darknet's maximum: what lies outside is minus infinity, `padding` of it in all, half (rounded down) before.

    Source: forward_maxpool_layer of pjreddie/darknet. PyTorch-YOLOv3 and others pad the pool of stride 1 of the tiny
    networks with zeros, which is another network wherever an activation is below 0.
    """
    before, after = padding // 2, padding - padding // 2
    if before == after and before <= size // 2:
        return F.max_pool2d(x, size, stride, before)
    if padding == stride - 1 == size - 1:  # a border that only a last, incomplete window reaches
        return F.max_pool2d(x, size, stride, ceil_mode=True)
    return F.max_pool2d(F.pad(x, (before, after, before, after), value=-math.inf), size, stride)
