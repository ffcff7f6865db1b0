"""A finite loss with a gradient that is not: which prior, which function, which parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onestage.models.detector import Raw
from onestage.training.recorder.culprit import Cause, Scene
from onestage.training.recorder.formulas import describe
from onestage.training.recorder.rerun import autocast, undisturbed, wider_than, would_wait_for_others
from onestage.training.recorder.weight_checks import listed, not_finite

# What is wrong with the derivative of a function, by the name autograd gives it.
_DERIVATIVES = {
    "Sqrt": "sqrt at 0: its derivative 1 / (2 sqrt(x)) is a division by 0",
    "Log": "ln at 0: its derivative 1 / x is a division by 0",
    "Log2": "log2 at 0: its derivative is a division by 0", "Div": "a quotient whose denominator is 0 or nearly so",
    "Exp": "exp that overflows", "Pow": "a power whose derivative at 0 is not finite",
    "LinalgVectorNorm": "the length of a vector of zeros", "Norm": "the length of a vector of zeros",
    "Acos": "acos at -1 or 1", "Asin": "asin at -1 or 1", "Atan2": "atan2 of (0, 0)",
    "Rsqrt": "1 / sqrt at 0", "Reciprocal": "1 / x at 0",
}  # fmt: skip


def blown_gradient(scene: Scene) -> Cause:
    """Why a gradient is not finite: found in the loss itself, or by name of the parameters that got it."""
    gradients = [(name, p.grad) for name, p in scene.detector.named_parameters() if p.grad is not None]
    names = not_finite(gradients)
    if len(names) == len(gradients):  # clipping by a norm that is not finite spreads it to all
        names = []
    cause = Cause(
        "nan-gradient", "the loss is finite, its gradient is not", "likely",
        consequence="the optimiser's step would make these weights nan, and the next step every loss",
        remedy="a lower optimiser.lr, a longer schedule.warmup, or precision=fp32", names=tuple(names),
    )  # fmt: skip
    for part, one in scene.passes():
        offsets, logits = (value.detach().clone().requires_grad_() for value in one.raw)
        with torch.enable_grad():
            total = one.loss_of(scene.detector, Raw(offsets, logits)).total(scene.weights)
        if not isinstance(total, Tensor) or not total.requires_grad:
            continue
        with Watch(total) as watch:
            derivatives = torch.autograd.grad(total, [offsets, logits], allow_unused=True)
        wrong = [~torch.isfinite(g).all(-1) for g in derivatives if g is not None]
        where = torch.nonzero(torch.stack(wrong).any(0)) if wrong else torch.zeros(0, 2)
        if len(where):
            image, prior = (int(v) for v in where[0])
            cause = describe(scene, cause, part, image, prior)
            return _in_the_loss(cause, watch.function, len(where))
    return _in_the_model(scene, cause)


def _in_the_loss(cause: Cause, function: str | None, count: int) -> Cause:
    more = f", nor for {count - 1} other{'s' * (count > 2)}" if count > 1 else ""
    if function is None:
        return replace(
            cause, what=f"the derivative of the loss by what a prior predicts is not finite{more}", sure="certain"
        )
    word = function.rstrip("0123456789").removesuffix("Backward")
    formula = _DERIVATIVES.get(word, f"the derivative of {word.lower()}")
    return replace(
        cause, what=f"the loss is finite, its derivative by what a prior predicts is not{more}", sure="certain",
        formula=f"{formula} (in {function})",
        remedy="add a small number under the root, logarithm or quotient of the loss",
    )  # fmt: skip


def _in_the_model(scene: Scene, cause: Cause) -> Cause:
    """The cause where the loss's own derivatives are finite: what the backward pass through the model says."""
    scale = scene.evidence.scale or 1.0
    found = _backward(scene, scene.precision, scale)
    if not cause.names and not found.names:
        return replace(cause, what="the norm of the gradient overflows, though each gradient is finite")
    names = tuple(found.names) or cause.names
    where = f" (first in {found.function})" if found.function else ""
    if scene.precision != "fp32" and found.names and not _backward(scene, "fp32", 1.0).names:
        return replace(
            cause, code="amp-overflow", names=names, sure="certain", remedy=wider_than(scene.precision),
            what=f"{scene.precision} overflows in the backward pass{where}, loss scale {scale:g}; in fp32 it is finite",
            consequence="the scaler skips such steps, and finds no scale at which there is none",
        )  # fmt: skip
    what = f"the loss and its own derivatives are finite, but not the gradient of {listed(names)}{where}"
    return replace(cause, what=what, names=names, sure="certain" if found.names else "likely")


class Found(NamedTuple):
    """The parameters whose gradient is not finite, and the function of the backward pass that made it so."""

    names: list[str]
    function: str | None


def _backward(scene: Scene, precision: str, scale: float) -> Found:
    """Forward and backward once more, watched; no `.grad`, buffer or random state is touched."""
    if would_wait_for_others(scene.detector):
        return Found([], None)
    named = [(name, p) for name, p in scene.detector.named_parameters() if p.requires_grad]
    for one in scene.evidence.passes:
        device = one.raw.offsets.device
        with undisturbed(scene.detector), torch.enable_grad():
            with autocast(device.type, precision):
                raw = Raw(*scene.detector(torch.from_numpy(one.batch.images).to(device)))
            raw = Raw(raw.offsets.float(), raw.logits.float())
            total = one.loss_of(scene.detector, raw).total(scene.weights) * scale
            with Watch(total) as watch:
                gradients = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
        pairs = zip(named, gradients, strict=True)
        names = not_finite((name, gradient) for (name, _), gradient in pairs if gradient is not None)
        if names:
            return Found(names, watch.function)
    return Found([], None)


class Watch:
    """Sees a backward pass go by: `function` is the first that is given finite gradients and makes others."""

    def __init__(self, result: Tensor) -> None:
        self.function: str | None = None
        self._nodes = list(_graph(result))
        self._handles: list[Any] = []

    def __enter__(self) -> Watch:
        self._handles = [node.register_hook(self._look(node.name())) for node in self._nodes]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, name: str) -> Callable[..., None]:
        def look(made: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> None:
            if self.function is None and _finite(given) and not _finite(made):
                self.function = name

        return look


def _graph(result: Tensor) -> Iterator[Any]:
    """Every node of the backward graph once; those that only gather a leaf's gradient are left out."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if not node.name().endswith("AccumulateGrad"):
            yield node
        waiting.extend(after for after, _ in node.next_functions)


def _finite(gradients: tuple[Tensor | None, ...]) -> bool:
    return all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)
