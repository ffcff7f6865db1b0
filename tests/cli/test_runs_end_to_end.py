"""Whole runs as processes: train, judge again, show, report; interrupted and resumed; a disk that fills."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY, Command, discs, environment, onestage, write_xml

import forked
from onestage.experiments.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on a folder with one zero-area box; a step of the test in itself."""
    root = tmp_path_factory.mktemp("end-to-end")
    data = discs(root / "discs", images=40)
    write_xml(data, "disc04", [(10, 10, 40, 40), (50, 50, 50, 80)])
    answer = onestage("train", f"data={data}", *TINY, "--name", "first", "--json", runs=root / "runs")
    assert answer.code == 0, answer.err
    said = answer.json
    assert said["status"] == "finished"
    assert Path(said["report"]).stat().st_size > 1e6
    assert "1 zero-area-box" in answer.err
    assert "evaluation  epoch 1/1  mAP50" in answer.err
    assert "loss" in answer.err
    return Run(Path(said["folder"]))


def runs_of(run: Run) -> Path:
    return run.folder.parent


def test_the_dropped_box_is_on_record(trained: Run) -> None:
    (finding,) = trained.findings
    assert (finding["code"], finding["where"]["file"]) == ("zero-area-box", "Annotations/disc04.xml")


@pytest.mark.parametrize("what", ["first", "predictions.json"])
def test_judging_again_gives_the_same_scores(trained: Run, what: str) -> None:
    place = trained.folder / what if what.endswith("json") else what
    answer = onestage("val", place, "--json", runs=runs_of(trained))
    assert answer.code == 0, answer.err
    before = {(row["protocol"], row["name"], row["class"]): row for row in trained.metrics["rows"]}
    after = {(row["protocol"], row["name"], row["class"]): row for row in answer.json["rows"]}
    assert before.keys() == after.keys()
    for key, row in before.items():
        assert after[key]["value"] == pytest.approx(row["value"], abs=1e-9, nan_ok=True), key
        assert after[key]["n"] == row["n"]


def test_the_run_is_shown_and_listed(trained: Run) -> None:
    shown = onestage("runs", "show", "first", runs=runs_of(trained))
    for word in ("finished", "PASCAL VOC", "ssd-lite0", "1 zero-area-box", "mAP50-95", "report.html"):
        assert word in shown.out
    shown = onestage("runs", "show", "first", "--json", runs=runs_of(trained))
    assert shown.json["recipe"]["epochs"] == 1
    assert shown.json["asked"]["name"] == "first"
    rows = onestage("runs", "--json", runs=runs_of(trained)).json["runs"]
    assert [(row["name"], row["status"]) for row in rows] == [("first", "finished")]


def test_the_report_is_written_again(trained: Run) -> None:
    trained.report_path.unlink()
    answer = onestage("report", trained.folder, "--json", runs=runs_of(trained))
    assert answer.json == {"reports": [str(trained.report_path)]}
    assert trained.report_path.stat().st_size > 1e6


def test_a_vanished_reader_is_no_error(trained: Run) -> None:
    script = f"{sys.executable} -m onestage runs show first | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment(runs_of(trained)), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def no_large_files() -> None:
    """In the new process: writing beyond a megabyte fails, as on a full disk; Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_interrupted_then_a_full_disk_then_resumed(tmp_path: Path) -> None:
    data = discs(tmp_path / "discs")
    runs = tmp_path / "runs"
    words = [f"data={data}", *TINY, "epochs=20", "validation.every=10", "name=long"]
    process = forked.onestage(["train", *words], environment(runs), tmp_path)
    forked.wait_until(lambda: "\nepoch " in process.said[0], process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the state is saved. Go on with: onestage train --resume long" in err
    assert "Traceback" not in err
    run = Run.open("long", runs)
    stopped_at = run.steps[-1]["step"]
    assert run.info["status"] == "stopped"
    assert 0 < stopped_at < 40

    full = onestage("train", "--resume", "long", runs=runs, before=no_large_files)
    assert full.code == 1, full.err
    assert "could not be written" in full.err
    assert "Traceback" not in full.err
    assert run.info["status"] == "failed"
    assert "will be done again" in full.err or "nothing is lost" in full.err
    assert {path.suffix for path in run.state_dir.iterdir()} == {".pt", ""}

    answer = onestage("train", "--resume", "long", "--json", runs=runs)
    assert answer.code == 0, answer.err
    assert f"going on after step {stopped_at}" in answer.err
    assert answer.json["status"] == "finished"
    assert [step["step"] for step in run.steps] == list(range(1, 41))
    assert [row["epoch"] for row in run.results] == [10, 20]
    assert json.loads((run.folder / "run.json").read_text())["segments"][1]["from_step"] == stopped_at


def test_a_run_that_diverges_is_told_and_reported(here: Command, folder: Path, tmp_path: Path) -> None:
    wild = ("optimiser.name=sgd", "optimiser.lr=1e30", "clip=0", "schedule.warmup=0", "epochs=5")
    answer = here("train", f"data={folder}", *TINY, *wild, "name=wild")
    assert answer.code == 7, answer.err
    assert "not a finite number at step" in answer.err
    assert "try: a lower optimiser.lr" in answer.err
    assert Run.open("wild", tmp_path / "runs").info["status"] == "diverged"
    assert "report.html" in answer.out
