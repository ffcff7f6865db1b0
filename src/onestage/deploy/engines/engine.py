"""What all engines share: offsets and scores of a network made into boxes, all or the few that matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.offsets import Coding
from onestage.errors import ModelError

Floats = NDArray[np.float32]


class Engine(ABC):
    """A network in some runtime, as a Predictor of `deploy.predict`: all boxes and scores of a batch of images.

    `coding` says how its offsets become boxes; the priors of the last sizes are kept. `size` is the one input size it
    takes, None where it takes all the model does. `difference` says how far the answers were from the detector's in
    float32 when the graph was made, None where there was nothing to compare.
    """

    name: str
    size: tuple[int, int] | None = None
    difference: str | None = None

    def __init__(self, coding: Coding) -> None:
        self.boxes, self.priors = coding.boxes, lru_cache(maxsize=32)(coding.priors)

    @abstractmethod
    def run(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Offsets (B, P, 4) and scores (B, P, C) of RGB images (B, H, W, 3)."""

    def __call__(self, images: NDArray[Any]) -> tuple[Floats, Floats]:
        """Boxes (B, P, 4) xyxy in pixels of the input and scores (B, P, C) of uint8 RGB images (B, 3, H, W)."""
        offsets, scores, priors = self._answer(images)
        return self.boxes(offsets, priors), scores

    def candidates(self, images: NDArray[Any], score: float) -> list[tuple[Floats, Floats]]:
        """For each image its boxes (N, 4) and scores (N, C) with `score` or more for some class, in order of priors.

        As `__call__`, but only these few are decoded. Raises ModelError where scores are not finite.
        """
        offsets, scores, priors = self._answer(images)
        if not np.isfinite(scores).all():
            raise ModelError("the network's answers are not finite numbers", hint="other weights: these are damaged")
        found = []
        for offset, values in zip(offsets, scores, strict=True):
            highest = values[:, 0] if values.shape[1] == 1 else values.max(1)
            rows = np.flatnonzero(highest >= score)
            found.append((self.boxes(offset[rows], priors[rows]), values[rows]))
        return found

    def _answer(self, images: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
        """What `run` says of images whose channels come first, and the priors of their size.

        With channels last in memory there is no copy.
        """
        if self.size is not None and _size(images) != self.size:
            (width, height), (given_width, given_height) = self.size, _size(images)
            raise ModelError(
                f"engine={self.name} runs this model at {width}x{height} alone, got {given_width}x{given_height}",
                hint="engine=torch, or fit=squash or fit=letterbox",
            )
        priors = self.priors(_size(images))  # first: they know the sizes that the model takes
        return *self.run(np.ascontiguousarray(images.transpose(0, 2, 3, 1))), priors


def _size(images: NDArray[Any]) -> tuple[int, int]:
    return images.shape[3], images.shape[2]
