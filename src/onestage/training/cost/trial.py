"""Real training steps on a copy of the detector: their seconds and their memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from onestage.data.loader import Loader
from onestage.records import Batch
from onestage.training.devices.capacity import Memory, PeakSince, resident_at_rest
from onestage.training.devices.machine import engine
from onestage.training.loop.averaging import Averaged
from onestage.training.loop.loop import Loop
from onestage.training.plan import Plan
from onestage.training.recipe.stages import Leg

# A trial step may use so much of the memory that is free; the system may kill a process that asks for more.
SAFE = 0.7
# Images of the first step, from which the others are planned, and how many steps are timed at most.
FIRST, TIMED = 2, 6
# Whole steps are tried where so much of one is within the time: better than to extrapolate the rest.
NEARLY = 0.6
# What a step was seen to take at its peak as a share of what it keeps, for images beyond those tried.
OVERHEAD = 1.55
# What the allocator's holes add within some dozens of steps, which the few of a trial do not show.
HOLES = 1.12


@dataclass
class Trial:
    """What steps of `images` images in `pieces` micro-batches took, in bytes and seconds.

    `kept` is what the forward pass keeps for the backward pass, for one image. `peak` is the highest memory above that
    of the process at the start, the weights of the copy taken off; 0 where the system cannot tell. `seconds` are of
    whole steps, `update` those of the optimiser and the averaging within; `alone` are what the steps would have taken
    had the processors done nothing else, none where that cannot be known.
    """

    leg: Leg
    images: int
    pieces: int
    weights: int
    gradients: int
    optimiser: int
    averaged: int
    kept: float
    peak: int
    update: float
    seconds: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def step_seconds(self, images: int, pieces: int, of: Callable[[list[float]], float]) -> float:
        """Seconds of a step of so many images: `of` picks from those measured; what exceeds the trial is linear."""
        measured = of(self.seconds)
        if (images, pieces) == (self.images, self.pieces):
            return measured
        return max(measured - self.update, 0.0) * images / self.images + self.update

    def alone_seconds(self, images: int, pieces: int) -> float:
        """The same without other work on the machine, by processor time; the quickest step where that is not known."""
        quickest = self.step_seconds(images, pieces, min)
        if not self.alone:
            return quickest
        return min(quickest, self.step_seconds(images, pieces, median) * median(self.alone) / median(self.seconds))

    @property
    def micro(self) -> int:
        """Images of the largest micro-batch tried."""
        return math.ceil(self.images / self.pieces)

    @property
    def fixed(self) -> int:
        """Bytes beside the weights that do not grow with the batch."""
        return self.gradients + self.optimiser + self.averaged

    def growing(self, images: float) -> float:
        """Bytes that a micro-batch of so many images takes at the peak, linear in those beyond the trial."""
        kept = self.kept * self.micro
        if not self.peak:
            return OVERHEAD * self.kept * images
        ours = max(HOLES * (self.peak - self.fixed), kept)
        if images <= self.micro:
            return ours * images / self.micro
        return ours + OVERHEAD * self.kept * (images - self.micro)


def try_leg(plan: Plan, leg: Leg, loader: Loader, memory: Memory, budget: float) -> Trial:
    """Steps of a leg as the loop does them, on a copy of the plan's detector, in about `budget` seconds.

    They are whole steps of the recipe, or of fewer images where the first step of FIRST images says that whole ones
    would take too long or too much memory. `loader` works beside them as in training.

    Raises DivergedError where the loss of such a step is not a finite number.
    """
    recipe = plan.recipe
    whole = min(recipe.batch, len(plan.opened.train))
    pieces = min(recipe.accumulate, whole)
    begin = _in_use(plan.device)
    peak = PeakSince(plan.device)
    loop = _loop(plan, leg)
    batches = _again(loader)
    _, kept_first = _counted(loop, next(batches), min(FIRST, whole))
    first = _step(loop, next(batches), min(FIRST, whole))  # the one before paid for all that is made once
    weights, averaged = _state_bytes(loop.detector), _state_bytes(loop.averaged.model if loop.averaged else None)
    gradients = sum(_bytes(p.grad) for p in loop.trained if p.grad is not None)
    trial = Trial(leg, min(FIRST, whole), 1, weights, gradients, _optimiser_bytes(loop), averaged, 0.0, 0, 0.0)
    _enlarge(trial, first, kept_first, whole, pieces, memory, budget)
    loop.accumulate = trial.pieces
    _, kept = _counted(loop, next(batches), trial.images)
    # Micro-batches take turns in the same memory, so that only one in a piece can be counted.
    trial.kept = kept / trial.images if trial.pieces == 1 else kept_first / min(FIRST, whole)
    until = time.perf_counter() + budget / 2
    while len(trial.seconds) < 2 or (len(trial.seconds) < TIMED and time.perf_counter() < until):
        batch, begun = next(batches), time.process_time()
        trial.seconds.append(_step(loop, batch, trial.images))
        if plan.device == "cpu":
            trial.alone.append((time.process_time() - begun) / torch.get_num_threads())
    batches.close()
    trial.pieces = loop.accumulate  # more where memory ran out
    trial.update = _update_seconds(loop)
    highest = peak.bytes()
    trial.peak = max(highest - begin - weights, 0) if highest else 0
    return trial


def _loop(plan: Plan, leg: Leg) -> Loop:
    """The loop of training, about to begin the leg, on a copy of the detector."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    recipe, detector = plan.recipe, deepcopy(plan.detector)
    averaged = Averaged(detector, recipe.ema) if recipe.ema else None
    loop = Loop(
        engine(plan.device, str(recipe.precision)), detector, weights=recipe.loss, averaged=averaged, norms=recipe.norms
    )
    loop.step = leg.first_step
    loop.enter(leg)
    return loop


def _enlarge(
    trial: Trial, seconds: float, kept: int, whole: int, pieces: int, memory: Memory, budget: float
) -> None:  # fmt: skip
    """Set the images of the trial's steps: the recipe's whole step, or what budget and memory allow."""
    tried, micro = trial.images, math.ceil(whole / pieces)
    by_time = int(budget / 4 / max(seconds / tried, 1e-6))  # four steps: one counted, two or more timed, one to judge
    free = memory.limit if memory.free is None else memory.free
    by_memory = int((SAFE * free - trial.fixed) / max(OVERHEAD * kept / tried, 1.0))
    if by_time >= NEARLY * whole and by_memory >= micro:
        trial.images, trial.pieces = whole, pieces
    else:
        trial.images = max(min(micro, by_time, by_memory), min(tried, micro))


def _again(loader: Loader) -> Generator[Batch]:
    """The first batches of the first epoch again and again: once read they are as quick as in later epochs."""
    while True:
        yield from islice(loader.epoch(0), TIMED)


def _step(loop: Loop, batch: Batch, images: int) -> float:
    """Seconds of one step of the first `images` of a batch."""
    part = replace(
        batch, images=batch.images[:images], annotations=batch.annotations[:images],
        transforms=batch.transforms[:images], ids=batch.ids[:images], seeds=batch.seeds[:images],
    )  # fmt: skip
    record = next(loop.epoch(0, iter([part]), images))
    if loop.engine.device.type == "cuda":
        torch.cuda.synchronize(loop.engine.device)
    return record.seconds["step"]


def _counted(loop: Loop, batch: Batch, images: int) -> tuple[float, int]:
    """(seconds, bytes) of a step: each storage that is kept for the backward pass, once, the weights' left out."""
    saved: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in _state(loop.detector)}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        seconds = _step(loop, batch, images)
    return seconds, sum(saved.values())


def _update_seconds(loop: Loop) -> float:
    begin = time.perf_counter()
    loop.optimiser.step()
    if loop.averaged is not None:
        loop.averaged.update(loop.detector)
    if loop.engine.device.type == "cuda":
        torch.cuda.synchronize(loop.engine.device)
    return time.perf_counter() - begin


def _in_use(device: str) -> int:
    return torch.cuda.memory_allocated(torch.device(device)) if device.startswith("cuda") else resident_at_rest()


def _optimiser_bytes(loop: Loop) -> int:
    """What the optimiser keeps of every parameter."""
    kept: Any = loop.optimiser.state
    return sum(_bytes(value) for state in kept.values() for value in state.values() if isinstance(value, Tensor))


def _state_bytes(module: nn.Module | None) -> int:
    return 0 if module is None else sum(map(_bytes, _state(module)))


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
