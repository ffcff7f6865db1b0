"""The table of runs: whatever lies among them, every folder gets a row."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from onestage.experiments.ledger import COLUMNS, runs
from onestage.experiments.run import Run


def test_no_folder_and_an_empty_folder_have_no_runs(tmp_path: Path) -> None:
    assert runs(tmp_path) == runs(tmp_path / "absent") == []


def test_a_run_is_one_row(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="a")
    run.update(model={"name": "ssd300"}, data={"root": "/data/trees"}, seconds={"total": 12.5})
    for epoch, score in ((1, 0.2), (2, 0.5), (3, 0.4)):
        run.append_result({"epoch": epoch, "step": 10 * epoch, "metrics/mAP50": score, "metrics/mAP50-95": score / 2})
    run.finish()
    (row,) = runs(tmp_path)
    assert tuple(row) == COLUMNS
    assert row | {"created": ""} == {
        "name": "a", "status": "finished", "model": "ssd300", "data": "trees", "mAP50": 0.5, "mAP50-95": 0.25,
        "best_epoch": 2, "epochs": 3, "steps": 30, "seconds": 12.5, "created": "", "reason": None,
    }  # fmt: skip
    run.update(best={"epoch": 3, "step": 30})
    assert runs(tmp_path)[0]["mAP50"] == 0.4  # run.json says which evaluation is the best


def test_a_run_that_diverged_before_any_score(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="a")
    run.append_result({"epoch": 1, "step": 10, "metrics/mAP50": float("nan")})
    run.finish("diverged", "the loss is not a finite number at step 11")
    (row,) = runs(tmp_path)
    assert row["reason"] == "the loss is not a finite number at step 11"
    assert (row["status"], row["mAP50"], row["epochs"]) == ("diverged", None, 1)


def test_runs_come_in_the_order_they_were_made(tmp_path: Path) -> None:
    for name, created in (("b", "2026-01-02"), ("a", "2026-01-03"), ("c", "2026-01-01")):
        Run.create(tmp_path, name=name).update(created=created)
    assert [row["name"] for row in runs(tmp_path)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{"), ("run.json", "[]"), ("run.json", "{}"),
        ("run.json", '{"status":"running","created":1,"model":3}'),
        ("results.csv", "epoch,step,metrics/mAP50\nx,1,2\n"), ("run.json", ""),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_listed_with_its_reason(tmp_path: Path, file: str, content: str) -> None:
    Run.create(tmp_path, name="good")
    run = Run.create(tmp_path, name="bad")
    (run.folder / file).write_text(content)
    (tmp_path / "foreign").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a file").write_text("")
    rows = {row["name"]: row for row in runs(tmp_path)}
    assert set(rows) == {"good", "bad", "foreign"}
    assert rows["good"]["status"] == "running"
    assert (rows["bad"]["status"], rows["foreign"]["status"]) == ("unreadable", "unreadable")
    assert rows["foreign"]["reason"] == "no run.json"
    assert rows["bad"]["reason"]


def test_random_damage_never_stops_the_listing(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="a")
    run.update(model={"name": "x"}, best={"step": 10}, seconds={"total": 1.0}, data={"root": "d"})
    run.append_result({"epoch": 1, "step": 10, "metrics/mAP50": 0.5})
    chance = random.Random(0)
    for name in ("run.json", "results.csv"):
        path = run.folder / name
        good = path.read_bytes()
        for _ in range(150):
            bad = bytearray(good)
            for _ in range(chance.randint(1, 4)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            path.write_bytes(bytes(bad[: chance.randint(0, len(bad))]))
            (row,) = runs(tmp_path)
            assert row["name"] == "a"
        path.write_bytes(good)
