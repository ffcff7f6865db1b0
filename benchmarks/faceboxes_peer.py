"""The whole path of zisianw/FaceBoxes.PyTorch as its test.py goes, from a checkout of it: nothing of it lies here."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

SCORE, TOP, OVERLAP, KEPT = 0.05, 5000, 0.3, 750


class Peer:
    """From JPEG bytes to boxes (N, 4) and scores (N,), with the CPU seconds of each part.

    The order and thresholds of its test.py with resize 1; its network in eager float32, its priors, decoding and NMS in
    numpy (`py_cpu_nms`, as the compiled one must be built first).
    """

    def __init__(self, checkout: Path, weights: dict[str, torch.Tensor]) -> None:
        sys.path.insert(0, str(checkout))
        try:
            network = _module(checkout / "models" / "faceboxes.py").FaceBoxes("test", None, 2)
            self.config = _module(checkout / "data" / "config.py").cfg
            self.priors = _module(checkout / "layers" / "functions" / "prior_box.py").PriorBox
            self.decode = _module(checkout / "utils" / "box_utils.py").decode
            self.nms = _module(checkout / "utils" / "nms" / "py_cpu_nms.py").py_cpu_nms
        finally:
            sys.path.remove(str(checkout))
        network.load_state_dict(weights)
        self.network = network.eval()

    @torch.no_grad()
    def __call__(self, jpeg: bytes) -> tuple[NDArray[Any], NDArray[Any], dict[str, float]]:
        begin = time.process_time()
        raw = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        decoded = time.process_time()
        pixels = np.float32(raw)
        height, width = pixels.shape[:2]
        scale = torch.Tensor([width, height, width, height])
        pixels -= (104, 117, 123)
        loc, conf = self.network(torch.from_numpy(pixels.transpose(2, 0, 1)).unsqueeze(0))
        answered = time.process_time()
        priors = self.priors(self.config, image_size=(height, width)).forward()
        boxes = (self.decode(loc.squeeze(0), priors, self.config["variance"]) * scale).numpy()
        scores = conf.squeeze(0).numpy()[:, 1]
        rows = np.where(scores > SCORE)[0]
        rows = rows[scores[rows].argsort()[::-1][:TOP]]
        found = np.hstack((boxes[rows], scores[rows, None])).astype(np.float32, copy=False)
        kept = found[self.nms(found, OVERLAP)][:KEPT]
        done = time.process_time()
        return (
            kept[:, :4],
            kept[:, 4],
            {"jpeg": decoded - begin, "network": answered - decoded, "boxes": done - answered},
        )


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
