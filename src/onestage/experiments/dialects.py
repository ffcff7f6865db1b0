"""The log of a step in the words of another program, from its row of steps.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where in its epoch a step stands; all counts from 1. `mean` is that of the loss since the epoch began."""

    epoch: int
    epochs: int
    iteration: int
    iterations: int
    mean: float


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


# By the recipe's key `log`; "own" writes nothing besides what every run writes.
DIALECTS: Mapping[str, Words] = {"faceboxes": faceboxes}
