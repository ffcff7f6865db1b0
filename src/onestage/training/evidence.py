"""What one step leaves behind for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

from onestage.models.detector import Loss, Raw, Truth
from onestage.records import Batch


@dataclass
class Pass:
    """One micro-batch: its images, their truths on the device, predictions (detached, float32) and loss (detached)."""

    batch: Batch
    truths: list[Truth]
    raw: Raw
    loss: Loss


@dataclass
class Evidence:
    """One optimiser step, before or after it is done.

    `step` is its number from 1. `raw` and `weighted` are the parts of the loss over the whole batch, of all ranks;
    `passes` are this process's. `grad_norm` is None where the loss is not finite, so that there was no backward pass;
    `size` is (width, height) of the input, `scale` the loss scale of fp16, `update_norm` the norm of what the weights
    moved by, where it was measured.
    """

    step: int
    epoch: int
    passes: list[Pass]
    loss: float
    raw: dict[str, float]
    weighted: dict[str, float]
    positives_per_level: list[int]
    images: int
    lr: dict[str, float]
    grad_norm: float | None
    size: tuple[int, int]
    scale: float | None = None
    update_norm: float | None = None
