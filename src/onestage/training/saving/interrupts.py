"""Ctrl-C and SIGTERM: the run stops after the step it is in."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

# What people (Ctrl-C) and schedulers, containers and spot machines (SIGTERM) end a process with.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether the run was asked to stop; look at it between steps. `by` is the signal's name, "" without one.

    `deaf` says that SIGTERM is not to be heard any more, even after the block: a failure is being told.
    """

    asked: bool = False
    by: str = ""
    deaf: bool = False

    def ask(self, by: str = "") -> None:
        """Ask for a stop after the present step, without a signal."""
        self.asked, self.by = True, by

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """A KeyboardInterrupt raised in the block asks for a stop."""
        try:
            yield
        except KeyboardInterrupt:
            self.ask()


@contextlib.contextmanager
def stopping(say: Callable[[str], None] | None = None, patience: float = 0.0) -> Iterator[Stop]:
    """Signals become a wish to stop while the block runs; a second one raises KeyboardInterrupt wherever it falls.

    Stopping between steps keeps the saved state exact; whoever is interrupted in the midst of a step by the second
    signal must save nothing of it. Signals within `patience` seconds of the first are the same wish: a launcher passes
    on to its processes what the terminal has sent them already. `say` is told once, in the signal's handler. Handlers
    are put back when the block ends. Outside of the main thread signals are somebody else's: then nothing happens, and
    `asked` stays False.
    """
    stop, since = Stop(), [0.0]
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def wish(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            if time.monotonic() - since[0] < patience:
                return
            raise KeyboardInterrupt
        since[0] = time.monotonic()
        stop.ask(signal.Signals(number).name)
        if say is not None:
            with contextlib.suppress(RuntimeError):  # the signal fell into a write to the same stream
                say(stop.by)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            before[number] = signal.signal(number, wish)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if stop.deaf and number == signal.SIGTERM:
                handler = signal.SIG_IGN
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
