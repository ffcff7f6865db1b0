"""`onestage replay` and `onestage train --resume` as people and programs use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import TINY, Command, discs

from onestage.cli import run as command
from onestage.experiments.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained run called `first`, two steps long."""
    folder = tmp_path_factory.mktemp("replays")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTAGE_RUNS", str(folder / "runs"))
        words = ["train", f"data={discs(folder / 'discs')}", *TINY, "name=first", "precision=fp32"]
        assert command(words) == 0
    return folder / "runs"


@pytest.fixture
def there(here: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("ONESTAGE_RUNS", str(runs))
    return here


def test_a_step_is_shown_and_its_folder_written(there: Command, runs: Path) -> None:
    answer = there("replay", "first", "--step", "2")
    assert answer.code == 0, answer.err
    assert "Identical to the original step, bit for bit." in answer.out
    assert "What each image did" in answer.out
    assert "of the step" in answer.out
    folder = runs / "first" / "recorder" / "replay-000002"
    told = json.loads((folder / "replay.json").read_text())
    assert told["identical"] is True
    page = (folder / "index.html").read_text()
    assert "bit for bit" in page
    assert 'src="data:image/jpeg;base64,' in page
    assert "http" not in page.replace("http-equiv", "")
    images = sorted((folder / "images").iterdir())
    assert [path.name[:3] for path in images] == ["001", "002", "003", "004"]
    assert cv2.imread(str(images[0])).shape == (96, 96, 3)
    assert np.ptp(cv2.imread(str(folder / "batch.jpg"))) > 100


def test_programs_get_all_of_it(there: Command) -> None:
    told = there("replay", "first", "--step", "1", "--json").json
    assert told["identical"] is True
    assert told["from_step"] == 0
    assert len(told["images"]) == 4
    assert Path(told["images"][0]["file"]).is_file()
    assert sum(image["loss"] for image in told["images"]) == pytest.approx(told["row"]["loss"], rel=1e-5)
    assert Path(told["page"]).is_file()


def test_a_step_out_of_reach_is_told(there: Command) -> None:
    answer = there("replay", "first", "--step", "99")
    assert answer.code == 2
    assert "its steps are 1 to 2" in answer.err


def test_a_finished_run_shows_its_scores_and_how_to_make_it_longer(there: Command, runs: Path) -> None:
    before = (runs / "first" / "run.json").read_bytes()
    answer = there("train", "--resume", "first")
    assert answer.code == 0, answer.err
    assert "is finished: nothing to go on with" in answer.out
    assert "onestage train --resume first epochs=2" in answer.out
    assert "mAP50" in answer.out
    assert there("train", "--resume", "first", "--json").json["status"] == "finished"
    assert (runs / "first" / "run.json").read_bytes() == before


def test_what_cannot_change_is_told_with_the_reason(there: Command) -> None:
    answer = there("train", "--resume", "first", "batch=8", "seed=3", "epochs=1")
    assert answer.code == 2
    assert "batch: the run's place in the data" in answer.err
    assert "seed: " in answer.err
    answer = there("train", "--resume", "first", "recipe.yaml")
    assert answer.code == 2
    assert "'recipe.yaml'" in answer.err


def test_a_longer_run_says_what_jumps(there: Command, runs: Path) -> None:
    answer = there("train", "--resume", "first", "epochs=2")
    assert answer.code == 0, answer.err
    assert "changed: epochs from 1 to 2" in answer.out
    assert "the run takes 2 epochs instead of 1: 4 steps instead of 2, of which 2 are done" in answer.out
    assert "from here on not bit for bit the uninterrupted run: epochs was changed" in answer.out
    assert "going on after step 2" in answer.out
    assert [row["step"] for row in Run.open("first", runs).steps] == [1, 2, 3, 4]


def test_where_nothing_can_be_written_the_numbers_are_shown_all_the_same(there: Command, runs: Path) -> None:
    place = runs / "first" / "recorder" / "replay-000001"
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("in the way")
    answer = there("replay", "first", "--step", "1")
    place.unlink()
    assert answer.code == 1
    assert "What each image did" in answer.out
    assert "page and pictures were not written" in answer.err
    assert "Traceback" not in answer.err
