"""The rows of metrics.json as a page asks for them: over all, and per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onestage.records import Metric, Metrics

# What the page calls a number → the names it may have, each with the beginning of its protocol, best first.
OVERALL: dict[str, tuple[tuple[str, str], ...]] = {
    "mAP50": (("voc10", "mAP50"), ("voc10", "mAP"), ("voc10", "AP"), ("coco", "AP50"), ("", "mAP50"), ("", "AP50")),
    "mAP50-95": (("coco", "mAP50-95"), ("coco", "mAP"), ("coco", "AP"), ("", "mAP50-95")),
    "precision": (("voc", "precision"), ("", "precision")),
    "recall": (("voc", "recall"), ("", "recall")),
    "F1": (("voc", "F1"), ("", "F1"), ("", "f1")),
}
PER_CLASS: dict[str, tuple[tuple[str, str], ...]] = {
    "AP50": (("voc10", "AP50"), ("voc10", "AP"), ("coco", "AP50"), ("", "AP50"), ("voc07", "AP")),
    "AP50-95": (("coco", "AP50-95"), ("coco", "AP"), ("", "AP50-95")),
    "precision": OVERALL["precision"],
    "recall": OVERALL["recall"],
    "F1": OVERALL["F1"],
}


@dataclass(frozen=True)
class Scores:
    """What metrics.json says, asked by the page's words; what is not there is None."""

    metrics: Metrics
    n_images: int | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Scores:
        """From the content of metrics.json; empty content gives no scores. Raises KeyError for a damaged row."""
        return cls(Metrics.from_list(metrics.get("rows", [])), metrics.get("n_images"))

    def overall(self, word: str) -> Metric | None:
        """The number over all classes that the page calls `word`, one of OVERALL."""
        return self._first(OVERALL[word], None)

    def per_class(self, word: str, name: str) -> Metric | None:
        """The number of the class `name` that the page calls `word`, one of PER_CLASS."""
        return self._first(PER_CLASS[word], name)

    def classes(self) -> list[str]:
        """Names of all classes that have a number, in order of appearance."""
        return list(dict.fromkeys(row.class_name for row in self.metrics if row.class_name is not None))

    def objects(self) -> int | None:
        """How many truths the scores rest on: the sum over the classes, or else the n of mAP50."""
        counts = [row.n for name in self.classes() if (row := self.per_class("AP50", name))]
        whole = self.overall("mAP50")
        return sum(counts) if counts else (None if whole is None else whole.n)

    def _first(self, wanted: Sequence[tuple[str, str]], class_name: str | None) -> Metric | None:
        for protocol, name in wanted:
            for row in self.metrics:
                if row.name == name and row.class_name == class_name and row.protocol.startswith(protocol):
                    return row
        return None


def operating_score(metrics: Mapping[str, Any], otherwise: float = 0.5) -> float:
    """The score from which on a detection counts as said: the operating point of metrics.json, or `otherwise`."""
    point = metrics.get("operating_point")
    for key in ("score", "threshold", "confidence"):
        value = point.get(key) if isinstance(point, Mapping) else None
        if isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
    return otherwise


def spoken(metric: Metric | None, digits: int = 2) -> str:
    """A score as read aloud: "0.56 (95 % 0.50–0.61)"; "undefined" for NaN, "–" where there is none."""
    if metric is None:
        return "–"
    if math.isnan(metric.value):
        return "undefined"
    text = f"{metric.value:.{digits}f}"
    if metric.interval is None:
        return text
    return f"{text} (95 % {metric.interval[0]:.{digits}f}–{metric.interval[1]:.{digits}f})"
