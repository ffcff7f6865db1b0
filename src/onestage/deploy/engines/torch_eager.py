"""The engine `torch`: the network as torch runs it, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.boxes.offsets import Coding
from onestage.deploy.engines.engine import Engine, Floats
from onestage.models.detector import Detector
from onestage.models.inference import HALVES, shortage_told
from onestage.models.served import Served


class TorchEngine(Engine):
    """A served network with channels last in memory, without gradients, in float32 or bfloat16."""

    name = "torch"

    def __init__(self, network: Served, coding: Coding, precision: str = "fp32", device: str = "cpu") -> None:
        super().__init__(coding)
        self.device = torch.device(device)
        kind = HALVES.get(precision, torch.float32)
        mean, std = network.mean, network.std
        self.network: Served = network.to(device=self.device, dtype=kind, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        # Pixels are normalised in float32, whatever comes after.
        self.network.mean, self.network.std, self.network.kind = mean.to(self.device), std.to(self.device), kind

    def run(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Engine`; ModelError where there is too little memory."""
        with shortage_told(images.shape[0], images.shape[2], images.shape[1]), torch.inference_mode():
            offsets, scores = self.network(torch.from_numpy(images).to(self.device))
            return offsets.cpu().numpy(), scores.cpu().numpy()


def torch_engine(
    detector: Detector, precision: str, threads: int | None, device: str | None, calibration: Sequence[Any]
) -> TorchEngine:
    """The detector in torch; `threads` counts for all of torch in this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    engine = TorchEngine(detector.served(), detector.coding(), precision, device or "cpu")
    if engine.device.type == "cpu":
        engine.network.quickened(detector.size)
    return engine
