"""What an optimiser remembers of earlier steps, by the name of each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from onestage.models.detector import Detector


def remembered(optimiser: Optimizer, detector: Detector) -> dict[str, dict[str, Any]]:
    """The optimiser's state of each parameter that has one: moments, step counts; rates and decays are the recipe's."""
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    state = getattr(optimiser, "optimizer", optimiser).state  # lightning-fabric wraps it
    return {names[id(parameter)]: dict(known) for parameter, known in state.items()}


def recall(optimiser: Optimizer, detector: Detector, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a fresh optimiser what another remembered, by name; its own rates and decays stay.

    Parameters that were frozen then begin anew, those that are frozen now are forgotten: a recipe may change between.
    """
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    order = [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    state = {index: dict(known[name]) for index, name in enumerate(order) if name in known}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
