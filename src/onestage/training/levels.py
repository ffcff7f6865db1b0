"""What the levels of a detector are, told by its own priors: stride, grid, anchors, size of objects."""

from __future__ import annotations

from itertools import groupby

from onestage.boxes.tiling import tilings
from onestage.experiments.levels import Level, sized
from onestage.models.detector import Detector
from onestage.records import Annotations
from onestage.training.first_batch import assigned_to


def levels_of(detector: Detector) -> list[Level]:
    """The levels of a detector at its present input size, as in `Loss.positives`; none where it tells no priors.

    Told by the priors that `Detector.assign` names, so that any detector has them; layers by its `level_layers`.
    """
    found = assigned_to(detector, [Annotations.empty()])
    if found is None:
        return []
    each = [
        list(same) for _, same in groupby(tilings(found[0].priors, found[0].level, detector.size), lambda t: t.level)
    ]
    layers = list(detector.level_layers) if len(detector.level_layers) == len(each) else [None] * len(each)
    return sized([
        Level(round(same[0].stride[0], 2), same[0].cells,
              tuple((round(one.width, 2), round(one.height, 2)) for one in same), layer=layer)
        for same, layer in zip(each, layers, strict=True)
    ])  # fmt: skip
