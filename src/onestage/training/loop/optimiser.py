"""The optimiser over a detector's parameter groups, and their learning rates at each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from onestage.errors import RecipeError
from onestage.models.detector import Detector
from onestage.training.loop.freezing import parameters_of
from onestage.training.recipe.schedule import Optimiser


class Place(NamedTuple):
    """Where a parameter belongs: its group's name, highest learning rate and weight decay."""

    name: str
    lr: float
    decay: float


def assigned_groups(detector: Detector, optimiser: Optimiser) -> Iterator[tuple[nn.Parameter, Place]]:
    """Every parameter, frozen or not, with its group: by part or pattern of `rates`, and kind.

    Norms and biases (vectors) do not decay. The backbone learns at its own share of lr; a pattern of `rates` that fits
    replaces that, the last one counting, as darknet's learning_rate_scale does for a layer.
    """
    optimiser = optimiser.completed()
    backbone = {id(parameter) for parameter in detector.parts()["backbone"].parameters()}
    named = {word: parameters_of(detector, word) for word in optimiser.rates}
    for parameter in detector.parameters():
        part = "backbone" if id(parameter) in backbone else "heads"
        share: float = optimiser.backbone if part == "backbone" else 1
        for word, members in named.items():
            if id(parameter) in members:
                part, share = word, optimiser.rates[word]
        decays = parameter.ndim > 1
        decay = float(optimiser.decay or 0.0) if decays else 0.0
        yield parameter, Place(part if decays else f"{part}.no_decay", optimiser.lr * share, decay)


def parameter_groups(detector: Detector, optimiser: Optimiser) -> list[dict[str, Any]]:
    """The groups of what is not frozen, as torch's optimisers take them; `highest` is the schedule's highest rate."""
    groups: dict[str, dict[str, Any]] = {}
    for parameter, (name, lr, decay) in assigned_groups(detector, optimiser):
        if parameter.requires_grad:
            group = groups.setdefault(
                name, {"name": name, "lr": lr, "highest": lr, "weight_decay": decay, "params": []}
            )  # fmt: skip
            group["params"].append(parameter)
    return list(groups.values())


def build_optimiser(detector: Detector, optimiser: Optimiser) -> torch.optim.Optimizer:
    """The optimiser over `parameter_groups`; torch's fused form where there is one. RecipeError if nothing learns.

    Weight decay is decoupled with adamw (Loshchilov and Hutter 2019), an L2 term of the gradient with the others.
    """
    groups = parameter_groups(detector, optimiser)
    if not groups:
        raise RecipeError("every part of the model is frozen: nothing could learn", hint="freeze fewer parts")
    optimiser = optimiser.completed()
    if optimiser.name == "sgd":
        return torch.optim.SGD(groups, momentum=optimiser.momentum, nesterov=optimiser.nesterov, fused=True)
    betas, eps = (optimiser.momentum, float(optimiser.beta2 or 0.0)), float(optimiser.eps or 1e-8)
    if optimiser.name == "nadam":
        return torch.optim.NAdam(groups, betas=betas, eps=eps)
    kind = torch.optim.AdamW if optimiser.name == "adamw" else torch.optim.Adam
    return kind(groups, betas=betas, eps=eps, fused=True)


def set_learning_rates(optimiser: torch.optim.Optimizer, share: float) -> dict[str, float]:
    """Set every group to `share` of its highest rate; {group: lr}."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * share
    return {group["name"]: group["lr"] for group in optimiser.param_groups}
