"""Simulated training curves: healthy ones in the manner of SSD and YOLO, and ones with a fault planted in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from onestage.experiments.curve_rules import Facts

Row = dict[str, Any]
STEPS, PER_EPOCH, BATCH = 800, 20, 32
FACTS = Facts(
    classes=1, class_loss="softmax-ohem", ratio=3.0, steps=STEPS, steps_per_epoch=PER_EPOCH, epochs=STEPS // PER_EPOCH,
    batch=BATCH, images=PER_EPOCH * BATCH, warmup=50, clip=10.0, evaluations=10, calm_epoch=34,
    frozen=("backbone.stem",), memory_limit=8 * 2**30,
)  # fmt: skip


class Planted(NamedTuple):
    """A curve and what is known of its run."""

    facts: Facts
    steps: list[Row]
    results: list[Row]


def healthy(steps: int = STEPS, seed: int = 0, kind: str = "ssd", noise: float = 0.12, facts: Facts = FACTS) -> Planted:
    """A run as it should be: the losses fall by a power of the step, with noise; all keys a row can have."""
    rng = np.random.default_rng(seed)
    start = {"ssd": {"cls": 5.0, "box": 3.0}, "yolo": {"obj": 212.0, "cls": 14.0, "box": 9.0}}[kind]
    end = {"ssd": {"cls": 1.3, "box": 0.6}, "yolo": {"obj": 1.8, "cls": 0.6, "box": 0.7}}[kind]
    shares = {"ssd": [0.5, 0.3, 0.15, 0.04, 0.01, 0.0], "yolo": [0.935, 0.06, 0.005]}[kind]
    facts = replace(
        facts,
        steps=steps,
        epochs=-(-steps // PER_EPOCH),
        calm_epoch=round(0.85 * steps / PER_EPOCH),
        evaluations=max(steps // 80, 1),
    )
    rows: list[Row] = []
    for step in range(1, steps + 1):
        share = (0.02 + 0.98 * (1 + np.cos(np.pi * step / steps)) / 2) * min(1.0, step / facts.warmup)
        wobble = float(np.exp(rng.normal(0, noise)))
        raw = {}
        for part, first in start.items():
            mean = end[part] * (1 + 30 / (step + 60)) + (first - end[part]) * np.exp(-step / 40)
            raw[part] = float(mean * wobble * np.exp(rng.normal(0, noise / 3)))
        positives = int(BATCH * 30 * np.exp(rng.normal(0, 0.3)))
        row: Row = {
            "step": step, "epoch": (step - 1) // PER_EPOCH, "time": float(step), "loss": sum(raw.values()), "raw": raw,
            "weighted": dict(raw), "positives": positives,
            "positives_per_level": [int(n) for n in rng.multinomial(positives, shares)],
            "lr": {"backbone": 1e-4 * share, "heads": 1e-3 * share},
            "grad_norm": float(4 * np.exp(rng.normal(0, 0.4)) * (1 + 3 * np.exp(-step / 30))), "images": BATCH,
            "seconds": {"data": float(rng.exponential(0.05)), "step": 0.9}, "scale": 65536.0, "truths": 200,
        }  # fmt: skip
        if step % 10 == 0:
            row |= {
                "grad_norms": {"backbone.stem": 0.0, "backbone": 1.0, "neck": 2.0, "heads": 3.0}, "update_norm": 0.02,
                "memory": 2 * 2**30 + int(rng.normal(0, 2**22)), "disk_free": 50 * 2**30 - step * 4096,
                "moved": {"backbone.stem": 0.0},
            }  # fmt: skip
        rows.append(row)
    return Planted(facts, rows, [evaluation(rows, at, rng) for at in range(80, steps + 1, 80)])


def evaluation(rows: list[Row], at: int, rng: np.random.Generator) -> Row:
    """A row of results.csv after step `at`: a score that rises and settles, validation a little above training."""
    last = rows[at - PER_EPOCH : at]
    train = {part: float(np.mean([row["raw"][part] for row in last])) for part in rows[0]["raw"]}
    score = 0.6 * (1 - np.exp(-at / 250)) + rng.normal(0, 0.004)
    row: Row = {"epoch": at // PER_EPOCH, "step": at, "metrics/mAP50": min(1.5 * score, 1), "metrics/mAP50-95": score}
    row |= {f"train/{part}": value for part, value in train.items()}
    row |= {f"val/{part}": 1.3 * value * float(np.exp(rng.normal(0, 0.02))) for part, value in train.items()}
    return row


def changed(
    change: Callable[[int, Row], None], evaluated: Callable[[int, Row], None] | None = None, **facts: Any
) -> Planted:
    """A healthy run in which `change` has its way with every step, and `evaluated` with every evaluation (from 0)."""
    run = healthy()
    for row in run.steps:
        change(row["step"], row)
    for i, row in enumerate(run.results):
        if evaluated is not None:
            evaluated(i, row)
    return run._replace(facts=replace(run.facts, **facts))


def untouched(step: int, row: Row) -> None:
    """Leaves a step as it is."""


def judged(evaluated: Callable[[int, Row], None], **facts: Any) -> Planted:
    """A healthy run whose evaluations are changed."""
    return changed(untouched, evaluated, **facts)
