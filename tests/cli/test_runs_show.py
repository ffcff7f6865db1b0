"""`onestage runs show` tells the course of a run: stages, stretches, incidents, and whether it still goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import Command

from onestage.cli.course import as_word
from onestage.experiments.lock import held
from onestage.experiments.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from test_course import REPORT, made


@pytest.fixture
def run(here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ONESTAGE_RUNS", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    return made(tmp_path / "kept")


def test_stages_stretches_and_incidents_are_told(here: Command, run: Run) -> None:
    answer = here("runs", "show", "x")
    assert answer.code == 0, answer.err
    words = " ".join(answer.out.split())
    assert "taken up twice" in words
    assert "heads steps 1 to 4, adamw, cosine, lr 0.001" in words
    assert "8 and on" in words
    assert "epochs: 12 → 6" in words
    assert "incident: the loss is not a finite number at step 6 (epoch 1): photos/<im1>.jpg: width 0" in words
    assert "onestage replay x --step 6" in words


def test_programs_get_them_too(here: Command, run: Run) -> None:
    answer = here("runs", "show", "x", "--json")
    found = json.loads(answer.out)
    assert found["incidents"] == [{
        "step": 6, "headline": REPORT["headline"], "code": "broken-box", "what": "photos/<im1>.jpg: width 0",
        "done": "the run was stopped",
    }]  # fmt: skip
    assert len(found["info"]["segments"]) == 3


def test_the_levels_of_the_last_epoch_are_a_table(here: Command, run: Run) -> None:
    level = {"stride": 8, "grid": [40, 40], "anchors": [[10, 20]], "size": "all", "layer": 16}
    run.update(model={"levels": [level]})
    assert "levels in" not in here("runs", "show", "x").out  # its loss did not tell
    told = {"count": 4, **dict.fromkeys(("iou", "cls", "obj", "noobj", "r50", "r75"), 0.25)}
    for step in (8, 9):
        run.append_step({"step": step, "epoch": 1, "truths": 4, "images": 2, "scales": [told]})
    said = here("runs", "show", "x", "--json")
    assert "levels in steps 8 to 9: 8 truths" in said.err
    assert "stride 8, all objects  100.0 %    0.250" in said.err
    assert json.loads(said.out)["levels"] == [{
        "level": "stride 8, all objects", "count": 8, "share": 1.0,
        "means": dict.fromkeys(("iou", "cls", "obj", "noobj", "r50", "r75"), 0.25),
    }]  # fmt: skip


def test_a_run_that_was_killed_is_not_called_running(here: Command, run: Run) -> None:
    run.update(status="running")
    assert "status    running;" in here("runs", "show", "x").out
    with held(run.state_dir / "lock"):
        assert "running in process" in here("runs", "show", "x").out
    assert "was killed: onestage train --resume x goes on" in " ".join(here("runs", "show", "x").out.split())


def test_values_are_shown_as_they_are_typed() -> None:
    assert as_word([{"epochs": 5, "freeze": ["stem"]}]) == "'[{epochs: 5, freeze: [stem]}]'"
    assert as_word(["voc10"]) == "[voc10]"
    assert (as_word(1e6), as_word(None), as_word("x")) == ("1e+06", "null", "x")
