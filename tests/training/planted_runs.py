"""Faults to plant in whole runs of a small model, and what such a run says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_model
import torch
from small_model import Small
from test_fit import TINY, shapes
from torch import nn

from onestage import models
from onestage.data.augment import Zoom
from onestage.data.loader import Loader
from onestage.data.policy import Sample
from onestage.errors import DataError, DivergedError, ModelError, RecipeError
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw
from onestage.records import Annotations, Batch
from onestage.training.fit import fit
from onestage.training.loop.loop import Loop

QUIET = {"validation.every": 100}  # judged once, at the end


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("data") / "shapes", images=50)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssd-small` among the models."""
    monkeypatch.setitem(models.MODELS, "ssd-small", small_model.WORDS)


class Told:
    """What a run said: its folder, its error if it raised one, and its findings by code."""

    def __init__(self, keys: dict[str, Any], root: Path) -> None:
        self.error: Any = None
        try:
            self.run = fit({**TINY, "model": "ssd-small", "epochs": 3, "name": "planted", **keys}, root=root)
        except (DivergedError, DataError, ModelError, RecipeError) as error:
            self.error = error
            with contextlib.suppress(Exception):
                self.run = Run.open("planted", root)

    @property
    def findings(self) -> list[dict[str, Any]]:
        return self.run.findings

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.findings if finding["severity"] != "note"]

    def said(self, code: str) -> dict[str, Any]:
        """The first finding of a code."""
        return next(finding for finding in self.findings if finding["code"] == code)

    def stopped(self, code: str, step: int) -> dict[str, Any]:
        """The finding that stopped the run at a step, after the checks that every such end must pass."""
        assert isinstance(self.error, DivergedError), self.error
        assert self.error.exit_code == 7
        assert self.run.info["status"] == "diverged"
        finding = [found for found in self.findings if found["where"].get("step") == step][-1]
        assert finding["code"] == code, finding
        assert len(self.run.steps) == step - 1
        assert f"step {step} " in str(self.error)
        report = self.run.folder / "recorder" / f"step-{step:06d}.md"
        assert code in report.read_text()
        return finding


def spoil_truths(monkeypatch: pytest.MonkeyPatch, change: Callable[[Annotations], Annotations]) -> None:
    """Have the policy spoil the truths of each image that has any, but not in the check before a run."""
    original = Zoom.__call__

    def spoilt(self: Zoom, *args: Any, **keys: Any) -> Sample:
        sample = original(self, *args, **keys)
        return sample._replace(annotations=change(sample.annotations)) if len(sample.annotations) else sample

    monkeypatch.setattr(Zoom, "__call__", spoilt)
    monkeypatch.setattr("onestage.training.checks.policy_keeps_boxes", lambda *_: [])


def spoil_batches(monkeypatch: pytest.MonkeyPatch, change: Callable[[Batch], Batch], *steps: int) -> None:
    """Have the loader spoil training batches: those of these steps, all where none is named."""
    original, count = Loader.epoch, [0]

    def spoilt(self: Loader, *args: Any, **keys: Any) -> Iterator[Batch]:
        for batch in original(self, *args, **keys):
            count[0] += self.shuffle
            yield change(batch) if self.shuffle and (not steps or count[0] in steps) else batch

    monkeypatch.setattr(Loader, "epoch", spoilt)


def spoil_loss(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Loss, Raw], Any], *steps: int
) -> None:  # fmt: skip
    """Have the model spoil the loss of these training steps, all where none is named; computed again it is the same."""
    original, count = Small.loss, [0]

    def spoilt(self: Small, raw: Raw, truths: Any) -> Loss:
        loss = original(self, raw, truths)
        if not torch.is_inference_mode_enabled():
            count[0] += raw.logits.requires_grad
            if not steps or count[0] in steps:
                change(loss, raw)
        return loss

    monkeypatch.setattr(Small, "loss", spoilt)


def spoil_model(monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], Any], *steps: int) -> None:
    """Spoil the weights before these steps, without a gradient."""
    original = Loop._one

    def spoilt(self: Loop, *args: Any) -> Any:
        if self.step + 1 in steps:
            with torch.no_grad():
                change(self.detector)
        return original(self, *args)

    monkeypatch.setattr(Loop, "_one", spoilt)


def box_of_first(annotations: Annotations, change: Callable[[Any], Any]) -> Annotations:
    boxes = annotations.boxes.copy()
    boxes[0] = change(boxes[0])
    return replace(annotations, boxes=boxes)
