"""The gradient of one whole batch, the same however it is cut into micro-batches and over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from onestage.models.detector import SCALE, Detector, Loss, Raw, Truth
from onestage.records import Batch
from onestage.training.devices.machine import is_out_of_memory
from onestage.training.devices.ranks import Ranks
from onestage.training.filtered import left_out
from onestage.training.loop.evidence import Pass, loss_of

# What is counted of a batch besides its losses, in the order in which processes sum it.
COUNTS = ("images", "truths", "small", "cut", "of", "negatives")


@dataclass
class Totals:
    """A whole batch over all micro-batches and processes: sums of the parts of the loss, and what they are divided by.

    `parts` are sums over images, `normaliser` is at least 1, `positives` per level; `truths` are those that count.
    `finite` is False where any part of the loss is not a finite number; then no gradient was taken. `filtered` counts
    the truths that augmentation left out as too "small" or "cut", "of" how many; None where it does not say.
    `negatives` counts those that were picked for the class part; None where none are picked. `scales` and `sums` are
    those of `Loss`, summed.
    """

    parts: dict[str, float]
    normaliser: float
    positives: list[int]
    images: int
    truths: int
    finite: bool
    filtered: dict[str, int] | None = None
    negatives: int | None = None
    scales: list[list[float]] | None = None
    sums: dict[str, float] = field(default_factory=dict)

    def raw(self) -> dict[str, float]:
        """The parts of the loss, normalised, unweighted."""
        return {name: value / self.normaliser for name, value in self.parts.items()}


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """The batch in at most `pieces` micro-batches, as equal as can be, none of them empty."""
    pieces = min(pieces, len(batch))
    ends = [len(batch) * i // pieces for i in range(pieces + 1)]
    return [
        Batch(batch.images[a:b], batch.annotations[a:b], batch.transforms[a:b], batch.ids[a:b], batch.seeds[a:b])
        for a, b in pairwise(ends)
    ]


class Differentiator:
    """Takes the gradient of whole batches; `engine` is lightning-fabric, `weights` scale the parts of the loss.

    The loss of a batch is the sum of its parts over the sum of its normalisers (`models.detector.Loss`). Where it is
    taken in one piece, that is how it is computed; else each micro-batch is divided by the number of images of the
    whole batch, and the gradients are rescaled once the true denominator is known. The loss is computed in float32
    outside of autocast.

    The gradients are summed over all processes once, after the last micro-batch, in an order that does not depend on
    what went before, so that a resumed run takes the same sums to the bit (torch's DistributedDataParallel does not:
    it lays its buckets anew after its first step). `meets` says that the processes meet within a pass, in norms.
    """

    def __init__(
        self, engine: Fabric, detector: Detector, ranks: Ranks, weights: Mapping[str, float], meets: bool = False
    ) -> None:
        self.engine, self.detector, self.ranks, self.weights = engine, detector, ranks, dict(weights)
        self.meets = meets

    def take(
        self, wrapped: nn.Module, batch: Batch, pieces: int, images: int, passes: list[Pass]
    ) -> Totals:  # fmt: skip
        """Leave the gradient of the whole batch of `images` images in the parameters; this process has `batch` of it.

        Each micro-batch is appended to `passes` as soon as its loss is known. fp16's loss scale stays in the gradients.
        """
        pieces = min(pieces, images // self.ranks.count)  # alike in all processes, however many images each has
        parts, whole = cut(batch, pieces), pieces == 1
        truths = [[Truth.of(truth, self.engine.device) for truth in part.annotations] for part in parts]
        counts = self._counts(batch, truths)
        for i, part in enumerate(parts):
            with self._memory_of_all():
                loss = self._forward(wrapped, part, truths[i], counts, passes)
            if i == len(parts) - 1:
                totals = self.totals(passes)
                if not totals.finite:
                    return totals
            denominator = None if whole and self.ranks.alone else totals.normaliser if whole else float(images)
            with self._memory_of_all():
                if self.meets or _finite(loss):
                    self.engine.backward(loss.total(self.weights, denominator))
        if not whole:
            self._rescale(images / totals.normaliser)
        self.ranks.sum_in_place(p.grad for p in self.detector.parameters() if p.grad is not None)
        return totals

    @contextlib.contextmanager
    def _memory_of_all(self) -> Iterator[None]:
        """Where memory runs out in one process, it has run out in all: they must do the step again together."""
        if self.ranks.alone or self.meets:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error
        if self.ranks.any(failure is not None):
            raise failure or MemoryError("out of memory in another process of the run")

    def _counts(self, batch: Batch, truths: Sequence[list[Truth]]) -> Tensor | None:
        """What the means of the whole batch are taken over, where the detector's loss has several."""
        size = (batch.images.shape[3], batch.images.shape[2])
        assert size == self.detector.size  # noqa: S101  # the loop has seen to it
        counts = self.detector.counts([truth for part in truths for truth in part])
        if counts is None:
            return None
        return counts if self.ranks.alone else self.ranks.sum(counts.double().cpu()).to(counts)

    def _forward(
        self, wrapped: nn.Module, part: Batch, truths: list[Truth], counts: Tensor | None, passes: list[Pass]
    ) -> Loss:  # fmt: skip
        raw = Raw(*wrapped(torch.from_numpy(part.images).to(self.engine.device)))
        raw = Raw(raw.offsets.float(), raw.logits.float())
        loss = loss_of(self.detector, raw, truths, counts)
        seen = Loss(
            {name: values.detach() for name, values in loss.parts.items()}, loss.positives, loss.normaliser.detach(),
            loss.negatives, loss.scales, loss.sums,
        )  # fmt: skip
        passes.append(Pass(part, truths, Raw(raw.offsets.detach(), raw.logits.detach()), seen, counts))
        return loss

    def totals(self, passes: Sequence[Pass]) -> Totals:
        """The sums over the micro-batches and all processes."""
        first = passes[0].loss
        names, sums = list(first.parts), list(first.sums)
        rows = [
            torch.cat([
                torch.stack([one.loss.parts[name].sum() for name in names]).double(),
                one.loss.normaliser.sum().double()[None], one.loss.positives.sum(0).double(),
                _counted(one), *(one.loss.sums[name].sum().double()[None] for name in sums),
                *([] if one.loss.scales is None else [one.loss.scales.sum(0).double().flatten()]),
            ])
            for one in passes
        ]  # fmt: skip
        summed = self.ranks.sum(torch.stack(rows).sum(0).cpu()).tolist()
        parts = dict(zip(names, summed, strict=False))
        levels = first.positives.shape[1]
        needed, rest = summed[: len(names) + 1 + levels], summed[len(names) + 1 + levels :]
        finite = all(value == value and abs(value) != float("inf") for value in needed)
        positives = [int(value) if value == value else 0 for value in needed[len(names) + 1 :]]
        counts = dict(zip(COUNTS, map(int, rest[: len(COUNTS)]), strict=True))
        told, scales = rest[len(COUNTS) : len(COUNTS) + len(sums)], rest[len(COUNTS) + len(sums) :]
        said = any(left_out(one.batch.annotations) is not None for one in passes)
        return Totals(
            parts, max(needed[len(names)], 1.0), positives, counts["images"], counts["truths"], finite,
            {name: counts[name] for name in ("small", "cut", "of")} if said else None,
            counts["negatives"] if first.negatives is not None else None,
            [scales[i : i + len(SCALE)] for i in range(0, len(scales), len(SCALE))] or None,
            dict(zip(sums, told, strict=True)),
        )  # fmt: skip

    def _rescale(self, factor: float) -> None:
        gradients = [p.grad for p in self.detector.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)


def _counted(one: Pass) -> Tensor:
    """COUNTS of a micro-batch: of what its augmentation left out too, and of the negatives that were picked."""
    truths = sum(int((~(truth.ignore | truth.crowd)).sum()) for truth in one.batch.annotations)
    filtered = left_out(one.batch.annotations) or (0, 0, 0)
    negatives = 0 if one.loss.negatives is None else int(one.loss.negatives.sum())
    counts = [len(one.batch), truths, *filtered, negatives]
    return torch.tensor(counts, dtype=torch.float64, device=one.loss.normaliser.device)


def _finite(loss: Loss) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in loss.parts.values())


class Keepsake:
    """What a forward pass changes beside the gradients: norm statistics and torch's random state; put back at will."""

    def __init__(self, detector: Detector) -> None:
        kept = set(detector.state_dict())
        self.current: list[Tensor] = [buffer for name, buffer in detector.named_buffers() if name in kept]
        self.before = [buffer.clone() for buffer in self.current]
        self.random = torch.get_rng_state()

    @torch.no_grad()
    def take(self) -> None:
        """Remember the present state."""
        if self.current:
            torch._foreach_copy_(self.before, self.current)
        self.random = torch.get_rng_state()

    @torch.no_grad()
    def put_back(self) -> None:
        """Return to what `take` saw."""
        if self.current:
            torch._foreach_copy_(self.current, self.before)
        torch.set_rng_state(self.random)
