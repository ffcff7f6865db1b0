"""SSD300 training step on a CPU: channels-last with bf16 against the same model in fp32, contiguous, eager.

    python benchmarks/ssd_step.py [--batch 8] [--repeats 5] [--threads 1] [--model ssd300] [--json]

Both forms start from equal weights and see the same synthetic images and truths; one step is forward, loss,
backward and SGD. Their steps take turns in one process, and CPU time of the process is counted, so that other work
on the machine disturbs both alike. Ours keeps freed memory as training does, the peer has the allocator's default. The
peer form is how lufficc/SSD, zisianw/FaceBoxes.PyTorch and torchvision train.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from onestage.models import build
from onestage.models.detector import Detector, Truth
from onestage.training.devices.machine import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory

CLASSES = 20
TARGET = 2.4
PEER, OURS = "fp32 contiguous", "bf16 channels_last"


def synthetic(batch: int, size: tuple[int, int]) -> tuple[Tensor, list[Truth]]:
    """Noise, uint8 with channels last in memory as the loader gives it, and one to five boxes an image."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    images = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
    truths = []
    for index in range(batch):
        n = 1 + index % 5
        corner = torch.rand(n, 2, generator=generator) * 0.6
        boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(n, 2, generator=generator)], 1)
        labels = torch.randint(0, CLASSES, (n,), generator=generator)
        boxes = boxes * torch.tensor([width, height, width, height])
        truths.append(Truth(boxes, labels, torch.zeros(n, dtype=torch.bool)))
    return images.permute(0, 3, 1, 2), truths


def stepper(model: Detector, images: Tensor, truths: list[Truth], bf16: bool) -> Callable[[], float]:
    """One optimiser step as a function that gives its loss."""
    optimiser = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            raw = model(images)
        loss = model.loss(raw, truths).total(model.default_weights)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def use_allocator(kept: bool) -> None:
    """Freed memory kept, as training does, or glibc's default, as the peer form has it."""
    if kept:
        keep_freed_memory()
    elif hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(M_MMAP_MAX, 65536)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 128 * 1024)


def measure(name: str, batch: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of each form's steps, taken in turns after one step each to warm up."""
    torch.manual_seed(0)
    peer, ours = build(name, CLASSES).train(), build(name, CLASSES).train()
    ours.load_state_dict(peer.state_dict())
    images, truths = synthetic(batch, peer.size)
    forms = {
        PEER: stepper(peer, images.contiguous(), truths, bf16=False),
        OURS: stepper(ours.to(memory_format=torch.channels_last), images, truths, bf16=True),
    }
    first = {form: step() for form, step in forms.items()}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeats):
        for form, step in forms.items():
            use_allocator(kept=form == OURS)
            start = time.process_time()
            step()
            seconds[form].append(time.process_time() - start)
    medians = {form: statistics.median(times) for form, times in seconds.items()}
    return {
        "benchmark": "ssd_step", "model": name, "batch": batch, "repeats": repeats,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(),
        "seconds": seconds, "median_seconds": medians,
        "images_per_second": {form: batch / median for form, median in medians.items()},
        "first_loss": first, "ratio": medians[PEER] / medians[OURS], "target": TARGET,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['model']} training step, batch {result['batch']}, {result['threads']} thread(s), median CPU time"
    ]
    for form, median in result["median_seconds"].items():
        speed, loss = result["images_per_second"][form], result["first_loss"][form]
        lines.append(f"  {form:<20}{median:8.2f} s {speed:7.2f} images/s   first loss {loss:.4f}")
    return "\n".join([*lines, f"  ratio {result['ratio']:.2f} (target {result['target']})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ssd300")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    result = measure(asked.model, asked.batch, asked.repeats)
    print(json.dumps(result, indent=1) if asked.json else table(result))


if __name__ == "__main__":
    main()
