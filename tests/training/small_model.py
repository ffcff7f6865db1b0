"""A real detector so small that runs of hundreds of steps take seconds: `ssd-small` among the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onestage import models
from onestage.models.detector import Loss, Raw, Truth
from onestage.models.multibox import MultiboxOptions
from onestage.models.ssd import SSDLite

WORDS = "small_model:Small"
STRIDES = (8, 16, 32)


def register() -> None:
    """Have `ssd-small`, `ssd-plain` and `ssd-told` among the models of this process."""
    models.MODELS.update({"ssd-small": WORDS, "ssd-plain": "small_model:Plain", "ssd-told": "small_model:Told"})


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


class Told(Small):
    """The same, and its loss tells what each level did, as darknet's do; each level is a layer of a cfg."""

    name = "ssd-told"
    level_layers = (16, 23, 30)

    def loss(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> Loss:
        loss = super().loss(raw, truths)
        assigned = self.assign(truths)
        here = torch.nn.functional.one_hot(assigned.level, 3).bool().to(raw.logits.device)  # (P, L)
        matched = (assigned.match >= 0).to(raw.logits.device)
        score = raw.logits.detach().float().sigmoid().amax(-1)
        positive, every = matched[..., None] & here, here.expand(len(truths), -1, -1)
        sums = [positive, positive * score[..., None] / 2, positive * score[..., None], positive * score[..., None] / 4,
                positive & (score > 0.4)[..., None], positive & (score > 0.6)[..., None], every,
                every * score[..., None]]  # fmt: skip
        loss.scales = torch.stack([part.double().sum(1) for part in sums], -1)
        answered = [len(set(row[row >= 0].tolist())) for row in assigned.match]
        lost = [len(truth.boxes) - n for truth, n in zip(truths, answered, strict=True)]
        cost = sum(part.detach().double() for part in loss.parts.values())
        nothing = torch.zeros(len(truths), dtype=torch.float64)
        loss.sums = {"unanswered": torch.tensor(lost, dtype=torch.float64), "rewritten": nothing, "capped": nothing,
                     "cost": cost}  # fmt: skip
        return loss
