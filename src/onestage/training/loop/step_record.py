"""What one optimiser step did, as steps.jsonl keeps it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.models.detector import SCALE
from onestage.training.loop.evidence import Evidence


@dataclass
class StepRecord:
    """What one optimiser step did; `seconds` splits waiting for data from computing, `extra` is what few rows have."""

    step: int
    epoch: int
    loss: float
    raw: dict[str, float]
    weighted: dict[str, float]
    positives: int
    positives_per_level: list[int]
    lr: dict[str, float]
    grad_norm: float
    images: int
    seconds: dict[str, float]
    truths: int = 0
    ids: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def as_row(self, since_start: float) -> dict[str, Any]:
        """The line of steps.jsonl."""
        seconds = {key: round(value, 4) for key, value in self.seconds.items()}
        return {
            "step": self.step, "epoch": self.epoch, "time": round(since_start, 3), "loss": self.loss,
            "raw": self.raw, "weighted": self.weighted, "positives": self.positives,
            "positives_per_level": self.positives_per_level, "lr": self.lr, "grad_norm": self.grad_norm,
            "images": self.images, "truths": self.truths, **self.extra, "seconds": seconds,
        }  # fmt: skip


def record_of(evidence: Evidence, seconds: dict[str, float], extra: dict[str, Any], ids: list[Any]) -> StepRecord:
    """The record of a step from its evidence."""
    if evidence.scale is not None:
        extra["scale"] = evidence.scale
        if overflowed(evidence):
            extra["overflow"] = True
    if evidence.negatives is not None:
        extra["negatives"] = evidence.negatives
    if evidence.scales is not None:
        extra["scales"] = [told_scale(row) for row in evidence.scales]
    extra |= {name: round(value, 6) for name, value in evidence.sums.items()}
    if evidence.filtered is not None:
        extra["filtered"] = evidence.filtered
    if evidence.grad_norms is not None:
        extra["grad_norms"] = evidence.grad_norms
    if evidence.without_gradient:
        extra["without_gradient"] = evidence.without_gradient
    if evidence.update_norm is not None:
        extra["update_norm"] = evidence.update_norm
    return StepRecord(
        evidence.step, evidence.epoch, evidence.loss, evidence.raw, evidence.weighted,
        sum(evidence.positives_per_level), evidence.positives_per_level, evidence.lr,
        math.nan if evidence.grad_norm is None else evidence.grad_norm, evidence.images, seconds,
        evidence.truths, ids, extra,
    )  # fmt: skip


def told_scale(sums: Sequence[float]) -> dict[str, float | int | None]:
    """What a level did, as means over its positives (None where it has none) and, `noobj`, over all its boxes."""
    said = dict(zip(SCALE, sums, strict=True))
    count, cells, nobody = int(said.pop("count")), said.pop("cells"), said.pop("noobj")
    means = {name: round(value / count, 6) if count else None for name, value in said.items()}
    return {"count": count, **means, "noobj": round(nobody / cells, 6) if cells else None}


def overflowed(evidence: Evidence) -> bool:
    """Whether a gradient was too large for fp16 at the present loss scale, which is ordinary now and then."""
    return evidence.scale is not None and evidence.grad_norm is not None and not math.isfinite(evidence.grad_norm)
