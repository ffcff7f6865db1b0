"""Real training steps on a copy of the detector: their seconds, and the memory that each part of them takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from onestage.data.loader import Loader
from onestage.models.detector import Detector, Raw, Truth
from onestage.records import Batch
from onestage.training.capacity import Memory, PeakSince, resident
from onestage.training.optimiser import build_optimiser, freeze, set_training
from onestage.training.plan import Plan
from onestage.training.stages import Leg

# A trial step may use so much of the memory that is free; the system may kill a process that asks for more.
SAFE = 0.7
# Images of the first step, from which the others are planned, and how many steps of a size are timed at most.
FIRST, TIMED = 2, 5
# What a step was seen to take at its peak as a share of what it keeps, before a step of the size was tried.
OVERHEAD = 1.6


@dataclass
class Trial:
    """What steps of `images` images took; bytes and seconds. `kept` is what forward keeps for backward, for a whole
    micro-batch; `peak` the highest memory above the process's start, the copy of the weights taken off, 0 where the
    system cannot tell. `seconds` are of forward and backward, each time measured; `update` of the optimiser's step.
    """

    leg: Leg
    images: int
    weights: int
    gradients: int
    optimiser: int
    averaged: int
    saved: int
    kept: float
    peak: int
    update: float
    seconds: list[float] = field(default_factory=list)

    def per_image(self) -> float:
        """Median seconds of an image, forward and backward."""
        return sorted(self.seconds)[len(self.seconds) // 2] / self.images

    @property
    def fixed(self) -> int:
        """Bytes that do not grow with the batch."""
        return self.gradients + self.optimiser + self.averaged

    def peak_of(self, images: float) -> float:
        """Bytes above the process's start at the peak of a step of so many images, linear in them."""
        ours = max(self.peak - self.fixed, self.kept * self.images) if self.peak else OVERHEAD * self.kept * self.images
        return self.fixed + ours * images / self.images


def try_leg(plan: Plan, leg: Leg, loader: Loader, memory: Memory, budget: float) -> Trial:
    """Steps of a leg on a copy of the plan's detector, in about `budget` seconds, at the recipe's micro-batch or less.

    Less where the first step of FIRST images says that the whole would take too long or too much memory. `loader`
    works beside the steps as in training.
    """
    recipe, device = plan.recipe, plan.device
    micro = math.ceil(min(recipe.batch, len(plan.opened.train)) / recipe.accumulate)
    begin = 0 if device.startswith("cuda") else resident()
    if device.startswith("cuda"):
        begin = torch.cuda.memory_allocated(torch.device(device))
    peak = PeakSince(device)
    step = _Steps(plan, leg)
    batches = _again(loader)
    batch = next(batches)
    saved: dict[int, int] = {}
    sizes = [min(FIRST, micro)]
    first = step(batch, sizes[0], saved)
    saved_first = sum(saved.values())
    images = _affordable(first, sizes[0], micro, saved_first / sizes[0], step.bytes_fixed(), memory, budget)
    saved = {}
    slope = saved_first / sizes[0]
    if images > sizes[0]:
        step(next(batches), images, saved)
        slope = (sum(saved.values()) - saved_first) / (images - sizes[0])
    kept = saved_first / sizes[0] if slope <= 0 else slope
    trial = Trial(leg, images, step.weights, step.gradients, 0, step.averaged_bytes(), sum(saved.values()), kept, 0, 0)
    updates = []
    until = time.perf_counter() + budget / 2
    while len(trial.seconds) < 2 or (len(trial.seconds) < TIMED and time.perf_counter() < until):
        trial.seconds.append(step(next(batches), images))
        updates.append(step.update_seconds)
    batches.close()
    trial.optimiser, trial.update = step.optimiser_bytes(), sorted(updates)[len(updates) // 2]
    highest = peak.bytes()
    trial.peak = max(highest - begin - step.weights, 0) if highest else 0
    return trial


def _affordable(
    seconds: float, tried: int, micro: int, kept: float, fixed: int, memory: Memory, budget: float
) -> int:  # fmt: skip
    """Images of a trial step that stays within the budget and the memory; `micro` where it can."""
    by_time = int(budget / 3 / max(seconds / tried, 1e-6))
    free = memory.limit if memory.free is None else memory.free
    by_memory = int((SAFE * free - fixed) / max(OVERHEAD * kept, 1.0))
    return max(min(micro, by_time, by_memory), min(tried, micro))


def _again(loader: Loader) -> Iterator[Batch]:
    """The first batches of the first epoch again and again: once read they are as quick as in later epochs."""
    while True:
        yield from islice(loader.epoch(0), 2 * TIMED)


class _Steps:
    """Training steps as the loop does them, on a copy."""

    def __init__(self, plan: Plan, leg: Leg) -> None:
        self.plan, self.device = plan, torch.device(plan.device)
        self.detector: Detector = deepcopy(plan.detector)
        set_training(self.detector, freeze(self.detector, leg.freeze))
        self.optimiser = build_optimiser(self.detector, leg.optimiser)
        self.clip = leg.clip or math.inf
        self.averaged = [t.detach().clone() for t in _state(self.detector)] if plan.recipe.ema else []
        self.weights = sum(_bytes(tensor) for tensor in _state(self.detector))
        self.gradients = sum(_bytes(p) for p in self.detector.parameters() if p.requires_grad)
        self.update_seconds = 0.0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in _state(self.detector)}

    def __call__(self, batch: Batch, images: int, saved: dict[int, int] | None = None) -> float:
        """One step of the first `images` of the batch; seconds of forward and backward. Counts storages in `saved`."""
        start = time.perf_counter()
        pixels = torch.from_numpy(batch.images[:images]).to(self.device)
        truths = [Truth.of(truth, self.device) for truth in batch.annotations[:images]]
        if saved is None:
            total = self._forward(pixels, truths)
        else:
            with torch.autograd.graph.saved_tensors_hooks(_counter(saved, self._own), _as_it_is):
                total = self._forward(pixels, truths)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._wait()
        between = time.perf_counter()
        trained = [p for p in self.detector.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(trained, self.clip)
        self.optimiser.step()
        for mean, value in zip(self.averaged, _state(self.detector), strict=False):
            if mean.is_floating_point():
                mean.lerp_(value.detach(), 0.002)
        self._wait()
        self.update_seconds = time.perf_counter() - between
        return between - start

    def _forward(self, pixels: Tensor, truths: Sequence[Truth]) -> Tensor:
        recipe = self.plan.recipe
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(recipe.precision), torch.bfloat16)
        with torch.autocast(self.device.type, kind, enabled=recipe.precision not in (None, "fp32")):
            raw = self.detector(pixels)
        loss = self.detector.loss(Raw(raw.offsets.float(), raw.logits.float()), truths)
        return loss.total(recipe.loss)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def optimiser_bytes(self) -> int:
        """What the optimiser keeps of every parameter."""
        return sum(_bytes(value) for state in self.optimiser.state.values() for value in state.values()
                   if isinstance(value, Tensor))  # fmt: skip

    def averaged_bytes(self) -> int:
        """The second set of weights, where weights are averaged."""
        return sum(_bytes(tensor) for tensor in self.averaged)

    def bytes_fixed(self) -> int:
        """Gradients, optimiser and averaged weights."""
        return self.gradients + self.optimiser_bytes() + self.averaged_bytes()


def _counter(saved: dict[int, int], own: set[int]) -> Callable[[Tensor], Tensor]:
    """A hook that notes the storage of each tensor kept for backward, once, the weights' own left out."""

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    return count


def _as_it_is(value: Any) -> Any:
    return value


def _state(detector: nn.Module) -> list[Tensor]:
    return [*detector.parameters(), *detector.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
