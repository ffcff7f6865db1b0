"""SSD on light backbones for small machines: a pyramid from stride 8, separable heads, any input size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onestage.models.mobile import ConvNorm, MobileBackbone, efficientnet_lite0, mobilenet_v2
from onestage.models.multibox import MultiboxOptions
from onestage.models.ssd import SSDLite

# Square roots of prior areas in pixels, per level at strides 8, 16, 32, 64, 128: about three a doubling where small
# objects live, two above. Every size from 12 to 380 px is within a factor 1.25 of a prior's.
PRIOR_SIZES = ((12.0, 18.0, 26.0), (36.0, 52.0), (74.0, 104.0), (148.0, 208.0), (280.0, 360.0))
PRIOR_RATIOS = ((1.0, 0.5, 2.0),) * 5
STRIDES = (8, 16, 32, 64, 128)


class Separable(nn.Sequential):
    """3x3 per channel, then 1x1, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(ConvNorm(inputs, inputs, 3, stride, depthwise=True), ConvNorm(inputs, outputs, 1))


class PyramidNeck(nn.Module):
    """Brings what deep maps know to the fine ones, and adds two coarser levels: five maps of `width` channels.

    Source: Lin et al. 2017 (feature pyramids), with separable convolutions for the merged maps.
    """

    strides = STRIDES

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.channels = (width,) * len(self.strides)
        self.lateral = nn.ModuleList([ConvNorm(inputs, width, 1, linear=True) for inputs in channels])
        self.merged = nn.ModuleList([Separable(width, width) for _ in channels])
        self.coarser = nn.ModuleList([Separable(width, width, 2) for _ in range(len(self.strides) - len(channels))])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 8, 16, 32 → maps at strides 8 to 128."""
        x = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        for i in range(len(x) - 1, 0, -1):
            x[i - 1] = x[i - 1] + F.interpolate(x[i], size=x[i - 1].shape[-2:], mode="nearest")
        out = [merge(m) for merge, m in zip(self.merged, x, strict=True)]
        for step in self.coarser:
            out.append(step(out[-1]))
        return out


class LightSSD(SSDLite):
    """SSD heads and a feature pyramid on a light backbone.

    `size` is any (width, height), 320x320 by default. Loss options as `MultiboxOptions`. `stem` names the part
    up to stride 4, which recipes freeze: its edges and colours transfer as they are, and it is the slow part.
    """

    default_size = (320, 320)
    width = 128
    make_backbone: Callable[[], MobileBackbone]

    def __init__(self, classes: int, size: tuple[int, int] | None = None, **loss: Any) -> None:
        backbone = type(self).make_backbone()
        options = {"class_loss": "focal", "box_loss": "giou"} | loss
        super().__init__(
            classes, size or self.default_size, backbone, PyramidNeck(backbone.channels, self.width),
            sizes=PRIOR_SIZES, ratios=PRIOR_RATIOS, mean=backbone.mean, std=backbone.std,
            options=MultiboxOptions.of(options), plain_last=False,
        )  # fmt: skip

    def parts(self) -> dict[str, nn.Module]:
        """`stem` (up to stride 4), `backbone` (the whole of it), `neck`, `heads`."""
        return {**super().parts(), "stem": nn.ModuleList([self.backbone.stem, *self.backbone.blocks[:3]])}  # type: ignore[index, list-item]


class SSDLite0(LightSSD):
    """`ssd-lite0`, the default model: EfficientNet-Lite0 with SSD heads from stride 8 up."""

    name = "ssd-lite0"
    make_backbone = staticmethod(efficientnet_lite0)


class SSDMobileNetV2(LightSSD):
    """`ssd-mobilenetv2`: MobileNetV2 with the same neck and heads."""

    name = "ssd-mobilenetv2"
    make_backbone = staticmethod(mobilenet_v2)
