"""A detector that answers: images as bytes in, all its boxes and scores out, as numpy arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.models.detector import Detector, Raw


class TorchPredictor:
    """Calls a detector without gradients: uint8 RGB (B, 3, H, W) → boxes (B, P, 4) and scores (B, P, C), float32.

    Boxes are xyxy in pixels of the input. `precision` "bf16" runs the network (never the decoding) in bfloat16.
    """

    def __init__(self, detector: Detector, precision: str = "fp32") -> None:
        self.detector = detector.eval()
        self.bf16 = precision == "bf16"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self.detector.size

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The raw answer for a batch; see the class."""
        device = next(self.detector.parameters()).device
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                raw = self.detector(x)
            boxes, scores = self.detector.decode(Raw(raw.offsets.float(), raw.logits.float()))
        return boxes.cpu().numpy(), scores.cpu().numpy()
