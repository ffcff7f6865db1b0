"""Going on with a run: longer, changed, moved, finished, killed early; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_fit import TINY, StopAt, same_weights, shapes, values

from onestage.errors import RecipeError, UsageError
from onestage.experiments.run import Run
from onestage.training.fit import fit, resume
from onestage.training.loop.loop import Loop
from onestage.training.recipe import Guard
from onestage.training.recorder import Recorder
from onestage.training.saving import state as states
from onestage.training.saving.state import held_by_us, load_state
from onestage.training.watcher import Watcher

KEYS: Mapping[str, Any] = {**TINY, "validation.every": 2, "validation.protocols": ["voc10"], "saving.seconds": 0}


class Told(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def told(self, notes: Sequence[str]) -> None:
        self.notes += notes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs of two steps, left alone."""
    return fit({**KEYS, "data": str(data)}, root=tmp_path_factory.mktemp("runs"))


def cut(data: Path, root: Path, step: int = 2, **keys: Any) -> Run:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut", **keys}, root=root, watcher=StopAt(step))
    return Run.open("cut", root)


def copied(run: Run, root: Path) -> Run:
    shutil.copytree(run.folder, root / "copy")
    return Run.open("copy", root)


def test_a_finished_run_is_left_as_it_is(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "lock"}
    assert resume(run).info == whole.info
    assert resume(run, {"epochs": 2}).info["status"] == "finished"
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "lock"} == before


def test_free_changes_leave_the_run_exact(whole: Run, data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path)
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    watcher = Told()
    resume(run, {"data": str(moved), "saving.seconds": 60, "cache": False}, watcher=watcher)
    assert values(run) == values(whole)
    assert same_weights(run, whole)
    segment = run.info["segments"][1]
    assert segment["exact"] is True
    assert segment["changes"] == {
        "data": [str(data), str(moved)], "saving.seconds": [0.0, 60.0], "cache": [True, False],
    }  # fmt: skip
    assert run.recipe["data"] == str(moved)
    assert run.info["data"]["root"] == str(moved)
    assert run.earlier_recipes[0]["data"] == str(data)
    assert watcher.notes[1] == "changed: cache from True to False"


def test_a_longer_run_is_recorded_as_such(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    resume(run, {"epochs": 3})
    assert [row["step"] for row in run.steps] == [1, 2, 3, 4, 5, 6]
    assert values(run)[:4] == values(whole)
    first, second = run.info["segments"]
    assert (first["from_step"], first["to_step"], second["from_step"], second["to_step"]) == (0, 4, 4, 6)
    assert second["changes"]["epochs"] == [2, 3]
    assert second["exact"] is False
    assert "epochs was changed" in second["reasons"]
    assert {"cpu", "torch", "threads", "device", "devices", "host"} <= second.keys()
    assert run.info["status"] == "finished"
    assert run.earlier_recipes[0]["epochs"] == 2


def test_other_learning_rates_take_effect_and_momenta_stay(data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path, 2, **{"schedule.name": "constant", "schedule.warmup": 0})
    resume(run, {"optimiser.lr": 1e-5, "optimiser.decay": 0.5})
    assert [row["lr"]["heads"] for row in run.steps] == [1e-3, 1e-3, 1e-5, 1e-5]
    saved = load_state(run)
    assert saved is not None
    steps = {int(known["step"]) for known in saved.state["loop"]["optimiser"].values()}
    assert steps == {4}


@pytest.mark.slow
def test_parts_are_frozen_and_thawed_on_the_way(data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path, 2, freeze=["backbone"])
    resume(run, {"freeze": []})
    assert run.info["segments"][1]["changes"]["freeze"] == [["backbone"], []]
    saved = load_state(run)
    assert saved is not None
    steps = {int(known["step"]) for known in saved.state["loop"]["optimiser"].values()}
    assert steps == {2, 4}


def test_what_makes_another_run_is_refused_and_nothing_is_changed(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    recipe, info = run.recipe, run.info
    with pytest.raises(RecipeError) as caught:
        resume(run, {"batch": 2, "epochs": 1, "optimiser.nme": "sgd"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["optimiser.nme", "batch"]
    with pytest.raises(RecipeError, match="at least 2, for 2 epochs are done"):
        resume(run, {"epochs": 1})
    assert (run.recipe, run.info) == (recipe, info)


def test_a_run_killed_before_its_first_state_begins_again(whole: Run, data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path, 1)
    for path in run.state_dir.glob("*.pt"):
        path.unlink()
    resume(run)
    assert values(run) == values(whole)
    assert [segment["from_step"] for segment in run.info["segments"]] == [0, 0]


def test_a_run_killed_before_its_recipe_begins_again_from_what_was_asked(data: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path, "early")
    with pytest.raises(UsageError, match="before it had written what it is"):
        resume(run)
    run.write_asked({**KEYS, "data": str(data), "epochs": 1})
    resume(run)
    assert len(run.steps) == 2
    assert run.info["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_a_kill_between_state_and_best_weights_loses_neither(
    whole: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class Killed(BaseException):
        pass

    def write(run: Run, relative: str, content: bytes) -> None:
        if relative == "weights/best.safetensors" and load_state(run).step == step:  # type: ignore[union-attr]
            raise Killed
        original(run, relative, content)

    original = Run.write_file
    monkeypatch.setattr(Run, "write_file", write)
    keys = {**KEYS, "data": str(data), "validation.every": 1, "optimiser.lr": 0.01}  # the second epoch is the better
    with pytest.raises(Killed):
        fit({**keys, "name": "cut"}, root=tmp_path)
    monkeypatch.undo()
    run = resume(Run.open("cut", tmp_path))
    again = fit({**keys, "name": "again"}, root=tmp_path)
    assert (run.weights_dir / "best.safetensors").read_bytes() == (again.weights_dir / "best.safetensors").read_bytes()
    assert run.info["best"] == again.info["best"]
    drop = ("time",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in run.results] == [
        {k: v for k, v in row.items() if k not in drop} for row in again.results
    ]


@pytest.mark.slow
def test_a_kill_between_judging_and_its_state_judges_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def append(run: Run, row: Mapping[str, Any]) -> None:
        original(run, row)
        raise Killed

    original = Run.append_result
    monkeypatch.setattr(Run, "append_result", append)
    with pytest.raises(Killed):
        fit({**KEYS, "data": str(data), "name": "cut", "epochs": 1, "validation.every": 1}, root=tmp_path)
    monkeypatch.undo()
    run = resume(Run.open("cut", tmp_path))
    assert run.info["best"]["step"] == 2
    assert [row["step"] for row in run.results] == [2]


def test_a_damaged_state_is_told_and_the_one_before_taken(whole: Run, data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path, 3)
    last = run.state_dir / "last.pt"
    last.write_bytes(last.read_bytes()[:-100_000])
    (run.state_dir / ".last.pt.77-ab.part").write_bytes(b"left by a killed save")
    watcher = Told()
    resume(run, watcher=watcher)
    assert "last.pt is damaged" in watcher.notes[0]
    assert run.info["segments"][1]["from_step"] == 2
    assert values(run) == values(whole)
    assert not list(run.folder.rglob("*.part"))


def test_two_processes_do_not_train_one_run(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    with held_by_us(run), pytest.raises(UsageError, match="two would mix their steps"):
        resume(run, {"epochs": 3})


def test_another_machine_is_recorded_as_not_exact(data: Path, tmp_path: Path) -> None:
    run = cut(data, tmp_path, 2)
    info = json.loads(run.info_path.read_text())
    info["segments"][0]["torch"] = "1.0"
    run.info_path.write_text(json.dumps(info))
    watcher = Told()
    resume(run, watcher=watcher)
    segment = run.info["segments"][1]
    assert segment["exact"] is False
    assert segment["reasons"][0].startswith("another torch version: 1.0 before")
    assert "not bit for bit" in watcher.notes[0]


def test_a_recipe_edited_by_hand_is_refused(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    path = run.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("clip: 10.0", "clip: 5.0"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not the recipe"):
        resume(run, {"epochs": 3})


@pytest.mark.slow
def test_a_stop_while_the_best_is_judged_keeps_the_last_weights(
    whole: Run, data: Path, tmp_path: Path
) -> None:  # fmt: skip
    class StopAtTheEnd(Watcher):
        judged = 0

        def judging(self, done: int, total: int) -> None:
            self.judged += done == total
            if self.judged == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAtTheEnd())
    run = Run.open("cut", tmp_path)
    assert run.info["status"] == "stopped"
    longer, other = resume(run, {"epochs": 3}), resume(copied(whole, tmp_path), {"epochs": 3})
    assert values(longer) == values(other)
    assert states.saved_steps(longer) == states.saved_steps(other)


def test_a_signal_stops_after_the_step_with_the_state_saved(whole: Run, data: Path, tmp_path: Path) -> None:
    class Signalled(Watcher):
        said = ""

        def stepped(self, record: Any, plan: Any) -> None:
            if record.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def stopping(self, by: str) -> None:
            self.said = by

    watcher = Signalled()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut", "saving.seconds": 60}, root=tmp_path, watcher=watcher)
    assert watcher.said == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    run = Run.open("cut", tmp_path)
    assert (run.info["status"], run.steps[-1]["step"], states.saved_steps(run)[0]) == ("stopped", 3, 3)
    assert values(resume(run)) == values(whole)


def test_what_is_interrupted_within_a_step_saves_nothing_of_it(
    whole: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(loop: Loop, *rest: Any) -> None:
        original(loop, *rest)
        if loop.step == 2:
            raise KeyboardInterrupt  # the second signal: weights have moved, the step is not counted

    original = Loop._move
    monkeypatch.setattr(Loop, "_move", move)
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path)
    monkeypatch.undo()
    run = Run.open("cut", tmp_path)
    assert (run.info["status"], run.steps[-1]["step"], states.saved_steps(run)[0]) == ("stopped", 2, 2)
    resume(run)
    assert values(run) == values(whole)
    assert same_weights(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [
    {"precision": "bf16"}, {"precision": "fp16"}, {"optimiser.name": "nadam", "ema": 0}, {"optimiser.name": "sgd"},
    {"stages": [{"epochs": 1, "freeze": ["backbone"]}, {"epochs": 1, "optimiser": {"lr": 1e-4}}]},
    {"multiscale.low": 0.5, "multiscale.high": 1.5, "multiscale.step": 32, "multiscale.every": 1},
])  # fmt: skip
def test_whatever_has_a_state_goes_on_exactly(data: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    left_alone = fit({**KEYS, "data": str(data), "name": "alone", **keys}, root=tmp_path)
    run = cut(data, tmp_path, 1, **keys)
    with pytest.raises(KeyboardInterrupt):
        resume(run, watcher=StopAt(3))
    resume(run)
    assert values(run) == values(left_alone)
    assert same_weights(run, left_alone)


def test_a_changed_guard_takes_effect() -> None:
    before, after = Recorder(Guard(sigmas=8.0)), Recorder(Guard(sigmas=5.0))
    before.losses.extend([1.0, 2.0])
    after.restore(before.state())
    assert after.spikes.sigmas == 5.0
    assert list(after.losses) == [1.0, 2.0]
