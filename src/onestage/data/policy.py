"""What an augmentation policy is: image and boxes in, a training sample out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from onestage.data.images import Fit, Pixels, Size
from onestage.records import Annotations, ImageTransform

Picture = tuple[Pixels, Annotations]
Others = Callable[[np.random.Generator], Picture]


class Sample(NamedTuple):
    """What a policy makes: image uint8 RGB (H, W, 3) at network size, annotations in its pixels, and how it came so.

    The transform of a mirrored image has a negative scale. Of a transposed image it speaks of the transposed one; of
    a mosaic, of the quadrant that shows the image itself.
    """

    image: Pixels
    annotations: Annotations
    transform: ImageTransform


class Policy(Protocol):
    """A way to turn an image with its boxes into a training sample, by chance drawn from `rng` alone."""

    @property
    def fit(self) -> Fit:
        """Whether the whole image is squashed to the network's size, or keeps its proportions."""

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """A sample at `size` (width, height); `others` hands out further pictures of the set to those who mix."""
