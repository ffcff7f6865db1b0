"""The optimiser over a detector's parameter groups, and which of its parts are frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from onestage.errors import RecipeError, did_you_mean
from onestage.models.detector import Detector
from onestage.training.schedule import Optimiser


def freeze(detector: Detector, parts: Iterable[str]) -> list[nn.Module]:
    """Stop the named parts from learning; their norms keep their statistics. RecipeError for an unknown part."""
    known = detector.parts()
    problems = [f"freeze: no part {part!r}{did_you_mean(part, known)}" for part in parts if part not in known]
    if problems:
        raise RecipeError(f"{detector.name} has the parts {', '.join(known)}", problems=problems)
    frozen = [known[part] for part in parts]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def set_training(detector: Detector, frozen: Sequence[nn.Module]) -> None:
    """Training mode for all but the frozen parts."""
    detector.train()
    for module in frozen:
        module.eval()


def parameter_groups(detector: Detector, optimiser: Optimiser) -> list[dict[str, Any]]:
    """Groups by part and kind: no decay on norms and biases (vectors), the backbone at its own learning rate."""
    backbone = {id(parameter) for parameter in detector.parts()["backbone"].parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for parameter in detector.parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if id(parameter) in backbone else "heads"
        name = part if parameter.ndim > 1 else f"{part}.no_decay"
        lr = optimiser.lr * (optimiser.backbone if part == "backbone" else 1)
        decay = optimiser.decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(name, {"name": name, "lr": lr, "highest": lr, "weight_decay": decay, "params": []})
        group["params"].append(parameter)
    return list(groups.values())


def build_optimiser(detector: Detector, optimiser: Optimiser) -> torch.optim.Optimizer:
    """The optimiser over `parameter_groups`."""
    groups = parameter_groups(detector, optimiser)
    if not groups:
        raise RecipeError("every part of the model is frozen: nothing could learn", hint="freeze fewer parts")
    if optimiser.name == "sgd":
        return torch.optim.SGD(groups, momentum=optimiser.momentum, nesterov=optimiser.nesterov)
    return torch.optim.AdamW(groups, betas=(optimiser.momentum, 0.999), fused=True)


def set_learning_rates(optimiser: torch.optim.Optimizer, share: float) -> dict[str, float]:
    """Set every group to `share` of its highest rate; {group: lr}."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * share
    return {group["name"]: group["lr"] for group in optimiser.param_groups}
