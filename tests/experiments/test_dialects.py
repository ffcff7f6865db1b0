"""Lines as lxg2015/faceboxes prints them: the forms of its log, read back by the expressions of its readers."""

from __future__ import annotations

import math
import re

import pytest

from onestage.experiments.dialects import Place, faceboxes

NUM = r"[-+]?(?:nan|inf|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
STEP = re.compile(rf"^loc_loss:(?P<loc>{NUM}) conf_loss:(?P<conf>{NUM}), pos_num:(?P<npos>\d+)$")
FIFTH = re.compile(rf"^Epoch \[(\d+)/(\d+)\], Iter \[(\d+)/(\d+)\] Loss: ({NUM})(?:, average_loss: ({NUM}))?$")


def row(loc: float = 0.802718, conf: float = 1.943955, positives: int = 284) -> dict[str, object]:
    return {"step": 680, "epoch": 49, "loss": loc + conf, "raw": {"box": loc, "cls": conf}, "positives": positives}


def test_the_lines_of_the_diary_come_out_to_the_letter() -> None:
    # the diary of lxg2015/faceboxes, "wider face, aflw": a step, and the last of 150 epochs
    step, fifth = faceboxes({**row(), "loss": 2.8973}, Place(50, 50, 680, 681, 2.5820))
    assert step == "loc_loss:0.802718 conf_loss:1.943955, pos_num:284"
    assert fifth == "Epoch [50/50], Iter [680/681] Loss: 2.8973, average_loss: 2.5820"


@pytest.mark.parametrize("iteration", [1, 4, 6, 681])
def test_only_every_fifth_step_of_an_epoch_has_a_second_line(iteration: int) -> None:
    assert len(faceboxes(row(), Place(1, 2, iteration, 681, 1.0))) == 1


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-9, 115.657501, 1e300, math.inf, math.nan])
def test_what_is_printed_is_read_back(value: float) -> None:
    lines = faceboxes(row(value, 2.0, 3), Place(3, 7, 5, 9, value))
    step, fifth = STEP.match(lines[0]), FIFTH.match(lines[1])
    assert step is not None
    assert fifth is not None
    for said, digits in ((step["loc"], 6), (fifth[6], 4)):
        assert float(said) == pytest.approx(value, abs=10.0**-digits, rel=1e-6, nan_ok=True)
    assert (step["npos"], fifth.groups()[:4]) == ("3", ("3", "7", "5", "9"))


def test_a_step_that_was_left_out_has_no_losses() -> None:
    lines = faceboxes({"step": 5, "loss": math.nan, "raw": {}, "positives": 0}, Place(1, 1, 5, 9, 2.0))
    assert lines[0] == "loc_loss:nan conf_loss:nan, pos_num:0"
    assert all(STEP.match(line) or FIFTH.match(line) for line in lines)
