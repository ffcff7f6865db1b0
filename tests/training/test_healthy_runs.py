"""Healthy whole runs on real data raise nothing: policies, optimisers, schedules, precisions, stages, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_model

from onestage import models
from onestage.training.fit import fit

HEAVY = {"options.class_loss": "softmax-ohem", "options.box_loss": "smooth-l1"}
STAGES = [
    {"name": "heads", "epochs": 2, "freeze": ["all-but-heads"], "optimiser": {"lr": 1e-2}},
    {"name": "all", "epochs": 2, "freeze": [], "optimiser": {"lr": 1e-3, "name": "nadam"}},
]
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "zoom, cosine, ema": ("bccd", {"epochs": 3, "augmentation.policy": "zoom", "ema": 0.99}),
    "mosaic, micro-batches, bf16": ("raccoon", {"epochs": 4, "accumulate": 4, "precision": "bf16"}),
    "ssd, adam, exponential": (
        "bccd",
        {"epochs": 3, "augmentation.policy": "ssd", "optimiser.name": "adam", "schedule.name": "exponential", **HEAVY},
    ),
    "sgd, sizes that change": (
        "raccoon",
        {"epochs": 6, "multiscale.low": 0.5, "multiscale.high": 1.5, "optimiser.name": "sgd", "optimiser.lr": 1e-2},
    ),
    "many classes, batch 2": ("coco128", {"epochs": 2, "batch": 2}),
    "fp16, linear": ("raccoon", {"epochs": 3, "precision": "fp16", "schedule.name": "linear"}),
    "stages": ("bccd", {"stages": STAGES}),
    "frozen, constant": ("raccoon", {"epochs": 4, "freeze": ["backbone"], "schedule.name": "constant"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_healthy_run_raises_nothing(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(models.MODELS, "ssd-small", small_model.WORDS)
    data, changed = RUNS[name]
    keys = {
        "data": str(shared / data), "model": "ssd-small", "size": 96, "weights": "none", "device": "cpu",
        "precision": "fp32", "batch": 8, "validation.every": 2, "seed": 1, **changed,
    }  # fmt: skip
    run = fit(keys, root=tmp_path)
    assert run.info["status"] == "finished"
    assert [
        found for found in run.findings if found["where"].get("step") is not None and found["severity"] != "note"
    ] == []
    assert not (run.folder / "recorder").exists()
