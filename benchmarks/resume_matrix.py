"""Runs of all kinds interrupted in all ways and resumed, and steps replayed: bit for bit the runs left alone?

    python benchmarks/resume_matrix.py [--cases 18] [--seed 0] [--json FILE]

Each case is a tiny run (64 pixels, random weights) with one of the nine schedules and one of the four optimisers;
stages, input sizes, micro-batches, average, precision, worker processes, augmentation, states near or far apart and
so on are drawn from the seed. It is trained once in peace; then again, interrupted three times: stopped in good order,
or ended without warning in a step, while judging, between results and state, between state and best weights. Each
resume draws another number of workers. Alike must be what benchmarks/kills.py compares, and findings.json; then two
steps are replayed and must be those recorded. Exit code 1 where anything differs. In one process: benchmarks/kills.py
is for real SIGKILLs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kills import TWO_HEADS, differences, squares
from onestage.errors import RecipeError
from onestage.experiments.run import Run
from onestage.training import session
from onestage.training.fit import fit, resume
from onestage.training.plan import ask
from onestage.training.replay import replay
from onestage.training.watcher import Watcher

SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"schedule.warmup": 3}, "linear": {"schedule.warmup": 0}, "polynomial": {"schedule.power": 2.0},
    "exponential": {}, "step": {"schedule.every": 3}, "multi-step": {"schedule.milestones": [2, 5]},
    "constant": {"schedule.warmup": 4, "schedule.start": 0, "schedule.rise": 4}, "random": {"schedule.power": 2.0},
    "sig": {},
}  # fmt: skip
OPTIMISERS = ("sgd", "adam", "adamw", "nadam")
BASE = {
    "model": "ssd-lite0", "weights": "none", "size": 64, "batch": 4, "device": "cpu", "epochs": 5,
    "validation.protocols": ["voc10"], "augmentation.rest": 0.4, "optimiser.lr": 0.002,
}  # fmt: skip
STAGES = [
    {"epochs": 2, "freeze": ["backbone"], "schedule": {"warmup": 2}},
    {"epochs": 1, "freeze": ["all-but-heads"], "optimiser": {"lr": 0.004}},
    {"epochs": 2, "freeze": [], "clip": 0.5, "schedule": {"name": "random"}},
]
# What is told by the clock or the machine need not come again.
MACHINES = {"data-wait", "memory-grows", "disk-fills"}


class Died(BaseException):
    """The process ends here, without a word."""


@dataclass
class Case:
    """One run that was interrupted: its keys, where it was, and what differs from the one left alone."""

    keys: dict[str, Any]
    interrupts: list[str] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


@dataclass
class Interrupt(Watcher):
    """Ends the run in the way `kind` says at `step`, or in the judgement that follows it."""

    kind: str
    step: int
    came: bool = False

    def stepped(self, record: Any, plan: Any) -> None:
        """At the step: "stop" and "die"."""
        if record.step >= self.step and not self.came and self.kind in ("stop", "die"):
            self.came = True
            raise KeyboardInterrupt if self.kind == "stop" else Died
        self.now = record.step

    def judging(self, done: int, total: int) -> None:
        """In the judgement."""
        if self.kind.endswith("judging") and getattr(self, "now", 0) >= self.step and not self.came:
            self.came = True
            raise KeyboardInterrupt if self.kind == "stop judging" else Died

    def saving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`original`, before which the process ends once."""

        def ends(*words: Any, **keys: Any) -> Any:
            if getattr(self, "now", 0) >= self.step and not self.came:
                self.came = True
                raise Died
            return original(*words, **keys)

        return ends


PLACES = {"die before results": (Run, "append_result"), "die before state": (session.Saver, "save"),
          "die before best": (session, "finish_best")}  # fmt: skip
KINDS = ("stop", "die", "stop", "die", "stop judging", "die judging", *PLACES)


def main() -> None:
    """Draws the cases, prints a line for each, writes JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=None, help="this case alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    with tempfile.TemporaryDirectory() as folder:
        data = squares(Path(folder) / "data", 14)
        for number in range(options.cases) if options.only is None else [options.only]:
            begin = time.perf_counter()
            case = run_case(Path(folder) / str(number), data, number, random.Random(f"{options.seed} {number}"))
            told = case.differences or "identical"
            print(f"{number}: {case.interrupts}, replayed {case.replayed}: {told}"
                  f" ({time.perf_counter() - begin:.0f} s)", flush=True)  # fmt: skip
            if case.differences:
                print(f"   {case.keys}", flush=True)
            done.append(case)
    exact = sum(not case.differences for case in done)
    interrupts, replayed = (sum(len(getattr(case, name)) for case in done) for name in ("interrupts", "replayed"))
    print(f"{exact}/{len(done)} runs identical after {interrupts} interruptions; {replayed} steps replayed")
    if options.json:
        told = {"runs": len(done), "identical": exact, "seed": options.seed, "cases": [asdict(case) for case in done]}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    sys.exit(0 if exact == len(done) else 1)


def drawn(number: int, chance: random.Random) -> dict[str, Any]:
    """The keys of case `number`: schedules and optimisers in turn, the rest by chance."""
    schedule = list(SCHEDULES)[number % len(SCHEDULES)]
    keys = {
        **BASE, "schedule.name": schedule, **SCHEDULES[schedule], "optimiser.name": OPTIMISERS[number % 4],
        "accumulate": chance.choice([1, 1, 2]), "ema": chance.choice([0, 0.9]), "clip": chance.choice([0, 0.5, 10]),
        "precision": chance.choice(["fp32", "fp32", "bf16", "fp16"]), "workers": chance.choice([0, 0, 1, 2]),
        "saving.seconds": chance.choice([0, 0, 1e6]), "validation.every": chance.choice([1, 2, 9]),
        "augmentation.policy": chance.choice(["zoom", "ssd", "mosaic", "none"]), "cache": chance.choice([True, False]),
        "norms": chance.choice(["own", "own", "frozen"]), "seed": chance.randrange(100),
        "options.label_smoothing": chance.choice([0.0, 0.1]),
    }  # fmt: skip
    if number % 3 == 2:
        keys |= {
            "model": "darknet", "options.cfg": TWO_HEADS, "log": "darknet",
            "options.loss": chance.choice(["darknet", "ratio", "per-scale"]),
            "augmentation.policy": chance.choice(["darknet", "mosaic"]),
        }  # fmt: skip
        if keys["augmentation.policy"] == "mosaic":
            keys["augmentation.options.zoom"] = {"policy": "darknet", "crop": chance.choice([True, False])}
    if chance.random() < 0.4:
        keys |= {"multiscale.low": 0.5, "multiscale.high": 1.5, "multiscale.every": chance.choice([1, 3])}
    if chance.random() < 0.4:
        keys["stages"] = STAGES
    elif chance.random() < 0.5:
        layers = "layers.0*" if keys["model"] == "darknet" else "backbone.*.0*"
        keys["freeze"] = chance.choice([["backbone"], [layers], ["all-but-heads"]])
    try:
        ask({**keys, "data": "."})
    except RecipeError as error:
        raise AssertionError(f"case {number}: {error.problems}") from error
    return keys


def run_case(folder: Path, data: Path, number: int, chance: random.Random) -> Case:
    """Train the case in peace and in three or four pieces; what differs."""
    case = Case(drawn(number, chance))
    keys = {**case.keys, "data": str(data)}
    peace = fit({**keys, "name": "peace"}, root=folder)
    last = peace.steps[-1]["step"]
    begun: Run | None = None
    for step in sorted(chance.randint(1, last) for _ in range(3)):
        kind = chance.choice(KINDS)
        begun = interrupted(folder, keys, begun, Interrupt(kind, step), chance)
        case.interrupts.append(f"{kind} {step}, at {begun.steps[-1]['step']}")
        if begun.info["status"] == "finished":
            break
    assert begun is not None
    resume(begun)
    case.differences = differences(peace, begun) + other_findings(peace, begun)
    for step in chance.sample(range(1, last + 1), 2):
        again = replay(begun, step)
        case.replayed.append(step)
        if not again.identical:
            case.differences.append(f"replay {step} from {again.start}: {again.differences} {again.reasons}")
    return case


def interrupted(folder: Path, keys: Mapping[str, Any], run: Run | None, how: Interrupt, chance: random.Random) -> Run:
    """Begin or resume the run and interrupt it; it may be done before."""
    place = PLACES.get(how.kind)
    original = place and getattr(*place)
    if place:
        setattr(*place, how.saving(original))  # type: ignore[arg-type]
    try:
        if run is None:
            fit({**keys, "name": "broken"}, root=folder, watcher=how)
        else:
            changed = {"workers": chance.choice([0, 1, 2]), "cache": chance.choice([True, False])}
            resume(run, changed, watcher=how)
    except (KeyboardInterrupt, Died):
        pass
    finally:
        if place:
            setattr(*place, original)  # type: ignore[arg-type]
    return Run.open("broken", folder)


def other_findings(a: Run, b: Run) -> list[str]:
    """findings.json, what the clock and the machine say apart."""
    kept = [[finding for finding in run.findings if finding["code"] not in MACHINES] for run in (a, b)]
    return [] if kept[0] == kept[1] else [f"findings.json: {[[one['code'] for one in those] for those in kept]}"]


if __name__ == "__main__":
    main()
