"""Whether an engine answers like the detector it was made from, on a picture that anyone can make."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from onestage.deploy.engines.engine import Engine
from onestage.errors import ExportError
from onestage.models.detector import Detector
from onestage.models.inference import TorchPredictor, size_kept

# Engines sum in other orders than torch, no more: in float32 scores agree to about 1e-6.
SCORES, BOXES = 1e-4, 1e-3
# Below float32 scores differ by a few hundredths; one engine ran a graph in integers wrongly, and was far beyond this.
COARSE_SCORES = 0.25


@dataclass(frozen=True)
class Difference:
    """The largest differences of an engine's answers from the detector's in float32, over all places.

    `scores` absolute, `boxes` in shares of the longer side of the box; `pixels` is the mean, in pixels of the input,
    of the largest difference of each box.
    """

    scores: float
    boxes: float
    pixels: float

    def __str__(self) -> str:
        return f"scores are at most {self.scores:.2g} from torch's in fp32, boxes {self.pixels:.2g} pixels on average"

    def as_dict(self) -> dict[str, float]:
        """Its three numbers by name."""
        return asdict(self)


def made_up(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (1, 3, H, W) of stripes, edges and colours at `size` (width, height), the same everywhere."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    planes = [(x * 3 + y * 5) % 256, (x * 7 + y * 2) % 256, (x * y) % 256]
    return np.stack(planes).astype(np.uint8)[None]


def difference(engine: Engine, detector: Detector, size: tuple[int, int]) -> Difference:
    """How far `engine` is from `detector` in float32 on the made-up picture."""
    images = np.ascontiguousarray(made_up(size).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    training = detector.training
    try:
        with size_kept(detector):
            truth_boxes, truth_scores = TorchPredictor(detector)(images)
    finally:
        detector.train(training)
    boxes, scores = engine(images)
    if boxes.shape != truth_boxes.shape or scores.shape != truth_scores.shape:
        raise ExportError(
            f"the graph does not answer like the model: boxes {boxes.shape} for {truth_boxes.shape}, "
            f"scores {scores.shape} for {truth_scores.shape}"
        )
    apart = np.abs(boxes - truth_boxes).max(-1)
    longer = np.maximum((truth_boxes[..., 2:] - truth_boxes[..., :2]).max(-1), 1)
    if not apart.size:
        return Difference(0.0, 0.0, 0.0)
    return Difference(float(np.abs(scores - truth_scores).max()), float((apart / longer).max()), float(apart.mean()))


def refuse_apart(found: Difference, name: str, precision: str = "fp32") -> None:
    """ExportError where an engine is farther from the detector than rounding in its precision can bring it."""
    exact = precision == "fp32"
    scores = SCORES if exact else COARSE_SCORES
    if found.scores <= scores and (found.boxes <= BOXES or not exact):  # NaN is not
        return
    problems = [f"scores differ by {found.scores:.3g}, allowed are {scores:g}"]
    if exact:
        problems.append(f"boxes differ by {found.boxes:.3g} of their longer side, allowed are {BOXES:g}")
    raise ExportError(
        f"{name} precision={precision} does not answer like the model on the test picture", problems=problems,
        hint="engine=torch" if exact else "precision=fp32",
    )  # fmt: skip
