"""Darknet's networks as they are served: bytes in, offsets and objectness times class out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.network import answers
from onestage.models.detector import Raw
from onestage.models.fused import can_fuse, fuse
from onestage.models.served import Served

if TYPE_CHECKING:
    from onestage.models.darknet.detector import Darknet


class ServedDarknet(Served):
    """`Served` for a darknet network.

    Pixels are divided in the graph: with the division in the first convolution's weights, OpenVINO ran that one in
    float32 where all others were in integers. The heads' own convolutions stay exact in int8: they cost little and
    lose most.
    """

    any_size = True

    def __init__(self, detector: Darknet) -> None:
        super().__init__(detector)
        self.step = int(max(layer.shape.stride for layer in detector.architecture.layers))
        self.exact = tuple(f"network.layers.{head.index - 1}.conv.weight" for head in detector.architecture.heads)
        self.softmax = detector.architecture.heads[0].softmax

    def planes(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) as shares of 255, channels last in memory."""
        return images.permute(0, 3, 1, 2).to(self.kind) / 255

    def quickened(self, size: tuple[int, int]) -> None:
        """Activations become part of the convolutions, see `fused`."""
        if not can_fuse():
            return
        units = dict(cast("Darknet", self.network).layers.items())
        shapes: dict[str, tuple[int, int]] = {}
        hooks = [
            unit.conv.register_forward_pre_hook(partial(_noted, shapes, name))  # type: ignore[union-attr]
            for name, unit in units.items()
        ]
        with torch.inference_mode():
            self(torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8))
        for hook in hooks:
            hook.remove()
        fuse(units, shapes)

    def raw(self, planes: Tensor) -> Raw:
        """What the heads say."""
        network = cast("Darknet", self.network)
        columns = 5 + network.classes
        said = [
            answer.permute(0, 2, 3, 1).reshape(answer.shape[0], -1, columns)
            for answer in answers(network.architecture, network.layers, planes)
        ]
        whole = (said[0] if len(said) == 1 else torch.cat(said, 1)).float()
        return Raw(whole[..., :4], whole[..., 4:])

    def scores(self, logits: Tensor) -> Tensor:
        """Objectness times class."""
        if self.softmax:
            return torch.sigmoid(logits[..., :1]) * torch.softmax(logits[..., 1:], -1)
        sure = torch.sigmoid(logits)
        return sure[..., :1] * sure[..., 1:]


def _noted(shapes: dict[str, tuple[int, int]], name: str, _: nn.Module, given: tuple[Tensor]) -> None:
    shapes[name] = given[0].shape[2], given[0].shape[3]


def cells_of(at: Geometry) -> NDArray[np.float32]:
    """The boxes' places as rows of `boxes.cells.boxes_of_cells`, (P, 6)."""
    rows = torch.cat([at.cells, at.stride[:, None], at.sides, at.scale_xy[:, None]], 1)
    found: NDArray[np.float32] = rows.float().cpu().numpy()
    return found
