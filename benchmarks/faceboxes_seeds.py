"""FaceBoxes from random weights with many seeds: in how many runs is the loss finite, and does it fall?

    python benchmarks/faceboxes_seeds.py DATA [--seeds 50] [--first 0] [--size 512] [--batch 8] [--steps 60]
                                        [--json FILE]

DATA is a WIDER FACE folder, or any other that `onestage train` takes; its training set alone is learnt from, nothing is
judged. Each run is the beginning of recipes/faceboxes-wider.yaml, its learning rate from the first step on, at the
size, batch and number of steps asked for. A run counts when

- every loss and gradient norm is a finite number,
- the mean loss of the last fifth of the steps is below that of the first fifth, and
- the mean class loss of the last fifth is below what equal scores give, (1 + 7) ln 2 = 5.545: falling from a start that
  was far too high alone does not do.

How many are below the chance level 3.014 already is told too. Exit code 1 where a run does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from onestage.errors import DivergedError
from onestage.experiments.curve_rules.chance import mined, untrained
from onestage.experiments.run import Run
from onestage.training.fit import fit
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import Plan
from onestage.training.recipe.keys import read_recipe
from onestage.training.watcher import Watcher

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "faceboxes-wider.yaml"
# What is the benchmark's own: whole rate from the start, a state at the end alone, no processes for 60 steps.
OWN = {
    "schedule.name": "constant", "schedule.warmup": 0, "saving.seconds": 1e9, "workers": 0, "cache": True, "log": "own",
    "epochs": 100_000, "device": "cpu",
}  # fmt: skip


@dataclass
class Course:
    """One run: means of the first and last fifth of its steps, and whether they are those of a run that learns."""

    seed: int
    steps: int
    seconds: float
    finite: bool
    first: float
    last: float
    class_first: float
    class_last: float
    positives: float
    findings: list[str]
    counts: bool = False


def main(words: Sequence[str] | None = None) -> int:
    """Train, print a line for each run and the counts; 0 where every run counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    keys = {**beginning(), "data": str(asked.data), "size": asked.size, "batch": asked.batch}
    ratio = int(keys.get("options", {}).get("negatives", 7))
    courses: list[Course] = []
    print("seed  steps  finite  loss first -> last fifth  class loss        positives/step  s")
    for seed in range(asked.first, asked.first + asked.seeds):
        courses.append(course(keys, seed, asked.steps, untrained(ratio, 1)))
        print(_line(courses[-1]), flush=True)
    told = _summary(courses, mined(ratio))
    settings = {key: getattr(asked, key) for key in ("size", "batch", "steps")} | {"data": asked.data.name}
    print(f"{told['counting']} of {len(courses)} runs finite and falling; {told['below_chance']} below chance already")
    if asked.json:
        asked.json.write_text(
            json.dumps({**settings, **told, "runs": [asdict(one) for one in courses]}, indent=2) + "\n"
        )
    return 0 if told["counting"] == len(courses) else 1


def beginning() -> dict[str, Any]:
    """The keys of the recipe's first steps."""
    kept = {key: value for key, value in read_recipe(RECIPE).items() if not key.startswith("schedule.")}
    return {**kept, **OWN}


def course(keys: Mapping[str, Any], seed: int, steps: int, limit: float) -> Course:
    """Train `steps` steps by `keys` with `seed`; the run counts where its class loss comes below `limit`."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        watcher = _Until(steps)
        with contextlib.suppress(KeyboardInterrupt, DivergedError):
            fit({**keys, "seed": seed}, root=Path(folder), watcher=watcher)
        rows, codes = _rows(watcher, Path(folder))
    loss = [float(row["loss"]) for row in rows]
    classes = [float((row.get("raw") or {}).get("cls", math.nan)) for row in rows]
    fifth = max(len(rows) // 5, 1)
    finite = len(rows) == steps and all(math.isfinite(value) for value in [*loss, *(row["grad_norm"] for row in rows)])
    done = Course(
        seed, len(rows), time.perf_counter() - began, finite, fmean(loss[:fifth]), fmean(loss[-fifth:]),
        fmean(classes[:fifth]), fmean(classes[-fifth:]), fmean(row["positives"] for row in rows), codes,
    )  # fmt: skip
    done.counts = finite and done.last < done.first and done.class_last < limit
    return done


class _Until(Watcher):
    """Stops the run after some steps, and knows its folder."""

    def __init__(self, steps: int) -> None:
        self.steps, self.run = steps, None

    def planned(self, run: Run, plan: Plan, resumed_at: int) -> None:
        self.run = run

    def stepped(self, record: StepRecord, plan: Plan) -> None:
        if record.step >= self.steps:
            raise KeyboardInterrupt


def _rows(watcher: _Until, root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The steps of the run, and the codes of what was found in them."""
    run = watcher.run or Run(next(path.parent for path in root.rglob("run.json")))
    codes = [row["code"] for row in run.findings if (row.get("where") or {}).get("step") is not None]
    return run.steps, sorted(set(codes))


def _summary(courses: Sequence[Course], chance: float) -> dict[str, Any]:
    return {
        "seeds": len(courses), "finite": sum(one.finite for one in courses),
        "counting": sum(one.counts for one in courses),
        "below_chance": sum(one.class_last < chance for one in courses),
        "class_last_lowest": min(one.class_last for one in courses),
        "class_last_highest": max(one.class_last for one in courses),
        "seconds": sum(one.seconds for one in courses),
    }  # fmt: skip


def _line(one: Course) -> str:
    return (
        f"{one.seed:4d}  {one.steps:5d}  {'yes' if one.finite else 'NO':6s}  {one.first:9.3f} -> {one.last:9.3f}      "
        f"{one.class_first:7.3f} -> {one.class_last:6.3f}  {one.positives:9.0f}  {one.seconds:9.1f}"
        f"  {' '.join(one.findings)}{'' if one.counts else '  DOES NOT COUNT'}"
    )


if __name__ == "__main__":
    sys.exit(main())
