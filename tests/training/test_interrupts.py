"""Signals while a run goes on: one stops after the step, two stop at once, other threads are left alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from onestage.training.saving.interrupts import Stop, stopping


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts without it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    said: list[str] = []
    with stopping(said.append) as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert stop.by == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert said == [number.name]


def test_handlers_are_put_back_however_the_block_ends() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopping():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    with pytest.raises(ValueError, match="inside"), stopping():
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_terminal_that_cannot_be_written_to_just_now_does_no_harm() -> None:
    def reentrant(by: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with stopping(reentrant) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked


def test_one_run_within_another_stops_alone() -> None:
    with stopping() as outer, stopping() as inner:
        os.kill(os.getpid(), signal.SIGINT)
        assert inner.asked
        assert not outer.asked


def test_another_thread_takes_no_signals() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping() as stop:
            seen.append((stop, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(Stop(), before)]
