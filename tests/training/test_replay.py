"""A step done again is the original step; its parts sum to it; nothing of the run changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import Small
from test_fit import TINY, StopAt, shapes

from onestage.errors import DivergedError, UsageError
from onestage.experiments.run import Run
from onestage.models.detector import Loss
from onestage.training.fit import fit, resume
from onestage.training.replay import differing, replay
from onestage.training.saving.stretches import stretches

KEYS: Mapping[str, Any] = {**TINY, "saving.seconds": 0, "validation.every": 2, "validation.protocols": ["voc10"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit({**KEYS, "data": str(data), "accumulate": 2}, root=tmp_path_factory.mktemp("runs"))


def fingerprint(run: Run) -> dict[str, str]:
    return {
        str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 4])
def test_every_step_comes_again_bit_for_bit(run: Run, step: int) -> None:
    before = fingerprint(run)
    told: list[tuple[int, int]] = []
    done = replay(run, step, lambda *where: told.append(where))
    assert done.identical, done.differences
    assert done.recorded == next(row for row in run.steps if row["step"] == step)
    assert done.start == (3 if step == 4 else 0)
    assert told == [(i, step - done.start) for i in range(1, step - done.start + 1)]
    assert fingerprint(run) == before


def test_images_and_parts_sum_to_the_step(run: Run) -> None:
    done = replay(run, 3)
    images, row = done.contributions.images, done.row
    assert [image.place for image in images] == [0, 1, 2, 3]
    assert [image.id for image in images] == [image_id for batch in done.batches for image_id in batch.ids]
    assert sum(image.loss for image in images) == pytest.approx(row["loss"], rel=1e-5)
    for name, value in row["raw"].items():
        assert sum(image.parts[name] for image in images) == pytest.approx(value, rel=1e-5)
    assert sum(image.positives for image in images) == row["positives"]
    assert sum(image.share or 0.0 for image in images) == pytest.approx(1, rel=1e-4)
    parts = done.contributions.by_part
    whole = sum(parts[name] ** 2 for name in ("backbone", "neck", "heads")) ** 0.5
    assert whole == pytest.approx(row["grad_norm"], rel=1e-4)


def test_the_heaviest_priors_come_first(run: Run) -> None:
    priors = replay(run, 3).contributions.priors
    assert [prior.loss for prior in priors] == sorted((prior.loss for prior in priors), reverse=True)
    assert all(prior.terms for prior in priors)
    assert {prior.place for prior in priors} <= {0, 1, 2, 3}


def test_a_step_that_was_never_done_is_refused(run: Run) -> None:
    for step in (0, 6):
        with pytest.raises(UsageError, match="its steps are 1 to 4"):
            replay(run, step)


@pytest.mark.slow
def test_steps_of_a_changed_run_are_replayed_by_their_own_recipes(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(2))
    run = resume(Run.open("cut", tmp_path), {"optimiser.lr": 1e-4, "loss.box": 3.0, "epochs": 3})
    laid = stretches(run, 0, 6)
    assert [(span.first, span.last, span.recipe.optimiser.lr) for span in laid] == [(0, 2, 1e-3), (2, 6, 1e-4)]
    for path in run.state_dir.glob("*.pt"):
        path.unlink()  # the long way, through both recipes
    assert replay(run, 2).identical
    done = replay(run, 4)
    assert done.start == 0
    assert done.identical, done.differences


@pytest.mark.slow
def test_a_step_that_stopped_the_run_is_shown(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(self: Small, raw: Any, truths: Any) -> Loss:
        loss = original(self, raw, truths)
        if self.training and len(truths) == 4:
            calls.append(1)
        if len(calls) % 3 == 0 and self.training:
            loss.parts["box"] = loss.parts["box"] * torch.tensor([1.0, float("nan"), 1.0, 1.0])
        return loss

    original, calls = Small.loss, [0, 0, 0]
    calls.clear()
    monkeypatch.setattr(Small, "loss", poisoned)
    with pytest.raises(DivergedError):
        fit({**KEYS, "data": str(data), "name": "nan", "ema": 0, "validation.every": 9}, root=tmp_path)
    run = Run.open("nan", tmp_path)
    reports = fingerprint(run)
    calls[:] = [1] * 2
    done = replay(run, 3)
    assert done.recorded is None
    assert not done.identical
    assert done.row["skipped"] is True
    assert done.contributions.images[1].loss != done.contributions.images[1].loss
    assert fingerprint(run) == reports


def test_differences_name_the_value() -> None:
    recorded = {"step": 3, "time": 1.0, "loss": 1.0, "raw": {"cls": 0.5, "box": float("nan")}, "grad_norm": 2.0}
    row = {"step": 3, "time": 9.0, "loss": 1.5, "raw": {"cls": 0.5, "box": float("nan")}, "grad_norm": 2.0, "scale": 8}
    assert differing(recorded, recorded) == []
    assert differing(recorded, row) == ["loss: 1.0 recorded, 1.5 now", "scale: None recorded, 8 now"]
