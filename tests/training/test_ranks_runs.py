"""Whole runs of two processes: one folder, judged once, stopped, resumed, restarted, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
from safetensors.torch import load_file
from test_fit import shapes
from torch.distributed import run as launcher
from two_processes import Pair

import forked
from onestage.errors import OnestageError
from onestage.experiments.onlooker import Onlooker
from onestage.experiments.run import Run
from onestage.records import Detections
from onestage.training import plan as planning
from onestage.training.devices.ranks import Ranks
from onestage.training.fit import fit, resume
from onestage.training.judging.judge import gathered
from onestage.training.loop.loop import StepRecord
from onestage.training.plan import Plan
from onestage.training.saving.restarts import begun_by
from onestage.training.watcher import Watcher

TINY = {
    "model": "ssd-small", "size": 64, "weights": "none", "epochs": 2, "batch": 5, "precision": "fp32", "device": "cpu",
    "validation.every": 1, "augmentation.policy": "zoom", "norms": "frozen",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"), images=19)


class StopsAfter(Watcher):
    """Somebody who presses Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, record: StepRecord, plan: Plan) -> None:
        if record.step == self.step:
            raise KeyboardInterrupt


def trained(ranks: Ranks, keys: dict[str, Any], root: Path, stop: int = 0) -> Any:
    try:
        return type(fit(keys, root=root, watcher=StopsAfter(stop))).__name__
    except KeyboardInterrupt:
        return "stopped"
    except OnestageError as error:
        return type(error).__name__, error.message


def went_on(ranks: Ranks, folder: Path) -> Any:
    return resume(Run(folder)).name


def rows(run: Run) -> list[dict[str, Any]]:
    """What steps did, without the clock and the machine."""
    unlike = ("time", "seconds", "memory", "disk_free")
    return [{key: value for key, value in row.items() if key not in unlike} for row in run.steps]


def same_weights(one: Run, other: Run) -> bool:
    a, b = (load_file(run.weights_dir / "last.safetensors") for run in (one, other))
    return all(bool((a[name] == b[name]).all()) for name in a) and a.keys() == b.keys()


def near(one: Any, other: Any) -> None:
    """The same to 1e-5, whatever is nested."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            near(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            near(a, b)
    else:
        assert one == pytest.approx(other, rel=2e-4, abs=2e-5) if isinstance(one, float) else one == other


def test_two_processes_write_the_run_of_one(pair: Pair, tmp_path: Path) -> None:
    keys = {**TINY, "data": str(shapes(tmp_path / "data", images=15))}
    assert pair(trained, {**keys, "name": "two"}, tmp_path, seconds=120) == ["Run", "Onlooker"]
    fit({**keys, "name": "one"}, root=tmp_path)
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    near(rows(one), rows(two))
    clock = {"time"}
    near(*([{k: v for k, v in row.items() if k not in clock} for row in run.results] for run in (one, two)))
    images = [item["id"] for item in json.loads((two.folder / "validation.json").read_text())["images"]]
    assert len(images) == 3  # an odd number: one process has two, the other one
    seen = list(dict.fromkeys(item["image_id"] for item in two.predictions))
    assert seen == [image for image in images if image in seen]  # in the order of the data, as one process has them
    assert len(two.predictions) == pytest.approx(len(one.predictions), rel=0.02)
    assert two.info["segments"][0]["devices"] == 2
    assert two.info["status"] == "finished"
    assert two.metrics["n_images"] == one.metrics["n_images"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["data", "one", "two"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit_and_a_command_finds_what_it_began(
    pair: Pair, data: Path, tmp_path: Path
) -> None:
    keys = {**TINY, "data": str(data), "norms": "synchronised", "saving.seconds": 0}
    whole, half = {**keys, "name": "whole"}, {**keys, "name": "half"}
    assert pair(trained, whole, tmp_path, seconds=120) == ["Run", "Onlooker"]
    assert pair(trained, half, tmp_path, 2, seconds=120) == ["stopped"] * 2
    run = Run(tmp_path / "half")
    assert run.info["status"] == "stopped"
    assert [row["step"] for row in run.steps] == [1, 2]
    assert pair(trained, half, tmp_path, seconds=120) == ["Run", "Onlooker"]  # the same command, begun again
    assert rows(run) == rows(Run(tmp_path / "whole"))
    assert same_weights(run, Run(tmp_path / "whole"))
    assert [segment["exact"] for segment in run.info["segments"][1:]] == [True]
    began = run.info["segments"]
    assert pair(trained, half, tmp_path, seconds=60) == ["Run", "Onlooker"]  # finished: nothing is done
    assert run.info["segments"] == began


def test_another_number_of_processes_goes_on_but_not_to_the_bit(pair: Pair, data: Path, tmp_path: Path) -> None:
    keys = {**TINY, "data": str(data), "name": "alone"}
    with pytest.raises(KeyboardInterrupt):
        fit(keys, root=tmp_path, watcher=StopsAfter(2))
    assert pair(went_on, tmp_path / "alone", seconds=120) == ["alone"] * 2
    run = Run(tmp_path / "alone")
    assert run.info["status"] == "finished"
    last = run.info["segments"][-1]
    assert (last["devices"], last["exact"]) == (2, False)
    assert "another number of devices: 1 before, 2 now" in last["reasons"]


def _other_data(ranks: Ranks, keys: dict[str, Any], places: list[str], root: Path) -> Any:
    original = planning.open_data
    try:
        planning.open_data = lambda recipe: original(recipe.changed({"data": places[ranks.rank]}))
        return trained(ranks, keys, root)
    finally:
        planning.open_data = original


def test_processes_that_see_other_data_are_refused(pair: Pair, data: Path, tmp_path: Path) -> None:
    other = shapes(tmp_path / "other", images=19, seed=5)
    places, message = [str(data), str(other)], "the processes of the run do not see the same data"
    keys = {**TINY, "data": str(data)}
    assert pair(_other_data, keys, places, tmp_path / "runs") == [("DataError", message)] * 2
    missing = pair(_other_data, keys, [str(data), str(tmp_path / "nowhere")], tmp_path / "runs")
    assert missing[0][1].startswith("rank 1: ")
    assert missing[0][0] == missing[1][0] == "DataError"
    assert not (tmp_path / "runs").exists()


def test_a_failure_of_one_is_that_of_all(pair: Pair, data: Path, tmp_path: Path) -> None:
    missing = pair(trained, {**TINY, "data": str(tmp_path / "nowhere")}, tmp_path, seconds=60)
    assert missing[0] == missing[1]
    assert missing[0][0] == "DataError"
    assert (
        pair(trained, {**TINY, "data": str(data), "batch": 1}, tmp_path)
        == [("RecipeError", "batch: 1 images in a step for 2 processes: expected one for each at least")] * 2
    )
    assert not list(tmp_path.iterdir())


def test_each_image_is_judged_once() -> None:
    def found(*ids: int) -> dict[Any, Detections]:
        return {i: Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for i in ids}

    assert list(gathered([found(0, 2, 4), found(1, 3)], range(5))) == [0, 1, 2, 3, 4]
    assert gathered([], range(5)) == {}  # not the first process
    for wrong in ([found(0, 1), found(1, 2)], [found(0), found(1)], [found(0, 1, 2), found(3)]):
        with pytest.raises(ValueError, match="each of 3 images once"):
            gathered(wrong, range(3))


def test_an_onlooker_writes_nothing(tmp_path: Path) -> None:
    run = Onlooker(tmp_path / "elsewhere")
    run.write_asked({})
    run.write_recipe({})
    run.update(a=1)
    run.begin(3, devices=2)
    run.append_step({"step": 1})
    run.append_result({"step": 1})
    run.write_predictions([])
    run.write_metrics({})
    run.write_findings([])
    run.write_file("weights/last.safetensors", b"")
    run.finish("failed", "because")
    assert (run.info, run.steps, run.results, run.recipe, run.findings) == ({}, [], [], {}, [])
    assert not list(tmp_path.iterdir())
    writing = [name for name in vars(Run) if name.startswith(("write", "append", "update", "begin", "finish", "repl"))]
    assert [name for name in writing if name not in vars(Onlooker)] == []
    with pytest.raises(AssertionError, match="does not write"), run.replacing("x"):
        pass


def test_a_command_finds_the_run_of_its_job_alone(tmp_path: Path) -> None:
    assert begun_by((), {}, tmp_path) is None
    for name, keys, jobs in (("a", {"x": 1}, ["torchrun 1"]), ("b", {"x": 2}, ["torchrun 1"]), ("c", {"x": 1}, [])):
        run = Run.create(tmp_path, name)
        run.write_asked(keys)
        run.update(jobs=jobs)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{")
    found = begun_by(("torchrun 0", "torchrun 1"), {"x": 1}, tmp_path)
    assert found is not None
    assert found.name == "a"
    assert begun_by(("torchrun 2",), {"x": 1}, tmp_path) is None
    assert begun_by(("torchrun 1",), {"x": 3}, tmp_path) is None


# torchrun itself


Agent = subprocess.Popen[str] | forked.Forked


def command(data: Path, name: str, *more: str, restarts: int = 0, **keys: Any) -> list[str]:
    """What comes after `torchrun`."""
    return [
        "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts), "-m", "onestage", "train",
        f"data={data}", f"name={name}", *(f"{key}={value}" for key, value in {**TINY, **keys}.items()), *more,
    ]  # fmt: skip


def torchrun(data: Path, runs: Path, name: str, *more: str, restarts: int = 0) -> forked.Forked:
    """As the command, but that its processes are forks: each notes its id in the file rankN and has `ssd-small`."""
    environment = {**os.environ, "ONESTAGE_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    return forked.Forked(_agent, command(data, name, *more, restarts=restarts), env=environment, cwd=runs)


def _agent(words: list[str]) -> None:
    made = launcher.config_from_args

    def forking(arguments: Any) -> Any:
        config, _, rest = made(arguments)
        config.start_method = "fork" if sys.platform == "linux" else "spawn"
        return config, _worker, rest[rest.index("onestage") + 1 :]

    launcher.config_from_args = forking
    launcher.main(words)


def _worker(*words: str) -> None:
    Path(f"rank{os.environ['RANK']}").write_text(str(os.getpid()))
    small_model.register()
    forked.command(words)


def worker(runs: Path, rank: int) -> int:
    """The process of a rank."""
    return int((runs / f"rank{rank}").read_text())


def wait_for_steps(run: Path, count: int, agent: Agent) -> None:
    lines = run / "steps.jsonl"
    forked.wait_until(lambda: lines.is_file() and len(lines.read_text().splitlines()) >= count, agent)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_run_with_a_state(data: Path, tmp_path: Path, lost: int) -> None:
    agent = torchrun(data, tmp_path, "lost", "epochs=30", "saving.seconds=0.2")
    wait_for_steps(tmp_path / "lost", 5, agent)
    os.kill(worker(tmp_path, lost), signal.SIGKILL)
    said = "".join(agent.communicate(timeout=60))
    assert agent.returncode == 1
    run = Run(tmp_path / "lost")
    left = 1 - lost
    message = f"a process of the run was lost: rank {left} could not reach the others"
    assert message in said
    if lost == 1:
        assert run.info["status"] == "failed"
        assert run.info["error"] == message
    assert run.steps[-1]["step"] >= 5
    done = resume(run, {"epochs": 3})  # by one process alone
    assert done.info["status"] == "finished"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torchrun_restarts_what_was_lost_and_the_run_is_that_without_loss(
    pair: Pair, data: Path, tmp_path: Path
) -> None:
    keys = ("epochs=10", "validation.every=5")
    agent, first = torchrun(data, tmp_path, "restarted", *keys, "saving.seconds=0.1", restarts=2), 0
    for steps, rank in ((4, 1), (12, 0)):
        wait_for_steps(tmp_path / "restarted", steps, agent)
        forked.wait_until(lambda last=first: worker(tmp_path, 0) != last, agent)
        first = worker(tmp_path, 0)
        os.kill(worker(tmp_path, rank), signal.SIGKILL)
    said = "".join(agent.communicate(timeout=120))
    assert agent.returncode == 0, said
    whole = {**TINY, "data": str(data), "name": "whole", "epochs": 10, "validation.every": 5}
    assert pair(trained, whole, tmp_path, seconds=120) == ["Run", "Onlooker"]
    restarted, uninterrupted = Run(tmp_path / "restarted"), Run(tmp_path / "whole")
    assert "this command began run restarted before: going on with it" in said
    assert [row["step"] for row in restarted.steps] == list(range(1, 10 * 3 + 1))
    assert rows(restarted) == rows(uninterrupted)
    assert same_weights(restarted, uninterrupted)
    assert restarted.info["status"] == "finished"
    assert len(restarted.info["segments"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["restarted", "whole"]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_all_processes_after_the_same_step(data: Path, tmp_path: Path, sent: signal.Signals) -> None:
    if sent == signal.SIGTERM:  # the command as it stands, with processes that know the models of the package alone
        words = [sys.executable, "-m", "torch.distributed.run", *command(data, "asked", epochs=30, model="ssd-lite0")]
        environment = {**os.environ, "ONESTAGE_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
        agent: Agent = subprocess.Popen(
            words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    else:
        agent = torchrun(data, tmp_path, "asked", "epochs=30")
    wait_for_steps(tmp_path / "asked", 4, agent)
    agent.send_signal(sent)
    said = agent.communicate(timeout=60)
    run = Run(tmp_path / "asked")
    last = run.steps[-1]["step"]
    assert f"error: stopped after step {last}; the state is saved" in f"{said}"
    assert run.info["status"] == "stopped"
    assert resume(run, {"epochs": 3}).info["status"] == "finished"
