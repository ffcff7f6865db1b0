"""Two real processes joined by gloo, kept for the whole test session: a function in, what each process gave out.

    def work(ranks: Ranks, x: float) -> float: ...       # at the top of a test module
    assert pair(work, 1.0) == [1.0, 1.0]                  # the fixture `pair` of conftest.py

A failure in one process fails the call with its traceback; a hang fails after `seconds`, and both are started anew.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import forked


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launcher(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment variables that torchrun would give a process."""
    return {
        "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": f"test-{port}",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


class Pair:
    """Processes that run functions together; started at the first call."""

    def __init__(self, count: int = 2, method: str = "spawn") -> None:
        """New interpreters: sets of text have another order in each; `forkserver`, where that cannot matter."""
        self.count, self.method = count, method
        self.processes: list[Any] = []
        self.pipes: list[Any] = []

    def __call__(self, work: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> list[Any]:
        """What `work(ranks, *arguments)` gives in each process, by rank."""
        if not self.processes:
            self._start()
        for pipe in self.pipes:
            pipe.send((work, arguments))
        end = time.monotonic() + seconds
        outcomes: list[Any] = [None] * self.count
        while None in outcomes:
            open_pipes = [pipe for pipe, outcome in zip(self.pipes, outcomes, strict=True) if outcome is None]
            ready = multiprocessing.connection.wait(open_pipes, max(end - time.monotonic(), 0))
            if not ready:
                self.close()
                raise AssertionError(f"no answer from rank {outcomes.index(None)} after {seconds:.0f} s\n{outcomes}")
            for pipe in ready:
                rank = self.pipes.index(pipe)
                try:
                    outcomes[rank] = pipe.recv()
                except EOFError:
                    outcomes[rank] = (False, f"rank {rank} died")
                if not outcomes[rank][0]:
                    end = min(end, time.monotonic() + 2)  # the other may wait for it in vain
        failed = [text for well, text in outcomes if not well]
        if failed:
            self.close()
            raise AssertionError("\n".join(failed))
        return [value for _, value in outcomes]

    def close(self) -> None:
        """End the processes, whatever they do."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()
        self.processes, self.pipes = [], []

    def _start(self) -> None:
        context: Any = forked.context() if self.method == "forkserver" else multiprocessing.get_context("spawn")
        port = free_port()
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, launcher(rank, self.count, port)), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)


def _serve(pipe: Any, environment: dict[str, str]) -> None:
    os.environ |= environment
    import small_model
    import torch

    from onestage.training.devices.ranks import Ranks

    small_model.register()
    torch.set_num_threads(1)
    ranks = Ranks.join()
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, work(ranks, *arguments)))
        except BaseException:
            pipe.send((False, f"rank {ranks.rank}: {traceback.format_exc()}"))
    ranks.close()
