"""Whole runs that go wrong: planted faults are named with image and box, and the guard does what the recipe says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import TINY, StopAt, data, same_weights, values

from onestage.data.augment import Sample, Zoom
from onestage.errors import DivergedError, RecipeError
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw
from onestage.models.lite import SSDLite0
from onestage.records import Annotations
from onestage.training.fit import fit, resume

__all__ = ["data"]


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Annotations], Annotations]) -> None:
    """Have the zoom policy spoil the truths of every image that has any, but not in the check before a run."""
    original = Zoom.__call__

    def spoilt(self: Zoom, *args: Any, **keys: Any) -> Sample:
        sample = original(self, *args, **keys)
        return sample._replace(annotations=change(sample.annotations)) if len(sample.annotations) else sample

    monkeypatch.setattr(Zoom, "__call__", spoilt)
    monkeypatch.setattr("onestage.training.checks.policy_keeps_boxes", lambda *_: [])


def moved(annotations: Annotations, columns: slice | list[int], value: Any) -> Annotations:
    boxes = annotations.boxes.copy()
    boxes[0, columns] = value(boxes[0]) if callable(value) else value
    return replace(annotations, boxes=boxes)


FAULTS: dict[str, tuple[Callable[[Annotations], Annotations], str]] = {
    "zero width": (lambda a: moved(a, [2], lambda box: box[0]), "width 0"),
    "inverted": (lambda a: moved(a, [0, 2], lambda box: box[[2, 0]]), "inverted"),
    "not a number": (lambda a: moved(a, [1], math.nan), "nan"),
    "label too large": (lambda a: replace(a, labels=np.full(len(a), 7)), "label 7"),
    "label below 0": (lambda a: replace(a, labels=np.full(len(a), -1)), "label -1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_spoilt_truth_stops_the_run_and_is_named(
    fault: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = FAULTS[fault]
    spoil(monkeypatch, change)
    with pytest.raises(DivergedError) as caught:
        fit({**TINY, "data": str(data), "name": "spoilt"}, root=tmp_path)
    told = str(caught.value)
    run = Run.open("spoilt", tmp_path)
    assert run.info["status"] == "diverged"
    assert words in told, told
    assert ".png" in told, told
    reports = list((run.folder / "recorder").glob("step-*.json"))
    assert len(reports) == 1
    assert words in reports[0].with_suffix(".md").read_text()
    assert json.loads(reports[0].read_text())


def test_a_box_far_beyond_the_image_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda a: moved(a, [2, 3], 1e30))
    run = fit({**TINY, "data": str(data), "name": "huge"}, root=tmp_path)
    told = [finding for finding in run.findings if "1e+30" in finding["what"]]
    assert told
    assert all(".png" in finding["what"] for finding in told), told


def poison(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """The loss of these calls in training (from 1) is not a number."""
    original, count = SSDLite0.loss, [0]

    def poisoned(self: SSDLite0, raw: Raw, truths: Any) -> Loss:
        loss = original(self, raw, truths)
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return loss
        count[0] += 1
        if count[0] in calls:
            loss.parts["box"] = loss.parts["box"] * math.nan
        return loss

    monkeypatch.setattr(SSDLite0, "loss", poisoned)


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


def test_a_policy_that_mirrors_pictures_alone_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Zoom.__call__

    def mirrored(self: Zoom, *args: Any, **keys: Any) -> Sample:
        sample = original(self, *args, **keys)
        return sample._replace(image=np.ascontiguousarray(sample.image[:, ::-1]))

    monkeypatch.setattr(Zoom, "__call__", mirrored)
    with pytest.raises(RecipeError, match=r"augmentation\.policy: the augmentation moves the picture without"):
        fit({**TINY, "data": str(data)}, root=tmp_path)
    assert not list(tmp_path.glob("*"))


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
