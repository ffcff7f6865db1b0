"""The loss once more, operation by operation: the one that left the finite numbers, with its operands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from onestage.training.recorder.culprit import Cause, Scene
from onestage.training.recorder.formulas import prior_place

# What fills tensors with inf on purpose, such as ranks that must come last: no accident by itself.
_FILLS = {
    "masked_fill", "masked_fill_", "fill_", "fill", "full", "full_like", "new_full", "scatter", "where", "lift_fresh",
}  # fmt: skip
_SIGNS = {"div": "/", "mul": "*", "sub": "-", "add": "+"}
_NAMES = {"log": "ln", "div_": "div", "mul_": "mul", "sub_": "sub", "add_": "add", "exp_": "exp"}
_KINDS = {
    ("ln", "-inf"): "a logarithm of 0", ("ln", "nan"): "a logarithm of a negative number",
    ("sqrt", "nan"): "a square root of a negative number", ("exp", "inf"): "exp overflows",
    ("/", "nan"): "0 divided by 0", ("/", "inf"): "a division by 0", ("/", "-inf"): "a division by 0",
}  # fmt: skip


class Origin(NamedTuple):
    """Where numbers stopped being finite: the operation, in words with its operands, and the kind of accident."""

    formula: str
    kind: str
    at: tuple[int, ...]
    shape: tuple[int, ...]


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches every operation; `origins` tells for a tensor which operation made what in it is not finite."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.origins: dict[int, Origin] = {}
        self.kept: list[Any] = []  # so that no number of a tensor is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation; where it turned finite numbers into others, remember it."""
        given = _tensors(args)
        known = next((self.origins[id(t)] for t in given if id(t) in self.origins), None)
        bad = any(not _finite(t) for t in given)
        before = [t.clone() for t in given] if str(func).partition(".")[0].endswith("_") else given
        out = func(*args, **(kwargs or {}))
        for made in _tensors(out):
            self.kept.append(made)
            if _finite(made):
                self.origins.pop(id(made), None)
            elif known is not None:
                self.origins[id(made)] = known
            elif not bad and (name := func.overloadpacket.__name__) not in _FILLS:
                self.origins[id(made)] = _origin(_NAMES.get(name, name), made, args, before)
        return out


def blown_operation(scene: Scene) -> Cause | None:
    """The operation that made the loss not finite, in whatever loss; None where it is finite when computed again."""
    for part, one in scene.passes():
        if not (_finite(one.raw.offsets) and _finite(one.raw.logits)):
            continue
        with torch.no_grad(), Trace() as trace:
            loss = one.loss_of(scene.detector, one.raw)
        for name, values in {**loss.parts, "normaliser": loss.normaliser}.items():
            origin = trace.origins.get(id(values))
            if origin is None:
                continue
            images = torch.nonzero(~torch.isfinite(values)).flatten().tolist() if values.dim() == 1 else []
            told = f"the {name} loss" if name in loss.parts else "what the loss is divided by"
            cause = Cause(
                "loss-formula", f"{told} is not finite", "certain", formula=origin.formula,
                consequence=f"{origin.kind}: neither the loss of the batch nor any weight after it would be finite",
                remedy="bound what goes into it, or leave out the boxes it cannot be taken of",
            )  # fmt: skip
            return _placed(scene, part, cause, origin, images)
    return None


def _placed(scene: Scene, part: int, cause: Cause, origin: Origin, images: list[int]) -> Cause:
    """The cause with the image, and the prior where the operation was done for each."""
    if not images:
        return cause
    one = scene.evidence.passes[part]
    by_prior = origin.shape[:2] == tuple(one.raw.offsets.shape[:2])
    image = origin.at[0] if by_prior and origin.at[0] in images else images[0]
    others = len(images) - 1
    more = f", nor of {others} other image{'s' * (others > 1)}" if others else ""
    cause = replace(cause, what=f"{cause.what}{more}")
    cause = scene.at(cause, part, image)
    return replace(cause, prior=prior_place(scene, part, origin.at[1])) if by_prior else cause


def with_operation(cause: Cause, found: Cause) -> Cause:
    """A cause that names the prior but no formula, with the operation's."""
    return replace(cause, formula=found.formula, consequence=found.consequence, remedy=found.remedy)


def _origin(name: str, made: Tensor, args: Any, given: list[Tensor]) -> Origin:
    """The operation in words at the first place where its result is not finite."""
    at = tuple(int(i) for i in torch.nonzero(~torch.isfinite(made))[0])
    value = _said(float(made[at]))
    operands, tensors = [], iter(given)
    for arg in args:
        if isinstance(arg, Tensor):
            tensor = next(tensors, arg) if arg.is_floating_point() else arg
            operands.append(_operand(tensor, made, at))
        elif isinstance(arg, int | float) and not isinstance(arg, bool):
            operands.append(_said(float(arg)))
    sign = _SIGNS.get(name)
    if sign is not None and len(operands) >= 2:
        text, word = f"{operands[0]} {sign} {operands[1]}", sign
    else:
        text, word = f"{name}({', '.join(operands[:3])})", name
    return Origin(f"{text} = {value}", _KINDS.get((word, value), "it is not finite"), at, tuple(made.shape))


def _operand(tensor: Tensor, made: Tensor, at: tuple[int, ...]) -> str:
    try:
        return _said(float(tensor.expand(made.shape)[at]))
    except RuntimeError:  # no operation by elements
        largest = float(tensor.detach().abs().amax()) if tensor.numel() else 0.0
        return f"up to {_said(largest)}"


def _said(value: float) -> str:
    if math.isfinite(value):
        return f"{value:.6g}"
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []
