"""Small YOLO heads on a small input, and what they might say: the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.geometry import Geometry, geometry
from onestage.models.darknet.layers import Architecture
from onestage.models.detector import Raw, Truth

ANCHORS = "8,10, 12,20, 20,14, 30,40, 60,30, 70,60"
CLASSES = 5


def _convolution(filters: int, stride: int = 1, activation: str = "linear") -> str:
    return f"[convolutional]\nfilters={filters}\nsize=1\nstride={stride}\nactivation={activation}\n"


def yolo_cfg(
    masks: Sequence[Sequence[int]] = ((3, 4, 5), (0, 1, 2)), size: tuple[int, int] = (96, 64), more: str = "",
    classes: int = CLASSES, anchors: str = ANCHORS,
) -> str:  # fmt: skip
    """Two heads at strides 32 and 16."""
    text = f"[net]\nwidth={size[0]}\nheight={size[1]}\nchannels=3\n"
    text += _convolution(4, 16, "leaky") + _convolution(4, 2, "leaky")
    for source, mask in zip((1, 0), masks, strict=True):
        text += f"[route]\nlayers={source}\n" + _convolution(len(mask) * (5 + classes))
        text += f"[yolo]\nmask={','.join(map(str, mask))}\nanchors={anchors}\nclasses={classes}\n"
        text += f"num={len(anchors.split(',')) // 2}\n{more}"
    return text


def region_cfg(softmax: int, rescore: int) -> str:
    """One head at stride 32 as YOLOv2's."""
    text = "[net]\nwidth=96\nheight=64\nchannels=3\n" + _convolution(4, 32, "leaky") + _convolution(3 * (5 + CLASSES))
    text += f"[region]\nanchors=0.4,0.5, 1,1.2, 2.2,1.4\nclasses={CLASSES}\nnum=3\nsoftmax={softmax}\nthresh=.3\n"
    return text + f"rescore={rescore}\nobject_scale=5\nnoobject_scale=1\nclass_scale=1.5\ncoord_scale=2\n"


def built(text: str) -> tuple[Architecture, Geometry]:
    """The network of a cfg, and its boxes."""
    network = architecture(parse(text))
    strides = [int(head.shape.stride) for head in network.heads]
    grids = [(network.size[0] // stride, network.size[1] // stride) for stride in strides]
    return network, geometry(network.heads, network.size, grids)


def said(at: Geometry, counts: Sequence[int], seed: int, classes: int = CLASSES) -> tuple[Raw, list[Truth]]:
    """What heads say of as many images as `counts`, and so many truths of each."""
    random = np.random.RandomState(seed)  # numpy keeps its numbers for good, unlike torch
    offsets = random.normal(0, 0.5, (len(counts), at.count, 4))
    logits = random.normal(0, 1, (len(counts), at.count, 1 + classes))
    truths = []
    for count in counts:
        centre = random.uniform(0, 1, (count, 2)) * at.size
        side = np.exp(random.uniform(1.5, 4, (count, 2)))
        boxes = np.concatenate([centre - side / 2, centre + side / 2], 1).reshape(-1, 4)
        labels = random.randint(0, classes, count)
        truths.append(Truth(float32(boxes), torch.tensor(labels), torch.zeros(count, dtype=torch.bool)))
    return Raw(float32(offsets), float32(logits)), truths


def float32(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def checksums(values: Tensor) -> list[float]:
    """One number for each column of (B, P, K): every box weighs differently, so that none can be taken for another."""
    weight = np.random.RandomState(99).uniform(-1, 1, values.shape[:2])
    return [float(v) for v in (values.double() * torch.tensor(weight)[..., None]).sum((0, 1))]
