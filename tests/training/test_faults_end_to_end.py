"""Faults planted in whole runs, in data, policy, loader, model, weights and machine: each is named, and the guard obeyed.

The runs go through `fit` on a small model; a fault is planted where a user or a library would bring it in, not into the
recorder.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_model
import torch
from safetensors.torch import save_file
from small_model import Small
from test_fit import TINY, shapes
from torch import Tensor, nn

import onestage.training.loop as loop_module
from onestage import models
from onestage.data.augment import Sample, Zoom
from onestage.data.batches import Maker
from onestage.data.loader import Loader
from onestage.errors import DataError, DivergedError, ModelError, RecipeError
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw, Truth
from onestage.records import Annotations, Batch
from onestage.training.fit import fit
from onestage.training.loop import Loop

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


# Truths

BOXES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "zero width": (lambda b: (b[0], b[1], b[0], b[3]), "width 0"),
    "zero height": (lambda b: (b[0], b[1], b[2], b[1]), "height 0"),
    "inverted": (lambda b: (b[2], b[1], b[0], b[3]), "inverted: x1 is greater than x2"),
    "nan": (lambda b: (math.nan, b[1], b[2], b[3]), "a corner is not a finite number"),
    "inf": (lambda b: (b[0], b[1], math.inf, b[3]), "a corner is not a finite number"),
}


@pytest.mark.parametrize("fault", BOXES)
@pytest.mark.parametrize("loss", ["giou", "smooth-l1"])
def test_a_broken_box_is_named_by_file_row_and_formula(
    fault: str, loss: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = BOXES[fault]
    spoil_truths(monkeypatch, lambda truth: box_of_first(truth, change))
    told = Told({"data": str(data), "options.box_loss": loss}, tmp_path)
    finding = told.stopped("broken-box", 1)
    assert words in finding["what"]
    assert Path(finding["where"]["file"]).is_file()
    assert finding["evidence"]["row"] == 0
    assert "ln(" in finding["evidence"]["formula"] or "not finite" in finding["evidence"]["formula"]


@pytest.mark.parametrize("fault", ["huge", "far away"])
def test_a_box_out_of_all_proportion_is_told_and_the_run_goes_on(
    fault: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = (0, 0, 1e30, 1e30) if fault == "huge" else (6400, 0, 6400, 0)
    spoil_truths(monkeypatch, lambda truth: box_of_first(truth, lambda box: box + shift))
    told = Told({"data": str(data), "epochs": 1}, tmp_path)
    assert told.error is None
    finding = told.said("outsize-box")
    assert "truth 0" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


@pytest.mark.parametrize("label", [1, -1])
def test_a_label_that_is_no_class_is_named(
    label: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_truths(monkeypatch, lambda truth: replace(truth, labels=np.full(len(truth), label)))
    finding = Told({"data": str(data)}, tmp_path).stopped("label-out-of-range", 1)
    assert f"label {label}, but the model has 1 classes" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_no_truths_at_all_are_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_truths(monkeypatch, lambda _: Annotations.empty())
    told = Told({"data": str(data), **QUIET}, tmp_path)
    assert told.error is None
    assert told.codes == ["empty-batches"]
    assert "the rows name no truth" in told.said("empty-batches")["what"]


# Pixels and batches


def pixel(value: float) -> Callable[[Batch], Batch]:
    def change(batch: Batch) -> Batch:
        images = batch.images.astype(np.float32)
        images[1, 1, 5, 7] = value
        return replace(batch, images=images)

    return change


@pytest.mark.parametrize(("value", "accumulate"), [(math.nan, 1), (math.inf, 2)])
def test_a_pixel_that_is_not_finite_is_named(
    value: float, accumulate: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_batches(monkeypatch, pixel(value), 7)
    told = Told({"data": str(data), "accumulate": accumulate}, tmp_path)
    finding = told.stopped("non-finite-pixel", 7)
    assert f"{value} at x=7, y=5, G" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_a_bad_pixel_can_be_skipped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_batches(monkeypatch, pixel(math.nan), 7)
    told = Told({"data": str(data), "guard.nan": "skip"}, tmp_path)
    assert told.error is None
    assert [row["step"] for row in told.run.steps if row.get("skipped")] == [7]
    assert told.said("non-finite-pixel")["where"]["step"] == 7


def test_a_black_image_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_batches(monkeypatch, lambda b: replace(b, images=np.concatenate([b.images[:2] * 0, b.images[2:]])), 7)
    told = Told({"data": str(data)}, tmp_path)
    assert told.codes == ["constant-image"]
    assert told.said("constant-image")["where"]["step"] == 7


def test_a_batch_without_images_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_batches(monkeypatch, lambda b: Batch(b.images[:0], [], [], [], []), 7)
    assert "holds no image" in Told({"data": str(data)}, tmp_path).stopped("empty-batch", 7)["what"]


def test_a_batch_of_another_size_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_batches(monkeypatch, lambda b: replace(b, images=b.images[:, :, :32, :32]), 7)
    finding = Told({"data": str(data)}, tmp_path).stopped("wrong-shape", 7)
    assert "images are 32x32, the step is for 64x64" in finding["what"]


def test_a_stuck_sampler_is_named_with_an_image_that_came_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "order", lambda self, epoch: [i % 4 if self.shuffle else i for i in range(len(self.dataset))])
    told = Told({"data": str(data)}, tmp_path)
    finding = told.said("batches-alike")
    assert "came at steps 1 and 2, both in epoch 1" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_an_order_that_is_not_drawn_anew_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "order", lambda self, epoch: list(range(len(self.dataset))))
    told = Told({"data": str(data)}, tmp_path)
    assert told.codes == ["batches-alike"]
    assert "in the same order as the epoch before" in told.said("batches-alike")["what"]
