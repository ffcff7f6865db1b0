"""From a loss to the prior, its truth, and the formula that blew."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from onestage.training.recorder.culprit import Cause, PriorPlace, Scene

T = TypeVar("T")
_KINDS = (
    (re.compile(r"\b(ln|log)\b"), {"-inf": "a logarithm of 0", "nan": "a logarithm of a negative number"}),
    (re.compile(r"\bsqrt\b"), {"nan": "a square root of a negative number"}),
    (re.compile(r"\bexp\b"), {"inf": "exp overflows", "nan": "exp of what is not a number"}),
    (re.compile(r"/"), {"inf": "a division by 0", "-inf": "a division by 0", "nan": "0 divided by 0"}),
)
_REMEDIES = {
    "a logarithm of 0": "correct or drop the box; encode sides as at least a small number of pixels",
    "a logarithm of a negative number": "put the corners in order (x1 < x2, y1 < y2), or drop the box",
    "exp overflows": "bound the exponent, as boxes.coding.decode does; a lower optimiser.lr, a longer schedule.warmup",
    "a division by 0": "bound the denominator from below", "0 divided by 0": "bound the denominator from below",
}  # fmt: skip


def blown_prior(scene: Scene) -> Cause | None:
    """The prior whose loss is not finite, with its truth and the formula; positives are looked at first."""
    for part, one in scene.passes():
        with torch.no_grad():
            parts = one.prior_losses(scene.detector)
        wrong = torch.stack([~torch.isfinite(values) for values in parts.values()]).any(0)
        wrong &= torch.isfinite(one.raw.offsets).all(-1) & torch.isfinite(one.raw.logits).all(
            -1
        )  # else it is no fault of the loss
        if not bool(wrong.any()):
            continue
        match = _match(scene, part)
        candidates = wrong & (match >= 0) if match is not None and bool((wrong & (match >= 0)).any()) else wrong
        image, prior = (int(v) for v in torch.nonzero(candidates)[0])
        names = [name for name, values in parts.items() if not math.isfinite(float(values[image, prior]))]
        count = int(wrong.sum())
        others = f", nor of {count - 1} other{'s' * (count > 2)}" if count > 1 else ""
        what = f"the {' and '.join(names)} loss of a prior is not finite{others}"
        return describe(scene, Cause("loss-formula", what, "certain"), part, image, prior)
    return None


def asked(question: Callable[[], T]) -> T | None:
    """What a model tells of the step that went wrong; None where it does not tell, or fails at what is being reported.

    What is told is the first error: one that comes of looking for its cause must not take its place.
    """
    try:
        with torch.no_grad():
            return question()
    except Exception:
        return None


def heaviest_prior(scene: Scene, part: int, image: int) -> tuple[int, float] | None:
    """The prior of an image with the largest weighted loss, and that loss; None where the model does not tell."""
    one = scene.evidence.passes[part]
    parts = asked(lambda: one.prior_losses(scene.detector))
    if parts is None:
        return None
    weighted = sum(values[image].float() * scene.weights.get(name, 1.0) for name, values in parts.items())
    if not isinstance(weighted, Tensor) or not weighted.numel():
        return None
    prior = int(weighted.nan_to_num(math.inf).argmax())
    return prior, float(weighted[prior])


def answering_prior(scene: Scene, part: int, image: int, row: int) -> int | None:
    """The first prior that answers for a truth; None where none does or the model does not tell."""
    match = _match(scene, part)
    found = [] if match is None else torch.nonzero(match[image] == row).flatten().tolist()
    return int(found[0]) if found else None


def describe(scene: Scene, cause: Cause, part: int, image: int, prior: int, blew: bool = True) -> Cause:
    """The cause with the truth and place of a prior, its terms, and the formula that blew or (finite) weighs most."""
    match = _match(scene, part)
    row = None if match is None else int(match[image, prior])
    cause = scene.at(cause, part, image, row if row is not None and row >= 0 else None)
    place = prior_place(scene, part, prior)
    terms = _terms(scene, part, image, prior)
    cause = replace(cause, prior=place, numbers=terms)
    found = next((name for name, value in terms.items() if not math.isfinite(value)), None)
    if found is None:
        return cause if blew else replace(cause, formula=_largest(terms))
    formula, kind = explain(found, terms)
    consequence = f"{kind}: neither the loss of the whole batch nor any weight after the step would be finite"
    remedy = _REMEDIES.get(kind, "a lower optimiser.lr, a longer schedule.warmup, or precision=fp32")
    return replace(cause, formula=formula, consequence=consequence, remedy=remedy)


def explain(formula: str, terms: Mapping[str, float]) -> tuple[str, str]:
    """The formula with its value and operands, and what kind of accident that is."""
    value, numbers = terms[formula], operands(formula, terms)
    given = ", ".join(f"{name} = {number:.6g}" for name, number in numbers.items())
    text = f"{formula} = {_said(value)}{f' with {given}' if given else ''}"
    if any(not math.isfinite(number) for number in numbers.values()):
        return text, "one of its operands is not finite"
    for pattern, kinds in _KINDS:
        if pattern.search(formula) and _said(value) in kinds:
            return text, kinds[_said(value)]
    return text, "it is not finite"


def operands(formula: str, terms: Mapping[str, float]) -> dict[str, float]:
    """The terms that a formula names, longest names first so that "prior w" is not taken for "w"."""
    rest, found = formula, {}
    for name in sorted(terms, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
        if name != formula and re.search(pattern, rest):
            rest, found[name] = re.sub(pattern, "·", rest), terms[name]
    return dict(sorted(found.items(), key=lambda item: formula.find(item[0])))


def _said(value: float) -> str:
    if math.isfinite(value):
        return f"{value:.6g}"
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _largest(terms: Mapping[str, float]) -> str | None:
    """The loss term of the largest value: a logarithm, a smooth-L1, a quotient, or 1 less an overlap."""
    formulas = {name: value for name, value in terms.items() if re.search(r"\bln\b|smooth|^1 - |/ 0\.", name)}
    if not formulas:
        return None
    name = max(formulas, key=lambda key: abs(formulas[key]))
    return explain(name, terms)[0]


def _match(scene: Scene, part: int) -> Tensor | None:
    return asked(lambda: scene.detector.assign(scene.evidence.passes[part].truths).match)


def prior_place(scene: Scene, part: int, prior: int) -> PriorPlace | None:
    """Number, box and level of a prior; None where the model does not tell."""
    assignment = asked(lambda: scene.detector.assign(scene.evidence.passes[part].truths))
    if assignment is None:
        return None
    box = tuple(round(float(value), 4) for value in assignment.boxes[prior])
    return PriorPlace(prior, box, int(assignment.level[prior]))


def _terms(scene: Scene, part: int, image: int, prior: int) -> dict[str, float]:
    one = scene.evidence.passes[part]
    return asked(lambda: dict(one.terms(scene.detector, image, prior))) or {}
