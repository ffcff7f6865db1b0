"""Named augmentation policies: joint on image and boxes, one resize, drawn from a given generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from onestage.data.aspect_jitter import AspectJitter
from onestage.data.crops import expanded, overlapping_crop
from onestage.data.face_crops import FaceCrops
from onestage.data.images import MEAN_COLOUR, Colour, Fit, Pixels, Size, Window, frame, view
from onestage.data.mirror import AS_IT_IS, Swap, mirrored
from onestage.data.parameters import changed, shares, spans
from onestage.data.photometric import Photometric
from onestage.data.policy import Others, Picture, Policy, Sample
from onestage.data.views import joined, moved
from onestage.errors import RecipeError, did_you_mean
from onestage.records import Annotations, ImageTransform

MILD = Photometric(24.0, (0.7, 1.3), (0.7, 1.3), 16.0, channel_swap=False)
"""Colours as they vary between photographs of one kind."""


@dataclass(frozen=True)
class Plain:
    """No augmentation: the whole image at network size, as the judge sees it."""

    fit: Fit = "squash"
    fill: Colour = MEAN_COLOUR

    def __call__(
        self, image: Pixels, annotations: Annotations, rng: np.random.Generator, size: Size,
        others: Others | None = None,
    ) -> Sample:  # fmt: skip
        """The whole image; nothing is drawn from `rng`."""
        window = frame((image.shape[1], image.shape[0]), size, self.fit)
        shown, transform = view(image, window, size, self.fill)
        return Sample(shown, moved(annotations, transform, size, visible=0.0), transform)


@dataclass(frozen=True)
class SSD:
    """The augmentation of SSD: colours, zooming out, a crop that overlaps objects, mirror.

    With probability `expand` the image lies on a canvas up to `ratio` times as large. Then one of seven ways is
    drawn: all of it; a crop with IoU of at least .1, .3, .5, .7 or .9 with some box; any crop. A crop has sides of
    `sides` of the canvas and an aspect of .5 … 2, and holds the centre of at least one box; after 50 tries in vain
    another way is drawn, after `rounds` ways all is taken. Boxes whose centre lies inside stay, cut at the border.
    Images without boxes are cropped freely.

    Source: Liu et al. 2016, sections 2.2 and 3.6, and the Caffe release, whose samplers include .5. lufficc/SSD leaves
    .5 out, tries for ever, and paints the enlarged canvas before cutting it; ours joins the steps into one window and
    one resize. Boxes that do not count (`ignore`, `crowd`) do not steer the crop, and stay while any part shows.
    """

    photometric: Photometric = field(default_factory=Photometric)
    expand: float = 0.5
    ratio: tuple[float, float] = (1.0, 4.0)
    overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    sides: tuple[float, float] = (0.3, 1.0)
    rounds: int = 10
    mirror: float = 0.5
    swap: Swap = AS_IT_IS
    fit: Fit = "squash"
    fill: Colour = MEAN_COLOUR

    def __post_init__(self) -> None:
        shares(self, "expand", "mirror", "overlaps", "sides")
        spans(self, "sides", "ratio")

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """One sample; `others` is not used."""
        counted = annotations.boxes[~(annotations.ignore | annotations.crowd)]
        canvas = expanded(image.shape[1], image.shape[0], self.ratio if rng.random() < self.expand else (1.0, 1.0), rng)
        window = overlapping_crop(counted, canvas, rng, self.overlaps, self.sides, self.rounds)
        window = _framed(window, size, self.fit)
        mirror = bool(rng.random() < self.mirror)
        shown, transform = view(
            image, window, size, self.fill, mirror=mirror, paint=lambda part: self.photometric(part, rng)
        )
        found = moved(annotations, transform, size)
        return Sample(shown, mirrored(found, self.swap) if mirror else found, transform)


@dataclass(frozen=True)
class Zoom:
    """A gentle policy for small sets: a window of jittered size, aspect and place, mirror, mild colours.

    The window is the whole image divided by a magnification drawn from `scale`, stretched by `aspect` (both even in
    the logarithm); it lies anywhere within the image, or, where it is larger, anywhere around it. Boxes stay when
    their centre or at least `visible` of their area shows. `upside_down` and `transpose` are probabilities, for
    pictures without a below, such as aerial ones. `swap` exchanges classes where the picture is mirrored left to
    right, by that alone.
    """

    photometric: Photometric = field(default_factory=lambda: MILD)
    scale: tuple[float, float] = (0.6, 1.4)
    aspect: tuple[float, float] = (0.8, 1.25)
    mirror: float = 0.5
    upside_down: float = 0.0
    transpose: float = 0.0
    swap: Swap = AS_IT_IS
    visible: float = 0.4
    fit: Fit = "squash"
    fill: Colour = MEAN_COLOUR

    def __post_init__(self) -> None:
        spans(self, "scale", "aspect")
        shares(self, "mirror", "upside_down", "transpose", "visible")

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """One sample; `others` is not used."""
        return self.part((image, annotations), rng, size, size, self.scale)

    def part(
        self, picture: Picture, rng: np.random.Generator, size: Size, shown_size: Size, scale: tuple[float, float]
    ) -> Sample:
        """A sample of `shown_size` that shows as much as such a part of a whole sample of `size` would."""
        image, annotations = picture
        if self.transpose and rng.random() < self.transpose:
            image = np.asarray(cv2.transpose(image), np.uint8)
            annotations = replace(annotations, boxes=annotations.boxes[:, [1, 0, 3, 2]])
        width, height = image.shape[1], image.shape[0]
        x0, y0, x1, y1 = frame((width, height), size, self.fit)
        magnified, stretched = (np.exp(rng.uniform(*np.log(span))) for span in (scale, self.aspect))
        wide = (x1 - x0) * shown_size[0] / size[0] / magnified * np.sqrt(stretched)
        high = (y1 - y0) * shown_size[1] / size[1] / magnified / np.sqrt(stretched)
        left = rng.uniform(min(0.0, width - wide), max(0.0, width - wide))
        top = rng.uniform(min(0.0, height - high), max(0.0, height - high))
        mirror, upside_down = rng.random(2) < (self.mirror, self.upside_down)
        shown, transform = view(
            image, (left, top, left + wide, top + high), shown_size, self.fill,
            mirror=bool(mirror), upside_down=bool(upside_down), paint=lambda part: self.photometric(part, rng),
        )  # fmt: skip
        found = moved(annotations, transform, shown_size, self.visible)
        return Sample(shown, mirrored(found, self.swap) if mirror else found, transform)


@dataclass(frozen=True)
class Mosaic:
    """Four pictures in one sample, each a window as `zoom` draws it; with 1 - `probability` a plain `zoom` sample.

    The quadrants meet at a point drawn within `centre` of each side. `scale` is the magnification inside a mosaic.
    `zoom` is the policy zoom or, with {policy: darknet}, darknet's.

    Source: Bochkovskiy et al. 2020 (YOLOv4), section 3.3. There and in its successors a canvas of twice the size is
    made, warped and cut; ours resizes each quadrant once, straight to its place.
    """

    zoom: Zoom | AspectJitter = field(default_factory=Zoom)
    probability: float = 0.5
    centre: tuple[float, float] = (0.3, 0.7)
    scale: tuple[float, float] = (0.4, 1.2)

    def __post_init__(self) -> None:
        shares(self, "probability", "centre")
        spans(self, "centre", "scale")

    @property
    def fit(self) -> Fit:
        """That of `zoom`."""
        return self.zoom.fit

    @property
    def swap(self) -> Swap:
        """That of `zoom`."""
        return self.zoom.swap

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """One sample; without `others` always that of `zoom`."""
        if others is None or rng.random() >= self.probability:
            return self.zoom(image, annotations, rng, size)
        width, height = size
        x, y = (min(max(1, round(side * rng.uniform(*self.centre))), side - 1) for side in size)
        grounds = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        canvas = np.empty((height, width, 3), np.uint8)
        truths, own = [], None
        for i, place in enumerate(rng.permutation(4).tolist()):
            left, top, right, bottom = grounds[place]
            picture = (image, annotations) if i == 0 else others(rng)
            sample = self.zoom.part(picture, rng, size, (right - left, bottom - top), self.scale)
            canvas[top:bottom, left:right] = sample.image
            truth = sample.annotations
            truths.append(replace(truth, boxes=truth.boxes + np.array([left, top, left, top])))
            t = sample.transform
            own = own or ImageTransform(t.scale_x, t.scale_y, t.pad_x + left, t.pad_y + top)
        return Sample(canvas, joined(truths), own or ImageTransform())


POLICIES: dict[str, type[Plain] | type[SSD] | type[Zoom] | type[Mosaic] | type[FaceCrops] | type[AspectJitter]] = {
    "none": Plain,
    "ssd": SSD,
    "zoom": Zoom,
    "mosaic": Mosaic,
    "faceboxes": FaceCrops,
    "darknet": AspectJitter,
}
"""Every policy by the name a recipe gives it."""

INNER: dict[str, type[Zoom] | type[AspectJitter]] = {"zoom": Zoom, "darknet": AspectJitter}
"""The policies that may draw the quadrants of a mosaic."""


def augmentation(name: str, **overrides: Any) -> Policy:
    """The policy of that name, with parameters changed; a nested part takes a mapping of its own parameters.

    Raises RecipeError naming every unknown word and every value out of range, e.g. for
    `augmentation("zoom", scale=(0.8, 1.2), photometric={"hue": 0})`.
    """
    if name not in POLICIES:
        raise RecipeError(
            f"unknown augmentation {name!r}{did_you_mean(name, POLICIES)}", hint=f"one of {', '.join(POLICIES)}"
        )
    policy = POLICIES[name]()
    if isinstance(policy, Mosaic) and ("zoom" in overrides or "swap" in overrides):
        policy, overrides = _with_inner(policy, overrides)
    return changed(policy, overrides, f"augmentation {name!r}")


def _with_inner(policy: Mosaic, overrides: Mapping[str, Any]) -> tuple[Mosaic, dict[str, Any]]:
    """The mosaic with the policy that `zoom` names, and what remains to be changed; `swap` goes to that policy."""
    zoom = overrides.get("zoom", {})
    told = {"policy": zoom} if isinstance(zoom, str) else dict(zoom) if isinstance(zoom, Mapping) else {}
    inner = told.pop("policy", "zoom")
    if inner not in INNER:
        raise RecipeError(
            f"augmentation 'mosaic', zoom: unknown policy {inner!r}{did_you_mean(str(inner), INNER)}",
            hint=f"one of {', '.join(INNER)}",
        )
    rest = {**told, **{key: overrides[key] for key in overrides if key == "swap"}}
    others = {key: value for key, value in overrides.items() if key != "swap"}
    return replace(policy, zoom=INNER[inner]()), {**others, "zoom": rest if isinstance(zoom, str | Mapping) else zoom}


def for_classes(policy: Policy, classes: Sequence[str]) -> Policy:
    """The policy for data of these classes: a `swap` by names finds its labels.

    Every policy that mirrors and names classes needs it before its first sample; the loader does it. Raises RecipeError
    for a name that is no class.
    """
    if isinstance(policy, Mosaic):
        inner = for_classes(policy.zoom, classes)
        return policy if inner is policy.zoom else replace(policy, zoom=inner)  # type: ignore[arg-type]
    swap: Swap = getattr(policy, "swap", AS_IT_IS)
    if not swap.pairs or swap.labels:
        return policy
    named: Policy = replace(policy, swap=swap.among(classes))  # type: ignore[type-var]  # every one is a dataclass
    return named


def with_fit(policy: Policy, fit: Fit) -> Policy:
    """The same policy with another way of fitting the image to the network."""
    if isinstance(policy, Mosaic):
        return replace(policy, zoom=replace(policy.zoom, fit=fit))
    fitted: Policy = replace(policy, fit=fit)  # type: ignore[type-var]  # every policy is a dataclass
    return fitted


def calm(policy: Policy) -> Policy:
    """The policy for the end of a run, when the pictures should look like those that will be judged: no mosaics."""
    return policy.zoom if isinstance(policy, Mosaic) else policy


def _framed(window: Window, size: Size, how: Fit) -> Window:
    """A window widened to the network's proportions when these are to be kept."""
    x0, y0, x1, y1 = window
    a, b, c, d = frame((x1 - x0, y1 - y0), size, how)
    return x0 + a, y0 + b, x0 + c, y0 + d
