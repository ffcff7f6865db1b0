"""A training step of a YOLO network, and what a GPU does, for benchmarks/yolo.py."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from faceboxes import multiplications, pictures
from onestage.deploy.engines import start_engine
from onestage.models.darknet.detector import Darknet
from onestage.models.detector import Truth
from ssd_step import synthetic, use_allocator
from yolo_darknet import darknet_step, mapping_of
from yolo_peers import Peer

BATCH = 8
OURS, SAME = "bf16 channels_last", "same model, eager fp32"
Step = Callable[[], float]
Row = dict[str, Any]


def train_rows(detector: Darknet, name: str, threads: int, asked: argparse.Namespace, limits: Any) -> list[Row]:
    """A step of each form on this CPU, taking turns, with the CPU seconds of its parts."""
    torch.set_num_threads(threads)
    images, truths = synthetic(BATCH, detector.size)
    forms = {
        SAME: stepper(copy.deepcopy(detector), images.contiguous(), truths, False),
        OURS: stepper(copy.deepcopy(detector).to(memory_format=torch.channels_last), images, truths, True, fused=True),
    }  # type: dict[str, Callable[[], dict[str, float]]]
    peer = Peer(detector, asked.peer)
    if peer.loss is not None:
        forms[f"{peer.name}, its loss"] = _theirs(peer, images, truths)
    taken: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for form in forms.values():
        form()
    for _ in range(max(asked.repeats // 3, 3)):
        for form, step in forms.items():
            use_allocator(kept=form == OURS)
            taken[form].append(step())
    use_allocator(kept=False)
    work = 6 * BATCH * multiplications(detector, detector.size)
    made = []
    for form, times in taken.items():
        pairs = list(zip(taken[SAME], times, strict=True))
        ms = {key: 1e3 * statistics.median(one[key] for one in times) for key in times[0]}
        peak = (limits or {}).get("bf16" if form == OURS else "fp32")
        made.append({
            "part": "train", "model": name, "form": form, "threads": threads, "turns": len(times), "milliseconds": ms,
            "times_peer": statistics.median(a["cpu"] / b["cpu"] for a, b in pairs),
            "times_peer_wall": statistics.median(a["wall"] / b["wall"] for a, b in pairs),
            "share_of_floor": 1e3 * work / peak / 1e9 / ms["cpu"] if peak else None,
        })  # fmt: skip
    ours = next(row for row in made if row["form"] == OURS)["milliseconds"]["wall"]
    jpegs = pictures(detector.size, asked.images, BATCH)
    for word, binary in mapping_of(asked.darknet).items():
        if seconds := darknet_step(binary, detector, jpegs, threads):
            wall = 1e3 * statistics.median(seconds)
            made.append({
                "part": "train", "model": name, "form": f"{word}, its loss", "threads": threads,
                "turns": len(seconds), "milliseconds": {"wall": wall}, "ours_times_quicker": {"bf16": wall / ours},
            })  # fmt: skip
    return made


def stepper(
    model: Darknet, images: Tensor, truths: list[Truth], bf16: bool, **fused: bool
) -> Callable[[], dict[str, float]]:
    """One optimiser step, which gives the seconds of its parts."""
    model.train().requires_grad_(True)
    optimiser = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, weight_decay=5e-4, **fused)
    kind = images.device.type

    def forward() -> Any:
        with torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext():
            return model(images)

    return _stepped(kind, optimiser, forward, lambda raw: model.loss(raw, truths).total(model.default_weights))


def _stepped(
    kind: str, optimiser: torch.optim.Optimizer, forward: Callable[[], Any], loss_of: Callable[[Any], Tensor]
) -> Callable[[], dict[str, float]]:
    def step() -> dict[str, float]:
        watch = Watch(kind)
        optimiser.zero_grad()
        said = forward()
        watch.note("forward")
        loss = loss_of(said)
        watch.note("loss")
        loss.backward()
        watch.note("backward")
        optimiser.step()
        watch.note("optimiser")
        return watch.whole()

    return step


def _theirs(peer: Peer, images: Tensor, truths: list[Truth]) -> Callable[[], dict[str, float]]:
    """The step of PyTorch-YOLOv3's train.py: its network and loss, float images, SGD."""
    network, width = copy.deepcopy(peer.network).train().requires_grad_(True), images.shape[3]
    floats = images.contiguous().float() / 255
    rows = []
    for index, truth in enumerate(truths):
        corners = truth.boxes / width
        centre, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        first = torch.stack([torch.full((len(corners),), float(index)), truth.labels.float()], 1)
        rows.append(torch.cat([first, centre, sides], 1))
    targets = torch.cat(rows)
    optimiser = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9, weight_decay=5e-4)
    loss = peer.loss
    assert loss is not None
    return _stepped("cpu", optimiser, lambda: network(floats), lambda said: loss(said, targets, network)[0])


class Watch:
    """CPU seconds between notes, wall seconds on a GPU once it is done."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.wall, self.begin = time.perf_counter(), self.now()
        self.last, self.parts = self.begin, {}  # type: tuple[float, dict[str, float]]

    def now(self) -> float:
        """The time that counts."""
        if self.kind == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def note(self, part: str) -> None:
        """A part is done."""
        now = self.now()
        self.parts[part], self.last = now - self.last, now

    def whole(self) -> dict[str, float]:
        """The seconds in all, and those of the parts."""
        return {"cpu": self.last - self.begin, "wall": time.perf_counter() - self.wall, **self.parts}


def cuda_rows(detector: Darknet, name: str, asked: argparse.Namespace) -> list[Row]:
    """Network and step on the GPU, wall time, beside eager float32 there; batch 1 and 32 for the network."""
    made = []
    eager = Peer(detector, None)
    network = eager.network.cuda()
    for batch in (1, 32):
        images, _ = synthetic(batch, detector.size)
        pixels, floats = images.numpy(), (images.contiguous().float() / 255).cuda()
        forms: dict[str, Callable[[], Any]] = {"plain modules, eager fp32": lambda floats=floats: network(floats)}
        for precision in ("fp32", "bf16"):
            engine = start_engine("torch", detector, precision, device="cuda")
            forms[f"torch/{precision}"] = lambda engine=engine, pixels=pixels: engine.run(pixels.transpose(0, 2, 3, 1))
        made += _cuda_times("cuda", name, f", batch {batch}", forms, asked.repeats)
    if name == asked.models[0]:
        images, truths = synthetic(64, detector.size)
        held = images.cuda()
        there = [Truth(*(tensor.cuda() for tensor in truth)) for truth in truths]
        forms = {
            SAME: stepper(copy.deepcopy(detector).cuda(), held.contiguous(), there, False),
            OURS: stepper(
                copy.deepcopy(detector).cuda().to(memory_format=torch.channels_last), held, there, True, fused=True
            ),
        }
        made += _cuda_times("cuda step", name, ", batch 64", forms, max(asked.repeats // 3, 3))
    return made


def _cuda_times(part: str, name: str, more: str, forms: dict[str, Callable[[], Any]], turns: int) -> list[Row]:
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(turns + 3):
        for form, call in forms.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            with torch.set_grad_enabled(part == "cuda step"):
                call()
            torch.cuda.synchronize()
            if turn > 2:
                seconds[form].append(time.perf_counter() - begin)
    first = next(iter(seconds.values()))
    return [
        {
            "part": part, "model": name, "form": form + more, "threads": None, "turns": turns,
            "milliseconds": {"wall": 1e3 * statistics.median(taken)},
            "times_peer_wall": statistics.median(a / b for a, b in zip(first, taken, strict=True)),
        }
        for form, taken in seconds.items()
    ]  # fmt: skip
