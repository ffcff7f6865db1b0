"""Weights and buffers that are not finite, or have run away."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from onestage.training.recorder.culprit import Cause, Scene

# Trained convolutions stay well below 100 in any weight; one beyond this has left all sense.
RUNAWAY = 1e4
_NAMED = 8


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the floating-point tensors that hold a value that is not finite."""
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not named:
        return []
    # Sum of squares would overflow; the largest absolute value is nan or inf if and only if one of them is.
    largest = torch.stack([tensor.detach().abs().amax().float() for _, tensor in named]).cpu()
    return [name for (name, _), value in zip(named, largest.tolist(), strict=True) if not math.isfinite(value)]


def non_finite_weights(scene: Scene) -> Cause | None:
    """Parameters that are not finite, or buffers that this forward pass did not make so itself."""
    parameters = not_finite(scene.detector.named_parameters())
    buffers = not_finite(_steady_buffers(scene.detector))
    names = [*parameters, *buffers]
    if not names:
        return None
    kinds = " and ".join(kind for kind, found in (("weights", parameters), ("buffers", buffers)) if found)
    return Cause(
        "non-finite-weight", f"{kinds} were not finite before the step: {listed(names)}{_how(scene)}", "certain",
        consequence="every prediction that passes through them is nan, whatever the images",
        remedy="go on from a state that was saved before (guard.nan=rollback does), or check the weights file",
        names=tuple(names),
    )  # fmt: skip


def poisoned_statistics(detector: nn.Module) -> Cause | None:
    """Running statistics that are not finite though the loss is: batch norms do not read them while they train."""
    names = not_finite((name, buffer) for name, buffer in detector.named_buffers())
    if not names:
        return None
    return Cause(
        "non-finite-weight", f"buffers are not finite, though the loss is: {listed(names)}", "certain",
        consequence="training does not read running statistics, but evaluation does: every score will be nan",
        remedy="go on from a state that was saved before (guard.nan=rollback does)", names=tuple(names),
    )  # fmt: skip


def runaway_weights(scene: Scene) -> Cause | None:
    """Finite weights that are larger than any training needs, with what the ring knows of lr and updates."""
    named = [(name, p.detach()) for name, p in scene.detector.named_parameters() if p.is_floating_point() and p.numel()]
    if not named:
        return None
    largest = torch.stack([tensor.abs().amax().float() for _, tensor in named]).cpu().tolist()
    names = [name for (name, _), value in zip(named, largest, strict=True) if value > RUNAWAY]
    if not names:
        return None
    worst = max(zip(largest, (name for name, _ in named), strict=True))
    what = f"weights have run away: up to {worst[0]:.3g} in {worst[1]}, {len(names)} of {len(named)} tensors above"
    return Cause(
        "exploded-weights", f"{what} {RUNAWAY:g}{_how(scene)}", "likely",
        consequence="activations grow from layer to layer until they overflow",
        remedy="a lower optimiser.lr, a longer schedule.warmup, or a smaller clip", names=tuple(names),
    )  # fmt: skip


def _how(scene: Scene) -> str:
    """lr and updates of the last steps, in words."""
    if not scene.history:
        return ""
    last = scene.history[-1]
    said = [f"lr {max(last.lr.values(), default=0):.3g}"]
    norms = [entry.update_norm for entry in scene.history if entry.update_norm is not None]
    if norms:
        said.append(f"update norm {norms[-1]:.3g}")
    if last.grad_norm is not None:
        said.append(f"gradient norm {last.grad_norm:.3g}")
    return f" (last step: {', '.join(said)})"


def _steady_buffers(detector: nn.Module) -> list[tuple[str, Tensor]]:
    """Buffers that a forward pass in this mode leaves alone: all but the statistics of norms that train."""
    moving = {
        id(buffer)
        for module in detector.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        for buffer in module.buffers(recurse=False)
    }
    return [(name, buffer) for name, buffer in detector.named_buffers() if id(buffer) not in moving]


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
