"""The augmentation of darknet: jittered aspect, placed at random on grey, hue, saturation, exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.data.images import Colour, Fit, Pixels, Size, Window, view
from onestage.data.mirror import AS_IT_IS, Swap, mirrored
from onestage.data.parameters import shares
from onestage.data.photometric import exposed
from onestage.data.policy import Others, Picture, Sample
from onestage.data.views import moved
from onestage.records import Annotations, FloatArray

GREY: Colour = (127, 127, 127)
"""What darknet fills its canvas with: half of white."""

WHOLE = (1.0, 1.0)


@dataclass(frozen=True)
class AspectJitter:
    """The augmentation of darknet's detectors: the whole image, its aspect jittered, somewhere on a grey canvas.

    Width and height of the image are each changed by up to `jitter` of themselves, which gives a new aspect; with it
    the image fills the network's longer extent (its width for an aspect of 1 and more, else its height) and lies at a
    random place of the rest. Then hue turns by up to `hue` of the colour circle either way, saturation and exposure
    are multiplied, or as often divided, by up to as much as they say, the grey ground with them; with probability
    `flip` all is mirrored. Boxes are cut at the border and stay whatever shows, down to a thousandth of a side.

    `crop` takes AlexeyAB's jitter instead: each side of the image is moved in or out by up to `jitter` of the image's
    extent, and by `resize` (1.5: zoomed by up to 1.5 either way); what lies within fills the input.

    `fit` squash means that the image is first stretched to the network's proportions, and then treated as above.
    `swap` exchanges classes where the picture is mirrored.

    Source: darknet (Redmon), data.c, load_data_detection and fill_truth_detection; AlexeyAB/darknet, data.c. There the
    image is resized to fractions of pixels; ours to whole ones, by areas where it shrinks to half or less. On a network
    that is not square theirs and ours may cut the image, for it is the aspect 1 that divides wide from high. Where
    AlexeyAB pads a crop it takes the image's mean colour or its border; ours `fill`. Truths are kept however many.
    """

    jitter: float = 0.3
    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5
    flip: float = 0.5
    crop: bool = False
    resize: float = 1.0
    swap: Swap = AS_IT_IS
    fit: Fit = "letterbox"
    fill: Colour = GREY

    def __post_init__(self) -> None:
        shares(self, "flip")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"AspectJitter.jitter: expected 0 or more and less than 1, got {self.jitter:g}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"AspectJitter.hue: expected 0 to 0.5 of the colour circle, got {self.hue:g}")
        for name in ("saturation", "exposure", "resize"):
            if getattr(self, name) < 1:
                raise ValueError(f"AspectJitter.{name}: expected 1 or more, got {getattr(self, name):g}")
        if self.resize > 1 and not self.crop:
            raise ValueError("AspectJitter.resize: belongs to crop=true")
        if self.crop and 2 * self.jitter * self.resize >= 1:
            raise ValueError("AspectJitter: with jitter and resize so large a crop may have no width left")

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """One sample; `others` is not used."""
        return self.part((image, annotations), rng, size, size, WHOLE)

    def part(
        self, picture: Picture, rng: np.random.Generator, size: Size, shown_size: Size, scale: tuple[float, float]
    ) -> Sample:
        """A sample of `shown_size` with the image as large as in a whole sample of `size`, times one of `scale`."""
        image, annotations = picture
        draws = rng.random(8)
        times = float(np.exp(rng.uniform(*np.log(scale)))) if scale != WHOLE else 1.0
        turn, vivid, exposure = self._colours(rng)
        mirror = bool(rng.random() < self.flip)
        shape = image.shape[1], image.shape[0]
        window = self.cropped if self.crop else self.placed
        shown, transform = view(
            image, window(shape, size, shown_size, times, draws), shown_size, self._ground(turn, vivid, exposure),
            mirror=mirror, paint=lambda part: exposed(part, turn, vivid, exposure),
        )  # fmt: skip
        least = size[0] / 1000, size[1] / 1000
        found = moved(annotations, transform, shown_size, visible=0.0, least=least)
        return Sample(shown, mirrored(found, self.swap) if mirror else found, transform)

    def placed(self, shape: Size, size: Size, shown_size: Size, times: float, draws: FloatArray) -> Window:
        """The window for an image of `shape` whose aspect `draws` (in 0 … 1) jitter, and which they place."""
        width, height = shape
        wide, high = (width, height) if self.fit == "letterbox" else size
        aspect = (wide * self._jittered(draws[0])) / (high * self._jittered(draws[1]))
        across, down = (size[1] * aspect, float(size[1])) if aspect < 1 else (float(size[0]), size[0] / aspect)
        across, down = across * times, down * times
        left, top = (shown_size[0] - across) * draws[2], (shown_size[1] - down) * draws[3]
        x, y = width / across, height / down
        return -left * x, -top * y, (shown_size[0] - left) * x, (shown_size[1] - top) * y

    def cropped(self, shape: Size, size: Size, shown_size: Size, times: float, draws: FloatArray) -> Window:
        """The window of AlexeyAB's jitter; where only a part is shown, somewhere within it."""
        width, height = shape
        zoomed = (1 - self.resize) / 2 + (self.resize - 1 / self.resize) / 2 * draws[4:6]
        left, top = (2 * draws[:2] - 1) * self.jitter + zoomed[0]
        right, bottom = (2 * draws[2:4] - 1) * self.jitter + zoomed[1]
        x0, y0, x1, y1 = left * width, top * height, (1 - right) * width, (1 - bottom) * height
        if self.fit == "letterbox":  # the image is framed with its own proportions, whatever the crop's are
            more = width / height / (size[0] / size[1])
            across, down = max(0.0, width / more - width) / 2, max(0.0, height * more - height) / 2
            x0, y0, x1, y1 = x0 - across, y0 - down, x1 + across, y1 + down
        wide, high = (x1 - x0) * shown_size[0] / size[0] / times, (y1 - y0) * shown_size[1] / size[1] / times
        x0, y0 = x0 + (x1 - x0 - wide) * draws[6], y0 + (y1 - y0 - high) * draws[7]
        return x0, y0, x0 + wide, y0 + high

    def _jittered(self, draw: float) -> float:
        return 1 + self.jitter * (2 * draw - 1)

    def _colours(self, rng: np.random.Generator) -> tuple[float, float, float]:
        turn, (vivid, bright), up = rng.uniform(-self.hue, self.hue), rng.random(2), rng.random(2) < 0.5
        factors = 1 + (self.saturation - 1) * vivid, 1 + (self.exposure - 1) * bright
        vivid, bright = (factor if times else 1 / factor for factor, times in zip(factors, up, strict=True))
        return float(turn), float(vivid), float(bright)

    def _ground(self, turn: float, vivid: float, exposure: float) -> Colour:
        """`fill` as it looks after the change of colours, which darknet makes of the whole canvas."""
        red, green, blue = exposed(np.array([[self.fill]], np.uint8), turn, vivid, exposure)[0, 0].tolist()
        return red, green, blue
