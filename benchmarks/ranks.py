"""Two processes beside one: how far apart their updates are, and how many images a second each takes.

    python benchmarks/ranks.py [--steps 5] [--batch 8] [--repeats 10] [--json]

Equality: the same steps of the same batches from the same weights, by one process and by two that torchrun starts
here (gloo), compared after the last step: weights, averaged weights and norms' statistics, and losses on the way. Where
norms are synchronised, also in float64: norms of random weights amplify rounding, as the row shows in which one process
sees the same images in another order. Speed: seconds of a step, the median, of one process with one thread and with
two, and of two processes with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onestage.training.averaging import Averaged
from onestage.training.machine import engine
from onestage.training.schedule import Optimiser, Schedule
from onestage.training.stages import Leg

from onestage.models import build
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.devices.ranks import joined
from onestage.training.loop import Loop

CASES: dict[str, dict[str, Any]] = {
    "ssd300, no norms": {"model": "ssd300", "size": 300, "batch": 4},
    "ssd-lite0, norms frozen": {"norms": "frozen"},
    "ssd-lite0, norms frozen, 2 micro-batches": {"norms": "frozen", "accumulate": 2},
    "ssd-lite0, norms frozen, 7 images": {"norms": "frozen", "batch": 7},
    "ssd-lite0, norms synchronised, float64": {"norms": "synchronised", "double": True},
    "ssd-lite0, norms synchronised, float64, 2 micro-batches": {
        "norms": "synchronised", "double": True, "accumulate": 2,
    },
    "ssd-lite0, norms synchronised, float32": {"norms": "synchronised"},
}  # fmt: skip


def a_batch(images: int, size: int, seed: int) -> Batch:
    """Noise with boxes, as the loader hands it over."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, size, size, 3), np.uint8).transpose(0, 3, 1, 2)
    annotations = []
    for _ in range(images):
        corner, side = rng.uniform(0, size * 0.6, (6, 2)), rng.uniform(size * 0.1, size * 0.4, (6, 2))
        annotations.append(Annotations(np.concatenate([corner, corner + side], 1), rng.integers(0, 3, 6)))
    return Batch(pixels, annotations, [ImageTransform()] * images, list(range(images)), list(range(images)))


def part(batch: Batch, places: Any) -> Batch:
    """Some images of a batch."""
    chosen = list(range(len(batch)))[places] if isinstance(places, slice) else [int(i) for i in places]
    pick = [(batch.annotations[i], batch.transforms[i], batch.ids[i], batch.seeds[i]) for i in chosen]
    return Batch(batch.images[chosen], *(list(column) for column in zip(*pick, strict=True)))


def work(case: dict[str, Any], steps: int) -> None:
    """Take the steps as one of the processes; the first writes what came of it."""
    torch.set_num_threads(case.get("threads", 1))
    with joined() as ranks:
        size, images = case.get("size", 64), case["batch"]
        torch.manual_seed(0)
        detector = build(case.get("model", "ssd-lite0"), 3, None if size == 300 else (size, size))
        if case.get("double"):
            detector.double()
        averaged = Averaged(detector, 0.99)
        loop = Loop(
            engine("cpu", "fp32"), detector, weights={"cls": 1.0, "box": 1.0}, averaged=averaged, ranks=ranks,
            norms=case.get("norms", "own"), accumulate=case.get("accumulate", 1),
        )  # fmt: skip
        optimiser = Optimiser(name="sgd", lr=1e-3, decay=0.0)
        loop.enter(Leg(0, "all", 0, 1, 0, 10**6, (), optimiser, Schedule(name="constant", warmup=0), 10.0))
        batches = [a_batch(images, size, seed) for seed in range(min(steps, 8))]
        if case.get("permuted"):
            order = np.random.default_rng(9).permutation(images)
            batches = [part(batch, order) for batch in batches]
        shares = [part(batches[step % len(batches)], slice(ranks.rank, None, ranks.count)) for step in range(steps)]
        rows = [record.as_row(0) for record in loop.epoch(0, iter(shares), images)]
        if ranks.is_first:
            state = {f"own {k}": v for k, v in detector.state_dict().items()}
            state |= {f"mean {k}": v for k, v in averaged.detector.state_dict().items()}
            torch.save({"rows": rows, "state": state}, case["out"])


def run(case: dict[str, Any], processes: int, steps: int, threads: int = 1) -> dict[str, Any]:
    """What `processes` processes make of a case."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.pt")
        command = [sys.executable, __file__, "--work", json.dumps({**case, "out": out, "threads": threads}),
                   "--steps", str(steps)]  # fmt: skip
        if processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            command[1:1] = launcher
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        found: dict[str, Any] = torch.load(out, weights_only=True)
    return found


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The largest differences: of weights and statistics, absolute, and of the loss of a step, relative."""
    pairs = [(a.double(), other["state"][name].double()) for name, a in one["state"].items()]
    losses = zip(one["rows"], other["rows"], strict=True)
    return {
        "weights": max(float((a - b).abs().max()) for a, b in pairs),
        "loss": max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in losses),
        "first_loss": abs(one["rows"][0]["loss"] - other["rows"][0]["loss"]) / abs(one["rows"][0]["loss"]),
    }


def equality(steps: int, batch: int) -> dict[str, dict[str, float]]:
    """How far two processes are from one in each case."""
    found = {}
    for name, keys in CASES.items():
        case = {"batch": batch, **keys}
        alone = run(case, 1, steps)
        found[name] = apart(alone, run(case, 2, steps))
        print(f"{name}: {found[name]['weights']:.1e}", file=sys.stderr, flush=True)
        if keys == {"norms": "synchronised"}:
            found["ssd-lite0, float32, one process, images in another order"] = apart(
                alone, run({**case, "permuted": True}, 1, steps)
            )
    return found


def speed(repeats: int, size: int = 320, batch: int = 8) -> dict[str, float]:
    """Seconds of a step of ssd-lite0."""
    case = {"batch": batch, "size": size, "norms": "synchronised"}
    found = {}
    for name, processes, threads in (("1x1", 1, 1), ("1x2", 1, 2), ("2x1", 2, 1)):
        rows = run(case, processes, repeats + 2, threads)["rows"][2:]
        found[name] = statistics.median(row["seconds"]["step"] for row in rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(json.loads(asked.work), asked.steps)
        return
    found = {"steps": asked.steps, "equality": equality(asked.steps, asked.batch), "seconds": speed(asked.repeats)}
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(f"after {asked.steps} steps   largest difference: weights   losses (relative)   loss of the first step")
    for name, values in found["equality"].items():
        print(f"{name:<62} {values['weights']:10.1e} {values['loss']:10.1e} {values['first_loss']:10.1e}")
    print("seconds of a step, ssd-lite0, 320 px, 8 images: processes x threads")
    print("  ".join(f"{name}: {seconds:.3f}" for name, seconds in found["seconds"].items()))


if __name__ == "__main__":
    main()
