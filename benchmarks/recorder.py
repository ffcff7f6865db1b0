"""What the flight recorder costs a training step: examine and done, beside the step they watch.

Two steps are watched: a forward and backward pass of ssd-lite0 at 320x320 with batch 8 (or `--model`, `--size`,
`--batch`), and one of a model that does nothing, where only the recorder is left. Each repeat does the same step with
the recorder and without, in turns, so that a busy machine disturbs both alike; medians of CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onestage.models import build
from onestage.models.detector import Loss, Raw, Truth
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.evidence import Evidence, Pass
from onestage.training.recorder import Recorder

TARGET = 0.02
WARM = 40  # steps before the measured ones, so that the watch on spikes has its window


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
    """A step that costs nothing: predictions and a loss of constants."""

    classes, size = 3, (320, 320)

    def __init__(self, images: int) -> None:
        super().__init__()
        self.raw = Raw(torch.zeros(images, 100, 4), torch.zeros(images, 100, 3))
        self.answer = Loss(
            {"cls": torch.ones(images), "box": torch.ones(images)},
            torch.full((images, 5), 4),
            torch.full((images,), 20.0),
        )


def worked(model: Any, batch: Batch, step: int) -> Evidence:
    """One step of the model and the evidence it leaves; the loop makes the same."""
    if isinstance(model, Nil):
        truths: list[Truth] = []
        raw, loss, value, norm = model.raw, model.answer, 2.0, 1.0
    else:
        truths = [Truth.of(annotations, "cpu") for annotations in batch.annotations]
        raw = model(torch.from_numpy(batch.images))
        loss = model.loss(raw, truths)
        total: Tensor = loss.total({})
        model.zero_grad(set_to_none=True)
        total.backward()
        value = float(total.detach())
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 10.0))
    kept = Loss({name: part.detach() for name, part in loss.parts.items()}, loss.positives, loss.normaliser)
    parts = {name: float(part.sum()) for name, part in kept.parts.items()}
    done = Pass(batch, truths, Raw(raw.offsets.detach(), raw.logits.detach()), kept)
    size = (batch.images.shape[3], batch.images.shape[2])
    return Evidence(
        step, 0, [done], value, parts, parts, kept.positives.sum(0).tolist(), len(batch), {"all": 1e-3}, norm, size
    )


def measure(name: str, size: int, images: int, repeats: int) -> dict[str, Any]:
    """Median CPU seconds of a step with and without the recorder, and of the recorder alone."""
    torch.manual_seed(0)
    model: Any = Nil(images) if name == "nil" else build(name, 3, size=(size, size)).train()
    if isinstance(model, Nil):
        model.size = (size, size)
    recorder, batches = Recorder(), [a_batch(images, size, seed) for seed in range(4)]
    step = 0
    evidence = worked(model, batches[0], step)
    for _ in range(WARM):  # on evidence of one step: what is watched is the recorder
        step += 1
        evidence = evidence_again(evidence, step)
        recorder.examine(evidence, model)
        recorder.done(evidence, {"data": 0.0, "step": 0.0})
    seconds: dict[str, list[float]] = {"without": [], "with": [], "recorder": []}
    for repeat in range(repeats):
        for form in ("without", "with") if repeat % 2 else ("with", "without"):
            step += 1
            start = time.process_time()
            evidence = worked(model, batches[repeat % 4], step)
            between = time.process_time()
            if form == "with":
                recorder.examine(evidence, model)
                recorder.done(evidence, {"data": 0.0, "step": 0.0})
                seconds["recorder"].append(time.process_time() - between)
            seconds[form].append(time.process_time() - start)
    medians = {form: statistics.median(values) for form, values in seconds.items()}
    return {
        "model": name, "size": size, "batch": images, "repeats": repeats, "median_seconds": medians,
        "ratio": medians["recorder"] / medians["without"], "incidents": len(recorder.incidents),
        "examine": profile(lambda: recorder.examine(evidence_again(evidence, step), model)),
    }  # fmt: skip


def evidence_again(evidence: Evidence, step: int) -> Evidence:
    """The same evidence as of another step."""
    return Evidence(**{**vars(evidence), "step": step})


def profile(work: Callable[[], object], repeats: int = 100) -> float:
    """Mean wall-clock seconds of `work`, called on end."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def table(results: list[dict[str, Any]]) -> str:
    """The result for people."""
    lines = [f"flight recorder, {torch.get_num_threads()} thread(s), median CPU time of a step"]
    for result in results:
        medians, label = result["median_seconds"], f"{result['model']} {result['size']} batch {result['batch']}"
        lines.append(
            f"  {label:<24} without {1e3 * medians['without']:8.2f} ms   with {1e3 * medians['with']:8.2f} ms   "
            f"recorder {1e3 * medians['recorder']:6.3f} ms   {100 * result['ratio']:6.2f} %"
        )
    return "\n".join([*lines, f"  target: under {100 * TARGET:g} % of a real step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ssd-lite0")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    results = [measure(name, asked.size, asked.batch, asked.repeats) for name in (asked.model, "nil")]
    found = {"benchmark": "recorder", "torch": torch.__version__, "target": TARGET, "steps": results}
    print(json.dumps(found, indent=1) if asked.json else table(results))


if __name__ == "__main__":
    main()
