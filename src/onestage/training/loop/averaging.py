"""The running average of the weights (EMA): what is judged and saved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from onestage.models.detector import Detector


class Averaged:
    """Running average of the weights.

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
