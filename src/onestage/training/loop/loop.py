"""The loop: steps of one run, from batch to moved weights; pure of files."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from onestage.errors import ModelError
from onestage.models.detector import Detector
from onestage.records import Batch
from onestage.training.devices.capacity import memory_in_use
from onestage.training.devices.machine import is_out_of_memory
from onestage.training.devices.ranks import Ranks
from onestage.training.loop.averaging import Averaged
from onestage.training.loop.evidence import Action, Evidence, Finite, Observer, one_error
from onestage.training.loop.freezing import freeze, set_training
from onestage.training.loop.momenta import recall, remembered
from onestage.training.loop.norms import batch_norms, synchronise
from onestage.training.loop.optimiser import build_optimiser, set_learning_rates
from onestage.training.loop.step import Differentiator, Keepsake, Totals
from onestage.training.loop.step_record import StepRecord, overflowed, record_of
from onestage.training.recipe.stages import Leg

# What may become of a step, the gravest last: the gravest that any process asks for is done by all.
_ACTIONS: tuple[Action, ...] = ("go", "skip", "rollback", "stop")
# Every so many steps the norm of the update, the norms of the parts' gradients and the memory in use are recorded.
DETAILS = 10


class RollBack(Exception):  # noqa: N818  # no error: a decision of the guard
    """The guard asks to go back to the last saved state."""


class Loop:
    """Steps of one run: forward, loss, backward, clip, step, average.

    `engine` is lightning-fabric, which knows devices and precision; `weights` scales the parts of the loss;
    `accumulate` is the number of micro-batches of a step; `batch` the images of a whole step, of which this process
    is given its share. `observer` looks at each step before the weights change. Call `enter` with a leg before the
    first step. Raises the observer's DivergedError, or RollBack, where it says so.

    When memory runs out, the micro-batches are halved and the step is done again, to the same update.
    """

    def __init__(
        self, engine: Fabric, detector: Detector, *, weights: Mapping[str, float], accumulate: int = 1,
        averaged: Averaged | None = None, observer: Observer | None = None, ranks: Ranks | None = None,
        norms: str = "own",
    ) -> None:  # fmt: skip
        self.engine, self.detector, self.averaged = engine, detector, averaged
        self.ranks = ranks or Ranks()
        self.observer: Observer = observer or Finite()
        self.weights, self.norms = dict(weights), norms
        self.accumulate = self.asked = accumulate
        self.meets = norms == "synchronised" and not self.ranks.alone
        if self.meets:
            synchronise(detector, engine.device.type)
        self.differentiator = Differentiator(engine, detector, self.ranks, self.weights, self.meets)
        self.keepsake = Keepsake(detector)
        self.lr_factor = 1.0
        self.step = 0
        self.inside = False  # a step has begun and not ended: the weights may be anything

    def enter(self, leg: Leg) -> None:
        """Begin a leg: its frozen parts, and an optimiser of its own that knows nothing of the leg before."""
        self.leg = leg
        self.detector.zero_grad(set_to_none=True)  # the last gradient of what is frozen now must not count in the norm
        self.frozen = freeze(self.detector, leg.freeze)
        self.wrapped, self.optimiser = self.engine.setup(self.detector, build_optimiser(self.detector, leg.optimiser))
        self.core = {id(p) for p in self.detector.parts()["backbone"].parameters()}
        self.trained = [p for p in self.detector.parameters() if p.requires_grad]

    def epoch(self, epoch: int, batches: Iterator[Batch], images: int) -> Iterator[StepRecord]:
        """Do a step on every batch, `images` over all processes; a record after each, with the time waited for data."""
        set_training(self.detector, self.frozen, self.norms)
        before = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - before
            yield self._one(epoch, batch, images, waited)
            before = time.perf_counter()

    def _one(self, epoch: int, batch: Batch, images: int, waited: float) -> StepRecord:
        start = time.perf_counter()
        self.inside = True
        rates = set_learning_rates(self.optimiser, self.leg.share(self.step) * self.lr_factor)
        self.keepsake.take()
        smaller, extra = self.accumulate, dict[str, Any]()
        detailed = (self.step + 1) % DETAILS == 0
        with contextlib.suppress(ModelError):  # a model of one size: the observer tells of the batch, which is at fault
            self._take_size(batch)
        own = self.observer.before(self.step + 1, epoch, batch, self.detector)
        action = self._agreed(own)
        if action == "go":
            self._take_size(batch)
            evidence = self._evidence(epoch, batch, images, rates, detailed)
            own = self.observer.examine(evidence, self.detector)
            action = self._agreed(own)
        else:
            evidence = self._blank(epoch, images, rates)
        if action == "go":
            self._move(evidence, detailed)
        else:
            self._leave_out()
            extra["skipped"] = True
            self._obey(action, own)
        self.step += 1
        self.inside = False
        seconds = {"data": waited, "step": time.perf_counter() - start}
        self.observer.done(evidence, seconds)
        if detailed:
            extra["memory"] = memory_in_use(self.engine.device)
        if self.accumulate != smaller:
            extra["accumulate"] = self.accumulate
        return record_of(evidence, seconds, extra, list(batch.ids))

    def _take_size(self, batch: Batch) -> None:
        size = (batch.images.shape[3], batch.images.shape[2])
        if size != self.detector.size:
            self.detector.resized(size)

    def _agreed(self, own: Action) -> Action:
        """The gravest of what the observers of all processes say."""
        return _ACTIONS[int(self.ranks.largest(_ACTIONS.index(own)))]

    def _obey(self, action: Action, own: Action) -> None:
        """Leave the loop where the observers say so; the weights are those before the step."""
        if action == "stop":
            self.inside = False
            said = self.ranks.gather(self.observer.error() if own == "stop" else None)
            raise one_error([error for error in said if error is not None])
        if action == "rollback":
            raise RollBack

    def _blank(self, epoch: int, images: int, rates: dict[str, float]) -> Evidence:
        size, scale = self.detector.size, self._scale()
        return Evidence(
            self.step + 1, epoch, [], math.nan, {}, {}, [], images, rates, None, size, scale, stage=self.leg.index
        )

    def _evidence(
        self, epoch: int, batch: Batch, images: int, rates: dict[str, float], detailed: bool
    ) -> Evidence:  # fmt: skip
        """Take the gradient, in smaller micro-batches where memory runs out, and gather what it shows."""
        while True:
            evidence = self._blank(epoch, images, rates)
            self.optimiser.zero_grad(set_to_none=True)
            try:
                totals = self.differentiator.take(self.wrapped, batch, self.accumulate, images, evidence.passes)
                break
            except (RuntimeError, MemoryError) as error:
                if not self._can_halve(error, images // self.ranks.count):
                    raise
            evidence.passes.clear()
            self.keepsake.put_back()
            self.accumulate *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self._fill(evidence, totals)
        if totals.finite:
            if (scaler := self._scaler()) is not None:
                scaler.unscale_(self.optimiser.optimizer)  # Fabric's own refuses fused optimisers, torch's does not
            evidence.grad_norms = self._norms_of_parts() if detailed else None
            evidence.without_gradient = self._layers_without_gradient() if detailed else []
            evidence.grad_norm = self._clip()
        return evidence

    def _can_halve(self, error: Exception, images: int) -> bool:
        """Whether memory ran out and smaller micro-batches may help; norms that learn need two images each."""
        least = 1 if all(not norm.training for norm in batch_norms(self.detector)) else 2
        smallest = images // min(2 * self.accumulate, images)
        return is_out_of_memory(error) and not self.meets and self.accumulate < images and smallest >= least

    def _fill(self, evidence: Evidence, totals: Totals) -> None:
        evidence.raw = totals.raw()
        evidence.weighted = {name: value * self.weights.get(name, 1.0) for name, value in evidence.raw.items()}
        evidence.loss = sum(evidence.weighted.values())
        evidence.positives_per_level, evidence.images = totals.positives, totals.images
        evidence.truths, evidence.filtered, evidence.negatives = totals.truths, totals.filtered, totals.negatives
        evidence.scales, evidence.sums = totals.scales, totals.sums

    def _clip(self) -> float:
        """Norm of all gradients, before they are cut to the leg's `clip`."""
        parameters = [p for p in self.detector.parameters() if p.grad is not None]
        return float(nn.utils.clip_grad_norm_(parameters, self.leg.clip or math.inf))

    def _move(self, evidence: Evidence, detailed: bool) -> None:
        """Let the optimiser step; where a gradient overflowed under fp16, lower the loss scale instead."""
        if overflowed(evidence):
            self._scaler().update()
            return
        before = self._weights_now() if detailed else []
        self.optimiser.step()
        if detailed:
            evidence.update_norm = _norm([p.detach() for p in self.trained], before)
        if self.averaged is not None:
            self.averaged.update(self.detector)

    def _weights_now(self) -> list[Tensor]:
        """A copy of what learns."""
        return [p.detach().clone() for p in self.trained]

    def _leave_out(self) -> None:
        """Forget the step: no gradient, norms' statistics as they were."""
        self.optimiser.zero_grad(set_to_none=True)
        self.keepsake.put_back()
        if (scaler := self._scaler()) is not None and scaler._per_optimizer_states:
            scaler.update()

    def _norms_of_parts(self) -> dict[str, float]:
        """Norm of the gradient of each part that learns."""
        gradients = {
            name: [p.grad for p in part.parameters() if p.grad is not None]
            for name, part in self.detector.parts().items()
        }
        return {name: _norm(those) for name, those in gradients.items() if those}

    def _layers_without_gradient(self) -> list[str]:
        """The layers of the backbone, which every level needs, whose weights learn and get a gradient of 0."""
        named = [(name, p.grad) for name, p in self.detector.named_parameters()
                 if p.dim() > 1 and p.grad is not None and id(p) in self.core]  # fmt: skip
        if not named:
            return []
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in named])).tolist()
        return [name for (name, _), norm in zip(named, norms, strict=True) if norm == 0]

    def _scaler(self) -> Any:
        return getattr(self.engine.strategy.precision, "scaler", None)

    def _scale(self) -> float | None:
        scaler = self._scaler()
        return None if scaler is None else float(scaler.get_scale())

    def state(self) -> dict[str, Any]:
        """What must be kept to go on from here; every process must call it."""
        scaler = self._scaler()
        return {
            "step": self.step, "leg": self.leg.index, "model": self.detector.state_dict(),
            "optimiser": remembered(self.optimiser, self.detector), "lr_factor": self.lr_factor,
            "accumulate": self.accumulate if self.accumulate > self.asked else None,
            "torch_random": self.ranks.gather(torch.get_rng_state()),
            "averaged": None if self.averaged is None else self.averaged.model.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], leg: Leg) -> None:
        """Go on from a state of `state`, within the leg it was in."""
        self.enter(leg)
        self.step, self.lr_factor = int(state["step"]), float(state["lr_factor"])
        self.accumulate = max(self.asked, int(state["accumulate"] or 1))  # memory ran out before
        self.detector.load_state_dict(state["model"])
        recall(self.optimiser, self.detector, state["optimiser"])
        randoms = state["torch_random"]
        torch.set_rng_state(randoms[self.ranks.rank % len(randoms)])
        if self.averaged is not None and state["averaged"] is not None:
            self.averaged.model.load_state_dict(state["averaged"])
        if (scaler := self._scaler()) is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        self.inside = False


@torch.no_grad()
def _norm(tensors: list[Tensor], before: list[Tensor] | None = None) -> float:
    """Euclidean norm of all tensors together, or of what they have changed from `before`."""
    changed = tensors if before is None else torch._foreach_sub(tensors, before)
    return float(torch.stack(torch._foreach_norm(changed)).norm()) if changed else 0.0
