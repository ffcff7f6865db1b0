"""Light backbones of inverted residuals, with ImageNet weights: EfficientNet-Lite0 and MobileNetV2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from onestage.models.depthwise import DepthwiseConv2d


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table: `repeats` blocks of `kernel`, the first with `stride`, widened `expand` times."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


# Tan & Le, EfficientNet (2019), table 1; the Lite form keeps the stem, drops squeeze-excitation and uses ReLU6.
LITE0 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
# Sandler et al., MobileNetV2 (2018), table 2.
MOBILENET_V2 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(3, 3, 2, 6, 32), Stage(4, 3, 2, 6, 64),
    Stage(3, 3, 1, 6, 96), Stage(3, 3, 2, 6, 160), Stage(1, 3, 1, 6, 320),
)  # fmt: skip


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, unless linear, ReLU6.

    `same` pads as TensorFlow does: on stride 2 one pixel more at the right and bottom than at the left and top.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False, linear: bool = False,
        same: bool = False, eps: float = 1e-5, momentum: float = 0.1,
    ) -> None:  # fmt: skip
        self.same = same and stride > 1
        padding = 0 if self.same else kernel // 2
        layers: list[nn.Module] = [
            DepthwiseConv2d(inputs, kernel, stride, padding)
            if depthwise
            else nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(outputs, eps=eps, momentum=momentum),
        ]
        super().__init__(*layers, *([] if linear else [nn.ReLU6(inplace=True)]))
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) → (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.same:
            x = F.pad(x, (*self._pads(x.shape[-1]), *self._pads(x.shape[-2])))
        result: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return result

    def _pads(self, side: int) -> tuple[int, int]:
        total = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1 without activation; add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stage: Stage, stride: int, **norm: float | bool) -> None:
        super().__init__()
        wide = inputs * stage.expand
        self.expand = ConvNorm(inputs, wide, 1, **norm) if stage.expand > 1 else None  # type: ignore[arg-type]
        self.depthwise = ConvNorm(wide, wide, stage.kernel, stride, depthwise=True, **norm)  # type: ignore[arg-type]
        self.project = ConvNorm(wide, outputs, 1, linear=True, **norm)  # type: ignore[arg-type]
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) → (B, outputs, H / stride, W / stride)."""
        wide = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(wide))
        return x + out if self.shortcut else out


class MobileBackbone(nn.Module):
    """Stem and stages of a light classifier; gives the last features at strides 8, 16 and 32.

    `channels` and `strides` describe what `forward` returns. `mean` and `std` are what the ImageNet weights expect.
    """

    strides = (8, 16, 32)

    def __init__(
        self, stages: tuple[Stage, ...], mean: tuple[float, ...], std: tuple[float, ...], **norm: float | bool
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.stem = ConvNorm(3, 32, 3, 2, **norm)  # type: ignore[arg-type]
        self.blocks = nn.ModuleList()
        self.taps: list[int] = []
        width, stride = 32, 2
        for stage in stages:
            for i in range(stage.repeats):
                step = stage.stride if i == 0 else 1
                if step > 1 and stride >= self.strides[0]:
                    self.taps.append(len(self.blocks) - 1)
                self.blocks.append(InvertedResidual(width, stage.channels, stage, step, **norm))
                width, stride = stage.channels, stride * step
        self.taps.append(len(self.blocks) - 1)
        self.channels = tuple(self._width(i) for i in self.taps)

    def _width(self, index: int) -> int:
        block = self.blocks[index]
        assert isinstance(block, InvertedResidual)  # noqa: S101  # the list holds nothing else
        conv = block.project[0]
        assert isinstance(conv, nn.Conv2d)  # noqa: S101
        return conv.out_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) → features at strides 8, 16, 32."""
        features = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        return features


class Classifier(nn.Module):
    """The ImageNet classifier a backbone was trained in: to check that weights and normalisation are right."""

    def __init__(self, backbone: MobileBackbone, classes: int = 1000, width: int = 1280) -> None:
        super().__init__()
        norm = backbone.stem[1]
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
        self.backbone = backbone
        self.head = ConvNorm(backbone.channels[-1], width, 1, eps=norm.eps)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) in 0 … 255 → logits (B, classes)."""
        x = images.float()
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.backbone.mean, self.backbone.std))
        logits: Tensor = self.fc(self.head(self.backbone((x - mean) / std)[-1]).mean((2, 3)))
        return logits


def efficientnet_lite0() -> MobileBackbone:
    """EfficientNet-Lite0 as released for TensorFlow: ReLU6, no squeeze-excitation, padding at the right and bottom."""
    return MobileBackbone(LITE0, (127.0,) * 3, (128.0,) * 3, same=True, eps=1e-3, momentum=0.01)


def mobilenet_v2() -> MobileBackbone:
    """MobileNetV2 of width 1.0 as torchvision released it."""
    return MobileBackbone(MOBILENET_V2, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


_LITE_NAMES = (
    (r"^_conv_stem\.", "backbone.stem.0."),
    (r"^_bn0\.", "backbone.stem.1."),
    (r"^_conv_head\.", "head.0."),
    (r"^_bn1\.", "head.1."),
    (r"^_fc\.", "fc."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"backbone.blocks.\1.expand.0."),
    (r"^_blocks\.(\d+)\._bn0\.", r"backbone.blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"backbone.blocks.\1.depthwise.0."),
    (r"^_blocks\.(\d+)\._bn1\.", r"backbone.blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"backbone.blocks.\1.project.0."),
    (r"^_blocks\.(\d+)\._bn2\.", r"backbone.blocks.\1.project.1."),
)


def lite0_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the released EfficientNet-Lite0 under the names of `Classifier`; unknown names are kept."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, ours in _LITE_NAMES:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    return renamed


def mobilenet_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of torchvision's MobileNetV2 under the names of `Classifier`; unknown names are kept."""
    renamed = {}
    for name, tensor in state.items():
        match = re.match(r"features\.(\d+)\.(?:conv\.)?(.+)", name)
        if match:
            renamed[_mobilenet_name(int(match[1]), match[2])] = tensor
        else:
            renamed[re.sub(r"^classifier\.1\.", "fc.", name)] = tensor
    return renamed


def _mobilenet_name(index: int, rest: str) -> str:
    if index in (0, 18):
        return f"{'backbone.stem' if index == 0 else 'head'}.{rest}"
    block = index - 1
    widened = block > 0
    roles = ["expand", "depthwise"] if widened else ["depthwise"]
    layer, _, tail = rest.partition(".")
    if int(layer) < len(roles):
        return f"backbone.blocks.{block}.{roles[int(layer)]}.{tail}"
    return f"backbone.blocks.{block}.project.{int(layer) - len(roles)}.{tail}"
