"""Weights of PyTorch ports of darknet under our names: eriklindernoren's, 2damin's and their kin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onestage.errors import ModelError
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.network import INSIDE, TINY

_LEAVES = "(weight|bias|running_mean|running_var|num_batches_tracked)"
# Whose names they are: how a tensor is called, and what its norms add to the variance.
_PORTS = {
    "eriklindernoren/PyTorch-YOLOv3": (
        re.compile(rf"(?:.*\.)?module_list\.(\d+)\.(conv|batch_norm)_(\d+)\.{_LEAVES}"), 1e-5,
    ),
    "2damin/yolov3-pytorch": (
        re.compile(rf"(?:.*\.)?module_list\.(\d+)\.layer_(\d+)_(conv|bn)\.{_LEAVES}"), 1e-4,
    ),
}  # fmt: skip
# Buffers of their [yolo] layers: what they say is in the cfg.
_BUFFERS = re.compile(r"(?:.*\.)?module_list\.\d+\.\w*yolo\w*\.(anchors|anchor_grid|grid|stride)")


def port_of(state: Mapping[str, Tensor]) -> str | None:
    """Whose port of darknet the names of a state are from; None for names that are ours or unknown."""
    return next(
        (port for port, (names, _) in _PORTS.items() if any(names.fullmatch(name) for name in state)), None
    )  # fmt: skip


def ours(state: Mapping[str, Tensor], network: Architecture) -> dict[str, Tensor]:
    """A port's tensors under our names; a state that is no port's as it is.

    Both ports count layers as darknet does. Their norms add 1e-5 and 1e-4 to the variance, darknet's add less: the
    variances are moved by the difference, so that the network answers as it did there. Raises ModelError for a layer
    that is no convolution here.
    """
    port = port_of(state)
    if port is None:
        return dict(state)
    names, eps = _PORTS[port]
    known = {layer.index for layer in network.convolutions}
    result: dict[str, Tensor] = {}
    strange = []
    for name, tensor in state.items():
        if _BUFFERS.fullmatch(name):
            continue
        found = names.fullmatch(name)
        if found is None or int(found[1]) not in known:
            strange.append(name)
            continue
        kind, leaf = "conv" if "conv" in found.groups() else "bn", found[found.lastindex or 0]
        moved = _moved(tensor, eps, network.cfg.is_alexeys) if leaf == "running_var" else tensor
        result[f"layers.{found[1]}.{kind}.{leaf}"] = moved
    if strange:
        raise ModelError(
            f"weights of {port} that are of another network: {len(strange)} tensors belong to no convolution of it",
            problems=strange[:12], hint="the cfg they were trained with: model=my.cfg",
        )  # fmt: skip
    return result


def options_in(state: Mapping[str, Tensor], network: Architecture) -> dict[str, Any]:
    """The options `anchors` and `masks` that a port's state was made with, where it tells and they are not these."""
    told = []
    for head in network.heads:
        name = re.compile(rf"(?:.*\.)?module_list\.{head.index}\.\w*yolo\w*\.anchors")
        buffer = next((tensor for key, tensor in state.items() if name.fullmatch(key)), None)
        if buffer is None:
            return {}
        told.append([tuple(pair) for pair in buffer.reshape(-1, 2).tolist()])
    if told == [list(head.own) for head in network.heads]:
        return {}
    anchors = sorted({pair for own in told for pair in own}, key=lambda pair: pair[0] * pair[1])
    return {
        "anchors": [list(pair) for pair in anchors], "masks": [[anchors.index(pair) for pair in own] for own in told],
    }  # fmt: skip


def _moved(variance: Tensor, eps: float, alexeys: bool) -> Tensor:
    """The variance with which our norm divides by sqrt(variance + eps)."""
    exact = variance.double() + eps
    return ((exact - INSIDE) if alexeys else (exact.sqrt() - TINY) ** 2).to(torch.float32)
