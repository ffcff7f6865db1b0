"""A real detector so small that runs of hundreds of steps take seconds: `ssd-small` among the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from onestage import models
from onestage.models.multibox import MultiboxOptions
from onestage.models.ssd import SSDLite

WORDS = "small_model:Small"
STRIDES = (8, 16, 32)


def register() -> None:
    """Have `ssd-small` and `ssd-plain` among the models of this process."""
    models.MODELS.update({"ssd-small": WORDS, "ssd-plain": "small_model:Plain"})


def step(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of stride 2 with norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Stem(nn.Module):
    """One map of 16 channels at stride 8."""

    strides, channels = (8,), (16,)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(step(3, 8), step(8, 16), step(16, 16))

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images)


class Neck(nn.Module):
    """Three maps at strides 8, 16, 32."""

    strides, channels = STRIDES, (16, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        self.coarser = nn.ModuleList([step(16, 24), step(24, 32)])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for module in self.coarser:
            maps.append(module(maps[-1]))
        return maps


class Small(SSDLite):
    """Three levels, 11 thousand parameters; options as those of the light SSDs."""

    name = "ssd-small"
    default_size = (64, 64)
    sizes: Sequence[Sequence[float]] = ((12.0, 18.0), (26.0,), (44.0,))

    def __init__(self, classes: int, size: tuple[int, int] | None = None, **loss: Any) -> None:
        options = {"class_loss": "focal", "box_loss": "giou"} | loss
        super().__init__(
            classes, size or self.default_size, Stem(), Neck(), sizes=self.sizes, ratios=((1.0,),) * len(STRIDES),
            mean=(127.5,) * 3, std=(64.0,) * 3, options=MultiboxOptions.of(options), separable=False,
        )  # fmt: skip


class Plain(Small):
    """The same without norms, and with the losses of SSD300: what is left out, its images do not share."""

    name = "ssd-plain"

    def __init__(self, classes: int, size: tuple[int, int] | None = None, **loss: Any) -> None:
        super().__init__(classes, size, **{"class_loss": "softmax-ohem", "box_loss": "smooth-l1"} | loss)
        for part in self.modules():
            for name, module in part.named_children():
                if isinstance(module, nn.BatchNorm2d):
                    setattr(part, name, nn.Identity())
