"""Files of darknet and of its PyTorch ports as a detector takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from onestage.errors import ModelError
from onestage.models.darknet.binary import look, read_weights, weights_bytes
from onestage.models.darknet.building import architecture
from onestage.models.darknet.header import Header, refuse_others
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.names import ours
from onestage.models.darknet.plans import PLANS, plan
from onestage.models.detector import Held


def held_in(path: Path, network: Architecture) -> Held:
    """What a .weights file holds for a network; ModelError for one that does not fit."""
    file = read_weights(path, network)
    tensors = {name: torch.from_numpy(values) for name, values in file.tensors.items()}
    cut = file.layout.layers
    told = f"the file holds the first {cut} layers"
    missing = {slot.name: told for slot in file.slots if not slot.there}
    return Held(tensors, dict(file.skipped), missing, file.notes)


def classes_in(path: Path, network: Architecture) -> int | None:
    """How many classes the heads of a .weights file tell apart; None for a cut-off file that has none of them."""
    _, found = look(path, network)
    heads = [layer.index for layer in network.convolutions if layer.head]
    return None if found.layers is not None and found.layers <= heads[0] else found.classes


def classes_of(state: Mapping[str, Tensor], network: Architecture) -> int | None:
    """How many classes the heads of a state of a port, or of ours, tell apart; None for others, and for odd heads."""
    head = network.heads[0]
    bias = ours(state, network).get(f"layers.{head.index - 1}.conv.bias")
    found, rest = divmod(0 if bias is None else len(bias), len(head.mask))
    return found - 5 if not rest and found > 5 else None


def guesses(path: Path) -> list[tuple[str, str]]:
    """Which networks known by name a .weights file may be of by its length, and what of them it then holds.

    ModelError for what is no such file.
    """
    refuse_others(path)
    found = []
    for name in PLANS:
        network = architecture(plan(name, 80))
        try:
            _, laid = look(path, network)
        except ModelError:
            continue
        cut = laid.layers is not None
        held = f"its first {laid.layers} of {len(network.layers)} layers" if cut else f"{laid.classes} classes"
        found.append((name, held))
    return found


def as_weights(network: Architecture, state: Mapping[str, Tensor], header: Header, layers: int | None = None) -> bytes:
    """A detector's state as a .weights file, whole or its first `layers`; see `binary.weights_bytes`."""
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    return weights_bytes(network, arrays, header, layers)
