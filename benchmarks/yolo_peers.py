"""eriklindernoren/PyTorch-YOLOv3 from a checkout, or its like of plain modules, for benchmarks/yolo.py."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.boxes.geometry import nms_per_class
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.layers import Convolution, Head, Layer, MaxPool, Route, Shortcut, Upsample
from yolo_darknet import SCORE, darknet_cfg

OVERLAP, MOST = 0.45, 300
# Imported by the checkout, used by none of what runs here: augmentations, progress bars, tables.
UNUSED = ("imgaug", "imgaug.augmenters", "imgaug.augmentables", "imgaug.augmentables.bbs", "tqdm", "terminaltables",
          "torchvision", "torchvision.transforms", "torchsummary", "matplotlib", "matplotlib.pyplot")  # fmt: skip


class Plain(nn.Module):
    """The network as PyTorch-YOLOv3 builds it, from plain modules of torch, its pool of stride 1 padded with zeros."""

    def __init__(self, detector: Darknet) -> None:
        super().__init__()
        self.plan = detector.architecture
        self.module_list = nn.ModuleList(_module(layer) for layer in self.plan.layers)
        self.grids: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Any:
        """Boxes cx, cy, w, h, objectness and classes (B, P, 5 + C); in training the maps of the heads."""
        side, kept, said = x.shape[2], [], []
        for layer, module in zip(self.plan.layers, self.module_list, strict=True):
            if isinstance(layer, Route):
                x = torch.cat([kept[at] for at in layer.layers], 1)
            elif isinstance(layer, Shortcut):
                x = kept[-1] + kept[layer.source]
            elif isinstance(layer, Head):
                x = self._head(layer, x, side)
                said.append(x)
            else:
                x = module(x)
            kept.append(x)
        return said if self.training else torch.cat(said, 1)

    def _head(self, layer: Head, x: Tensor, side: int) -> Tensor:
        batch, _, rows, columns = x.shape
        x = x.view(batch, len(layer.mask), 5 + layer.classes, rows, columns).permute(0, 1, 3, 4, 2).contiguous()
        if self.training:
            return x
        if rows not in self.grids:
            y, z = torch.meshgrid([torch.arange(rows), torch.arange(columns)], indexing="ij")
            self.grids[rows] = torch.stack((z, y), 2).view(1, 1, rows, columns, 2).float().to(x.device)
        anchors = torch.tensor(layer.own, device=x.device).view(1, -1, 1, 1, 2)
        x[..., :2] = (x[..., :2].sigmoid() + self.grids[rows]) * (side // rows)
        x[..., 2:4] = torch.exp(x[..., 2:4]) * anchors
        x[..., 4:] = x[..., 4:].sigmoid()
        return x.view(batch, -1, 5 + layer.classes)


def _module(layer: Layer) -> nn.Module:
    made = nn.Sequential()
    if isinstance(layer, Convolution):
        conv = nn.Conv2d(
            layer.inputs, layer.shape.channels, layer.size, layer.stride, layer.pad, bias=not layer.normalised
        )
        made.add_module(f"conv_{layer.index}", conv)
        if layer.normalised:
            made.add_module(f"batch_norm_{layer.index}", nn.BatchNorm2d(layer.shape.channels))
        if layer.activation == "leaky":
            made.add_module("leaky", nn.LeakyReLU(0.1))
    elif isinstance(layer, MaxPool):
        if layer.stride == 1:
            made.add_module("pad", nn.ZeroPad2d((0, 1, 0, 1)))
        made.add_module("pool", nn.MaxPool2d(layer.size, layer.stride))
    elif isinstance(layer, Upsample):
        made.add_module("up", nn.Upsample(scale_factor=layer.factor, mode="nearest"))
    return made


class Peer:
    """PyTorch-YOLOv3 in eager float32: from a checkout, or without one `Plain`; with the weights of `detector`."""

    def __init__(self, detector: Darknet, checkout: Path | None) -> None:
        self.name = "PyTorch-YOLOv3" if checkout else "plain modules"
        self.loss: Callable[..., Any] | None = None
        if checkout is None:
            self.network: nn.Module = Plain(detector)
        else:
            modules = [_imported(checkout, name) for name in ("models", "utils.loss")]
            with tempfile.TemporaryDirectory() as folder:
                cfg = Path(folder) / "network.cfg"
                cfg.write_text(darknet_cfg(detector))
                self.network, self.loss = modules[0].Darknet(str(cfg)), modules[1].compute_loss
        self.network.load_state_dict(_theirs(detector), strict=False)
        self.network.eval()
        self.size, self.classes = detector.size, detector.classes

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """All boxes and scores of float images (B, 3, H, W) in 0 … 1."""
        found: Tensor = self.network(images)
        return found

    def path(self, jpeg: bytes) -> dict[str, float]:
        """From JPEG bytes to boxes as its detect_image goes, with the CPU seconds of the parts.

        OpenCV reads, the image is padded to a square, made a float tensor and resized with nearest neighbours. Its NMS
        is torchvision's; where that is not installed it is ours.
        """
        begin = time.process_time()
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        decoded = time.process_time()
        height, width = image.shape[:2]
        more = max(height, width)
        x, y = (more - width) // 2, (more - height) // 2
        square = cv2.copyMakeBorder(image, y, more - height - y, x, more - width - x, cv2.BORDER_CONSTANT)
        pixels = torch.from_numpy(square.transpose(2, 0, 1)).contiguous().float().div(255)
        said = self.forward(F.interpolate(pixels[None], size=self.size[0], mode="nearest"))
        answered = time.process_time()
        _kept(said[0])
        return {"jpeg": decoded - begin, "network": answered - decoded, "boxes": time.process_time() - answered}


def _kept(said: Tensor) -> Any:
    """Its non_max_suppression for one image."""
    said = said[said[:, 4] > SCORE]
    said[:, 5:] *= said[:, 4:5]
    half = said[:, 2:4] / 2
    boxes = torch.cat([said[:, :2] - half, said[:, :2] + half], 1)
    rows, labels = (said[:, 5:] > SCORE).nonzero().T
    boxes, scores = boxes[rows], said[rows, 5 + labels]
    try:
        import torchvision

        return torchvision.ops.nms(boxes + labels[:, None] * 4096, scores, OVERLAP)[:MOST]
    except (ImportError, AttributeError):
        return nms_per_class(boxes.double().numpy(), scores.double().numpy(), labels.numpy(), OVERLAP)[:MOST]


def _theirs(detector: Darknet) -> dict[str, Tensor]:
    """The weights under its names."""
    found = {}
    for name, tensor in detector.state_dict().items():
        _, index, part, last = name.split(".")
        found[f"module_list.{index}.{'conv' if part == 'conv' else 'batch_norm'}_{index}.{last}"] = tensor.clone()
    return found


def _imported(checkout: Path, name: str) -> ModuleType:
    """A module of the checkout; what it imports and does not use here is a stand-in where it is not installed."""
    for unused in UNUSED:
        if unused not in sys.modules:
            try:
                importlib.import_module(unused)
            except ImportError:
                sys.modules[unused] = MagicMock()
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module(f"pytorchyolo.{name}")
    finally:
        sys.path.remove(str(checkout))
