"""What the run stands on: device, threads, versions, and whether bfloat16 pays on it, measured."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment

import onestage
from onestage.errors import UsageError
from onestage.models.detector import Detector, Truth

# bfloat16 must be faster by this much to be chosen: less is within the noise of a busy machine.
GAIN = 1.15
# glibc's malloc.h: how many blocks may be mapped one by one; how much free memory is kept at the top (-1: all).
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Have the allocator keep what a step frees for the next one; whether this system's can be told so (glibc's can).

    By default glibc maps every block above 32 MB anew and hands it back when it is freed, so that each step pays for
    fresh pages of its largest maps: a tenth to a quarter of a training step on a CPU, see docs/benchmarks.md. The
    memory in use at the peak stays about the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def choose_device(asked: str | None) -> str:
    """The device that was asked for, or the best there is; UsageError where it is not there."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if asked is None:
        return there[0]
    if asked.partition(":")[0] not in there:
        raise UsageError(f"device={asked}: not on this machine", hint=f"one of: {', '.join(there)}")
    return asked


def choose_precision(detector: Detector, device: str, batch: int = 4) -> tuple[str, dict[str, float]]:
    """ "bf16" where a training step is faster with it by `GAIN` or more, else "fp32", and the seconds measured."""
    if device == "mps":
        return "fp32", {}
    seconds = {}
    for precision in ("fp32", "bf16"):
        seconds[precision] = min(_step_seconds(detector, device, precision, batch) for _ in range(2))
    detector.zero_grad(set_to_none=True)
    faster = seconds["fp32"] / seconds["bf16"] >= GAIN
    return ("bf16" if faster else "fp32"), {f"step_{name}": round(value, 4) for name, value in seconds.items()}


def _step_seconds(detector: Detector, device: str, precision: str, batch: int) -> float:
    """Seconds of one forward and backward pass on made-up images, norms' statistics left as they are."""
    width, height = detector.size
    chance = torch.Generator(device).manual_seed(0)  # the run's own is left alone: a replay does not measure
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=device, generator=chance)
    images = images.to(memory_format=torch.channels_last)
    box = torch.tensor([[width * 0.2, height * 0.2, width * 0.6, height * 0.6]], device=device)
    truth = Truth(
        box, torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, dtype=torch.bool, device=device)
    )
    detector.eval()
    start = time.perf_counter()
    with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16"):
        raw = detector(images)
    detector.loss(raw, [truth] * batch).total({}).backward()  # type: ignore[no-untyped-call]
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def engine(device: str, precision: str) -> Fabric:
    """lightning-fabric on one device with the recipe's `precision`: fp32, bf16, or fp16 with a loss scale.

    fp16 is given as a plugin, as Fabric by itself turns it into bfloat16 on a CPU. So is the environment, of one
    process with one device, whoever started it: Fabric by itself looks for a cluster, and warns wherever srun is found.
    """
    alone = LightningEnvironment()
    kind, _, number = device.partition(":")
    devices: list[int] | int = 1
    if kind == "cuda":
        devices = [int(number) if number else torch.cuda.current_device()]  # each process of a machine has its own
    if precision == "fp32":
        return Fabric(accelerator=kind, devices=devices, precision="32-true", plugins=[alone])
    mixed = MixedPrecision("16-mixed" if precision == "fp16" else "bf16-mixed", device=kind)
    return Fabric(accelerator=kind, devices=devices, plugins=[mixed, alone])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def memory_in_use(device: torch.device) -> int | None:
    """Bytes in use: allocated on a CUDA device, resident in a process on a CPU; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def environment(device: str, precision: str, measured: dict[str, float]) -> dict[str, Any]:
    """The machine and its software as run.json keeps them."""
    return {
        "python": platform.python_version(), "onestage": onestage.__version__, "torch": torch.__version__,
        "numpy": np.__version__, "opencv": cv2.__version__, "pydantic": version("pydantic"),
        "os": platform.platform(), "cpu": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "device": device, "gpu": torch.cuda.get_device_name(0) if device.startswith("cuda") else None,
        "precision": precision, "measured": measured,
    }  # fmt: skip


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = ()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
