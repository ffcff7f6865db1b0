"""The loss of a YOLO network by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from onestage.errors import ModelError
from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Loss, Raw, Truth


def scales_of(network: Architecture) -> Any:
    """What the cfg says of the loss of each level."""
    return None


def yolo_loss(
    raw: Raw, truths: Sequence[Truth], at: Geometry, options: YoloOptions, scales: Any, whole: Tensor | None = None
) -> Loss:
    """The loss of a batch."""
    raise ModelError("this loss cannot be computed yet")


def yolo_prior_losses(
    raw: Raw, truths: Sequence[Truth], at: Geometry, options: YoloOptions, scales: Any, whole: Tensor | None = None
) -> dict[str, Tensor]:
    """The loss of each box."""
    raise ModelError("this loss cannot be computed yet")


def yolo_counts(truths: Sequence[Truth], at: Geometry, options: YoloOptions) -> Tensor | None:
    """What means are taken over."""
    return None


def yolo_match(truths: Sequence[Truth], at: Geometry, options: YoloOptions) -> Tensor:
    """Which box answers for which truth."""
    raise ModelError("this loss cannot be computed yet")


def yolo_terms(
    raw: Raw, truths: Sequence[Truth], image: int, prior: int, at: Geometry, options: YoloOptions, scales: Any,
    whole: Tensor | None = None,
) -> dict[str, float]:  # fmt: skip
    """The terms of one box."""
    raise ModelError("this loss cannot be computed yet")
