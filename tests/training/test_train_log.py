"""train.log in another program's words: every step that counts once, whatever became of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from test_fit import TINY, StopAt, shapes

from onestage.experiments.dialects import DIALECTS
from onestage.experiments.run import Run
from onestage.training.fit import fit, resume
from onestage.training.loop.step_record import StepRecord
from onestage.training.recipe import Recipe
from onestage.training.watcher import Watcher

# 16 images, a fifth of them to judge on: 6 steps in each of 2 epochs, in which every sixth and twelfth has no 2nd line.
KEYS = {**TINY, "batch": 2, "model": "ssd-small", "log": "faceboxes", "validation.every": 2, "saving.seconds": 1e9}


class Dies(Watcher):
    """The process dies after a step, as under kill -9: nothing is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, record: StepRecord, plan: Any) -> None:
        if record.step == self.step:
            raise RuntimeError("killed")


class Heard(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def logged(self, lines: Sequence[str]) -> None:
        self.lines += lines


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"), images=16)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    heard = Heard()
    return fit({**KEYS, "data": str(data)}, root=tmp_path_factory.mktemp("runs"), watcher=heard), heard.lines


def log_of(run: Run) -> list[str]:
    return (run.folder / "train.log").read_text("utf-8").splitlines()


def test_every_step_is_written_and_told(whole: tuple[Run, list[str]]) -> None:
    run, heard = whole
    lines, steps = log_of(run), run.steps
    assert lines == heard
    assert [bool(line.startswith("Epoch")) for line in lines] == ([False] * 5 + [True, False]) * 2
    for line, step in zip([line for line in lines if line.startswith("loc")], steps, strict=True):
        assert line == (
            f"loc_loss:{step['raw']['box']:f} conf_loss:{step['raw']['cls']:f}, pos_num:{step['positives']}"
        )
    for line, five in zip([line for line in lines if line.startswith("Epoch")], (steps[:5], steps[6:11]), strict=True):
        mean = sum(step["loss"] for step in five) / 5
        epoch = five[0]["epoch"] + 1
        assert line == f"Epoch [{epoch}/2], Iter [5/6] Loss: {five[-1]['loss']:.4f}, average_loss: {mean:.4f}"


@pytest.mark.parametrize("step", [2, 5, 6])
def test_a_stopped_run_goes_on_without_a_line_twice(
    whole: tuple[Run, list[str]], data: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(step))
    assert log_of(resume(Run.open("cut", tmp_path))) == log_of(whole[0])


def test_a_killed_run_has_no_line_twice_and_none_lost(whole: tuple[Run, list[str]], data: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=Dies(2))
    run, log = Run.open("cut", tmp_path), tmp_path / "cut" / "train.log"
    with pytest.raises(RuntimeError, match="killed"):  # from its first state, taken before the first step
        resume(run, watcher=Dies(5))
    assert log_of(run) == log_of(whole[0])[:6]
    log.write_text(log.read_text()[:-30])  # a crash of the machine took the end of the file with it
    for state in run.state_dir.glob("*.pt"):
        state.unlink()
    assert log_of(resume(run)) == log_of(whole[0])


def test_our_own_log_writes_no_file_and_can_be_changed_in_mid_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "log": "own", "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(3))
    run = Run.open("cut", tmp_path)
    assert not (run.folder / "train.log").exists()
    run = resume(run, {"log": "faceboxes"})
    mean = sum(step["loss"] for step in run.steps[:5]) / 5
    lines = log_of(run)  # the steps before are in it too
    assert len(lines) == 14
    assert f"average_loss: {mean:.4f}" in lines[5]
    assert run.info["segments"][1]["exact"] is True


# ---- darknet's lines: what they remember from step to step must survive all that becomes of a run

DARKNET = {**KEYS, "model": "ssd-told", "log": "darknet", "accumulate": 2}
REGION = re.compile(
    r"^Region (\d+) Avg IOU: (\S+), Class: (\S+), Obj: \S+, No Obj: \S+, .5R: \S+, .75R: \S+,  count: (\d+)$"
)
BATCH = re.compile(r"^(\d+): (\S+), (\S+) avg, (\S+) rate, (\S+) seconds, (\d+) images$")


@pytest.fixture(scope="module")
def darknet(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    heard = Heard()
    return fit({**DARKNET, "data": str(data)}, root=tmp_path_factory.mktemp("runs"), watcher=heard), heard.lines


def told(lines: Sequence[str]) -> list[str]:
    """The lines without times, which differ from run to run."""
    return [re.sub(r"\S+ seconds", "S seconds", line) for line in lines]


def test_darknets_lines_are_those_of_the_rows(darknet: tuple[Run, list[str]]) -> None:
    run, heard = darknet
    lines, average = log_of(run), 0.0
    assert lines == heard
    assert len(lines) == 12 * 5
    for at, step in enumerate(run.steps):
        loaded, *regions, last = lines[5 * at : 5 * at + 5]
        assert loaded == f"Loaded: {step['seconds']['data']:f} seconds"
        found = [match.groups() for match in map(REGION.match, regions) if match]
        assert [int(one[0]) for one in found] == [16, 23, 30]
        assert [int(one[3]) for one in found] == step["positives_per_level"]
        assert [one[1] == "-nan" for one in found] == [n == 0 for n in step["positives_per_level"]]
        cost = step["cost"] / 2
        average = cost if at == 0 else 0.9 * average + 0.1 * cost
        match = BATCH.match(last)
        assert match is not None
        assert match.groups() == (
            f"{at + 1}", f"{cost:f}", f"{average:f}", f"{max(step['lr'].values()):f}", f"{step['seconds']['step']:f}",
            f"{2 * (at + 1)}",
        )  # fmt: skip


@pytest.mark.parametrize("step", [2, 6, 7])
def test_darknets_average_goes_on_after_a_stop(
    darknet: tuple[Run, list[str]], data: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**DARKNET, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(step))
    assert told(log_of(resume(Run.open("cut", tmp_path)))) == told(log_of(darknet[0]))


def test_darknets_average_goes_on_after_a_kill(darknet: tuple[Run, list[str]], data: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        fit({**DARKNET, "data": str(data), "name": "cut"}, root=tmp_path, watcher=Dies(3))
    run, heard = Run.open("cut", tmp_path), Heard()
    assert told(log_of(resume(run, watcher=heard))) == told(log_of(darknet[0]))
    assert told(heard.lines) == told(log_of(darknet[0]))  # from the first state: all is told again


def test_run_json_says_what_the_levels_are(darknet: tuple[Run, list[str]]) -> None:
    levels = darknet[0].info["model"]["levels"]
    assert [(level["layer"], level["grid"], level["words"]) for level in levels] == [
        (16, [8, 8], "stride 8, small objects (12x12 to 18x18 px)"),
        (23, [4, 4], "stride 16, medium objects (26x26 px)"), (30, [2, 2], "stride 32, large objects (44x44 px)"),
    ]  # fmt: skip


def test_the_recipe_knows_the_words_there_are() -> None:
    words = get_args(Recipe.model_fields["log"].annotation)
    assert set(words) == {"own", *DIALECTS}
    assert all(re.fullmatch(r"[a-z]+", word) for word in words)
