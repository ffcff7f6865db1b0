"""The loop: step, clip, average, record; pure of files but for what it is given to call."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from onestage.errors import DivergedError
from onestage.models.detector import Detector, Loss, Raw, Truth
from onestage.records import Batch
from onestage.training.optimiser import set_learning_rates, set_training
from onestage.training.schedule import Schedule


@dataclass
class StepRecord:
    """What one optimiser step did; `seconds` splits waiting for data from computing."""

    step: int
    epoch: int
    loss: float
    raw: dict[str, float]
    weighted: dict[str, float]
    positives: int
    positives_per_level: list[int]
    lr: dict[str, float]
    grad_norm: float
    images: int
    seconds: dict[str, float]
    ids: list[Any] = field(default_factory=list)

    def as_row(self, since_start: float) -> dict[str, Any]:
        """The line of steps.jsonl."""
        return {
            "step": self.step, "epoch": self.epoch, "time": round(since_start, 3), "loss": self.loss,
            "raw": self.raw, "weighted": self.weighted, "positives": self.positives,
            "positives_per_level": self.positives_per_level, "lr": self.lr, "grad_norm": self.grad_norm,
            "images": self.images, "seconds": {key: round(value, 4) for key, value in self.seconds.items()},
        }  # fmt: skip


class Averaged:
    """Running average of the weights (EMA): what is judged and saved.

    The decay grows with the steps done, so that the first, random weights are soon forgotten: min(decay,
    (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage. Built on `torch.optim.swa_utils`.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        self.decay = decay
        self.model = AveragedModel(detector, multi_avg_fn=self._blend, use_buffers=True)
        self.model.requires_grad_(False)

    def update(self, detector: Detector) -> None:
        """Take in the weights after a step."""
        self.model.update_parameters(detector)

    @property
    def detector(self) -> Detector:
        """The detector with averaged weights."""
        module = self.model.module
        assert isinstance(module, Detector)  # noqa: S101  # it was given one
        return module

    def _blend(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = float(count)
        decay = min(self.decay, (1 + n) / (10 + n))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


class Loop:
    """Steps of one run: forward, loss, backward, clip, step, average.

    `engine` is lightning-fabric, which knows devices and precision; `weights` scales the parts of the loss. The loss
    is computed in float32 outside of autocast. Raises DivergedError when the loss or the gradient is not finite.
    """

    def __init__(
        self,
        engine: Fabric,
        detector: Detector,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule,
        steps: int,
        *,
        frozen: Sequence[nn.Module] = (),
        weights: Mapping[str, float] | None = None,
        clip: float = 0.0,
        averaged: Averaged | None = None,
    ) -> None:
        self.engine, self.detector = engine, detector
        self.wrapped, self.optimiser = engine.setup(detector, optimiser)
        self.schedule, self.steps = schedule, steps
        self.frozen, self.clip, self.averaged = list(frozen), clip, averaged
        self.weights = dict(weights or {})
        self.step = 0

    def epoch(self, epoch: int, batches: Iterator[Batch]) -> Iterator[StepRecord]:
        """Do a step on every batch, giving a record after each; the records carry the time waited for data."""
        set_training(self.detector, self.frozen)
        before = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - before
            yield self._one(epoch, batch, waited)
            before = time.perf_counter()

    def _one(self, epoch: int, batch: Batch, waited: float) -> StepRecord:
        start = time.perf_counter()
        device = self.engine.device
        rates = set_learning_rates(self.optimiser, self.schedule.share(self.step, self.steps))
        images = torch.from_numpy(batch.images).to(device)
        truths = [Truth.of(annotations, device) for annotations in batch.annotations]
        raw = Raw(*self.wrapped(images))
        loss = self.detector.loss(Raw(raw.offsets.float(), raw.logits.float()), truths)
        total = loss.total(self.weights)
        value = float(total.detach())
        if not math.isfinite(value):
            raise self._diverged(epoch, batch, loss, "the loss")
        self.optimiser.zero_grad(set_to_none=True)
        self.engine.backward(total)
        norm = self._clip()
        if not math.isfinite(norm):
            raise self._diverged(epoch, batch, loss, "the gradient")
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update(self.detector)
        self.step += 1
        return self._record(epoch, batch, loss, value, rates, norm, waited, time.perf_counter() - start)

    def _clip(self) -> float:
        """Norm of all gradients, before they are cut to `clip`."""
        limit = self.clip or math.inf
        parameters = [p for p in self.detector.parameters() if p.grad is not None]
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def _record(
        self, epoch: int, batch: Batch, loss: Loss, value: float, rates: dict[str, float], norm: float,
        waited: float, worked: float,
    ) -> StepRecord:  # fmt: skip
        denominator = max(float(loss.normaliser.sum()), 1.0)
        parts = {name: float(part.detach().sum()) / denominator for name, part in loss.parts.items()}
        per_level = [int(count) for count in loss.positives.sum(0)]
        return StepRecord(
            step=self.step, epoch=epoch, loss=value, raw=parts,
            weighted={name: part * self.weights.get(name, 1.0) for name, part in parts.items()},
            positives=sum(per_level), positives_per_level=per_level, lr=rates, grad_norm=norm, images=len(batch),
            seconds={"data": waited, "step": worked}, ids=list(batch.ids),
        )  # fmt: skip

    def _diverged(self, epoch: int, batch: Batch, loss: Loss, what: str) -> DivergedError:
        """The error that names the images whose part of the loss is not finite."""
        problems = []
        for name, part in loss.parts.items():
            for image_id, share, truth in zip(batch.ids, part.tolist(), batch.annotations, strict=True):
                if not math.isfinite(share):
                    problems.append(f"image {image_id}: {name} loss {share}, {len(truth)} boxes after augmentation")
        return DivergedError(
            f"{what} is not a finite number at step {self.step + 1} (epoch {epoch + 1})",
            problems=problems or ["every image's own loss is finite: the weights or gradients overflowed"],
            hint="a lower optimiser.lr, a longer schedule.warmup, or precision=fp32",
        )

    def state(self) -> dict[str, Any]:
        """What must be kept to go on from here."""
        state = {
            "step": self.step, "model": self.detector.state_dict(), "optimiser": self.optimiser.state_dict(),
            "torch_random": torch.get_rng_state(),
        }  # fmt: skip
        if self.averaged is not None:
            state["averaged"] = self.averaged.model.state_dict()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of `state`."""
        self.step = int(state["step"])
        self.detector.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_random"])
        if self.averaged is not None:
            self.averaged.model.load_state_dict(state["averaged"])
