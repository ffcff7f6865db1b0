"""Why a network that is being judged gives no finite numbers: weights, statistics, or an overflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from onestage.models.detector import Detector
from onestage.records import Batch, ImageId
from onestage.training.recorder.culprit import Cause
from onestage.training.recorder.rerun import HALF, broken_image, first_not_finite
from onestage.training.recorder.weight_checks import RUNAWAY, listed, not_finite

FileOf = Callable[[ImageId], Path | str | None]


def broken_answers(detector: Detector, batch: Batch, precision: str, file_of: FileOf | None = None) -> Cause:
    """What is to blame for answers that are not finite, of a detector in evaluation: the first cause that holds."""
    largest = {name: float(p.detach().abs().amax()) for name, p in detector.named_parameters() if p.numel()}
    away = [name for name, value in largest.items() if RUNAWAY < value < math.inf]
    worst = max(away, key=lambda name: largest[name], default="")
    most = f"up to {largest.get(worst, 0.0):.3g} in {worst}"
    ran = f"weights have run away: {most}, {len(away)} tensors above {RUNAWAY:g}"
    for kind, named in (("weights", detector.named_parameters()), ("running statistics", detector.named_buffers())):
        if names := not_finite(named):
            what = f"{kind} are not finite: {listed(names)}"
            return _exploded(f"{ran}; {what}", away) if away else Cause(
                "non-finite-weight", what, "certain",
                consequence="no score can be told; training does not read running statistics, but evaluation does",
                remedy="go on from a state that was saved before, or check the weights file", names=tuple(names),
            )  # fmt: skip
    images = torch.from_numpy(batch.images).to(next(detector.parameters()).device)
    broke = first_not_finite(detector, images, precision)
    if broke is None:
        return Cause("nan-loss", "the boxes that are decoded from finite predictions are not finite", "likely",
                     remedy="a lower optimiser.lr, or a longer schedule.warmup")  # fmt: skip
    half = precision in HALF and first_not_finite(detector, images, "fp32") is None
    where = f"the output of {broke.module} ({broke.kind}) is not finite in {broke.dtype}"
    if away and not half:
        return _exploded(f"{ran}; {where}", away)
    code, remedy = ("amp-overflow", "precision=bf16 or precision=fp32") if half else (
        "activation-overflow", "a lower optimiser.lr, a longer schedule.warmup, or a smaller clip")  # fmt: skip
    cause = Cause(code, f"{where}; the largest value that goes in is {broke.largest_input:.3g}", "certain",
                  consequence="no score can be told", remedy=remedy, names=(broke.module,))  # fmt: skip
    index = broken_image(detector, images, precision)
    if index is None:
        return cause
    image = batch.ids[index]
    file = None if file_of is None else file_of(image)
    return Cause(**{**vars(cause), "image": image, "file": None if file is None else str(file)})


def _exploded(what: str, names: Sequence[str]) -> Cause:
    return Cause(
        "exploded-weights", what, "certain", names=tuple(names),
        consequence="activations grow from layer to layer until they overflow",
        remedy="a lower optimiser.lr, a longer schedule.warmup, or a smaller clip",
    )  # fmt: skip
