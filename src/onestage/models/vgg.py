"""VGG-16 as SSD uses it: dense layers made convolutions, extra levels, L2 normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.models.multibox import xavier

# Output channels of each 3x3 convolution; "M" halves the map, "C" halves it rounding up.
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512)
CONV4_3 = 23  # modules of `vgg` up to and with the ReLU after conv4_3
# (channels, kernel, stride, padding) of each extra convolution.
EXTRAS_300 = (
    (256, 1, 1, 0), (512, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1),
    (128, 1, 1, 0), (256, 3, 1, 0), (128, 1, 1, 0), (256, 3, 1, 0),
)  # fmt: skip
EXTRAS_512 = (
    (256, 1, 1, 0), (512, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1), (128, 1, 1, 0), (256, 3, 2, 1),
    (128, 1, 1, 0), (256, 3, 2, 1), (128, 1, 1, 0), (256, 4, 1, 1),
)  # fmt: skip


class L2Norm(nn.Module):
    """Each cell's channels scaled to unit length, times a learnt weight per channel that starts at `scale`.

    In float32 whatever the precision around it; a cell of zeros stays zero and has a zero gradient.

    Source: Liu et al. 2015 (ParseNet), as SSD uses it on conv4_3.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape and type."""
        unit = F.normalize(x.float(), dim=1, eps=1e-10)
        return (unit * self.weight.view(1, -1, 1, 1)).to(x.dtype)


class ReducedVGG(nn.Module):
    """Images (B, 3, H, W) less their mean → the maps of SSD: conv4_3 normalised, conv7, every second extra.

    Source: Liu et al. 2016 (conv6 dilated by 6, pool5 of stride 1); attribute names are lufficc/SSD's. Without
    weights from ImageNet the base starts He-normal, its first layer scaled down for inputs of deviation near 64.
    """

    def __init__(self, extras: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_vgg16())
        width = 1024
        self.extras = nn.ModuleList()
        for out, kernel, stride, padding in extras:
            self.extras.append(nn.Conv2d(width, out, kernel, stride, padding))
            width = out
        self.l2_norm = L2Norm(512)
        self.channels = [512, 1024] + [extra[0] for extra in extras[1::2]]
        _he_normal(self.vgg, input_deviation=64.0)
        xavier(self.extras)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, the largest first."""
        maps = []
        for index, layer in enumerate(self.vgg, 1):
            x = layer(x)
            if index == CONV4_3:
                maps.append(self.l2_norm(x))
        maps.append(x)
        for index, extra in enumerate(self.extras):
            x = F.relu(extra(x), inplace=True)
            if index % 2:
                maps.append(x)
        return maps


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    width = 3
    for out in VGG16:
        if isinstance(out, str):
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=out == "C"))
        else:
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(inplace=True)]
            width = out
    layers += [nn.MaxPool2d(3, 1, 1), nn.Conv2d(width, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    return [*layers, nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]


def _he_normal(layers: nn.ModuleList, input_deviation: float) -> None:
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        convolutions[0].weight /= input_deviation
