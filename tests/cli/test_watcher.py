"""What a run says on a terminal and into a log, and how it is stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_pace import step

from onestage.cli.terminal import Reader, Terminal
from onestage.cli.watcher import TerminalWatcher, choices
from onestage.experiments.run import Run
from onestage.training.loop.step_record import StepRecord


class Weights(str):
    """A report on the first weights, as far as the watcher reads it."""

    notes: tuple[str, ...] = ()


def plan(steps: int = 100) -> Any:
    """What the watcher reads of a plan."""
    recipe = SimpleNamespace(
        model="ssd-lite0",
        epochs=5,
        batch=8,
        precision="bf16",
        freeze=("stem",),
        validation=SimpleNamespace(every=2, metric="widerface/APhard"),
    )
    detector = SimpleNamespace(size=(320, 320), parameters=lambda: iter(()))
    opened = SimpleNamespace(described="two [boxes] in a folder", findings=(), train=range(160), val=range(10))
    return SimpleNamespace(
        recipe=recipe, steps=steps, steps_per_epoch=20, opened=opened, detector=detector,
        report=Weights("weights report"), measured={"step_fp32": 0.4, "step_bf16": 0.2}, device="cpu", groups=[],
        foresight=[], cfg=None,
    )  # fmt: skip


def watcher_on(stream: io.StringIO, live: bool) -> TerminalWatcher:
    terminal = Terminal()
    terminal.console = Reader(file=stream, force_terminal=live, width=100, highlight=False)
    return TerminalWatcher(terminal)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def watcher(stream: io.StringIO, tmp_path: Path) -> Iterator[TerminalWatcher]:
    watcher = watcher_on(stream, live=False)
    watcher.planned(Run.create(tmp_path), plan(), 0)
    yield watcher
    watcher.close()


def test_a_log_gets_plain_lines(watcher: TerminalWatcher, stream: io.StringIO) -> None:
    for number in range(1, 41):
        watcher.stepped(step(number, 0.5), plan())
    hard = {"metrics/widerface/APhard": 0.25}
    watcher.evaluated(
        {"epoch": 2, "metrics/mAP50": 0.5, "metrics/mAP50-95": float("nan"), "time": 61.0, **hard}, best=True
    )
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert "two [boxes] in a folder" in lines[0]
    assert any("bf16 on cpu (a step took fp32 0.40 s, bf16 0.20 s)" in line for line in lines)
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1/5 step 20/100", "epoch 1/5 step 40/100",
    ]  # fmt: skip
    assert "loss 3.000 cls 1.000 box 2.000  4 positives/image  lr 1.00e-01  16.0 images/s  data wait 0%" in lines[-2]
    assert (
        lines[-1] == "evaluation  epoch 2/5  mAP50 0.500  mAP50-95 –  widerface/APhard 0.250  after 1:01  best so far"
    )


def test_a_resumed_run_starts_from_its_state_and_a_cfg_has_its_name(stream: io.StringIO, tmp_path: Path) -> None:
    watcher = watcher_on(stream, live=False)
    run = Run.create(tmp_path)
    run.update(model={"name": "darknet", "cfg": "my.cfg"})
    watcher.planned(run, plan(), 20)
    watcher.close()
    said = " ".join(stream.getvalue().split())
    assert "my.cfg, 0.0 M parameters, input 320x320; weights of the state after step 20" in said
    assert "weights report" not in said


def test_a_batch_of_more_than_there_is_is_told() -> None:
    few = plan()
    few.recipe.batch = 161
    assert "batch=161 is more than there are images: a step has 160" in choices(few)
    assert not [words for words in choices(plan()) if "more than" in words]


def test_a_slow_step_gets_its_line(watcher: TerminalWatcher, stream: io.StringIO) -> None:
    watcher._since_line -= 11
    watcher.stepped(step(1, 11.0), plan())
    assert "step 1/100" in stream.getvalue()


def test_a_terminal_gets_one_bar(stream: io.StringIO, tmp_path: Path) -> None:
    watcher = watcher_on(stream, live=True)
    watcher.prepare()
    watcher.planned(Run.create(tmp_path), plan(), 0)
    watcher.stepped(step(7, 0.5), plan())
    watcher.judging(3, 10)
    watcher.close()
    watcher.close()
    text = stream.getvalue()
    assert "7/100" in text
    assert "judging 3 of 10" in text
    assert "step 7/100" not in text


def told(number: int, counts: list[int], ious: list[float | None]) -> StepRecord:
    """A step whose loss tells of three levels, in darknet's order: the largest objects first."""
    record = step(number, 0.5)
    record.truths = sum(counts)
    record.extra["scales"] = [
        {"count": n, **dict.fromkeys(("iou", "cls", "obj", "r50", "r75"), iou), "noobj": 0.005}
        for n, iou in zip(counts, ious, strict=True)
    ]
    return record


LEVELS = [
    {"stride": 32, "grid": [13, 13], "anchors": [[116, 90], [373, 326]], "size": "large", "layer": 82},
    {"stride": 16, "grid": [26, 26], "anchors": [[30, 61], [59, 119]], "size": "medium", "layer": 94},
    {"stride": 8, "grid": [52, 52], "anchors": [[10, 13], [33, 23]], "size": "small", "layer": 106},
]


def test_levels_are_a_table_since_the_last_judgement(stream: io.StringIO, tmp_path: Path) -> None:
    watcher, run = watcher_on(stream, live=False), Run.create(tmp_path)
    run.update(model={"levels": LEVELS})
    watcher.planned(run, plan(), 0)
    assert "level   stride 8, small objects (10x13 to 33x23 px)" in stream.getvalue()
    row = {"epoch": 2, "metrics/mAP50": 0.5, "metrics/mAP50-95": 0.5, "time": 61.0, "metrics/widerface/APhard": 0.25}
    for number, counts, ious in ((3, [0, 1, 327], [None, 0.9, 0.3]), (4, [0, 3, 109], [None, 0.5, 0.7])):
        watcher.stepped(told(number, counts, ious), plan())  # type: ignore[arg-type]
    watcher.evaluated(row, best=False)
    lines = stream.getvalue().splitlines()
    first = lines.index("levels in steps 3 to 4: 440 truths")
    assert [line.split() for line in lines[first + 1 : first + 5]] == [
        ["level", "share", "Avg", "IOU", "Class", "Obj", "No", "Obj", ".5R", ".75R"],
        ["stride", "32,", "large", "objects", "0.0", "%", "-", "-", "-", "0.005", "-", "-"],
        ["stride", "16,", "medium", "objects", "0.9", "%", "0.600", "0.600", "0.600", "0.005", "0.600", "0.600"],
        ["stride", "8,", "small", "objects", "99.1", "%", "0.400", "0.400", "0.400", "0.005", "0.400", "0.400"],
    ]  # fmt: skip
    assert "no accuracy" in lines[first + 5]
    assert "no recall" in lines[first + 6]
    watcher.stepped(told(5, [1, 0, 0], [0.25, None, None]), plan())
    watcher.evaluated(row, best=False)
    rest = stream.getvalue().splitlines()[first + 7 :]
    assert "levels in step 5: 1 truth" in rest
    assert not any("no accuracy" in line for line in rest)  # said once
    assert any(line.split()[4:7] == ["100.0", "%", "0.250"] for line in rest)  # what was before has no part in it


def test_levels_are_shown_though_nobody_judges(watcher: TerminalWatcher, stream: io.StringIO) -> None:
    for number in range(1, 2001):
        watcher.stepped(told(number, [1, 1, 1], [0.5] * 3), plan(3000))
    assert [line for line in stream.getvalue().splitlines() if line.startswith("levels")] == [
        "levels in steps 1 to 1,000: 3,000 truths", "levels in steps 1,001 to 2,000: 3,000 truths",
    ]  # fmt: skip
    assert "level 3 of 3" in stream.getvalue()  # run.json does not say what they are


def test_a_wish_to_stop_is_told(watcher: TerminalWatcher, stream: io.StringIO) -> None:
    watcher.stopping("SIGINT")
    watcher.stopping("SIGTERM")
    assert stream.getvalue().splitlines()[-2:] == [
        "stopping after this step; once more to stop at once",
        "SIGTERM: stopping after this step; once more to stop at once",
    ]


def test_what_a_resume_changed_is_told(watcher: TerminalWatcher, stream: io.StringIO) -> None:
    watcher.told(["changed: epochs from 10 to 20", "a note in [brackets]"])
    assert stream.getvalue().splitlines()[-2:] == ["changed: epochs from 10 to 20", "a note in [brackets]"]
