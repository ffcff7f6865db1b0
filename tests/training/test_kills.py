"""Runs killed with -9 at random moments and resumed are the runs left alone; benchmarks/kills.py kills more."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest

from onestage.experiments.run import Run


@pytest.mark.slow
def test_three_kills_leave_the_same_run(kills: ModuleType, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    run = kills.killed_run(tmp_path, "averaged", 3, random.Random(seed))
    assert run.kills >= 2, f"seed {seed}"
    assert run.differences == [], f"seed {seed}, killed after steps {run.after_steps}"


def test_a_difference_is_seen(kills: ModuleType, tmp_path: Path) -> None:
    runs = []
    for name, loss in (("a", 1.0), ("b", 1.0 + 2**-52)):
        run = Run.create(tmp_path, name)
        run.append_step({"step": 1, "time": 0.1, "loss": loss})
        for part in ("weights/last.safetensors", "weights/best.safetensors", "predictions.json"):
            run.write_file(part, b"[]")
        run.finish("finished")
        runs.append(run)
    assert kills.differences(runs[0], runs[0]) == []
    assert kills.differences(*runs) == ["steps.jsonl: 1 and 1 steps, first other at [1]"]
