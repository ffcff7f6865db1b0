"""A detector that answers: images as bytes in, all its boxes and scores out, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.models.detector import Detector, Raw

# Half precisions by the recipe's names.
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPredictor:
    """Calls a detector without gradients: uint8 RGB (B, 3, H, W) → boxes (B, P, 4) and scores (B, P, C), float32.

    Boxes are xyxy in pixels of the input. `precision` "bf16" or "fp16" runs the network (never the decoding) in
    that type.
    """

    def __init__(self, detector: Detector, precision: str = "fp32") -> None:
        self.detector = detector.eval()
        self.type = HALVES.get(precision)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self.detector.size

    def __call__(self, images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The answer for a batch; see the class."""
        return self.decoded(self.raw(images))

    def raw(self, images: NDArray[Any]) -> Raw:
        """What the heads say of a batch, in float32."""
        device = next(self.detector.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, self.type, enabled=self.type is not None):
            raw = self.detector(torch.from_numpy(images).to(device))
        return Raw(raw.offsets.float(), raw.logits.float())

    def decoded(self, raw: Raw) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes and scores of a raw answer."""
        with torch.inference_mode():
            boxes, scores = self.detector.decode(raw)
        return boxes.cpu().numpy(), scores.cpu().numpy()
