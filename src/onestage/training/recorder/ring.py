"""The last steps in memory: images, seeds, losses, positives, extreme truths, norms."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.records import Annotations, Batch, ImageId
from onestage.training.devices.capacity import resident
from onestage.training.loop.evidence import Evidence


class BoxTable(NamedTuple):
    """The truths of a batch in one table: `boxes` (N, 4), `labels` (N,), rows in the order of the images.

    `counts` (B,) is how many each image has; `ignored` (N,) marks crowds and regions to ignore.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, annotations: Sequence[Annotations]) -> BoxTable:
        """The table of a batch."""
        if not annotations:
            return cls(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int64))
        return cls(
            np.concatenate([one.boxes for one in annotations]),
            np.concatenate([one.labels for one in annotations]),
            np.concatenate([one.ignore for one in annotations]) | np.concatenate([one.crowd for one in annotations]),
            np.array([len(one) for one in annotations]),
        )

    def owner(self, index: int) -> tuple[int, int]:
        """(image, row) of a row of the table."""
        return owner(self.counts, index)


def owner(counts: NDArray[np.int64], index: int) -> tuple[int, int]:
    """Which image, and which of its rows, the truth at `index` is, where images have `counts` truths each."""
    ends = np.cumsum(counts)
    image = int(np.searchsorted(ends, index, side="right"))
    return image, int(index - (ends[image] - counts[image]))


class Extreme(NamedTuple):
    """A truth that stands out: its value in pixels (or as a ratio), its image and its row there."""

    value: float
    image: ImageId
    row: int


@dataclass
class Entry:
    """One step: per image the ids, seeds, parts of the loss (raw sums), positives (n, L) and counts of truths."""

    step: int
    epoch: int
    loss: float
    ids: tuple[ImageId, ...]
    seeds: tuple[int, ...]
    parts: dict[str, NDArray[np.float32]]
    positives: NDArray[np.int64]
    truths: NDArray[np.int64]
    extremes: dict[str, Extreme]
    lr: dict[str, float]
    grad_norm: float | None
    update_norm: float | None
    scale: float | None
    size: tuple[int, int]
    memory: dict[str, int]
    decision: str = "go"
    seconds: dict[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The step in one flat line, without its images."""
        return {
            "step": self.step, "epoch": self.epoch, "loss": self.loss if self.parts else None, "images": len(self.ids),
            "truths": int(self.truths.sum()), "positives": int(self.positives.sum()),
            "positives_per_level": self.positives.sum(0).tolist(), "grad_norm": self.grad_norm,
            "update_norm": self.update_norm, "lr": max(self.lr.values(), default=0.0), "scale": self.scale,
            "size": list(self.size), "memory": self.memory, "decision": self.decision, "seconds": self.seconds,
            "extremes": {name: list(extreme) for name, extreme in self.extremes.items()},
        }  # fmt: skip

    def images(self) -> list[dict[str, Any]]:
        """A line for each image: id, seed, truths, positives per level, raw sums of the parts of its loss."""
        return [
            {
                "image": self.ids[i], "seed": self.seeds[i], "truths": int(self.truths[i]),
                "positives_per_level": self.positives[i].tolist(),
                "loss": {name: float(part[i]) for name, part in self.parts.items()},
            }
            for i in range(len(self.ids))
        ]  # fmt: skip


class Ring:
    """The last `steps` entries; older ones are forgotten."""

    def __init__(self, steps: int) -> None:
        self.entries: deque[Entry] = deque(maxlen=steps)

    def add(self, evidence: Evidence, batches: Sequence[Batch], tables: Sequence[BoxTable]) -> Entry:
        """Keep a step; one copy from the device. `batches` are those of its passes, `tables` their truths."""
        while self.entries and self.entries[-1].step >= evidence.step:  # the step is done again, after a rollback
            self.entries.pop()
        entry = entry_of(evidence, batches, tables)
        self.entries.append(entry)
        return entry

    def last(self, count: int, before: int | None = None) -> list[Entry]:
        """The last `count` entries, the newest last; only those of steps before `before` where it is given."""
        kept = [entry for entry in self.entries if before is None or entry.step < before]
        return kept[-count:]


def entry_of(evidence: Evidence, batches: Sequence[Batch], tables: Sequence[BoxTable]) -> Entry:
    """What the ring keeps of a step."""
    ids = tuple(image_id for batch in batches for image_id in batch.ids)
    parts, positives = _on_the_host(evidence, len(ids))
    counts = [table.counts for table in tables]
    return Entry(
        evidence.step, evidence.epoch, evidence.loss, ids, tuple(seed for batch in batches for seed in batch.seeds),
        parts, positives, np.concatenate(counts) if counts else np.zeros(0, np.int64), extremes(tables, ids),
        dict(evidence.lr), evidence.grad_norm, evidence.update_norm, evidence.scale, evidence.size, memory(evidence),
    )  # fmt: skip


def _on_the_host(evidence: Evidence, images: int) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """Parts {name: (n,)} and positives (n, L) over all passes, in one copy."""
    if not evidence.passes:
        return {}, np.zeros((images, 0), np.int64)
    losses = [one.loss for one in evidence.passes]
    names = list(losses[0].parts)
    columns = [torch.stack([loss.parts[name].float() for name in names], 1) for loss in losses]
    wide = [torch.cat([values, loss.positives.float()], 1) for values, loss in zip(columns, losses, strict=True)]
    table = (wide[0] if len(wide) == 1 else torch.cat(wide)).cpu().numpy()
    return {name: table[:, i] for i, name in enumerate(names)}, table[:, len(names) :].astype(np.int64)


def extremes(tables: Sequence[BoxTable], ids: Sequence[ImageId]) -> dict[str, Extreme]:
    """The truth of the shortest side, of the longest, and of the largest ratio of its sides (above 0)."""
    boxes = np.concatenate([table.boxes for table in tables]) if tables else np.zeros((0, 4))
    if not len(boxes):
        return {}
    counts = np.concatenate([table.counts for table in tables])
    with np.errstate(all="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]
        short, long = sides.min(1), sides.max(1)
        aspect = np.where(short > 0, long / short, 0)
    found = {}
    for name, values, index in (
        ("shortest side", short, int(short.argmin())),
        ("longest side", long, int(long.argmax())),
        ("largest aspect", aspect, int(aspect.argmax())),
    ):
        image, row = owner(counts, index)
        found[name] = Extreme(float(values[index]), ids[image], row)
    return found


def memory(evidence: Evidence) -> dict[str, int]:
    """Bytes of this process in memory ("rss"), and those its tensors hold on the GPU ("cuda") where there is one."""
    found = {"rss": resident()}
    if evidence.passes and evidence.passes[0].raw.offsets.is_cuda:
        found["cuda"] = torch.cuda.memory_allocated(evidence.passes[0].raw.offsets.device)
    return found
