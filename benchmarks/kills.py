"""Runs killed with SIGKILL at random moments and resumed: are they bit for bit the runs left alone?

    python benchmarks/kills.py [--kills 20] [--seed N] [--variant NAME …] [--json FILE]

Each variant of a tiny run (64 pixels, random weights, a state after every step) is trained once without a disturbance.
Then the same command line is started as a process of its own, killed with -9 after a random step (in the start, in the
midst of an epoch, during a save, while judging), resumed, killed again, and so on until it is done. Alike must be:
every value of steps.jsonl but clocks and memory, every value of results.csv but the clock, metrics.json,
predictions.json, train.log, and the SHA-256 of both weights files. Exit code 1 where one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import onestage
from onestage.experiments.run import Run

SOURCE = Path(onestage.__file__).resolve().parents[1]
CLOCKS = {"time", "seconds", "memory", "disk_free"}
BASE = {
    "model": "ssd-lite0", "weights": "none", "size": 64, "epochs": 4, "batch": 4, "precision": "fp32", "device": "cpu",
    "validation.every": 2, "validation.protocols": "[voc10]", "augmentation.policy": "zoom", "saving.seconds": 0,
}  # fmt: skip
# What resuming must also get right: the average, worker processes, micro-batches, stages, sizes, another program's log,
# states far apart.
VARIANTS: dict[str, dict[str, Any]] = {
    "averaged": {"ema": 0.9},
    "workers": {"ema": 0, "workers": 2},
    "accumulated": {"accumulate": 2, "optimiser.name": "sgd", "optimiser.lr": 0.01},
    "stages and sizes": {
        "stages": "[{epochs: 1, freeze: [backbone]}, {epochs: 3, optimiser: {name: sgd, lr: 0.01}}]",
        "multiscale.low": 0.5,
        "multiscale.high": 1.5,
        "multiscale.step": 32,
        "multiscale.every": 3,
    },
    "faces": {
        "model": "faceboxes",
        "augmentation.policy": "faceboxes",
        "augmentation.options.min_face": 16,
        "log": "faceboxes",
        "ema": 0.9,
        "accumulate": 2,
    },
    "sparse states": {"saving.seconds": 1.0, "cache": False, "augmentation.policy": "mosaic"},
    "yolo": {
        "model": "two-heads.cfg", "augmentation.policy": "mosaic", "augmentation.options.zoom": "{policy: darknet}",
        "accumulate": 2, "ema": 0.9, "log": "darknet", "workers": 1,
        "stages": "[{epochs: 1, freeze: [backbone]}, {epochs: 1, freeze: [all-but-heads]}, {epochs: 2}]",
        "multiscale.low": 0.5, "multiscale.high": 1.5, "multiscale.step": 32, "multiscale.every": 2,
    },
}  # fmt: skip
# A network of darknet with heads at strides 32 and 16.
TWO_HEADS = """[net]
width=64
height=64
channels=3
""" + "".join(
    f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    for filters in (8, 8, 16, 16, 24)
) + "".join(
    f"{route}[convolutional]\nbatch_normalize=1\nfilters=16\nsize=1\nactivation=leaky\n"
    f"[convolutional]\nsize=1\nfilters=12\nactivation=linear\n"
    f"[yolo]\nmask={mask}\nanchors=8,10, 14,14, 24,20, 40,40\nclasses=1\nnum=4\nignore_thresh=.6\n"
    for route, mask in (("", "2,3"), ("[route]\nlayers=3\n", "0,1"))
)  # fmt: skip


@dataclass
class Killed:
    """One run that was killed and resumed until it was done: where it was killed, and what differs from the other."""

    variant: str
    kills: int = 0
    after_steps: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def main() -> None:
    """Kills as often as asked, prints a line for each run, writes JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another one each time")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    names = options.variant or list(VARIANTS)
    shares = [options.kills // len(names) + (i < options.kills % len(names)) for i in range(len(names))]
    with tempfile.TemporaryDirectory() as folder:
        done = [
            killed_run(Path(folder) / name.replace(" ", "-"), name, share, random.Random(f"{seed} {name}"))
            for name, share in zip(names, shares, strict=True)
        ]
    exact = sum(run.kills for run in done if not run.differences)
    kills = sum(run.kills for run in done)
    result = {"kills": kills, "exact": exact, "seed": seed, "runs": [asdict(run) for run in done]}
    print(f"{exact}/{kills} kills bit-identical (seed {seed})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if exact == kills and kills == options.kills else 1)


def killed_run(folder: Path, name: str, kills: int, chance: random.Random) -> Killed:
    """Train the variant once in peace and once under `kills` kills; what differs."""
    data = squares(folder / "data")
    (folder / "two-heads.cfg").write_text(TWO_HEADS)
    words = [f"data={data}", *(f"{key}={value}" for key, value in {**BASE, **VARIANTS[name]}.items())]
    train(folder, *words, "saving.seconds=60", "name=peace")
    peace = Run.open("peace", folder)
    killed = Killed(name)
    begin: Sequence[str] = (*words, "name=killed")
    last = peace.steps[-1]["step"]
    # Moments: some in the start (step 0), the others spread over the steps, in the order of the run, the end included.
    for step in sorted(chance.choice([0, chance.randint(1, last), chance.randint(1, last)]) for _ in range(kills)):
        at = kill_after(folder, begin, step, chance.uniform(0.0, 2.0 if not step else 0.4))
        if at is None:  # it was done before the moment came
            break
        killed.kills += 1
        killed.after_steps.append(at)
        begin = ("--resume", "killed") if (folder / "killed" / "run.json").is_file() else (*words, "name=killed")
    if killed.kills < kills:  # the rest on the way to the end of the finished run: it must stay as it is
        begin = ("--resume", "killed")
    train(folder, *begin)
    killed.differences = differences(peace, Run.open("killed", folder))
    print(f"{name}: killed after steps {killed.after_steps}: {killed.differences or 'identical'}", flush=True)
    return killed


def differences(a: Run, b: Run) -> list[str]:
    """In what two runs differ, clocks and memory apart; empty where they are the same run."""
    found = []
    steps = [[{key: row[key] for key in row if key not in CLOCKS} for row in run.steps] for run in (a, b)]
    if steps[0] != steps[1]:
        where = [x.get("step") for x, y in zip(*steps, strict=False) if x != y]
        found.append(f"steps.jsonl: {len(steps[0])} and {len(steps[1])} steps, first other at {where[:1]}")
    rows = [[{key: row[key] for key in row if key != "time"} for row in run.results] for run in (a, b)]
    found += ["results.csv"] if rows[0] != rows[1] else []
    found += ["metrics.json"] if a.metrics != b.metrics else []
    best = [run.info.get("best") for run in (a, b)]
    found += [f"best: {best[0]} and {best[1]}"] if best[0] != best[1] else []
    for name in ("weights/last.safetensors", "weights/best.safetensors", "predictions.json"):
        hashes = [hashlib.sha256((run.folder / name).read_bytes()).hexdigest() for run in (a, b)]
        found += [f"{name}: {hashes[0][:12]} and {hashes[1][:12]}"] if hashes[0] != hashes[1] else []
    found += ["train.log"] if train_log(a) != train_log(b) else []
    found += [f"status {b.info['status']}"] if b.info["status"] != "finished" else []
    return found


def train_log(run: Run) -> str:
    """A run's train.log without the seconds that darknet's lines tell; empty where there is none."""
    path = run.folder / "train.log"
    return re.sub(r"[0-9.]+ seconds", "… seconds", path.read_text()) if path.exists() else ""


def kill_after(folder: Path, words: Sequence[str], step: int, wait: float) -> int | None:
    """Start `onestage train WORDS`, kill it `wait` seconds after `step`; the last step done, None if it had ended."""
    process = start(folder, *words)
    lines = folder / "killed" / "steps.jsonl"
    deadline = time.monotonic() + 300
    while step and process.poll() is None and time.monotonic() < deadline:
        if last_step(lines) >= step:
            break
        time.sleep(0.005)
    time.sleep(wait)
    ended = process.poll()
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    if ended is not None and ended != 0:
        raise RuntimeError(f"the run ended with {ended} before it was killed:\n{err}")
    return None if ended == 0 else last_step(lines)


def last_step(lines: Path) -> int:
    """The last whole line's step of a steps.jsonl, 0 without one."""
    try:
        text = lines.read_text()
    except FileNotFoundError:
        return 0
    whole = text[: text.rfind("\n") + 1].splitlines()
    return int(json.loads(whole[-1])["step"]) if whole else 0


def train(folder: Path, *words: str) -> None:
    """`onestage train WORDS` to its end; RuntimeError with what it said where that fails."""
    process = start(folder, *words)
    _, err = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"onestage train {' '.join(words)} ended with {process.returncode}:\n{err}")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`onestage train WORDS` of this checkout as a process of one thread; its runs go to `folder`."""
    own = {"PYTHONPATH": str(SOURCE), "ONESTAGE_RUNS": str(folder), "ONESTAGE_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "onestage", "train", *words], env={**os.environ, **own}, cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def squares(folder: Path, images: int = 24) -> Path:
    """Bright squares on grey noise, 64x64 pixels, one class, YOLO txt."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(images):
        image = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        rows = []
        for _ in range(rng.integers(1, 4)):
            side = int(rng.integers(12, 28))
            x, y = (int(v) for v in rng.integers(0, 64 - side, 2))
            image[y : y + side, x : x + side] = (255, 220, 40)
            rows.append(f"0 {(x + side / 2) / 64} {(y + side / 2) / 64} {side / 64} {side / 64}")
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image)
        (folder / "labels" / f"{i:03d}.txt").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("square\n")
    return folder


if __name__ == "__main__":
    main()
