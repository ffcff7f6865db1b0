"""Runs in Python: resume and replay, by name, folder or Run; what is refused; their pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import onestage
from onestage import Detector, Run
from onestage.errors import RecipeError, UsageError
from onestage.runs import dotted

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from command_line import discs

QUICK: dict[str, Any] = {"batch": 4, "precision": "fp32", "augmentation__policy": "none", "device": "cpu"}
STAGES = [{"name": "heads", "epochs": 1, "freeze": "all-but-heads"}, {"name": "all", "epochs": 1, "clip": 1}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two stages of one epoch each."""
    root = tmp_path_factory.mktemp("here")
    detector = Detector("ssd-lite0", pretrained=False, size=64)
    return detector.train(discs(root / "discs"), root=root / "runs", name="two", stages=STAGES, **QUICK)


def test_stages_are_a_list_of_mappings(run: Run) -> None:
    assert [(stage["name"], stage["epochs"]) for stage in run.recipe["stages"]] == [("heads", 1), ("all", 1)]
    assert run.recipe["stages"][0]["freeze"] == ["all-but-heads"]
    assert [stage["steps"][0] for stage in run.info["groups"]] == [0, run.info["groups"][0]["steps"][1]]


def test_a_step_is_replayed_and_its_page_written_where_asked(run: Run, tmp_path: Path) -> None:
    done = onestage.replay(run.folder, 2, page=tmp_path / "again")
    assert done.identical
    assert len(done.contributions.images) == done.row["images"]
    assert (tmp_path / "again" / "index.html").is_file()
    assert not (run.folder / "recorder").exists()


def test_an_unknown_step_or_run_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no step 99"):
        onestage.replay(run, 99)
    with pytest.raises(UsageError, match="no run 'nothing'"):
        onestage.resume("nothing")


def test_a_finished_run_is_made_longer_by_its_last_stage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_RUNS", str(run.folder.parent))
    before = len(run.steps)
    with pytest.raises(RecipeError, match="cannot change"):
        onestage.resume("two", batch=2)
    longer = onestage.resume("two", epochs=3, saving__seconds=0)
    assert len(longer.steps) == before // 2 * 3
    assert longer.info["segments"][1]["changes"]["stages[1].epochs"] == [1, 2]
    assert longer.info["groups"][1]["epochs"] == 2
    assert onestage.resume(longer).info["status"] == "finished"


def test_keywords_are_keys() -> None:
    assert dotted({"optimiser__lr": 1, "schedule": {"name": "step"}}) == {"optimiser.lr": 1, "schedule.name": "step"}
