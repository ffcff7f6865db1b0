"""The table of parameter groups: how many numbers, what learns, how fast, and what the norms do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from onestage.models.detector import Detector
from onestage.training.loop.freezing import frozen_ids, frozen_modules
from onestage.training.loop.norms import batch_norms
from onestage.training.loop.optimiser import assigned_groups
from onestage.training.recipe.stages import Leg


@dataclass(frozen=True)
class GroupRow:
    """One line of the table of groups; `lr` and `decay` are None where nothing learns."""

    group: str
    tensors: int
    parameters: int
    trainable: bool
    lr: float | None
    decay: float | None
    norms: str

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        return asdict(self)


def groups_table(detector: Detector, leg: Leg, norms: str = "own") -> list[GroupRow]:
    """Every parameter of the detector once, by group, as the stage trains or freezes it; the detector stays as it is.

    Groups that learn come first, as the optimiser has them; `lr` is the highest of the schedule. What is frozen stands
    beneath, by part. `norms` of a row says what the batch norms of that group do with their statistics: "updated",
    "synchronised" over devices, "kept", or "-" where it has none.
    """
    frozen = frozen_ids(detector, leg.freeze)
    kept = {id(norm) for module in frozen_modules(detector, frozen) for norm in batch_norms(module)}
    parts = {name: {id(p) for p in part.parameters()} for name, part in detector.parts().items()}
    modes = _norm_modes(detector, kept, norms)
    learning: dict[str, list[nn.Parameter]] = {}
    resting: dict[str, list[nn.Parameter]] = {}
    settings: dict[str, tuple[float, float]] = {}
    for parameter, place in assigned_groups(detector, leg.optimiser):
        if id(parameter) in frozen:
            resting.setdefault(f"{_part(parts, parameter)} (frozen)", []).append(parameter)
        else:
            learning.setdefault(place.name, []).append(parameter)
            settings[place.name] = (place.lr, place.decay)
    rows = []
    for name, members in (*learning.items(), *resting.items()):
        lr, decay = settings.get(name, (None, None))
        found = sorted({modes[id(parameter)] for parameter in members if id(parameter) in modes}, reverse=True)
        rows.append(GroupRow(name, len(members), sum(p.numel() for p in members), name in settings, lr, decay,
                             ", ".join(found) or "-"))  # fmt: skip
    return rows


def _part(parts: Mapping[str, set[int]], parameter: nn.Parameter) -> str:
    """The smallest part that holds a parameter."""
    return min(
        (name for name, ids in parts.items() if id(parameter) in ids), key=lambda n: len(parts[n]), default="rest"
    )


def _norm_modes(detector: Detector, kept: set[int], norms: str) -> Mapping[int, str]:
    """What happens to the statistics of the batch norm that each parameter belongs to, by the parameter's id."""
    modes: dict[int, str] = {}
    for norm in batch_norms(detector):
        mode = "synchronised" if norms == "synchronised" else "updated"
        if norms == "frozen" or id(norm) in kept:
            mode = "kept"
        modes |= {id(parameter): mode for parameter in norm.parameters()}
    return modes
