"""A row of steps.jsonl or results.csv as numbers, whatever a damaged file or another tool left of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_FINITE = math.isfinite
# Truths of a step that nothing learns, by their keys in its row.
LOST = ("unanswered", "rewritten", "capped")


class Seen:
    """A training step: what the rules look at; None, or empty, where the row does not say.

    `raw` and `weighted` are {part: loss}, `levels` positives per level, `negatives` what the class loss mined, `lr`
    the highest of all groups, `seconds` (waiting for data, computing), `norms` {part: gradient norm}, `moved` {frozen
    part: largest change of a value}, `lost` {kind: truths that nothing learns}, `without` names layers of the backbone
    without a gradient, `memory` and `disk_free` are bytes.
    """

    __slots__ = (
        "data", "disk_free", "epoch", "grad_norm", "images", "levels", "loss", "lost", "lr", "memory", "moved",
        "negatives", "norms", "positives", "raw", "scale", "size", "skipped", "stage", "step", "truths", "update_norm",
        "weighted", "without", "work",
    )  # fmt: skip

    def __init__(self, row: Mapping[str, Any]) -> None:
        get = row.get
        self.step = int(number(get("step")) or 0)
        self.epoch = int(number(get("epoch")) or 0)
        self.loss = number(get("loss"))
        self.raw = numbers(get("raw"))
        self.weighted = numbers(get("weighted"))
        self.positives, self.negatives = number(get("positives")), number(get("negatives"))
        levels = get("positives_per_level")
        self.levels: list[int] = [int(n) for n in levels] if isinstance(levels, list) and _all_counts(levels) else []
        rates = get("lr")
        self.lr = max(numbers(rates).values(), default=None) if isinstance(rates, Mapping) else number(rates)
        self.grad_norm = number(get("grad_norm"))
        self.images = number(get("images"))
        seconds = get("seconds")
        seconds = seconds if isinstance(seconds, Mapping) else {}
        self.data, self.work = number(seconds.get("data")), number(seconds.get("step"))
        self.skipped = get("skipped") is True
        self.size, self.stage = get("size"), get("stage")
        self.scale, self.update_norm = number(get("scale")), number(get("update_norm"))
        self.truths, self.memory = number(get("truths")), number(get("memory"))
        self.disk_free = number(get("disk_free"))
        self.norms = numbers(get("grad_norms")) if "grad_norms" in row else {}
        without = get("without_gradient")
        self.without: list[str] = [str(name) for name in without] if isinstance(without, list) else []
        self.moved = numbers(get("moved")) if "moved" in row else {}
        self.lost = numbers({key: get(key) for key in LOST}) if "unanswered" in row else {}


class Evaluated:
    """A row of results.csv: `train` and `val` are {part: weighted loss}, `score` the metric the run is judged by.

    `broken` names the validation losses that are no finite numbers, `confusion` is {true class: {found class: n}}.
    """

    __slots__ = ("broken", "confusion", "epoch", "found", "score", "step", "train", "val")

    def __init__(self, row: Mapping[str, Any], metric: str) -> None:
        self.step = int(number(row.get("step")) or 0)
        self.epoch = int(number(row.get("epoch")) or 0)
        self.train = numbers({key[6:]: value for key, value in row.items() if key.startswith("train/")})
        said = {key[4:]: value for key, value in row.items() if key.startswith("val/") and value not in (None, "")}
        self.val = numbers(said)
        self.broken = sorted(set(said) - set(self.val))
        self.score = number(row.get(f"metrics/{metric}"))
        self.found = number(row.get("metrics/mAP50"))
        confusion = row.get("confusion")
        self.confusion: Mapping[str, Mapping[str, float]] = confusion if isinstance(confusion, Mapping) else {}


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if value is None:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and _FINITE(value) else None


def numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping; the mapping itself where it holds nothing else."""
    if type(values) is dict:  # nearly always: quickly
        try:
            if _FINITE(sum(values.values())):
                return values
        except TypeError:
            pass
    if not isinstance(values, Mapping):
        return {}
    return {str(key): value for key, value in values.items() if isinstance(value, int | float) and _FINITE(value)}


def _all_counts(values: list[Any]) -> bool:
    return all(isinstance(n, int) and n >= 0 for n in values)
