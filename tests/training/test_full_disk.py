"""A disk that fills at a random moment of a run: what is lost, what is said, and that it goes on exactly."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import randint
from types import ModuleType

import pytest
import torch

import forked
from onestage import cli
from onestage.experiments.run import Run
from onestage.training.saving.state import load_state, saved_steps

# 100 steps of a few hundredths of a second.
KEYS = {
    "model": "ssd-small", "epochs": 25, "freeze": "[backbone]", "ema": 0, "validation.every": 13, "optimiser.lr": 0.003,
}  # fmt: skip


@pytest.fixture(scope="module")
def words(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    data = kills.squares(tmp_path_factory.mktemp("data") / "squares")
    return [f"data={data}", *(f"{key}={value}" for key, value in {**kills.BASE, **KEYS}.items())]


@pytest.fixture(scope="module")
def peace(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, threads = tmp_path_factory.mktemp("peace"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTAGE_RUNS", str(folder))
        assert cli.run(["train", *words, "saving.seconds=60", "name=peace"]) == 0
    torch.set_num_threads(threads)
    return Run.open("peace", folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take up all that is left of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
        except OSError:
            pass
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            return ballast


def interrupted(kills: ModuleType, folder: Path, words: list[str], step: int, fault: Callable[[int], object]) -> str:
    """Train, let `fault` (given the pid) happen once `step` is done; what the command said when it ended."""
    process = kills.start(folder, *words, "name=killed")
    lines = folder / "killed" / "steps.jsonl"
    forked.wait_until(lambda: kills.last_step(lines) >= step, process)
    assert process.poll() is None, process.communicate()[1]
    fault(process.pid)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    return str(err)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_writing_fails_from_a_random_step_on(kills: ModuleType, words: list[str], peace: Run, tmp_path: Path) -> None:
    def nothing_grows(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    said = interrupted(kills, tmp_path, [*words, "saving.seconds=0.2"], randint(5, 60), nothing_grows)
    goes_on(kills, tmp_path, peace, said)


@pytest.mark.slow
def test_a_disk_that_is_full_from_a_random_step_on(
    kills: ModuleType, words: list[str], peace: Run, small_disk: Path
) -> None:
    said = interrupted(kills, small_disk, words, randint(5, 60), lambda pid: fill(small_disk))
    assert "the disk is full" in said
    run = Run.open("killed", small_disk)
    assert run.steps[-1]["step"] - saved_steps(run)[0] <= 1, "a state was saved after every step"
    (small_disk / "ballast").unlink()
    goes_on(kills, small_disk, peace, said)


def goes_on(kills: ModuleType, folder: Path, peace: Run, said: str) -> None:
    """The steps since the last state are all that is lost, and the run ends as if nothing had happened."""
    run = Run.open("killed", folder)
    saved, last = load_state(run), run.steps[-1]["step"]
    assert saved is not None
    assert saved.said == ()
    assert saved.step == saved_steps(run)[0] <= last
    assert "Traceback" not in said
    assert f"the last state is of step {saved.step}" in said or f"the state after step {saved.step} is saved" in said
    kills.train(folder, "--resume", "killed")
    assert run.info["segments"][1]["from_step"] == saved.step
    assert not list(run.folder.rglob("*.part"))
    assert kills.differences(peace, run) == []
    assert len(run.steps) == 100
