"""Interrupted, gone back, left out, moved, changed: the run and each of its steps stay what they were."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import Small
from test_fit import TINY, StopAt, same_weights, shapes, values

from onestage.data.augment import Zoom
from onestage.data.policy import Sample
from onestage.errors import UsageError
from onestage.experiments.run import Run
from onestage.models.detector import Detector
from onestage.records import Finding, Where
from onestage.training import fit as fitting
from onestage.training.fit import fit, resume
from onestage.training.loop.loop import Loop
from onestage.training.loop.step_record import StepRecord
from onestage.training.order_check import OrderCheck
from onestage.training.replay import replay
from onestage.training.saving.state import load_state
from onestage.training.saving.stretches import stretches
from onestage.training.watcher import Watcher

LATE = Finding("batches-alike", "warning", Where(step=1), "said again", "", "")
KEYS: Mapping[str, Any] = {**TINY, "validation.every": 2, "validation.protocols": ["voc10"], "saving.seconds": 0}


class Died(BaseException):
    """The process ends here, without a word."""


class DieAt(Watcher):
    """Ends the process at a step, before its state is saved; the `time`-th time it comes to it."""

    def __init__(self, step: int, time: int = 1) -> None:
        self.step, self.left = step, time

    def stepped(self, record: StepRecord, plan: Any) -> None:
        self.left -= record.step == self.step
        if not self.left:
            raise Died


class Told(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def told(self, notes: Any) -> None:
        self.notes += notes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


def results(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "time"} for row in run.results]


def test_steps_of_stages_and_of_changing_sizes_are_replayed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    stages = [{"epochs": 1, "freeze": ["backbone"]}, {"epochs": 1, "freeze": ["all-but-heads"]}]
    sizes = {"multiscale.low": 0.5, "multiscale.high": 1.5, "multiscale.every": 1}
    keys = {key: value for key, value in KEYS.items() if key != "epochs"}
    run = fit({**keys, "data": str(data), "stages": stages, **sizes}, root=tmp_path)
    assert len({str(row["size"]) for row in run.steps}) > 1
    monkeypatch.setattr(Run, "write_findings", lambda *_: pytest.fail("a replay writes nothing into the run"))
    for path in run.state_dir.glob("step-*.pt"):
        path.unlink()
    monkeypatch.setattr(OrderCheck, "look", lambda *_: LATE)
    done = replay(run, 4)
    assert (done.start, done.differences) == (0, [])
    assert done.row["stage"] == 1


def test_plain_data_alone_stands_in_a_state(data: Path, tmp_path: Path) -> None:
    """Whatever torch.load(weights_only=True) lets through, and no more: numbers, text, tensors, lists, mappings."""
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut", "precision": "fp16"}, root=tmp_path, watcher=StopAt(2))
    saved = load_state(Run.open("cut", tmp_path))
    assert saved is not None

    def kinds(value: Any) -> set[type]:
        inner = list(value.values()) + list(value) if isinstance(value, dict) else value
        if isinstance(value, list | tuple | set | dict):
            return {type(value)}.union(*map(kinds, inner))
        return {type(value)}

    plain = {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    assert {kind.__name__ for kind in kinds(saved.state)} - {kind.__name__ for kind in plain} <= {"OrderedDict"}


def spoil_labels(monkeypatch: pytest.MonkeyPatch, share: int = 4) -> None:
    """One image in `share` has a label out of range, by its own chance: the same whoever makes it."""
    original = Zoom.__call__

    def spoilt(self: Zoom, image: Any, annotations: Any, rng: Any, *rest: Any, **keys: Any) -> Sample:
        bad = int(rng.bit_generator.state["state"]["key"][0]) % share == 0
        sample = original(self, image, annotations, rng, *rest, **keys)
        sample.annotations.labels.flags.writeable = True
        if bad and len(sample.annotations):
            sample.annotations.labels[:] = 7
        return sample

    monkeypatch.setattr(Zoom, "__call__", spoilt)
    monkeypatch.setattr("onestage.training.checks.policy_keeps_boxes", lambda *_: [])


@pytest.mark.slow
def test_steps_left_out_come_again_and_do_not_count(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_labels(monkeypatch, 7)
    keys = {**KEYS, "data": str(data), "epochs": 4, "guard.nan": "skip", "guard.most": 99}
    whole = fit({**keys, "name": "whole"}, root=tmp_path)
    left_out = [row["step"] for row in whole.steps if row.get("skipped")]
    assert 0 < len(left_out) < 8
    assert all(math.isfinite(value) for row in results(whole) for key, value in row.items() if "train" in key)
    assert all("train/cls" in row for row in results(whole))
    with pytest.raises(Died):
        fit({**keys, "name": "cut"}, root=tmp_path, watcher=DieAt(left_out[0]))
    run = Run.open("cut", tmp_path)
    with pytest.raises(Died):
        resume(run, watcher=DieAt(7))
    resume(run)
    assert values(run) == values(whole)
    assert results(run) == results(whole)
    assert same_weights(run, whole)
    assert load_state(run).state["recorder"] == load_state(whole).state["recorder"]  # type: ignore[union-attr]
    for step in (left_out[0], 8):
        assert replay(run, step).identical


def diverge_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The loss of that step is no number as long as the learning rate was not lowered."""
    loss, one = Small.loss, Loop._one
    now: list[bool] = [False]

    def watched(self: Loop, *words: Any) -> StepRecord:
        now[0] = self.step + 1 == step and self.lr_factor == 1.0
        return one(self, *words)

    def poisoned(self: Detector, *words: Any) -> Any:
        found = loss(self, *words)  # type: ignore[arg-type]
        if now[0] and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            found.parts["box"] = found.parts["box"] * math.nan
        return found

    monkeypatch.setattr(Loop, "_one", watched)
    monkeypatch.setattr(Small, "loss", poisoned)


def test_a_run_killed_after_it_went_back_does_not_forget_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Killed between the return and the next state, it goes on at the lower rate, and has one return less left."""
    diverge_at(monkeypatch, 4)
    constant = {"schedule.name": "constant", "schedule.warmup": 0, "saving.seconds": 1e6, "validation.every": 1}
    keys = {**KEYS, "data": str(data), **constant, "guard.nan": "rollback"}
    with pytest.raises(Died):
        fit({**keys, "name": "cut"}, root=tmp_path, watcher=DieAt(3, time=2))
    run = Run.open("cut", tmp_path)
    saved = load_state(run)
    assert saved is not None
    assert (saved.step, saved.state["loop"]["lr_factor"]) == (2, 0.5)
    assert saved.state["recorder"]["counts"]["rollback"] == 1
    resume(run)
    assert [row["lr"]["heads"] / 1e-3 for row in run.steps] == [1, 1, 0.5, 0.5]
    assert replay(run, 3).identical
    for path in run.state_dir.glob("*.pt"):
        path.unlink()
    assert replay(run, 2).identical
    gone_back_from = replay(run, 4)
    assert not gone_back_from.identical
    assert "went back" in gone_back_from.reasons[0]
    with pytest.raises(UsageError, match="no step 6"):
        replay(run, 6)


@pytest.mark.slow
def test_a_resume_killed_before_it_began_is_recorded_by_the_next(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(2))
    shutil.copytree(tmp_path / "cut", tmp_path / "straight")
    asked = {"epochs": 3, "loss.box": 2.0}
    watcher = Told()
    straight = resume(Run.open("straight", tmp_path), asked, watcher=watcher)
    before, after = (straight.steps[i]["lr"]["heads"] for i in (1, 2))
    assert any(f"was {before:.3g} at step 2 and is {after:.3g} at step 3" in note for note in watcher.notes)
    run = Run.open("cut", tmp_path)

    def killed(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Session, "go", killed)
        with pytest.raises(Died):
            resume(run, asked)
    assert run.recipe["epochs"] == 3
    resume(run)
    assert values(run) == values(straight)
    first, second = run.info["segments"]
    assert second["changes"] == straight.info["segments"][1]["changes"]
    assert second["exact"] is False
    assert first["recipe"] != second["recipe"]
    assert [(span.first, span.last, span.recipe.epochs) for span in stretches(run, 0, 6)] == [(0, 2, 2), (2, 6, 3)]
    for path in run.state_dir.glob("*.pt"):
        path.unlink()
    assert replay(run, 2).identical
    assert replay(run, 4).identical


@pytest.mark.slow
def test_steps_done_before_the_data_moved_are_replayed(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(data, first)
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(first), "name": "cut"}, root=tmp_path, watcher=StopAt(2))
    first.rename(second)
    run = resume(Run.open("cut", tmp_path), {"data": str(second)})
    assert replay(run, 2).identical


@pytest.mark.slow
def test_a_step_that_was_cut_for_want_of_memory_is_replayed_in_its_pieces(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    original = Small.loss
    full = [True]

    def greedy(self: Small, raw: Any, truths: Any) -> Any:
        if full[0] and len(truths) > 2 and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, raw, truths)

    monkeypatch.setattr(Small, "loss", greedy)
    run = fit({**KEYS, "data": str(data), "saving.seconds": 1e6}, root=tmp_path)
    assert run.steps[0]["accumulate"] == 2
    full[0] = False
    for step in (1, 3):
        assert replay(run, step).identical


def test_a_run_whose_states_are_gone_says_that_it_begins_again(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut", "epochs": 1}, root=tmp_path, watcher=StopAt(1))
    run, watcher = Run.open("cut", tmp_path), Told()
    for path in run.state_dir.glob("*.pt"):
        path.unlink()
    resume(run, watcher=watcher)
    assert any("begins again" in note and "1 step" in note for note in watcher.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "batch", "epochs", "every", "steps"),
    [(2, 8, 1, 5, 1), (3, 8, 1, 5, 1), (12, 4, 2, 9, 4), (10, 3, 1, 1, 2), (40, 30, 2, 1, 2)],
)  # fmt: skip
def test_sets_and_epochs_of_odd_sizes(
    images: int, batch: int, epochs: int, every: int, steps: int, tmp_path: Path
) -> None:  # fmt: skip
    """Fewer images than a batch holds, a last batch left out, one epoch, evaluations rarer than the run is long."""
    keys = {
        **KEYS,
        "data": str(shapes(tmp_path / "data", images, empty=int(images > 2))),
        "batch": batch,
        "epochs": epochs,
    }
    keys |= {"validation.every": every, "ema": 0.9, "accumulate": min(2, images - 1)}
    if min(batch, images) < 4:
        keys |= {"norms": "frozen"}
    whole = fit({**keys, "name": "whole"}, root=tmp_path)
    assert [row["step"] for row in whole.steps] == list(range(1, steps + 1))
    assert [row["epoch"] for row in whole.steps] == [i * epochs // steps for i in range(steps)]
    assert {row["images"] for row in whole.steps} == {min(batch, whole.info["data"]["train"]["images"])}
    assert [row["epoch"] for row in whole.results] == [e for e in range(1, epochs + 1) if e == epochs or e % every == 0]
    with pytest.raises(Died):
        fit({**keys, "name": "cut"}, root=tmp_path, watcher=DieAt(1))
    run = Run.open("cut", tmp_path)
    with pytest.raises(Died):
        resume(run, watcher=DieAt(steps))
    resume(run)
    assert values(run) == values(whole)
    assert results(run) == results(whole)
    assert same_weights(run, whole)
    assert replay(run, steps).identical
