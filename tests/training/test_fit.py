"""A run from recipe to run folder: what is written, exactness on resume, divergence, empty images, bad data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_model import Small

from onestage.errors import DataError, DivergedError, StorageError
from onestage.experiments import storage
from onestage.experiments.run import Run
from onestage.models.detector import Loss, Raw
from onestage.records import Metrics
from onestage.training.fit import fit, resume
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import open_data
from onestage.training.recipe import Recipe
from onestage.training.watcher import Watcher

TINY = {
    "model": "ssd-small", "size": 64, "weights": "none", "epochs": 2, "batch": 4, "precision": "fp32", "device": "cpu",
    "validation.every": 1, "augmentation.policy": "zoom",
}  # fmt: skip


def shapes(folder: Path, images: int = 10, seed: int = 0, empty: int = 1) -> Path:
    """Bright squares on grey noise, one class, YOLO txt; the first `empty` images hold none."""
    rng = np.random.default_rng(seed)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(images):
        image = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        rows = []
        for _ in range(0 if i < empty else rng.integers(1, 4)):
            side = int(rng.integers(12, 28))
            x, y = (int(v) for v in rng.integers(0, 64 - side, 2))
            image[y : y + side, x : x + side] = (255, 220, 40)
            rows.append(f"0 {(x + side / 2) / 64} {(y + side / 2) / 64} {side / 64} {side / 64}")
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image)
        (folder / "labels" / f"{i:03d}.txt").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("square\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit({**TINY, "data": str(data)}, root=tmp_path_factory.mktemp("runs"))


def test_the_run_folder_holds_what_the_plan_says(finished: Run) -> None:
    folder = finished.folder
    for name in (
        "asked.yaml", "recipe.yaml", "run.json", "steps.jsonl", "results.csv", "predictions.json", "metrics.json",
        "findings.json", "validation.json", "weights/best.safetensors", "weights/last.safetensors", "state/last.pt",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    info = finished.info
    assert info["status"] == "finished"
    assert info["data"]["classes"] == ["square"]
    assert info["data"]["train"]["images"] + info["data"]["val"]["images"] == 10
    assert info["environment"]["precision"] == "fp32"
    assert set(info["seconds"]) == {"data", "train", "eval", "total"}


def test_the_recipe_on_disk_is_complete(finished: Run) -> None:
    recipe = Recipe.model_validate(finished.recipe)
    open_keys = [key for key, value in recipe.as_dict().items() if value is None]
    assert set(open_keys) <= {"name", "weights", "steps"}  # the length is said in epochs
    assert recipe.schedule.warmup is not None
    assert finished.asked["size"] == 64


def test_every_step_is_recorded(finished: Run) -> None:
    steps = finished.steps
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    for row in steps:
        assert row["loss"] == pytest.approx(sum(row["weighted"].values()), rel=1e-5)
        assert row["positives"] == sum(row["positives_per_level"])
        assert set(row["seconds"]) == {"data", "step"}
        assert set(row["lr"]) == {"backbone", "backbone.no_decay", "heads", "heads.no_decay"}


def test_every_evaluation_has_its_losses_and_scores(finished: Run) -> None:
    rows = finished.results
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        for column in ("train/cls", "train/box", "val/cls", "val/box", "metrics/mAP50", "metrics/mAP50-95", "lr/heads"):
            assert np.isfinite(row[column]), column
    assert finished.info["best"]["value"] == max(row["metrics/mAP50-95"] for row in rows)


def test_metrics_have_protocol_n_and_interval(finished: Run) -> None:
    metrics = Metrics.from_list(finished.metrics["rows"])
    assert {metric.protocol for metric in metrics} == {"voc07", "voc10", "coco"}
    overall = metrics.row("mAP50", "voc10")
    assert overall.interval is not None
    assert overall.n > 0
    assert finished.metrics["iou_nms"] == 0.5
    ids = {image["id"] for image in json.loads((finished.folder / "validation.json").read_text())["images"]}
    assert {row["image_id"] for row in finished.predictions} <= ids


def test_same_seed_same_run(finished: Run, data: Path, tmp_path: Path) -> None:
    again = fit({**TINY, "data": str(data), "workers": 1}, root=tmp_path)
    assert values(again) == values(finished)
    assert same_weights(again, finished)


class StopAt(Watcher):
    """Presses Ctrl-C after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, record: StepRecord, plan: Any) -> None:
        if record.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stopped_run_resumed_is_the_uninterrupted_run(finished: Run, data: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**TINY, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(step))
    run = Run.open("cut", tmp_path)
    assert run.info["status"] == "stopped"
    resume(run)
    assert run.info["status"] == "finished"
    assert len(run.info["segments"]) == 2
    assert values(run) == values(finished)
    assert same_weights(run, finished)
    measured = [{key: value for key, value in row.items() if key != "time"} for row in run.results]
    assert measured == [{key: value for key, value in row.items() if key != "time"} for row in finished.results]


def test_a_run_is_resumed_from_another_folder(
    finished: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    with pytest.raises(KeyboardInterrupt):
        fit({**TINY, "data": data.name, "name": "cut"}, root=tmp_path, watcher=StopAt(2))
    monkeypatch.chdir(tmp_path)
    run = resume(Run.open("cut", tmp_path))
    assert run.asked["data"] == data.name
    assert values(run) == values(finished)


def test_resume_refuses_other_data(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "changing")
    with pytest.raises(KeyboardInterrupt):
        fit({**TINY, "data": str(folder), "name": "cut"}, root=tmp_path, watcher=StopAt(1))
    (folder / "labels" / "004.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    with pytest.raises(DataError, match=r"(?s)has changed since it began.* (when the run began|but not the same ones)"):
        resume(Run.open("cut", tmp_path))


def values(run: Run) -> list[dict[str, Any]]:
    """The steps without their clock."""
    return [{key: value for key, value in row.items() if key not in ("time", "seconds")} for row in run.steps]


def same_weights(a: Run, b: Run) -> bool:
    """Whether the last weights are equal bit for bit."""
    ours, theirs = (load_file(run.weights_dir / "last.safetensors") for run in (a, b))
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loss_that_is_not_finite_names_its_image(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(self: Small, raw: Raw, truths: Any) -> Loss:
        loss = original(self, raw, truths)
        loss.parts["box"] = loss.parts["box"] * torch.tensor([1.0, float("nan"), 1.0, 1.0])
        return loss

    original = Small.loss
    monkeypatch.setattr(Small, "loss", poisoned)
    with pytest.raises(DivergedError) as caught:
        fit({**TINY, "data": str(data), "name": "nan"}, root=tmp_path)
    assert caught.value.exit_code == 7
    assert "step 1" in str(caught.value)
    assert re.search(r"images/\d+\.png", caught.value.message)
    assert "box" in caught.value.message
    info = Run.open("nan", tmp_path).info
    assert info["status"] == "diverged"
    assert info["error"] == caught.value.message


def test_a_huge_learning_rate_ends_as_diverged(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        fit({**TINY, "data": str(data), "name": "big", "optimiser.lr": 1e9, "clip": 0, "epochs": 8}, root=tmp_path)
    assert Run.open("big", tmp_path).info["status"] == "diverged"


def test_a_full_disk_leaves_the_last_state(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def full(path: Path, content: bytes) -> None:
        written.append(path.name)
        if sum("safetensors" in name for name in written) > 2:
            raise StorageError(f"{path}: no space left on the disk")
        original(path, content)

    original = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        fit({**TINY, "data": str(data), "name": "full"}, root=tmp_path)
    run = Run.open("full", tmp_path)
    assert load_file(run.weights_dir / "best.safetensors")
    monkeypatch.undo()
    assert [row["step"] for row in run.steps][:2] == [1, 2]


def test_fewer_images_than_a_batch(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "few", images=4, empty=0)
    run = fit({**TINY, "data": str(folder), "batch": 16, "epochs": 1}, root=tmp_path)
    assert run.steps[0]["images"] == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("ema", [0, 0.9])
def test_precisions_and_averages(data: Path, tmp_path: Path, precision: str, ema: float) -> None:
    model = "ssd-lite0" if precision == "bf16" else "ssd-small"  # the one with a backward pass of its own
    keys = {**TINY, "data": str(data), "model": model, "precision": precision, "ema": ema, "epochs": 1}
    run = fit(keys, root=tmp_path)
    assert all(np.isfinite(row["loss"]) for row in run.steps)


def test_data_errors_leave_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fit({**TINY, "data": str(tmp_path / "nowhere")}, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ssd-lite0", "ssd-mobilenetv2"])
def test_squares_are_learnt_from_a_random_start(tmp_path: Path, model: str) -> None:
    folder = shapes(tmp_path / "squares", images=60, empty=2)
    keys = {**TINY, "data": str(folder), "model": model, "epochs": 12, "batch": 8, "validation.every": 12}
    keys["optimiser.lr"] = 3e-3
    run = fit(keys, root=tmp_path)
    losses = [row["loss"] for row in run.steps]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    # The averaged weights are judged with settled statistics: no gap between learning and judging.
    assert run.results[-1]["val/cls"] < 0.5
    assert run.results[-1]["metrics/mAP50"] > 0.4


def test_runs_of_several_seeds_share_their_validation_images(tmp_path: Path) -> None:
    folder = str(shapes(tmp_path / "shapes", 20))

    def images(**keys: int) -> list[object]:
        return [image.id for image in open_data(Recipe(data=folder, **keys)).val.images]  # type: ignore[arg-type]

    assert images(seed=0) == images(seed=1)
    assert images(split_seed=1) != images()
    before = Recipe(data=folder, seed=1).as_dict()
    del before["split_seed"]
    assert images(split_seed=Recipe.recorded(before).split_seed) == images(split_seed=1)
