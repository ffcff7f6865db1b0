"""The augmentation of FaceBoxes: square crops about faces, tiny and cut faces ignored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from onestage.boxes import geometry
from onestage.data.images import MEAN_COLOUR, Colour, Fit, Pixels, Size, Window, view
from onestage.data.mirror import AS_IT_IS, Swap, mirrored
from onestage.data.parameters import shares, spans
from onestage.data.photometric import Photometric
from onestage.data.policy import Others, Sample
from onestage.data.views import centres_inside
from onestage.records import Annotations, BoolArray, FloatArray, ImageTransform

FILTERED = ("small", "cut")
"""Extra columns of a sample's annotations: why this policy made a face `ignore`; at most one is True."""

_BLOCK = 16  # tries judged at once: more than one such block is seldom needed
_EPSILON = 1e-6  # pixels by which a face of exactly `min_face` may seem smaller, for its sides are sums of floats


@dataclass(frozen=True)
class FaceCrops:
    """The augmentation of FaceBoxes: colours, a square crop that shows a face, mirror, one resize.

    The crop has the short side of the image with probability `whole`, else a share of it drawn from `sides`, and lies
    anywhere. It must show some face wholly (where `wholly` is set), and hold the centre of some face that has
    `min_face` pixels at training scale; the first of `tries` that does is taken. Where none does, and with probability
    `entire` anyhow, the whole image is shown, its right and lower side padded to a square. A network that is not square
    gets crops and padding of its own proportions: nothing is ever squashed, whatever `fit` says, and "the short side"
    is that of the largest such window. Images without a face that counts are cropped freely.

    **What becomes of a face.** One whose centre shows is a truth, cut at the border. One whose shorter side is then
    under `min_face` pixels of the network's input becomes `ignore`, with "small" in the extra columns: it is no truth,
    and no background for models that know `near`, as FaceBoxes does. zisianw has 16, the paper 20, lxg2015 10 pixels.
    One whose centre does not show is cut too badly to be a truth, but what shows of it is a face all the same: with at
    least `visible` of its area in sight it becomes `ignore`, with "cut" in the extra columns, and its box is that part.
    Of less than a tenth there are hair and an ear to see, which are background; `visible=1` drops all such faces, as
    the originals do. Regions that were ignored before stay while a pixel shows, and steer nothing. Faces of under a
    pixel are dropped.

    Source: Zhang et al. 2017, section 3.3; zisianw/FaceBoxes.PyTorch, data_augment.py. That program drops small and cut
    faces, though they remain to be seen: mining then picks exactly them as the hardest background, and the loss jumps,
    as the notes of lxg2015/faceboxes tell. Where it pads it keeps them as truths however small. It refuses images
    without faces, measures with one pixel more, resizes with one of five interpolations by chance (ours chooses by
    scale) and colours the crop before it is resized; ours colours whichever is smaller. lxg2015/faceboxes is
    `tries=10, whole=0, entire=.2, wholly=False, min_face=10, visible=1`, but squashes the whole image, and takes
    another image where nothing is left.
    """

    photometric: Photometric = field(default_factory=lambda: Photometric(channel_swap=False))
    min_face: float = 16.0
    sides: tuple[float, float] = (0.3, 1.0)
    whole: float = 0.2
    entire: float = 0.0
    wholly: bool = True
    tries: int = 250
    visible: float = 0.1
    mirror: float = 0.5
    swap: Swap = AS_IT_IS
    fit: Fit = "squash"
    fill: Colour = MEAN_COLOUR

    def __post_init__(self) -> None:
        spans(self, "sides")
        shares(self, "sides", "whole", "entire", "visible", "mirror")
        if self.min_face < 0 or self.tries < 0:
            raise ValueError(
                f"FaceCrops: expected min_face and tries of 0 or more, got {self.min_face:g} and {self.tries}"
            )

    def __call__(
        self,
        image: Pixels,
        annotations: Annotations,
        rng: np.random.Generator,
        size: Size,
        others: Others | None = None,
    ) -> Sample:
        """One sample; `others` is not used."""
        image_size = image.shape[1], image.shape[0]
        window = self._window(image_size, annotations, rng, size)
        mirror = bool(rng.random() < self.mirror)
        x0, y0, x1, y1 = (int(min(edge, end)) for edge, end in zip(window, image_size * 2, strict=True))
        part = image[y0:y1, x0:x1]
        if few := part.shape[0] * part.shape[1] < size[0] * size[1]:
            part = self.photometric(part, rng)
        shown, inner = view(
            part, (0.0, 0.0, window[2] - x0, window[3] - y0), size, self.fill, mirror=mirror,
            paint=None if few else lambda pixels: self.photometric(pixels, rng),
        )  # fmt: skip
        transform = replace(inner, pad_x=inner.pad_x - x0 * inner.scale_x, pad_y=inner.pad_y - y0 * inner.scale_y)
        found = self._judged(annotations, transform, image_size, size)
        return Sample(shown, mirrored(found, self.swap) if mirror else found, transform)

    def truths(self, image_size: Size, annotations: Annotations, rng: np.random.Generator, size: Size) -> Annotations:
        """The annotations of the sample that this chance would make of an image of `image_size`, without its pixels.

        Boxes may lie within a pixel of the sample's and are not mirrored.
        """
        x0, y0, x1, y1 = self._window(image_size, annotations, rng, size)
        scale_x, scale_y = size[0] / (x1 - x0), size[1] / (y1 - y0)
        transform = ImageTransform(scale_x, scale_y, -x0 * scale_x, -y0 * scale_y)
        return self._judged(annotations, transform, image_size, size)

    def _window(self, image_size: Size, annotations: Annotations, rng: np.random.Generator, size: Size) -> Window:
        """Where to look, in whole pixels of the image but for padding."""
        counted = annotations.boxes[~(annotations.ignore | annotations.crowd)]
        draws = rng.random((self.tries, 4))
        crop = None
        if not (self.entire and rng.random() < self.entire):
            crop = self._crop(image_size, counted, draws, size)
        if crop is not None:
            return crop
        width, height, aspect = *image_size, size[0] / size[1]
        return 0.0, 0.0, max(float(width), height * aspect), max(float(height), width / aspect)

    def _crop(self, image_size: Size, boxes: FloatArray, draws: FloatArray, size: Size) -> Window | None:
        """The first crop that will do, of those that `draws` (tries, 4) in 0 … 1 make; None where there is none."""
        windows = self._windows(image_size, draws, size)
        centres, shown = (boxes[:, :2] + boxes[:, 2:]) / 2, geometry.clip(boxes, *image_size)
        faces = np.asarray((shown[:, 2:] > shown[:, :2]).all(1))
        centres, shown = centres[faces], shown[faces]
        if len(shown) and len(windows):
            closest = np.array(size) / (windows[:, 2:] - windows[:, :2]).min(0)
            if ((shown[:, 2:] - shown[:, :2]) * closest).min(1).max() < self.min_face:
                return None  # a crowd that is too small from anywhere: hundreds of tries would take a tenth of a second
        for start in range(0, len(windows), _BLOCK):
            block = windows[start : start + _BLOCK]
            good = self._shows_faces(centres, shown, block, size) if len(shown) else np.ones(len(block), np.bool_)
            found = int(good.argmax())
            if good[found]:
                x0, y0, x1, y1 = block[found].tolist()
                return x0, y0, x1, y1
        return None

    def _windows(self, image_size: Size, draws: FloatArray, size: Size) -> FloatArray:
        """Crops (tries, 4) of the network's proportions, in whole pixels inside the image."""
        (width, height), aspect, (low, high) = image_size, size[0] / size[1], self.sides
        share = np.where(draws[:, 0] < self.whole, 1.0, low + (high - low) * draws[:, 1])
        wide = np.maximum(np.floor(share * min(width, height * aspect) + _EPSILON), 1)
        tall = np.clip(np.floor(wide / aspect + _EPSILON), 1, height)
        left, top = np.floor(draws[:, 2] * (width - wide + 1)), np.floor(draws[:, 3] * (height - tall + 1))
        return np.stack([left, top, left + wide, top + tall], 1)

    def _shows_faces(self, centres: FloatArray, shown: FloatArray, windows: FloatArray, size: Size) -> BoolArray:
        """Which windows (K, 4) hold a face of `shown` (N, 4) wholly, and the centre of one that is large enough."""
        corners, ends = windows[:, None, :2], windows[:, None, 2:]
        sides = np.minimum(shown[:, 2:], ends) - np.maximum(shown[:, :2], corners)
        large = (sides * (np.array(size) / (ends - corners))).min(2) >= self.min_face
        centred = ((centres > corners) & (centres < ends)).all(2)
        fine = np.asarray((large & centred).any(1), np.bool_)
        if self.wholly:
            whole = np.asarray((shown[:, :2] >= corners) & (shown[:, 2:] <= ends), np.bool_)
            fine &= np.asarray(whole.all(2), np.bool_).any(1)
        return fine

    def _judged(
        self, annotations: Annotations, transform: ImageTransform, image_size: Size, size: Size
    ) -> Annotations:  # fmt: skip
        """The annotations as they lie in a view of the image, each a truth, ignored, or gone."""
        boxes = _upright(transform.to_net(annotations.boxes))
        ground = _upright(transform.to_net([[0.0, 0.0, *image_size]]))  # boxes that reach beyond the image end with it
        ground = geometry.clip(ground, *size)
        cut = np.clip(boxes, np.tile(ground[0, :2], 2), np.tile(ground[0, 2:], 2))
        sides, centred = cut[:, 2:] - cut[:, :2], centres_inside(boxes, ground)[:, 0]
        counted = ~(annotations.ignore | annotations.crowd)
        in_sight = geometry.area(cut) >= self.visible * geometry.area(boxes)
        partly = counted & ~centred & in_sight
        small = counted & centred & (sides.min(1) < self.min_face - _EPSILON)
        keep = np.flatnonzero((~counted | centred | partly) & (sides >= 1.0).all(1))
        kept = annotations.take(keep, cut[keep])
        columns = {**kept.extra, "small": small[keep], "cut": partly[keep]}
        return replace(kept, ignore=kept.ignore | small[keep] | partly[keep], extra=columns)


def _upright(boxes: FloatArray) -> FloatArray:
    """Boxes with their corners in order, which a mirror exchanges."""
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
