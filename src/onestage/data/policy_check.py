"""Whether an augmentation policy moves pixels and boxes together, tried on made-up pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from onestage.data.images import Size, fit
from onestage.data.mirror import Swap
from onestage.data.policy import Picture, Policy, Sample
from onestage.data.policy_findings import CODES, finding_of
from onestage.records import Annotations, BoolArray, Finding, FloatArray

__all__ = ["CODES", "policy_keeps_boxes"]

DARK, BRIGHT = 40, 215
PICTURE = (120, 96)
LONGEST = 128  # the network's input is made so small for the check; its proportions stay
TRIES = 24
EDGE = 2.0  # pixels by which an edge of a box may miss what is seen, or a tenth of the object's side
PER_PICTURE = 2


@dataclass
class _Seen:
    """What the tries of one policy showed: sentences by finding, and of how many objects."""

    objects: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    ways: list[set[str]] = field(default_factory=list)

    def note(self, code: str, what: str) -> None:
        self.faults.setdefault(code, []).append(what)

    def told(self) -> Mapping[str, list[str]]:
        """The faults, each once: a mirror of pixels alone, where the policy itself mirrors both half of the time, shows
        as boxes moved alone in that half, and it is the same fault."""
        pixels, boxes = (self.faults.get(f"policy-moves-{what}-only", []) for what in ("image", "boxes"))
        if not pixels or not boxes:
            return self.faults
        return {code: whats + boxes * (whats is pixels) for code, whats in self.faults.items() if whats is not boxes}

    def way(self) -> str:
        """What would bring every box that was seen astray to its object, in words; "" where it is nothing simple."""
        common = set.intersection(*self.ways) if self.ways else set()
        return f": {min(common)}" if common else ""


def policy_keeps_boxes(policy: Policy, size: Size, tries: int = TRIES) -> list[Finding]:
    """Try a policy on dark pictures with bright rectangles: findings about its boxes, none where all is well.

    `size` (width, height) is the network's input; the check keeps its proportions and makes it small. Each try draws
    the same chance with and without one rectangle: where the two samples differ, the object is, whatever was done to
    colours. Found are pixels moved without their boxes and the other way round (an image-only flip, shift or zoom),
    boxes of objects in plain sight that are lost, boxes that leave the image, are inverted or empty, labels that
    change (but those that the policy's `swap` exchanges, where it mirrors), samples of another size, and chance that
    does not come from the generator given. Objects that are cut or tiny are not judged, and neither is a policy that
    looks at what the image shows.
    """
    size, seen = _small(size), _Seen()
    for seed in range(tries):
        _Try(policy, size, seed, seen).judge()
        if "policy-breaks-samples" in seen.faults or "policy-draws-elsewhere" in seen.faults:
            break  # samples that cannot be compared
    return [
        finding_of(code, [whats[0] + seen.way() * code.startswith("policy-moves"), *whats[1:]], seen.objects)
        for code, whats in seen.told().items()
    ]


@dataclass
class _Try:
    """A policy with one chance, over pictures of two objects each, every object with a label of its own."""

    policy: Policy
    size: Size
    seed: int
    seen: _Seen
    handed_out: int = 0
    truths: dict[int, Annotations] = field(default_factory=dict)

    def judge(self) -> None:
        """Note what is wrong with the sample of this chance, and with the box of one object in it."""
        plain = self.run()
        if not self._is_sample(plain):
            return
        if (self.seed == 0 and not self._repeats(plain)) or _has_broken_boxes(plain, self.size, self.seen):
            return
        picture, which = self.seed % (self.handed_out + 1), self.seed // 2 % PER_PICTURE
        with_ground, with_object = self.run(lit=(picture, None)), self.run(lit=(picture, which))
        if not (self._is_sample(with_ground) and self._is_sample(with_object)):
            return
        ground, shown = _difference(plain, with_ground), _difference(plain, with_object)
        if ground is not None and shown is not None and _in_plain_sight(shown, ground):
            self.seen.objects += 1
            fault = self._fault(plain, _bounds(shown), picture, which)
            if fault is not None and self._repeats(plain):
                self.seen.note(*fault)

    def run(self, lit: tuple[int, int | None] | None = None) -> Sample:
        """The sample; `lit` (picture, object or None for all of its ground) is bright."""
        self.handed_out = 0

        def others(_rng: np.random.Generator) -> Picture:
            self.handed_out += 1
            return self.picture(self.handed_out, lit)

        image, truth = self.picture(0, lit)
        return self.policy(image, truth, np.random.Generator(np.random.Philox(key=self.seed)), self.size, others)

    def picture(self, number: int, lit: tuple[int, int | None] | None) -> Picture:
        """Picture `number` of this try, dark but for what is lit."""
        if number not in self.truths:
            labels = number * PER_PICTURE + np.arange(PER_PICTURE)
            self.truths[number] = Annotations(_rectangles(self.seed * 100 + number), labels)
        truth = self.truths[number]
        image = np.full((PICTURE[1], PICTURE[0], 3), DARK, np.uint8)
        if lit is not None and lit[0] == number:
            x0, y0, x1, y1 = (0, 0, *PICTURE) if lit[1] is None else truth.boxes[lit[1]].astype(int).tolist()
            image[y0:y1, x0:x1] = BRIGHT
        return image, truth

    def _fault(self, sample: Sample, there: FloatArray, picture: int, which: int) -> tuple[str, str] | None:
        """Code and words of what is wrong with the box of an object that is seen at `there` (xyxy)."""
        found = sample.annotations
        label = picture * PER_PICTURE + which
        expected = self._expected(label, sample if picture == 0 else None)
        fitting = [int(one) for one, box in zip(found.labels, found.boxes, strict=True) if _fits(box, there)]
        if expected & set(fitting):
            return None
        own, what = found.boxes[np.isin(found.labels, list(expected))], f"object at {_corners(there)}"
        if fitting:
            wanted = "" if label in expected else f" and is mirrored, which makes it {min(expected)}"
            return "policy-changes-labels", f"{what} had label {label}{wanted}, its box says {fitting[0]}"
        known = np.concatenate([truth.labels for truth in self.truths.values()])
        if not len(own) and np.isin(found.labels, known).all():
            return "policy-loses-boxes", f"{what} is in plain sight and has no box"
        box = own[0] if len(own) else found.boxes[0]
        moved = sample.transform.to_net(self.truths[0].boxes[which : which + 1]).reshape(2, 2)
        as_told = np.concatenate([moved.min(0), moved.max(0)])  # edges of a mirrored box are exchanged
        right = picture == 0 and (_fits(self._as_it_was(which), there) or _fits(as_told, there))
        self.seen.ways.append(_ways(box, there, self.size))
        what = f"{what}, box at {_corners(box)}"
        return "policy-moves-boxes-only" if right else "policy-moves-image-only", what

    def _expected(self, label: int, own: Sample | None) -> set[int]:
        """The labels that an object of `label` may have: another where the policy swaps classes and has mirrored it.

        Of pictures that a mosaic took in besides its `own` it is not known whether they are mirrored.
        """
        swap = getattr(self.policy, "swap", None)
        if not isinstance(swap, Swap) or label >= len(swap.labels):
            return {label}
        swapped = swap.labels[label]
        return {label, swapped} if own is None else {swapped if own.transform.scale_x < 0 else label}

    def _repeats(self, plain: Sample) -> bool:
        """Whether the same chance gives the same sample; else nothing can be told by comparing two."""
        again = self.run()
        if np.array_equal(plain.image, again.image) and np.array_equal(
            plain.annotations.boxes, again.annotations.boxes, equal_nan=True
        ):
            return True
        self.seen.note("policy-draws-elsewhere", "the same generator gave two samples")
        return False

    def _as_it_was(self, which: int) -> FloatArray:
        """Where an object of the first picture would lie if it were but fitted to the network's input."""
        image, truth = self.picture(0, None)
        transform = fit(image, self.size, self.policy.fit)[1]
        return transform.to_net(truth.boxes[which : which + 1]).ravel()

    def _is_sample(self, sample: Sample) -> bool:
        expected = (self.size[1], self.size[0], 3)
        if sample.image.shape == expected and sample.image.dtype == np.uint8:
            return True
        got = f"{sample.image.dtype} {sample.image.shape}"
        self.seen.note("policy-breaks-samples", f"expected an image of uint8 {expected}, got {got}")
        return False


@lru_cache(maxsize=512)
def _rectangles(seed: int) -> FloatArray:
    """Two boxes (2, 4) in whole pixels, ground between and around; no flip brings one upon itself or the other."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    width, height = PICTURE
    boxes = []
    for left, tall in ((0.08, 0.22), (0.54, 0.38)):
        wide, high = rng.uniform(0.2, 0.34), rng.uniform(tall, tall + 0.05)
        x, y = left + rng.uniform(0, 0.38 - wide), rng.uniform(0.08, 0.92 - high)
        if abs(y + high / 2 - 0.5) < 0.08:
            y = 0.08
        boxes.append([round(x * width), round(y * height), round((x + wide) * width), round((y + high) * height)])
    found = np.array(boxes, np.float64)
    found.setflags(write=False)
    return found


def _has_broken_boxes(sample: Sample, size: Size, seen: _Seen) -> bool:
    boxes, (width, height) = sample.annotations.boxes, size
    empty = np.asarray(~((boxes[:, 2:] > boxes[:, :2]).all(1) & np.isfinite(boxes).all(1)))
    outside = ((boxes < -0.01) | (boxes > np.array([width, height, width, height]) + 0.01)).any(1)
    for box, is_empty in zip(boxes[empty | outside], empty[empty | outside], strict=True):
        what = "is inverted or without area" if is_empty else f"leaves the image of {width}x{height}"
        seen.note("policy-breaks-boxes", f"box {_corners(box)} {what}")
    return bool((empty | outside).any())


def _difference(plain: Sample, other: Sample) -> BoolArray | None:
    """Where (H, W) two samples differ by at least half of their greatest difference; None where by next to nothing."""
    red, green, blue = cv2.split(cv2.absdiff(plain.image, other.image))
    apart = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
    most = int(apart.max())
    return None if most < 16 else np.asarray(apart >= (most + 1) // 2, np.bool_)


def _in_plain_sight(shown: BoolArray, ground: BoolArray) -> bool:
    """Whether an object is of a fair size and shows ground of its own picture on all sides, so that nothing cut it."""
    x0, y0, x1, y1 = _bounds(shown)
    if x1 - x0 < 0.06 * shown.shape[1] or y1 - y0 < 0.06 * shown.shape[0]:
        return False
    inner = cv2.erode(ground.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return not (shown & (np.asarray(inner, np.uint8) == 0)).any()


def _bounds(shown: BoolArray) -> FloatArray:
    columns, rows = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _fits(box: FloatArray, there: FloatArray) -> bool:
    """Whether every edge of a box lies where the object's does."""
    sides = np.tile(there[2:] - there[:2], 2)
    return bool((np.abs(box - there) <= np.maximum(EDGE, 0.1 * sides)).all())


def _ways(box: FloatArray, there: FloatArray, size: Size) -> set[str]:
    """What would bring a box to its object, in words; empty where it is nothing simple."""
    x0, y0, x1, y1 = box
    shift = np.round((there[:2] + there[2:] - box[:2] - box[2:]) / 2)
    ways = {
        "mirrored left to right": np.array([size[0] - x1, y0, size[0] - x0, y1]),
        "upside down": np.array([x0, size[1] - y1, x1, size[1] - y0]), "x and y exchanged": np.array([y0, x0, y1, x1]),
        f"{shift[0]:+.0f}, {shift[1]:+.0f} pixels away": box + np.tile(shift, 2),
    }  # fmt: skip
    return {words for words, moved in ways.items() if _fits(moved, there)}


def _corners(box: FloatArray) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in box) + ")"


def _small(size: Size) -> Size:
    shrink = min(1.0, LONGEST / max(size))
    return max(16, round(size[0] * shrink)), max(16, round(size[1] * shrink))
