"""The diagnosis: from a step that went wrong to its cause, the surest first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.training.recorder.batch_checks import Fault
from onestage.training.recorder.culprit import Cause, Scene
from onestage.training.recorder.formulas import answering_prior, asked, blown_prior, describe, heaviest_prior
from onestage.training.recorder.gradients import blown_gradient
from onestage.training.recorder.operations import blown_operation, with_operation
from onestage.training.recorder.rerun import overflow
from onestage.training.recorder.weight_checks import (
    non_finite_weights,
    poisoned_statistics,
    runaway_weights,
)

Kind = Literal["nan-loss", "nan-gradient", "spike", "batch", "odd-batch", "statistics", "overflow"]
# A crowd: so many times the usual positives of an image. One image's loss: such a share, and so many times the median.
CROWD, SHARE, ABOVE = 3.0, 0.5, 5.0
# So many wrong truths of a batch are told with the prior that would answer for them, all others by their place alone.
_MOST_FAULTS = 20
_REMEDIES = {
    "broken-box": "correct or drop the box in the annotation file (a dry run of `onestage train` lists such rows)",
    "outsize-box": "correct the box in the annotation file: its unit or its image may be another",
    "label-out-of-range": "check the class list: labels count from 0, without background; `classes` must name them all",
    "non-finite-pixel": "read the image again; look for a division in its preparation (uint8 images cannot hold nan)",
    "wrong-shape": "make all images of a batch of the size that the step is for",
    "empty-batch": "look at the list of images and the sampler: each batch must hold one image at least",
    "constant-image": "look at the file: it may be damaged, or its depth be read wrongly",
}
_CONSEQUENCES = {
    "broken-box": "its overlap with any prior is 0 or nan and its logarithm is not finite: at best it teaches nothing",
    "outsize-box": "it overlaps many priors a little, and one that can never reach it must answer for it",
    "label-out-of-range": "the class loss reads a column that is not there: another class, or an error on the device",
    "non-finite-pixel": "every activation it reaches is nan; through batch norm that is every image of the batch",
    "wrong-shape": "priors and predictions would not belong together, or the images be seen at another scale",
    "empty-batch": "there is nothing to learn from, and a mean over no image is nan",
    "constant-image": "the model learns background from an image without content",
}


@dataclass
class Diagnosis:
    """The causes, the culprit first, and what could not be looked at."""

    causes: list[Cause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def culprit(self) -> Cause:
        """The first cause."""
        return self.causes[0]


def diagnose(scene: Scene, kind: Kind) -> Diagnosis:
    """What is to blame for an incident of `kind`; never raises, and there is always a first cause.

    A search that fails is noted and left out: what is being reported is the first error, not the second.
    """
    diagnosis = Diagnosis()

    def ask(search: Callable[[Scene], Cause | None], name: str) -> Cause | None:
        try:
            return search(scene)
        except Exception as error:
            diagnosis.notes.append(f"the search for {name} failed: {type(error).__name__}: {str(error)[:200]}")
            return None

    searches: list[tuple[Callable[[Scene], Cause | None], str]] = []
    if kind == "nan-loss":
        searches = [(non_finite_weights, "weights that are not finite")]
        clean = not any(fault.code == "non-finite-pixel" for fault in scene.faults)
        searches += [(overflow, "an overflow")] * clean + [(runaway_weights, "weights that ran away")]
        searches += [(blown_prior, "the prior"), (no_positives, "a division by no positives")]
    elif kind in ("nan-gradient", "overflow"):
        searches = [(non_finite_weights, "weights that are not finite"), (blown_gradient, "the function")]
        searches += [(runaway_weights, "weights that ran away")]
    elif kind == "statistics":
        searches = [(lambda scene: poisoned_statistics(scene.detector), "statistics")]
    elif kind == "spike":
        searches = [(runaway_weights, "weights that ran away"), (crowd, "a crowd"), (one_image, "one image")]
    found = [cause for search, name in searches if (cause := ask(search, name)) is not None]
    if kind == "nan-loss" and all(cause.code == "loss-formula" and not cause.formula for cause in found):
        operation = ask(blown_operation, "the operation")
        found = [with_operation(cause, operation) for cause in found] or [operation] if operation else found
    faults = [truth_of(scene, fault, at < _MOST_FAULTS) for at, fault in enumerate(scene.faults)]
    diagnosis.causes = _in_order(faults, found, kind, scene.precision)
    if not diagnosis.causes:
        diagnosis.causes = [_unknown(scene, kind)]
    return diagnosis


def _in_order(faults: list[Cause], found: list[Cause], kind: Kind, precision: str) -> list[Cause]:
    """Weights first, then wrong data that the loss confirms, then overflow and formulas, then other wrong data."""
    severe = [cause for cause in faults if cause.severity == "error"]
    mild = [cause for cause in faults if cause.severity != "error"]
    codes = {cause.code for cause in found}
    overflows = {"activation-overflow", "nan-gradient"} | ({"amp-overflow"} if precision == "bf16" else set())
    if "exploded-weights" in codes and codes & overflows:  # the overflow is how, the weights are why
        found = sorted(found, key=lambda cause: cause.code != "exploded-weights")
    first = [cause for cause in found if cause.code == "non-finite-weight"]
    rest = [cause for cause in found if cause.code != "non-finite-weight"]
    blown = next((cause for cause in rest if cause.prior is not None), None)
    if kind != "spike" and blown is not None:
        same = [cause for cause in severe if (cause.image, cause.row) == (blown.image, blown.row)]
        if same:
            merged = replace(same[0], prior=blown.prior, formula=blown.formula, numbers=blown.numbers,
                             consequence=blown.consequence or same[0].consequence)  # fmt: skip
            severe = [merged, *(cause for cause in severe if cause is not same[0])]
            rest = [cause for cause in rest if cause is not blown]
        elif severe and not any(cause.code == "non-finite-pixel" for cause in severe):
            return [*first, *rest, *severe, *mild]
    if kind == "spike" and any(cause.code == "outsize-box" for cause in mild):
        return [*first, *severe, *mild, *rest]
    return [*first, *severe, *rest, *mild]


def truth_of(scene: Scene, fault: Fault, with_prior: bool = True) -> Cause:
    """A fault of the batch as a cause; the prior that would answer for a truth takes a while to find."""
    cause = Cause(
        fault.code, fault.what, "certain", _CONSEQUENCES[fault.code], _REMEDIES[fault.code], formula=fault.formula,
        severity="error" if fault.severe else "warning",
    )  # fmt: skip
    if fault.code in ("wrong-shape", "empty-batch"):
        return cause
    cause = scene.at(cause, fault.part, fault.image, fault.row)
    if fault.row is None or fault.code == "label-out-of-range" or fault.part >= len(scene.evidence.passes):
        return cause
    if not with_prior:
        return cause
    prior = answering_prior(scene, fault.part, fault.image, fault.row)
    if prior is None:
        return replace(cause, what=f"{cause.what}; no prior answers for it")
    told = describe(scene, cause, fault.part, fault.image, prior)
    return replace(told, consequence=cause.consequence, remedy=cause.remedy)


def no_positives(scene: Scene) -> Cause | None:
    """A loss that is not finite though every prior's is, in a batch where no prior answers for a truth."""
    for part, one in scene.passes():
        raw, loss = one.raw, one.loss
        wrong = [name for name, values in loss.parts.items() if not bool(torch.isfinite(values).all())]
        if not wrong or not bool(torch.isfinite(raw.offsets).all() and torch.isfinite(raw.logits).all()):
            continue
        bad = ~torch.stack([torch.isfinite(loss.parts[name]) for name in wrong]).all(0)
        positives = loss.positives.sum(1)
        if bool((positives[bad] > 0).any()):
            continue
        truths = sum(len(annotations) for annotations in one.batch.annotations)
        whole = int(positives.sum()) == 0
        sums = _sum_over_priors(scene, part, wrong[0])
        said = "" if sums is None else f": {sums:g} / 0 = {'nan' if sums == 0 else 'inf'}"
        whose = "the batch" if whole else f"{int(bad.sum())} images"
        cause = Cause(
            "no-positives", f"the {' and '.join(wrong)} loss is divided by the positives of {whose}, and there are "
            f"none ({truths} truths in the batch)", "certain" if sums is not None else "likely",
            formula=f"sum of {wrong[0]} losses / positives{said}",
            consequence="a batch without objects makes the loss nan", numbers={"positives": 0.0},
            remedy="divide by at least 1: max(positives, 1)",
        )  # fmt: skip
        return cause if whole else scene.at(cause, part, int(bad.nonzero()[0]))
    return None


def _sum_over_priors(scene: Scene, part: int, name: str) -> float | None:
    one = scene.evidence.passes[part]
    value = asked(lambda: float(one.prior_losses(scene.detector)[name].sum()))
    return value if value is not None and math.isfinite(value) else None


def crowd(scene: Scene) -> Cause | None:
    """A batch with many more positives than usual."""
    before = [entry.positives.sum() / len(entry.ids) for entry in scene.history if entry.ids]
    counts = _positives(scene)
    if len(before) < 3 or not len(counts):
        return None
    usual, now = statistics.median(before), counts.mean()
    if now <= CROWD * max(usual, 1.0):
        return None
    part, image = _locate(scene, int(counts.argmax()))
    truths = len(scene.evidence.passes[part].batch.annotations[image])
    cause = Cause(
        "crowd-batch", f"{now:.0f} positives an image, {now / max(usual, 1e-9):.1f} times the usual {usual:.1f}; this "
        f"image has {counts.max():.0f} of {counts.sum():.0f}, from {truths} truths", "likely", severity="warning",
        consequence="one step pulls the weights towards crowds",
        remedy="a smaller clip, a larger batch, or guard.spike=skip",
    )  # fmt: skip
    return scene.at(cause, part, image)


def one_image(scene: Scene) -> Cause | None:
    """An image that makes most of the loss, with its heaviest prior."""
    losses = [
        sum(v.double() * scene.weights.get(n, 1.0) for n, v in one.loss.parts.items()) for _, one in scene.passes()
    ]
    every = torch.cat([torch.as_tensor(values) for values in losses]).cpu().numpy() if losses else np.zeros(0)
    if len(every) < 2 or not every.sum() > 0:
        return None
    worst = int(every.argmax())
    share, usual = every[worst] / every.sum(), float(np.median(np.delete(every, worst)))
    if share < SHARE or every[worst] < ABOVE * usual:
        return None
    part, image = _locate(scene, worst)
    cause = Cause(
        "one-image", f"one image makes {share:.0%} of the loss: {every[worst]:.4g}, the others' median {usual:.4g}",
        "likely", severity="warning", consequence="the step is this image's alone",
        remedy="look at the image and its truths; if they are right, a smaller clip or guard.spike=skip",
    )  # fmt: skip
    heaviest = heaviest_prior(scene, part, image)
    if heaviest is None:
        return scene.at(cause, part, image)
    cause = replace(cause, what=f"{cause.what}; its heaviest prior alone {heaviest[1]:.4g}")
    return describe(scene, cause, part, image, heaviest[0], blew=False)


def _positives(scene: Scene) -> NDArray[np.float64]:
    counts = [one.loss.positives.sum(1).double().cpu().numpy() for _, one in scene.passes()]
    return np.concatenate(counts) if counts else np.zeros(0)


def _locate(scene: Scene, index: int) -> tuple[int, int]:
    """(pass, image) of an image of the whole batch."""
    for part, one in scene.passes():
        if index < len(one.batch):
            return part, index
        index -= len(one.batch)
    raise IndexError(index)


def _unknown(scene: Scene, kind: Kind) -> Cause:
    """What is left where every search came back empty: the images whose own loss is not finite, if there are any."""
    remedy = "a lower optimiser.lr, a longer schedule.warmup, or precision=fp32"
    if kind == "spike":
        return Cause(
            "spike", "no single cause: weights, truths, positives and images are as usual", "possible",
            remedy="a lower optimiser.lr or a smaller clip, should it come again", severity="warning",
        )  # fmt: skip
    code = "nan-gradient" if kind in ("nan-gradient", "overflow") else "nan-loss"
    for part, one in scene.passes():
        for name, values in one.loss.parts.items():
            for image in torch.nonzero(~torch.isfinite(values)).flatten().tolist()[:1]:
                what = f"its {name} loss is {float(values[image])}; the model tells no more"
                return scene.at(Cause(code, what, "likely", remedy=remedy), part, image)
    return Cause(
        code, "every image's own loss is finite: their sum, or the gradient, overflowed", "possible", remedy=remedy
    )
