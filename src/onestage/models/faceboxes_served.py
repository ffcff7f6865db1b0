"""FaceBoxes as it is served: pools before the ReLU, one convolution per level for both heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.models.detector import Raw
from onestage.models.served import ServedMultibox

if TYPE_CHECKING:
    from onestage.models.faceboxes import CReLU, FaceBoxes


class ServedFaceBoxes(ServedMultibox):
    """`ServedMultibox` for FaceBoxes, with less to do than the network as trained; the answers are equal to rounding.

    The maximum of a window commutes with the ReLU, so pools come first and the ReLU sees a quarter of the pixels. Both
    heads of a level look at the same map and become one convolution. Of a softmax over two columns only their
    difference counts, so that one class needs one column and a sigmoid.
    """

    any_size = True

    def __init__(self, detector: FaceBoxes) -> None:
        super().__init__(detector)
        network = cast("FaceBoxes", self.network)
        columns = network.columns
        if not self.sigmoid and columns == 2:
            self.sigmoid, columns = True, 1
        self.columns = columns
        pairs = zip(network.loc, network.conf, strict=True)
        self.heads = nn.ModuleList(
            _joined(cast(nn.Conv2d, loc), cast(nn.Conv2d, conf), columns == 1 < network.columns) for loc, conf in pairs
        )
        network.loc, network.conf = nn.Sequential(), nn.Sequential()

    def raw(self, planes: Tensor) -> Raw:
        """What the heads say of normalised pixels; with one class, logits are the class's less the background's."""
        network = cast("FaceBoxes", self.network)
        x = _pooled(network.conv2, _pooled(network.conv1, planes))
        maps = [network.inception3(network.inception2(network.inception1(x)))]
        maps.append(network.conv3_2(network.conv3_1(maps[-1])))
        maps.append(network.conv4_2(network.conv4_1(maps[-1])))
        offsets, logits = [], []
        for head, level in zip(self.heads, maps, strict=True):
            said = head(level)
            priors = said.shape[1] // (4 + self.columns)
            offsets.append(_per_prior(said[:, : 4 * priors], 4))
            logits.append(_per_prior(said[:, 4 * priors :], self.columns))
        return Raw(torch.cat(offsets, 1), torch.cat(logits, 1))


def _pooled(layer: CReLU, x: Tensor) -> Tensor:
    """`max_pool2d(layer(x), 3, 2, 1)`."""
    x = layer.bn(layer.conv(x))
    return F.relu(torch.cat([F.max_pool2d(x, 3, 2, 1), F.max_pool2d(-x, 3, 2, 1)], 1))


def _joined(loc: nn.Conv2d, conf: nn.Conv2d, differences: bool) -> nn.Conv2d:
    """Both heads of a level as one; of `differences` the second column of each prior less its first."""
    weight, bias = conf.weight, cast(Tensor, conf.bias)
    if differences:
        weight, bias = weight[1::2] - weight[::2], bias[1::2] - bias[::2]
    joined = nn.Conv2d(loc.in_channels, len(loc.weight) + len(weight), 3, padding=1, device=weight.device)
    joined.weight = nn.Parameter(torch.cat([loc.weight, weight]), False)
    joined.bias = nn.Parameter(torch.cat([cast(Tensor, loc.bias), bias]), False)
    return joined


def _per_prior(x: Tensor, columns: int) -> Tensor:
    """(B, A * columns, H, W) as (B, H * W * A, columns)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, columns)
