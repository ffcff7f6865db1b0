"""The log of a step in the words of another program, from its row of steps.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.experiments.levels import MEANS


@dataclass(frozen=True)
class Place:
    """Where in its epoch a step stands; all counts from 1. `mean` is that of the loss since the epoch began.

    `layers` are the levels' indexes in darknet's cfg, where the model has one.
    """

    epoch: int
    epochs: int
    iteration: int
    iterations: int
    mean: float
    layers: tuple[int, ...] = ()


Words = Callable[[Mapping[str, Any], Place], list[str]]


def faceboxes(row: Mapping[str, Any], place: Place) -> list[str]:
    """The lines of lxg2015/faceboxes: one for each step, and after every fifth one of the epoch.

    loc_loss and conf_loss are per positive, without the weights of the parts; Loss is what was differentiated, weights
    included: their sum where both weigh 1, as there. What a step has not, such as one that was left out, is nan. An
    incomplete last batch is not trained on here, so that an epoch may have an iteration less than theirs.
    """
    raw = row.get("raw") or {}
    loc, conf = (float(raw.get(part, math.nan)) for part in ("box", "cls"))
    lines = [f"loc_loss:{loc:f} conf_loss:{conf:f}, pos_num:{int(row.get('positives') or 0)}"]
    if place.iteration % 5 == 0:
        lines.append(
            f"Epoch [{place.epoch}/{place.epochs}], Iter [{place.iteration}/{place.iterations}] "
            f"Loss: {float(row['loss']):.4f}, average_loss: {place.mean:.4f}"
        )
    return lines


class Darknet:
    """The lines of pjreddie's darknet for each step; remembers its running average, so one speaks for one log.

    A `Region` line for each level, in the cfg's order, with the means of the whole step: darknet prints one for each
    micro-batch. A level without truths has -nan, as 0.0 / 0 is printed there, since programs that read such logs know
    it. The batch line gives darknet's own cost (the sum of squared deltas of an image over its levels, through the
    number of levels, as a mean over images) where the loss tells it, else the loss that was differentiated; its
    average is 0.9 of itself and 0.1 of the new one, and begins with the first. Steps that were left out have no part
    in it. A new input size stands in two lines before; `Loaded` is the time that was waited for data.
    """

    def __init__(self) -> None:
        self.average = math.nan
        self.images = 0
        self.size: tuple[int, ...] | None = None

    def __call__(self, row: Mapping[str, Any], place: Place) -> list[str]:
        """The lines of a step; steps must come one after another."""
        seconds = row.get("seconds") or {}
        lines = [*self._resized(row), f"Loaded: {float(seconds.get('data') or 0):f} seconds"]
        scales = row.get("scales") or []
        layers = place.layers if len(place.layers) == len(scales) else range(len(scales))
        lines += [_region(layer, scale) for layer, scale in zip(layers, scales, strict=True)]
        loss = _cost(row)
        if not row.get("skipped"):
            self.average = loss if math.isnan(self.average) else 0.9 * self.average + 0.1 * loss
        self.images += int(row.get("images") or 0)
        rate = max((float(value) for value in (row.get("lr") or {}).values()), default=0.0)
        lines.append(
            f"{int(row['step'])}: {loss:f}, {self.average:f} avg, {rate:f} rate, "
            f"{float(seconds.get('step') or 0):f} seconds, {self.images} images"
        )
        return lines

    def _resized(self, row: Mapping[str, Any]) -> list[str]:
        """Two lines where the input has another size than at the step before; rows say theirs where sizes change."""
        size = tuple(row.get("size") or ())
        if not size or size == self.size:
            return []
        self.size = size
        return ["Resizing", f"{size[0]}" if len(set(size)) == 1 else " x ".join(map(str, size))]


def _region(layer: int, scale: Mapping[str, Any]) -> str:
    told = {key: "-nan" if scale.get(key) is None else f"{scale[key]:f}" for key in MEANS}
    return (
        f"Region {layer} Avg IOU: {told['iou']}, Class: {told['cls']}, Obj: {told['obj']}, No Obj: {told['noobj']}, "
        f".5R: {told['r50']}, .75R: {told['r75']},  count: {int(scale.get('count') or 0)}"
    )


def _cost(row: Mapping[str, Any]) -> float:
    """What darknet would report as the loss of a step: `cost` is summed over its images."""
    cost, images = row.get("cost"), row.get("images")
    return float(row["loss"]) if cost is None or not images else float(cost) / float(images)


# By the recipe's key `log`; "own" writes nothing besides what every run writes. Each gives words for one log.
DIALECTS: Mapping[str, Callable[[], Words]] = {"faceboxes": lambda: faceboxes, "darknet": Darknet}
