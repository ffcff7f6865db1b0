"""Processes forked from one that has imported torch: each costs a tenth of the computing of a new interpreter.

They are processes as any: killed, signalled, limited, with output, exit code and environment of their own. What they
share is how the interpreter hashes text: a test of whether two processes agree compares with another interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

IMPORTED = (
    "torch",
    "lightning_fabric",
    "cv2",
    "scipy.optimize",
    "onestage.training.fit",
    "onestage.report.page",
    "pytest",
)


@cache
def context() -> Any:
    """What starts processes that way; they compute with one thread."""
    made: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    made.set_forkserver_preload(list(IMPORTED))
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):
        first = made.Process(target=os.getpid)
        first.start()
    first.join()
    return made


class Forked:
    """A call of `work(*arguments)` as a process of its own, used as subprocess.Popen; what it says is read at once."""

    def __init__(
        self, work: Callable[..., object], *arguments: object, env: Mapping[str, str], cwd: Path, before: object = None
    ) -> None:  # fmt: skip
        (out, said), (err, complained) = (context().Pipe(duplex=False) for _ in range(2))
        call = (work, arguments, dict(env), str(cwd), (said, complained), before)
        self.process = context().Process(target=_called, args=call)
        self.process.start()
        said.close()
        complained.close()
        self.pid = int(self.process.pid or 0)
        self.streams = [_Stream(out), _Stream(err)]

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.exitcode

    def send_signal(self, sent: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sent)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on both streams, once it has ended."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"no end after {timeout} s: {self.said}")
        for stream in self.streams:
            stream.join(10)
        return self.said

    @property
    def said(self) -> tuple[str, str]:
        """What it has said on both streams so far."""
        out, err = (b"".join(stream.read).decode() for stream in self.streams)
        return out, err


class _Stream(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(daemon=True)
        self.pipe, self.read = pipe, list[bytes]()
        self.start()

    def run(self) -> None:
        while piece := os.read(self.pipe.fileno(), 1 << 16):
            self.read.append(piece)
        self.pipe.close()


def onestage(words: Sequence[str], env: Mapping[str, str], cwd: Path, before: object = None) -> Forked:
    """`onestage WORDS` with these variables in that folder; `before` is called in the process first."""
    return Forked(command, tuple(words), env=env, cwd=cwd, before=before)


def command(words: Sequence[str]) -> None:
    """What the entry `onestage` does, in this process."""
    sys.argv = ["onestage", *words]
    from onestage.cli import main

    main()


def wait_until(true: Callable[[], object], process: Any, seconds: float = 120) -> None:
    """Until `true()`; fails where the process ends before, and after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def _called(
    work: Callable[..., object], arguments: Sequence[object], env: Mapping[str, str], cwd: str,
    pipes: Sequence[Connection], before: Callable[[], object] | None,
) -> None:  # fmt: skip
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream, pipe in enumerate(pipes, start=1):
        os.dup2(pipe.fileno(), stream)
        pipe.close()
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    if before:
        before()
    work(*arguments)
