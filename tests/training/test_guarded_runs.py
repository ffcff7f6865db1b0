"""Whole runs that skip steps, go back, change sizes, and have stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import Small
from test_fit import TINY, StopAt, data, same_weights, values

from onestage.errors import DivergedError
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw
from onestage.training.fit import fit, resume

__all__ = ["data"]


def poison(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """The loss of these calls in training (from 1) is not a number."""
    original, count = Small.loss, [0]

    def poisoned(self: Small, raw: Raw, truths: Any) -> Loss:
        loss = original(self, raw, truths)
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return loss
        count[0] += 1
        if count[0] in calls:
            loss.parts["box"] = loss.parts["box"] * math.nan
        return loss

    monkeypatch.setattr(Small, "loss", poisoned)


def test_a_bad_step_can_be_skipped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 2)
    run = fit({**TINY, "data": str(data), "guard.nan": "skip"}, root=tmp_path)
    assert run.info["status"] == "finished"
    assert [row.get("skipped", False) for row in run.steps] == [False, True, False, False]
    assert math.isnan(run.steps[1]["loss"])
    assert any(finding["where"].get("step") == 2 for finding in run.findings)


def test_a_bad_step_can_be_gone_back_from(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 3)
    keys = {**TINY, "data": str(data), "guard.nan": "rollback", "schedule.name": "constant", "schedule.warmup": 0}
    run = fit(keys, root=tmp_path)
    assert run.info["status"] == "finished"
    rates = [row["lr"]["heads"] for row in run.steps]
    assert len(rates) == 4
    assert rates[2] == pytest.approx(rates[1] * 0.5)
    assert rates[3] == rates[2]


def test_skips_without_end_are_a_failure(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, *range(1, 99))
    with pytest.raises(DivergedError, match=r"guard\.most"):
        fit({**TINY, "data": str(data), "guard.nan": "skip", "guard.most": 2, "epochs": 4}, root=tmp_path)


def test_a_run_at_changing_sizes_is_resumed_exactly(data: Path, tmp_path: Path) -> None:
    keys = {**TINY, "data": str(data), "multiscale.high": 2, "multiscale.every": 1, "epochs": 3, "ema": 0}
    whole = fit({**keys, "name": "whole"}, root=tmp_path)
    assert len({tuple(row["size"]) for row in whole.steps}) > 1
    with pytest.raises(KeyboardInterrupt):
        fit({**keys, "name": "cut", "workers": 1}, root=tmp_path, watcher=StopAt(3))
    run = resume(Run.open("cut", tmp_path))
    assert values(run) == values(whole)
    assert same_weights(run, whole)


def test_stages_have_their_own_frozen_parts_and_rates(data: Path, tmp_path: Path) -> None:
    keys = {**TINY, "data": str(data), "stages": [
        {"name": "heads", "epochs": 2, "freeze": ["all-but-heads"], "optimiser": {"lr": 1e-2}},
        {"name": "all", "epochs": 1, "freeze": [], "optimiser": {"lr": 1e-4, "name": "sgd"}},
    ]}  # fmt: skip
    del keys["epochs"]  # type: ignore[arg-type]
    whole = fit({**keys, "name": "whole"}, root=tmp_path)
    assert set(whole.steps[0]["lr"]) == {"heads", "heads.no_decay"}
    assert set(whole.steps[-1]["lr"]) > {"backbone", "heads"}
    assert [row["stage"] for row in whole.steps] == [0, 0, 0, 0, 1, 1]
    for step in (3, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            fit({**keys, "name": f"cut{step}"}, root=tmp_path, watcher=StopAt(step))
        run = resume(Run.open(f"cut{step}", tmp_path))
        assert values(run) == values(whole)
        assert same_weights(run, whole)
