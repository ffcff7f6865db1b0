"""What the flight recorder costs a training step: `before`, `examine` and `done` within the loop of training.

    python benchmarks/recorder.py [--model ssd-lite0] [--size 320] [--batch 8] [--repeats 15] [--threads 1] [--json]

Two loops of the same model see the same batches in turns, one with the recorder and one without, so that a busy
machine disturbs both alike; medians of CPU time. Besides at 64x64 with batch 4, where a step is as short as it gets,
on evidence of a step that cost nothing, where the recorder is alone; and in a whole run all that
watches it: recorder, live findings, steps.jsonl, norms of parts and update, memory and room on disk together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from onestage.experiments.run import Run
from onestage.models import build
from onestage.models.detector import Loss, Raw
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.devices.machine import engine
from onestage.training.loop import loop
from onestage.training.loop.evidence import Evidence, Pass
from onestage.training.loop.loop import Loop
from onestage.training.plan import ask, make_plan
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Leg
from onestage.training.recorder import Recorder
from onestage.training.session import Session
from onestage.training.watcher import Watcher

TARGET = 0.02


def a_batch(images: int, size: int, seed: int, truths: int = 12) -> Batch:
    """Noise with boxes, as the loader hands it over."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, size, size, 3), np.uint8).transpose(0, 3, 1, 2)
    annotations = []
    for _ in range(images):
        corner, side = rng.uniform(0, size * 0.7, (truths, 2)), rng.uniform(8, size * 0.3, (truths, 2))
        annotations.append(Annotations(np.concatenate([corner, corner + side], 1), rng.integers(0, 3, truths)))
    ids = [f"image-{seed}-{i}" for i in range(images)]
    return Batch(pixels, annotations, [ImageTransform()] * images, ids, list(range(images)))


class Nil(nn.Module):
    """A model that is all that the recorder asks of one, and computes nothing."""

    classes = 3


class Timed:
    """A recorder that counts the CPU seconds it takes of each step."""

    def __init__(self) -> None:
        self.recorder, self.seconds, self.spent = Recorder(), [0.0], 0.0

    def __getattr__(self, name: str) -> Any:
        work = getattr(self.recorder, name)

        def timed(*given: Any) -> Any:
            start = time.process_time()
            answer = work(*given)
            self.spent += time.process_time() - start
            if name == "done":
                self.seconds.append(self.spent)
                self.spent = 0.0
            return answer

        return timed


def a_loop(name: str, size: int, observer: Any) -> Loop:
    """The loop of training on a fresh model, with SGD at a rate that moves little."""
    torch.manual_seed(0)
    made = Loop(engine("cpu", "fp32"), build(name, 3, size=(size, size)), weights={}, observer=observer)
    optimiser = Optimiser(name="sgd", lr=1e-5)
    made.enter(Leg(0, "all", 0, 1, 0, 10**6, (), optimiser, Schedule(name="constant", warmup=0), 10.0))
    return made


def measure(name: str, size: int, images: int, repeats: int) -> dict[str, Any]:
    """Median CPU seconds of a step of the loop with and without the recorder, and of the recorder alone."""
    watch = Timed()
    loops = {"without": a_loop(name, size, None), "with": a_loop(name, size, watch)}
    batches = [a_batch(images, size, seed) for seed in range(4)]
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for repeat in range(repeats + 1):
        for form in ("without", "with") if repeat % 2 else ("with", "without"):
            start = time.process_time()
            list(loops[form].epoch(0, iter([batches[repeat % 4]]), images))
            seconds[form].append(time.process_time() - start)
    seconds["recorder"] = watch.seconds[1:]
    return summed_up(name, size, images, {form: values[1:] for form, values in seconds.items()}, watch.recorder)


def a_session(name: str, size: int, images: int, folder: Path) -> Session:
    """A run that is ready for its first step, on noise with one box a picture."""
    for part in ("images", "labels"):
        (folder / "data" / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4 * images):
        cv2.imwrite(str(folder / f"data/images/{number}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
        (folder / f"data/labels/{number}.txt").write_text(f"{number % 3} 0.5 0.5 0.4 0.4\n")
    keys = {
        "data": str(folder / "data"), "model": name, "size": size, "batch": images, "epochs": 1000, "weights": "none",
        "optimiser.name": "sgd", "optimiser.lr": 1e-5, "schedule.name": "constant", "schedule.warmup": 0, "ema": 0,
        "precision": "fp32", "device": "cpu", "saving.seconds": 1e9, "freeze": [],
    }  # fmt: skip
    plan = make_plan(ask(keys))
    run = Run.create(folder, "benchmark", "benchmark")
    run.write_recipe(plan.recipe.as_dict())
    made = Session(run, plan, Watcher())
    made.loop.enter(made.legs[0])
    made.lookout.enter(plan.detector, made.loop.frozen)
    made.start = time.perf_counter()
    return made


def measure_whole(name: str, size: int, images: int, repeats: int) -> dict[str, Any]:
    """What all that watches a run takes of its steps, ten steps a turn: recorder, live findings, the row of
    steps.jsonl, norms of parts and update, memory, room on disk; CPU seconds of a step with it, and of these alone."""
    with tempfile.TemporaryDirectory() as folder:
        session = a_session(name, size, images, Path(folder))
        spent = [0.0]
        for owner, names in (
            (session.recorder, ("before", "examine", "done")), (session, ("_account", "_between")),
            (session.loop, ("_norms_of_parts", "_layers_without_gradient", "_weights_now")),
            (loop, ("_norm", "memory_in_use")),
        ):  # fmt: skip
            for word in names:
                setattr(owner, word, counted(getattr(owner, word), spent))
        batches = [a_batch(images, size, seed) for seed in range(loop.DETAILS)]
        seconds: dict[str, list[float]] = {"with": [], "recorder": []}
        for repeat in range(repeats + 1):
            start, spent[0] = time.process_time(), 0.0
            for record in session.loop.epoch(repeat, iter(batches), images):
                session._account(record)
                session._between()
            seconds["with"].append((time.process_time() - start) / len(batches))
            seconds["recorder"].append(spent[0] / len(batches))
        session.feed.close()
        session.judge.close()
    kept = {form: values[1:] for form, values in seconds.items()}
    kept["without"] = [whole - part for whole, part in zip(kept["with"], kept["recorder"], strict=True)]
    return summed_up(f"whole {name}", size, images, kept, session.recorder)


def counted(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """`work`, with its CPU seconds added to `spent`, those of calls within it once."""
    inside = spent  # one list for all: the outermost call counts

    def timed(*given: Any, **named: Any) -> Any:
        before, start = inside[0], time.process_time()
        answer = work(*given, **named)
        inside[0] = before + time.process_time() - start
        return answer

    return timed


def measure_nil(size: int, images: int, repeats: int) -> dict[str, Any]:
    """The recorder on the evidence of a step that cost nothing, again and again, the check of statistics included."""
    model: Any = Nil()
    model.size = (size, size)
    loss = Loss(
        {"cls": torch.ones(images), "box": torch.ones(images)}, torch.full((images, 5), 4), torch.full((images,), 20.0)
    )
    watch, steps = Timed(), max(repeats, 200)
    batch = a_batch(images, size, 0)
    for step in range(1, steps + 1):
        watch.before(step, 0, batch, model)
        done = Pass(batch, [], Raw(torch.zeros(images, 1, 4), torch.zeros(images, 1, 3)), loss)
        parts = {"cls": 1.0, "box": 1.0}
        evidence = Evidence(step, 0, [done], 2.0, parts, parts, [4] * 5, images, {"all": 1e-3}, 1.0, (size, size))
        watch.examine(evidence, model)
        watch.done(evidence, {"data": 0.0, "step": 0.0})
    return summed_up("nil", size, images, {"recorder": watch.seconds[1:]}, watch.recorder)


def summed_up(
    name: str, size: int, images: int, seconds: dict[str, list[float]], recorder: Recorder
) -> dict[str, Any]:  # fmt: skip
    """Medians and the share of the recorder."""
    medians = {form: statistics.median(values) for form, values in seconds.items()}
    return {
        "model": name, "size": size, "batch": images, "steps": len(seconds["recorder"]), "median_seconds": medians,
        "share": medians["recorder"] / medians["without"] if "without" in medians else None,
        "incidents": len(recorder.incidents),
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """The result for people."""
    lines = [f"flight recorder, {torch.get_num_threads()} thread(s), median CPU time of a step"]
    for result in results:
        medians, label = result["median_seconds"], f"{result['model']} {result['size']} batch {result['batch']}"
        line = f"  {label:<24} recorder {1e3 * medians['recorder']:6.3f} ms"
        if result["share"] is not None:
            line += f"   step without {1e3 * medians['without']:8.1f} ms, with {1e3 * medians['with']:8.1f} ms"
            line += f"   share {100 * result['share']:.2f} %"
        lines.append(line)
    return "\n".join([*lines, f"  target: a share under {100 * TARGET:g} %"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ssd-lite0")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3, help="turns of ten steps of the whole run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    results = [
        measure(asked.model, asked.size, asked.batch, asked.repeats),
        measure(asked.model, 64, 4, max(asked.repeats, 40)),
        measure_whole(asked.model, asked.size, asked.batch, asked.turns),
        measure_nil(asked.size, asked.batch, asked.repeats),
    ]
    found = {"benchmark": "recorder", "torch": torch.__version__, "target": TARGET, "steps": results}
    print(json.dumps(found, indent=1) if asked.json else table(results))


if __name__ == "__main__":
    main()
