"""Faults planted in whole runs (data, policy, loader, model, weights, machine): each named, the guard obeyed.

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

import onestage.training.loop.loop as loop_module
from onestage import models
from onestage.data.augment import Sample, Zoom
from onestage.data.batches import Maker
from onestage.data.loader import Loader
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
    monkeypatch.setattr(
        Loader, "order", lambda self, epoch: [i % 4 if self.shuffle else i for i in range(len(self.dataset))]
    )
    told = Told({"data": str(data)}, tmp_path)
    finding = told.said("batches-alike")
    assert "came at steps 1 and 2, both in epoch 1" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_an_order_that_is_not_drawn_anew_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "order", lambda self, epoch: list(range(len(self.dataset))))
    told = Told({"data": str(data)}, tmp_path)
    assert told.codes == ["batches-alike"]
    assert "in the same order as the epoch before" in told.said("batches-alike")["what"]


# Policies and classes


def spoil_samples(monkeypatch: pytest.MonkeyPatch, change: Callable[[Sample], Sample]) -> None:
    """Have the policy spoil its samples, in the check before a run too."""
    original = Zoom.__call__
    monkeypatch.setattr(Zoom, "__call__", lambda self, *args, **keys: change(original(self, *args, **keys)))


def mirrored_boxes(sample: Sample) -> Sample:
    boxes = sample.annotations.boxes.copy()
    boxes[:, [0, 2]] = sample.image.shape[1] - boxes[:, [2, 0]]
    return sample._replace(annotations=replace(sample.annotations, boxes=boxes))


SAMPLES: dict[str, tuple[Callable[[Sample], Sample], str]] = {
    "image-only flip": (
        lambda s: s._replace(image=np.ascontiguousarray(s.image[:, ::-1])),
        r"moves the picture without its boxes: .*: mirrored left to right",
    ),
    "image-only shift": (
        lambda s: s._replace(image=np.ascontiguousarray(np.roll(s.image, 9, 1))),
        r"moves the picture without its boxes",
    ),
    "boxes-only flip": (mirrored_boxes, r"moves boxes without the picture: .*: mirrored left to right"),
    "boxes dropped": (lambda s: s._replace(annotations=Annotations.empty()), r"loses boxes of objects"),
    "boxes inverted": (
        lambda s: s._replace(annotations=replace(s.annotations, boxes=s.annotations.boxes[:, [2, 1, 0, 3]])),
        r"boxes that are no boxes of the image: .* is inverted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SAMPLES)
def test_a_policy_that_parts_pixels_and_boxes_is_refused_with_its_fault(
    fault: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = SAMPLES[fault]
    spoil_samples(monkeypatch, change)
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, RecipeError)
    assert len(told.error.problems) == 0, "one fault, one sentence"
    with pytest.raises(RecipeError, match=words):
        raise told.error


def test_a_policy_that_exchanges_labels_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanged(sample: Sample) -> Sample:
        labels = sample.annotations.labels
        return sample._replace(
            annotations=replace(
                sample.annotations, labels=np.where(labels < 2, (1 - labels) * (labels.max(initial=0) > 0), labels)
            )
        )

    spoil_samples(monkeypatch, exchanged)
    told = Told({"data": str(data), "epochs": 1}, tmp_path)
    assert "had label 0, its box says 1" in told.said("policy-changes-labels")["what"]


def suns_and_skies(folder: Path, images: dict[str, int], exchanged: str | None = None) -> Path:
    """Yellow and blue squares in sets of their own; in one of them the labels are exchanged."""
    rng = np.random.default_rng(0)
    for part, count in images.items():
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for number in range(count):
            image, rows = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8), []
            for _ in range(2):
                label, side = int(rng.integers(2)), int(rng.integers(12, 28))
                x, y = (int(v) for v in rng.integers(0, 64 - side, 2))
                image[y : y + side, x : x + side] = ((255, 220, 40), (20, 40, 255))[label]
                said = 1 - label if part == exchanged else label
                rows.append(f"{said} {(x + side / 2) / 64} {(y + side / 2) / 64} {side / 64} {side / 64}")
            cv2.imwrite(str(folder / "images" / part / f"{number:03d}.png"), image)
            (folder / "labels" / part / f"{number:03d}.txt").write_text("\n".join(rows))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [sun, sky]\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("where", ["val files", "training batches", None])
def test_a_class_map_that_differs_between_train_and_val_is_named(
    where: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "training batches":
        spoil_batches(
            monkeypatch,
            lambda b: replace(b, annotations=[replace(truth, labels=1 - truth.labels) for truth in b.annotations]),
        )
    made = suns_and_skies(tmp_path / "two", {"train": 60, "val": 30}, "val" if where == "val files" else None)
    told = Told({"data": str(made), "epochs": 12, "validation.every": 2}, tmp_path)
    if where is None:
        assert told.codes == []
        return
    what = told.said("classes-exchanged")["what"]
    assert "sun as sky" in what
    assert "sky as sun" in what


# Rates and precision


@pytest.mark.parametrize(
    ("rate", "name"), [(1e6, "adamw"), (1e9, "adamw"), (1e6, "sgd"), (1e9, "sgd")]
)  # fmt: skip
def test_a_learning_rate_that_blows_the_weights_up_is_named(rate: float, name: str, data: Path, tmp_path: Path) -> None:
    keys = {"optimiser.lr": rate, "optimiser.name": name, "schedule.warmup": 0}
    told = Told({"data": str(data), **keys}, tmp_path)
    assert isinstance(told.error, DivergedError)
    assert told.error.exit_code == 7
    assert told.run.info["status"] == "diverged"
    assert told.codes[0] == "lr-too-high"  # before the first step
    first, last = told.said("exploded-weights"), told.findings[-1]
    assert "weights have run away" in first["what"]
    assert f"lr {rate:.0e}"[:6] in first["what"].replace("e+0", "e+0")
    assert first["where"]["step"] <= 3
    assert last["code"] == "exploded-weights"
    assert "optimiser.lr" in last["remedy"]


def test_fp16_that_overflows_in_the_forward_pass_names_the_module(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(monkeypatch, lambda detector: detector.backbone.blocks[0][0].weight.mul_(1e6), 4)
    told = Told({"data": str(data), "precision": "fp16"}, tmp_path)
    finding = told.stopped("amp-overflow", 4)
    assert "fp16 overflows in backbone.blocks.0.0" in finding["what"]
    assert "precision=bf16" in finding["remedy"]


def test_fp16_whose_gradients_overflow_at_every_scale_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update(box=loss.parts["box"] * 1e30))
    finding = Told({"data": str(data), "precision": "fp16"}, tmp_path).stopped("amp-overflow", 10)
    assert "backward pass" in finding["what"]


# Weights


@pytest.mark.parametrize(("value", "ending"), [(math.nan, "safetensors"), (math.inf, "safetensors"), (math.nan, "pth")])
def test_a_poisoned_weights_file_is_refused_by_tensor(
    value: float, ending: str, data: Path, tmp_path: Path
) -> None:  # fmt: skip
    state = {name: tensor.clone() for name, tensor in Small(1).state_dict().items()}
    state["backbone.blocks.1.0.weight"][0, 0] = value
    path = tmp_path / f"poisoned.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    told = Told({"data": str(data), "weights": str(path)}, tmp_path)
    assert isinstance(told.error, ModelError)
    assert str(path) in told.error.message
    assert told.error.problems == ("backbone.blocks.1.0.weight: 9 of 1152 values",)
    assert not list(tmp_path.glob("planted*"))


@pytest.mark.parametrize("place", ["weight", "bias"])
def test_weights_poisoned_in_mid_run_are_named(
    place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(detector: nn.Module) -> None:
        getattr(detector.neck.coarser[0][1], place)[3] = math.nan

    spoil_model(monkeypatch, poison, 12)
    finding = Told({"data": str(data)}, tmp_path).stopped("non-finite-weight", 12)
    assert f"neck.coarser.0.1.{place}" in finding["what"]


def test_weights_poisoned_once_are_gone_back_from(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once: list[int] = []

    def poison(detector: nn.Module) -> None:
        if not once:
            once.append(1)
            detector.neck.coarser[0][0].weight[3, 2] = math.nan

    spoil_model(monkeypatch, poison, 12)
    keys = {"guard.nan": "rollback", "saving.seconds": 0, "schedule.name": "constant", "schedule.warmup": 0}
    told = Told({"data": str(data), **keys}, tmp_path)
    assert told.error is None
    assert told.run.info["status"] == "finished"
    assert told.said("non-finite-weight")["where"]["step"] == 12
    rates = [row["lr"]["heads"] for row in told.run.steps]
    assert len(rates) == 30
    assert rates[11] == pytest.approx(rates[10] / 2)


def test_poisoned_statistics_are_named_by_the_judgement_that_meets_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(monkeypatch, lambda detector: detector.neck.coarser[0][1].running_mean.fill_(math.nan), 12)
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.said("non-finite-weight")
    assert "running statistics are not finite: neck.coarser.0.1.running_mean" in finding["what"]
    assert "running_mean" in str(told.error)
    assert finding["where"]["step"] == 20


def test_an_image_that_overflows_in_the_judgement_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Small.forward

    def forward(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        if not self.training and len(images) > 1:
            raw.logits[1] = math.nan
        return raw

    monkeypatch.setattr(Small, "forward", forward)
    told = Told({"data": str(data), "epochs": 1}, tmp_path)
    finding = told.said("activation-overflow")
    assert Path(finding["where"]["file"]).is_file()
    assert "the output of the model (Small) is not finite" in finding["what"]


# Parts of the network


def kill(module: nn.Module) -> None:
    """Every ReLU behind the norms of a module is dead from now on."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.bias.fill_(-100)


@pytest.mark.parametrize(("what", "words"), [("all", "backbone has been 0"), ("first", "backbone.blocks.0.0.weight")])
def test_a_dead_part_is_named(
    what: str, words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(
        monkeypatch, lambda d: kill(d.backbone if what == "all" else d.backbone.blocks[0]), 5
    )  # fmt: skip
    told = Told({"data": str(data), "epochs": 7, **QUIET}, tmp_path)
    assert words in told.said("dead-part")["what"]


def test_a_gradient_cut_off_by_a_hook_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Small.__init__

    def cut(self: Small, *args: Any, **keys: Any) -> None:
        original(self, *args, **keys)
        for parameter in self.neck.parameters():  # type: ignore[union-attr]
            parameter.register_hook(lambda gradient: gradient * 0)

    monkeypatch.setattr(Small, "__init__", cut)
    told = Told({"data": str(data), "epochs": 6, **QUIET}, tmp_path)
    assert "the gradient of neck has been 0" in told.said("dead-part")["what"]


def test_a_frozen_weight_that_moves_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_model(monkeypatch, lambda detector: detector.backbone.blocks[1][0].weight.add_(1e-4), 15)
    told = Told({"data": str(data), "freeze": ["backbone"]}, tmp_path)
    finding = told.said("frozen-moved")
    assert finding["what"].startswith("backbone.blocks.1.0.weight is frozen, yet a value of it has moved by 0.0001")
    assert finding["where"]["step"] == 25


def test_frozen_norms_that_go_on_counting_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "set_training", lambda detector, frozen, norms: detector.train())
    told = Told({"data": str(data), "freeze": ["backbone"], "epochs": 1}, tmp_path)
    assert told.codes == ["frozen-moved"]
    assert "running_" in told.said("frozen-moved")["what"]


@pytest.mark.slow
def test_a_level_without_positives_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "sizes", ((12.0, 18.0), (400.0,), (26.0,)))
    told = Told({"data": str(data), "epochs": 40, **QUIET}, tmp_path)
    assert "level 2 of 3 has had no positive" in told.said("empty-level")["what"]


# Schedules, loss and curves


def test_a_rate_at_nothing_is_foreseen(data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "optimiser.lr": 1e-9, "epochs": 1}, tmp_path)
    assert told.codes == ["lr-at-nothing"]
    assert "adamw moves nothing below 3e-07" in told.said("lr-at-nothing")["what"]


@pytest.mark.slow
def test_a_rate_that_falls_to_nothing_unforeseen_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop_module.set_learning_rates
    count: list[int] = []

    def fallen(optimiser: Any, share: float) -> dict[str, float]:
        count.append(1)
        return original(optimiser, share * (1e-6 if len(count) > 40 else 1))

    monkeypatch.setattr(loop_module, "set_learning_rates", fallen)
    told = Told({"data": str(data), "epochs": 16, **QUIET}, tmp_path)
    finding = told.said("lr-at-nothing")
    assert 40 < finding["where"]["step"] <= 100
    assert "steps left" in finding["what"]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax-ohem", "focal"])
def test_a_head_that_sees_nothing_stands_at_chance_level(
    loss: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Small.forward

    def blind(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        bias = self.heads.cls_headers[1].bias  # the same answer for every prior of every image
        return Raw(raw.offsets, raw.logits * 0 + bias)

    monkeypatch.setattr(Small, "forward", blind)
    keys = {"options.class_loss": loss, "optimiser.lr": 0.03, "schedule.name": "constant", "schedule.warmup": 0}
    told = Told({"data": str(data), "epochs": 25, **keys, **QUIET}, tmp_path)
    finding = told.said("chance-level")
    if loss == "softmax-ohem":
        assert "chance level 2.2493" in finding["what"]


def test_a_crowd_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = np.stack(np.meshgrid(np.arange(0, 56, 4.0), np.arange(0, 56, 4.0)), -1).reshape(-1, 2)
    crowd = Annotations(np.concatenate([corner, corner + 8], 1), np.zeros(len(corner), np.int64))
    spoil_batches(monkeypatch, lambda b: replace(b, annotations=[b.annotations[0], crowd, crowd, crowd]), 38)
    told = Told({"data": str(data), "epochs": 5, **QUIET}, tmp_path)
    assert told.codes == ["crowd-batch"]
    finding = told.said("crowd-batch")
    assert finding["where"]["step"] == 38
    assert f"from {len(corner)} truths" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


@pytest.mark.parametrize("guard", ["report", "skip", "stop"])
def test_the_spike_of_one_image_is_named(
    guard: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = torch.tensor([1.0, 1.0, 1e4, 1.0])
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update(box=loss.parts["box"] * factor[: len(raw.logits)]), 35)
    told = Told({"data": str(data), "epochs": 4, "guard.spike": guard, **QUIET}, tmp_path)
    finding = told.said("one-image")
    assert finding["where"]["step"] == 35
    assert "one image makes 100% of the loss" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()
    assert (told.error is not None) == (guard == "stop")
    if guard != "stop":
        assert [row["step"] for row in told.run.steps if row.get("skipped")] == [35] * (guard == "skip")


def divided(loss: Loss, raw: Raw) -> None:
    count = loss.positives.sum().float()
    loss.parts.update({name: part / count for name, part in loss.parts.items()})


@pytest.mark.parametrize("fault", ["division", "exp", "log", "sqrt"])
def test_the_formula_that_blew_is_named_in_any_loss(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shapes(tmp_path / "shapes", images=30, empty=20)

    def change(loss: Loss, raw: Raw) -> None:
        far = raw.offsets[..., 2] * 0 + torch.arange(raw.offsets.shape[1]) * 10.0
        extra = {"exp": far.exp(), "log": (far - 20).log(), "sqrt": (20 - far).sqrt()}[fault]
        loss.parts["box"] = loss.parts["box"] + extra.sum(1)

    spoil_loss(monkeypatch, divided if fault == "division" else change, *range(4, 99) if fault != "division" else ())
    told = Told({"data": str(data), "seed": 1}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.findings[-1]
    formula = finding["evidence"]["formula"]
    if fault == "division":
        assert finding["code"] == "no-positives"
        assert "/ 0 = " in formula
        return
    assert told.stopped("loss-formula", 4)
    assert formula == {"exp": "exp(90) = inf", "log": "ln(-20) = nan", "sqrt": "sqrt(-10) = nan"}[fault]
    prior = {"exp": 9, "log": 0, "sqrt": 3}[fault]
    assert f"prior {prior} " in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_a_gradient_that_alone_is_not_finite_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(
        monkeypatch,
        lambda loss, raw: loss.parts.update(box=loss.parts["box"] + (raw.offsets * 0).abs().sqrt().sum((1, 2))), 3,
    )  # fmt: skip
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.findings[-1]
    assert finding["code"] == "nan-gradient"
    assert finding["where"]["step"] == 3
    assert len(told.run.steps) == 2


@pytest.mark.slow
def test_loss_weights_that_leave_one_part_are_told(data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "epochs": 21, "loss.cls": 100, **QUIET}, tmp_path)
    assert "its weight is 100 against 1 of box" in told.said("one-part-loss")["what"]


def test_validation_that_is_far_easier_than_training_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update({n: p * 3 for n, p in loss.parts.items()}))
    told = Told({"data": str(data), "epochs": 5}, tmp_path)
    assert told.codes == ["val-better"]


@pytest.mark.slow
def test_validation_that_gets_worse_while_training_goes_on_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Small.forward, []

    def blurred(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        if self.training:
            return raw
        calls.append(1)
        noise = torch.rand(raw.logits.shape, generator=torch.Generator().manual_seed(0))
        return Raw(raw.offsets, raw.logits + noise * max(0.0, len(calls) / 3 - 8) * 2)  # three batches a judgement

    monkeypatch.setattr(Small, "forward", blurred)
    told = Told({"data": str(data), "epochs": 16}, tmp_path)
    assert set(told.codes) == {"overfit"}


# Machine and files


def test_slow_data_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Maker.batch

    def slow(self: Maker, *args: Any) -> Any:
        time.sleep(0.06)
        return original(self, *args)

    monkeypatch.setattr(Maker, "batch", slow)
    monkeypatch.setattr("onestage.experiments.curve_rules.machine.WORTH", 1.0)
    told = Told({"data": str(data), "epochs": 13, **QUIET}, tmp_path)
    assert "went into waiting for data" in told.said("data-wait")["what"]


@pytest.mark.slow
def test_memory_that_grows_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[int] = []

    def grows(device: Any) -> int:
        count.append(1)
        return 10**9 + len(count) * 10**8

    monkeypatch.setattr(loop_module, "memory_in_use", grows)
    monkeypatch.setattr("onestage.experiments.curve_rules.machine.READINGS", 1)
    told = Told({"data": str(data), "epochs": 32, **QUIET}, tmp_path)
    assert "memory grew from" in told.said("memory-grows")["what"]


@pytest.mark.parametrize("left", [100 * 2**20, None])
def test_a_disk_that_fills_is_told(
    left: int | None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, count = namedtuple("usage", "total used free"), []

    def free(folder: Any) -> Any:
        count.append(1)
        return usage(10**12, 0, left or 12 * 10**9 - len(count) * 11 * 10**8)

    monkeypatch.setattr("onestage.training.lookout.shutil.disk_usage", free)
    monkeypatch.setattr("onestage.experiments.curve_rules.machine.READINGS", 1)
    told = Told({"data": str(data), "epochs": 2 if left else 12, **QUIET}, tmp_path)
    assert ("100 MiB left" if left else "none left at step") in told.said("disk-fills")["what"]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_cut_short_in_mid_run_is_named(
    ending: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    if ending == "jpg":
        for path in sorted((copy / "images").glob("*.png")):
            cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
            path.unlink()
    paths = sorted((copy / "images").iterdir())[10:20]

    def cut(_: nn.Module) -> None:
        for path in paths:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    spoil_model(monkeypatch, cut, 5)
    told = Told({"data": str(copy), "cache": False}, tmp_path)
    assert isinstance(told.error, DataError)
    assert any(str(path) in told.error.message for path in paths)
    assert told.run.info["status"] == "failed"


def test_corrupt_labels_are_named_by_file_and_line(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    rows = {
        "007": "0 nan 0.5 0.1 0.2",
        "009": "banana 0.5 0.5 0.1 0.2",
        "011": "0 0.5 0.5 0 0.2",
        "012": "7 .5 .5 .2 .2",
    }
    for name, row in rows.items():
        path = copy / "labels" / f"{name}.txt"
        path.write_text(f"{path.read_text()}\n{row}")
    told = Told({"data": str(copy), "epochs": 1}, tmp_path)
    named = {finding["where"]["file"]: finding["code"] for finding in told.findings}
    assert set(named) == {f"labels/{name}.txt" for name in rows}
    assert set(named.values()) == {"not-a-number", "zero-area-box", "unknown-class"}
    assert all(finding["where"].get("line") for finding in told.findings)
