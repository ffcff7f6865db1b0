"""Faults planted in data, policy, loader, files and machine of whole runs: each is named, and the guard obeyed."""

from __future__ import annotations

import math
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from planted_runs import (
    QUIET,
    Told,
    box_of_first,
    data,
    small,
    spoil_batches,
    spoil_model,
    spoil_truths,
)  # fmt: skip
from torch import nn

import onestage.training.loop.loop as loop_module
from onestage.data.augment import Zoom
from onestage.data.batches import Maker
from onestage.data.loader import Loader
from onestage.data.policy import Sample
from onestage.errors import DataError, RecipeError
from onestage.records import Annotations, Batch

__all__ = ["data", "small"]


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
    def stuck(self: Loader, epoch: int) -> list[int]:
        return [number % 4 if self.shuffle else number for number in range(len(self.dataset))]

    monkeypatch.setattr(Loader, "order", stuck)
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
        several = labels.max(initial=0) > 0  # the check's pictures; the data has one class
        labels = np.where(labels < 2, (1 - labels) * several, labels)
        return sample._replace(annotations=replace(sample.annotations, labels=labels))

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


# Machine and files


@pytest.mark.slow
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
        "007": "0 nan 0.5 0.1 0.2", "009": "banana 0.5 0.5 0.1 0.2", "011": "0 0.5 0.5 0 0.2", "012": "7 .5 .5 .2 .2",
    }  # fmt: skip
    for name, row in rows.items():
        path = copy / "labels" / f"{name}.txt"
        path.write_text(f"{path.read_text()}\n{row}")
    told = Told({"data": str(copy), "epochs": 1}, tmp_path)
    named = {finding["where"]["file"]: finding["code"] for finding in told.findings}
    assert set(named) == {f"labels/{name}.txt" for name in rows}
    assert set(named.values()) == {"not-a-number", "zero-area-box", "unknown-class"}
    assert all(finding["where"].get("line") for finding in told.findings)
