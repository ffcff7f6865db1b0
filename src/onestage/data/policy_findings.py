"""What is said of an augmentation that parts pixels and boxes: consequence and remedy by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onestage.records import Finding, Where

# Code → what it says, what it does to training, and what to do about it.
_SAYINGS: Mapping[str, tuple[str, str, str]] = {
    "policy-moves-image-only": (
        "the augmentation moves the picture without its boxes",
        "the model learns boxes where nothing is: the loss stays high from the start, and AP near nothing",
        "move boxes by the transform that moves the pixels, or take the step out of the policy",
    ),
    "policy-moves-boxes-only": (
        "the augmentation moves boxes without the picture",
        "the model learns boxes where nothing is: the loss stays high from the start, and AP near nothing",
        "move the pixels by the transform that moves the boxes, or take the step out of the policy",
    ),
    "policy-loses-boxes": (
        "the augmentation loses boxes of objects that are in plain sight",
        "the model learns that these objects are background: recall falls",
        "keep every box whose centre or greater part shows",
    ),
    "policy-breaks-boxes": (
        "the augmentation gives boxes that are no boxes of the image",
        "logarithms and divisions of the loss leave the finite numbers, or boxes are learnt that no image can show",
        "put corners in order after a mirror, cut boxes at the image's border, drop what has no area left",
    ),
    "policy-changes-labels": (
        "the augmentation changes labels",
        "the model learns other classes than the data names",
        "carry the labels along; where a mirror is meant to swap classes (left and right), give the policy swap={a: b}",
    ),
    "policy-breaks-samples": (
        "the augmentation gives samples that are no network input",
        "no batch can be made of them",
        "give RGB uint8 (H, W, 3) of exactly the size asked for",
    ),
    "policy-draws-elsewhere": (
        "the augmentation draws from another chance than the generator it is given",
        "no step can be replayed, a resumed run is another run, and nothing else could be checked",
        "draw every number from rng, none from random, numpy.random or torch",
    ),
}
CODES = tuple(_SAYINGS)


def finding_of(code: str, whats: Sequence[str], objects: int) -> Finding:
    """The finding of `code`; `whats` are the sentences of the samples that showed it, of `objects` objects seen."""
    what, consequence, remedy = _SAYINGS[code]
    severity = "warning" if code in ("policy-changes-labels", "policy-draws-elsewhere") else "error"
    evidence = {"times": len(whats), "objects": objects, "examples": list(whats[:3])}
    return Finding(code, severity, Where(), f"{what}: {whats[0]}", consequence, remedy, evidence)  # type: ignore[arg-type]
