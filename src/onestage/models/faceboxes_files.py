"""FaceBoxes' weights of other programs: their names, and heads turned to other placements of priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from onestage.boxes.densified import LAYOUTS, cell_priors
from onestage.boxes.offsets import VARIANCES
from onestage.errors import ModelError, did_you_mean
from onestage.records import FloatArray, IntArray

# lxg2015's Inception numbers its convolutions: the names zisianw gave the same ones.
_BRANCHES = (
    "branch1x1", "branch1x1_2", "branch3x3_reduce", "branch3x3", "branch3x3_reduce_2", "branch3x3_2", "branch3x3_3",
)  # fmt: skip
_UNIT = ("conv", "bn")
_LXG = "multilbox."
# Modules by lxg2015's names, and by ours.
_MODULES = {
    **{f"{part}{n}": f"conv{n}.{part}" for n in (1, 2) for part in _UNIT},
    **{f"inception{n}.conv{i}.{j}": f"inception{n}.{branch}.{part}"
       for n in (1, 2, 3) for i, branch in enumerate(_BRANCHES, 1) for j, part in enumerate(_UNIT)},
    **{f"conv{n}.{j}": f"conv{n}.{part}" for n in ("3_1", "3_2", "4_1", "4_2") for j, part in enumerate(_UNIT)},
    **{f"{_LXG}{head}_layers.{level}": f"{head}.{level}" for head in ("loc", "conf") for level in range(3)},
}  # fmt: skip


def options_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options a file of another program was made for: {} for zisianw's names, which are ours."""
    return {"variant": "lxg2015", "layout": "symmetric"} if _is_lxg(state) else {}


def adapted(
    state: Mapping[str, Tensor], variant: str, layout: str, options: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """A file's tensors under our names, its heads turned to the priors of `layout`.

    `options` are those the file says it was made with (a card of ours); None for other programs' files, which are
    known by their names. Raises ModelError for a file of the other variant: the two networks compute different things.
    """
    foreign = options is None
    made = {"variant": "zisianw", "layout": "zisianw", **(options_of(state) if options is None else options)}
    if made["variant"] != variant:
        raise ModelError(
            f"the weights are of FaceBoxes' {made['variant']} network, the model is the {variant} one",
            hint=f"options.variant={made['variant']}: the two differ in biases and in a pool, not in names alone",
        )
    if made["layout"] not in LAYOUTS:
        raise ModelError(
            f"the weights' layout of priors, {made['layout']!r}, is unknown{did_you_mean(made['layout'], LAYOUTS)}",
            hint=f"known are {', '.join(LAYOUTS)}",
        )
    renamed = from_lxg(state) if foreign and _is_lxg(state) else dict(state)
    return with_layout(renamed, made["layout"], layout)


def from_lxg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under lxg2015/faceboxes' names under ours; `to_lxg` turns back."""
    return _renamed(state, _MODULES)


def to_lxg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the names of lxg2015/faceboxes."""
    return _renamed(state, {ours: theirs for theirs, ours in _MODULES.items()})


def with_layout(state: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """The same detector for priors placed as `target`: head channels in their order, regressions shifted.

    A prior of a cell is paired with the one of equal side and the same place in its grid, counted from the upper left;
    every box comes out where it did, to rounding. Names that are absent (a part of a state) and tensors that are no
    head of so many priors are passed over.
    """
    if source == target:
        return dict(state)
    result = dict(state)
    for level, (given, wanted) in enumerate(zip(cell_priors(source), cell_priors(target), strict=True)):
        order = paired(given, wanted)
        scale = given[order, 2:] / wanted[:, 2:]
        shift = (given[order, :2] - wanted[:, :2]) / wanted[:, 2:] / VARIANCES[0]
        factors = np.concatenate([scale, np.ones_like(scale)], 1)
        added = np.concatenate([shift, np.log(scale) / VARIANCES[1]], 1)
        for name in (f"conf.{level}.weight", f"conf.{level}.bias"):
            if _is_head(tensor := result.get(name), len(order)):
                result[name] = _per_prior(tensor, len(order))[order].reshape(tensor.shape)
        for name, add in ((f"loc.{level}.weight", None), (f"loc.{level}.bias", added)):
            if _is_head(tensor := result.get(name), len(order), 4):
                moved = _per_prior(tensor, len(order))[order].double()
                moved = moved * torch.from_numpy(factors).reshape(*factors.shape, *([1] * (moved.ndim - 2)))
                moved = moved if add is None else moved + torch.from_numpy(add)
                result[name] = moved.reshape(tensor.shape).to(tensor)
    return result


def paired(given: FloatArray, wanted: FloatArray) -> IntArray:
    """For each prior (A, 4) of a cell in `wanted` the row of `given` of the same rank in side, then in y, then in x."""
    order = np.empty(len(wanted), np.int64)
    order[_ranked(wanted)] = _ranked(given)
    return order


def _ranked(priors: FloatArray) -> IntArray:
    return np.lexsort((priors[:, 0], priors[:, 1], priors[:, 2]))


def _per_prior(tensor: Tensor, priors: int) -> Tensor:
    """A head's weight or bias with its first axis cut by prior: (A, columns, …)."""
    return tensor.reshape(priors, -1, *tensor.shape[1:])


def _is_head(tensor: Tensor | None, priors: int, columns: int | None = None) -> TypeGuard[Tensor]:
    """Whether a tensor's first axis has so many priors, of `columns` rows each where that is told."""
    if tensor is None or not tensor.ndim or not len(tensor):
        return False
    return len(tensor) % priors == 0 if columns is None else len(tensor) == priors * columns


def _is_lxg(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(_LXG) for name in state)


def _renamed(state: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors with the modules they belong to called otherwise; what is not listed keeps its name."""
    parts = ((name.rpartition("."), tensor) for name, tensor in state.items())
    return {f"{modules.get(module, module)}{dot}{leaf}": tensor for (module, dot, leaf), tensor in parts}
