"""What processes tell each other: sums, gathers, failures of one, and one process alone."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import distributed
from two_processes import Pair, launcher

from onestage.errors import DataError, LostRankError, UsageError
from onestage.training.devices.launch import Place, jobs, placed, same_job
from onestage.training.devices.ranks import PIECE, Ranks, _pieces


@pytest.fixture
def _nothing_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_")):
            monkeypatch.delenv(name)


def _sums(ranks: Ranks) -> Any:
    given = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    total = ranks.sum(given)
    pieces = [torch.full((2, 3), float(ranks.rank)), torch.ones(4), torch.ones(2, dtype=torch.float64)]
    ranks.sum_in_place(pieces)
    return (given.tolist(), total.tolist(), ranks.sums([0.1, ranks.rank]), ranks.any(ranks.rank == 1),
            [piece.flatten().tolist() for piece in pieces])  # fmt: skip


def test_sums_are_over_both_and_known_to_both(pair: Pair) -> None:
    first, second = pair(_sums)
    assert (first[0], second[0]) == ([1.0, 10.0], [2.0, 20.0])  # what was given is left alone
    assert first[1:] == second[1:]
    assert first[1:] == ([3.0, 30.0], [0.2, 1.0], True, [[1.0] * 6, [2.0] * 4, [2.0] * 2])


def _things(ranks: Ranks) -> Any:
    weight = torch.full((3, 2), float(ranks.rank)).t()
    ranks.share([weight])
    ranks.any(False)
    return ranks.gather({"rank": ranks.rank}), ranks.broadcast(("of", ranks.rank)), weight.tolist()


def test_things_are_gathered_by_rank_and_given_by_the_first(pair: Pair) -> None:
    first, second = pair(_things)
    assert first == second
    assert first == ([{"rank": 0}, {"rank": 1}], ("of", 0), [[0.0] * 3] * 2)


def _first_alone(ranks: Ranks, fails: bool) -> Any:
    done: list[int] = []

    def work() -> int:
        done.append(ranks.rank)
        if fails:
            raise DataError("no such folder", problems=["a", "b"], hint="look")
        return 7

    try:
        return ranks.first(work), done
    except DataError as error:
        return error.message, error.problems, error.hint, done


def test_the_first_works_alone_and_its_failure_is_that_of_all(pair: Pair) -> None:
    assert pair(_first_alone, False) == [(7, [0]), (7, [])]
    said = ("no such folder", ("a", "b"), "look")
    assert pair(_first_alone, True) == [(*said, [0]), (*said, [])]


def _fails(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("on purpose")
    ranks.any(False)


def _parts(ranks: Ranks) -> Any:
    if ranks.rank == 1:
        distributed.destroy_process_group()  # its connections are gone, as if it had been killed
        return None
    try:
        ranks.sum(torch.ones(3))
    except LostRankError as error:
        return error.message


def test_a_lost_process_is_told_in_words_and_a_fault_in_one_fails_the_test() -> None:
    with_fault = Pair(method="forkserver")
    message, _ = with_fault(_parts, seconds=60)
    assert message == "a process of the run was lost: rank 0 could not reach the others"
    with pytest.raises(AssertionError, match="on purpose"):
        with_fault(_fails, seconds=30)
    assert not with_fault.processes


@pytest.mark.usefixtures("_nothing_launched")
def test_one_process_makes_no_group() -> None:
    ranks = Ranks.join()
    value = torch.ones(2)
    assert ranks.alone
    assert ranks.is_first
    assert ranks.sum(value) is value
    assert (ranks.sums([1.0]), ranks.any(False), ranks.gather(3), ranks.broadcast(4)) == ([1.0], False, [3], 4)
    assert ranks.first(lambda: 5) == 5
    assert ranks.device("cuda") == "cuda"
    assert not distributed.is_initialized()
    ranks.close()


@pytest.mark.usefixtures("_nothing_launched")
def test_one_process_under_torchrun_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launcher(0, 1, 1).items():
        monkeypatch.setenv(name, value)
    assert Ranks.join().alone
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("_nothing_launched")
def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launcher(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes on this machine, but 1 CUDA devices"):
        Ranks.join("cuda")
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(UsageError, match="as many on every machine"):
        Ranks.join()


@pytest.mark.usefixtures("_nothing_launched")
def test_srun_is_known_by_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placed() is None
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert placed() is None  # a batch script that uses no srun is one process
    for name, value in {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_PROCID": "5",
                        "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert placed() == Place("srun", 5, 8, 1, 4)
    assert jobs() == ("slurm - 77 0",)


@pytest.mark.usefixtures("_nothing_launched")
def test_a_restarted_command_knows_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs() == ()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    first = jobs()
    assert same_job(first, jobs())
    assert not same_job((), ())
    monkeypatch.setattr(os, "getppid", lambda: 1)  # another torchrun
    assert not same_job(first, jobs())
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert not same_job(jobs(), jobs())  # two commands of one batch script
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert same_job(jobs(), jobs())
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    assert same_job(jobs(), jobs())


def test_gradients_go_in_pieces_of_one_type() -> None:
    sizes = [PIECE - 1, 1, 5, PIECE + 7, 2]
    given = [torch.empty(size) for size in sizes] + [torch.empty(2, dtype=torch.float64)]
    assert [[one.numel() for one in piece] for piece in _pieces(given)] == [[PIECE - 1, 1], [5], [PIECE + 7], [2], [2]]
    assert list(_pieces([])) == []
