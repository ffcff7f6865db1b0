"""A model's priors, and how they would answer for the truths of a set; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage import models
from onestage.boxes.anchor_fit import Refit, refit
from onestage.boxes.answers import Answers
from onestage.boxes.assigned import Assigned
from onestage.boxes.clusters import How
from onestage.boxes.tiling import Tiling, size_name, sizes_name, tilings, together, verdict
from onestage.data.dataset import Dataset
from onestage.data.images import Fit, Size, decode, fit, fit_transform, native_size
from onestage.data.one_set import open_set
from onestage.data.sides import Sides, sides_at_input
from onestage.data.views import moved
from onestage.errors import DataError, ModelError, UsageError, did_you_mean
from onestage.models.detector import Detector
from onestage.models.inference import refuse_one_size
from onestage.records import Annotations, ImageInfo, IntArray
from onestage.training.first_batch import assigned_to
from onestage.training.fitted import as_options

KEPT = 32  # input sizes whose priors are known at a time, where images have one each
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Shown:
    """One image at the network's size (H, W, 3), uint8 RGB: its name, its truths there, the priors they were given.

    `truths` and `assigned` are None where the image has no annotations; `tiling` (P,) is that of each prior.
    """

    image: NDArray[np.uint8]
    name: str
    truths: Annotations | None = None
    assigned: Assigned | None = None
    tiling: IntArray | None = None


class Anchors:
    """The priors of one detector at its input size, sorted, and what they make of truths.

    `tilings` are the priors by level and size, `groups` those that share their centres; `group` (P,) is the group of
    each prior. `threshold` is the IoU from which a prior is positive, None where the model does not say it. With
    `fit` "native" each image has an input, and so priors, of its own size; those here are of `size`.
    """

    def __init__(self, detector: Detector, fit: Fit = "squash", scale: float = 1.0) -> None:
        found = assigned_to(detector, [Annotations.empty()])
        if found is None:
            raise ModelError(f"{detector.name} does not say which priors it has")
        if fit == "native":
            refuse_one_size(detector)
        self.detector, self.size, self.priors = detector, detector.size, found[0].priors
        self.fit, self.scale = fit, scale
        self.tilings = tilings(self.priors, found[0].level, self.size)
        self.groups: list[list[Tiling]] = together(self.tilings)
        self.tiling = np.zeros(len(self.priors), np.int64)  # of each prior
        for i, one in enumerate(self.tilings):
            self.tiling[one.index] = i
        self._tilings = {self.size: self.tiling}
        self.threshold: float | None = getattr(getattr(detector, "options", None), "threshold", None)

    @property
    def group_of(self) -> IntArray:
        """The group of each tiling."""
        return np.repeat(np.arange(len(self.groups)), [len(same) for same in self.groups])

    @property
    def group(self) -> IntArray:
        """The group of each prior (P,)."""
        return self.group_of[self.tiling]

    def input_size(self, image_size: Size) -> Size:
        """Width and height of the network's input for an image of `image_size` (width, height)."""
        return native_size(image_size, self.scale) if self.fit == "native" else self.size

    def assigned(self, annotations: Annotations, size: Size | None = None) -> tuple[Assigned, IntArray]:
        """The priors of one image as the model gives them to truths in pixels of the input, and each prior's tiling.

        `size` is that of the input, where it is not the usual one.
        """
        size = size or self.size
        if size != self.detector.size:
            self.detector.resized(size)
        found = assigned_to(self.detector, [annotations])
        assert found is not None  # noqa: S101  # __init__ has asked
        return found[0], self._tiling_at(size, found[0])

    def at_input(self, image_size: Size, annotations: Annotations) -> Annotations:
        """An image's annotations as they lie in the network's input, as training without augmentation has them."""
        size = self.input_size(image_size)
        return moved(annotations, fit_transform(image_size, size, self.fit), size, visible=0.0)

    def answers(self, dataset: Dataset, progress: Progress = lambda done, every: None) -> Answers:
        """How all truths of a set are answered, group by tiling; no image is read. DataError for a set without images.

        Truths with a side below one pixel of the input are left out, as training leaves them out.
        """
        if not len(dataset):
            raise DataError(f"{dataset.root}: no images in {dataset.split}")
        parts = []
        for done, image in enumerate(dataset.images, 1):
            size, given = (image.width, image.height), dataset.annotations[image.id]
            truths = self.at_input(size, given)
            parts.append(self.answered(*self.assigned(truths, self.input_size(size)), len(given) - len(truths)))
            progress(done, len(dataset))
        return Answers.joined(parts)

    def answered(self, assigned: Assigned, tiling: IntArray, lost: int = 0) -> Answers:
        """How the truths of one image are answered, group by tiling."""
        return Answers.of(assigned, tiling, len(self.tilings), self.threshold, lost)

    def shown(self, path: Path, name: str, annotations: Annotations | None = None) -> Shown:
        """An image file as the network gets it, with its truths and their priors; DataError where it is unreadable."""
        pixels = decode(path)
        image, _ = fit(pixels, self.size, self.fit, scale=self.scale)
        if annotations is None:
            return Shown(image, name)
        size = (pixels.shape[1], pixels.shape[0])
        truths = self.at_input(size, annotations)
        return Shown(image, name, truths, *self.assigned(truths, self.input_size(size)))

    def _tiling_at(self, size: Size, mine: Assigned) -> IntArray:
        """For each prior of an input of another size the tiling of the same level and sides."""
        if size not in self._tilings:
            if len(self._tilings) > KEPT:
                self._tilings = {self.size: self.tiling}
            known = {_key(one): i for i, one in enumerate(self.tilings)}
            which = np.full(len(mine.priors), -1, np.int64)
            for one in tilings(mine.priors, mine.level, size):
                which[one.index] = known.get(_key(one), -1)
            if (which < 0).any():
                raise ModelError(f"{self.detector.name} has other priors at {size[0]}x{size[1]} than at its own size")
            self._tilings[size] = which
        return self._tilings[size]

    def as_dict(self) -> dict[str, Any]:
        """Model, parameters, priors by level and size, and the verdicts on their lattices, as plain values."""
        counts = self.parameters()
        return {
            "model": self.detector.name, "size": list(self.size), "fit": self.fit,
            "scale": self.scale,
            "classes": self.detector.classes, "parameters": {"all": sum(counts.values()), **counts},
            "priors": len(self.priors), "threshold": self.threshold,
            "tilings": [one.as_dict() for one in self.tilings],
            "lattices": [
                {"level": same[0].level, "sizes": [size_name(one.width, one.height) for one in same],
                 "sound": same[0].lattice.sound, "verdict": verdict(same)} for same in self.groups
            ],
        }  # fmt: skip

    def parameters(self) -> dict[str, int]:
        """How many parameters each part has; what no part names is "rest"."""
        seen: set[int] = set()
        counts = {}
        for name, part in self.detector.parts().items():
            own = {id(p): p.numel() for p in part.parameters() if id(p) not in seen}
            seen |= set(own)
            counts[name] = sum(own.values())
        rest = sum(p.numel() for p in self.detector.parameters() if id(p) not in seen)
        return {name: count for name, count in {**counts, "rest": rest}.items() if count}

    def answer_rows(self, found: Answers) -> list[dict[str, Any]]:
        """A row for each group: level and sizes, its positives, and the truths whose best prior it has."""
        coarse = found.regrouped(self.group_of, len(self.groups))
        return [
            {"level": same[0].level, "sizes": sizes_name(same), **row}
            for same, row in zip(self.groups, coarse.by_group(), strict=True)
        ]


def anchors(
    model: str, classes: int | None = None, size: int | Size | None = None, fit: Fit = "squash", scale: float = 1.0,
    **options: Any,
) -> Anchors:  # fmt: skip
    """The priors of the model of that name at input `size`; it is built at random, nothing is fetched.

    `size` is (width, height), or one number for both. Without `classes` it has the model's own number, or one.
    `options` are the model's own. Raises ModelError for an unknown name, and for a size or option it does not take.
    """
    if classes is None:
        classes = len(models.model_class(model).default_classes) or 1
    sides = (size, size) if isinstance(size, int) else size
    return Anchors(models.build(model, classes, sides, **options), fit, scale)


@dataclass(frozen=True, eq=False)
class Remade:
    """Anchors made from a set for a model: the truths they were made of, and the comparison with its own.

    `size` (width, height) is that of the input, `fit` how images come to it.
    """

    model: str
    size: Size
    fit: Fit
    classes: int
    held: Sides
    refit: Refit

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model, "size": list(self.size), "fit": self.fit, "classes": self.classes,
            "images": self.held.images, "truths": len(self.held.sides), "ignored": self.held.ignored,
            "lost": self.held.lost, **self.refit.as_dict(), "recipe": as_options(self.refit.new),
        }  # fmt: skip


def remade(
    dataset: Dataset, model: str, how: How = "kmeans", *, count: int | None = None, seed: int = 0,
    size: int | Size | None = None, fit: Fit = "squash", **options: Any,
) -> Remade:  # fmt: skip
    """Anchors for the model of that name from the truths of a set, beside its own; no image is read.

    `count` is by default the model's, `options` are its own. Raises ModelError for a model whose anchors are not free,
    DataError where there are fewer boxes of different sizes than anchors, UsageError for fewer anchors than heads.
    """
    sides = (size, size) if isinstance(size, int) else size
    detector = models.build(model, max(len(dataset.classes), 1), sides, **options)
    heads = detector.anchor_heads()
    if heads is None:
        raise ModelError(
            f"{model} has no anchors that can be made from boxes: its priors follow from sizes and ratios",
            hint="a YOLO network, such as model=yolov3 or model=my.cfg",
        )
    if count is not None and count < len(heads.masks):
        raise UsageError(f"count: expected at least one anchor for each of {len(heads.masks)} heads, got {count}")
    held = sides_at_input(dataset, detector.size, fit)
    found = refit(held.sides, held.image, heads, how, count=count, seed=seed)
    return Remade(model, detector.size, fit, detector.classes, held, found)


def chosen_set(
    data: str | Path, split: str = "train", wanted: Sequence[str] = (), *, seed: int = 0, allow_loss: bool = False
) -> Dataset:  # fmt: skip
    """A set of a dataset, whole or only the images `wanted` by id, file name, stem or path.

    Raises DataError for what cannot be opened, UsageError naming every wanted image that is not there.
    """
    dataset = open_set(data, split, seed=seed, allow_loss=allow_loss)
    if not wanted:
        return dataset
    names: dict[str, ImageInfo] = {}
    for image in dataset.images:
        for name in (str(image.id), image.path.name, image.path.stem, str(image.path), str(image.path.absolute())):
            names.setdefault(name, image)
    missing = [
        f"no image {word!r} in {dataset.split}{did_you_mean(word, _short(names))}"
        for word in wanted
        if word not in names
    ]
    if missing:
        raise UsageError(f"image: not among the {len(dataset)} images of {dataset.split}", problems=missing,
                         hint="an id, a file's name or its path; split= names another set")  # fmt: skip
    return dataset.only({names[word].id for word in wanted}, dataset.split)


def _key(one: Tiling) -> tuple[int, float, float]:
    return one.level, round(one.width, 1), round(one.height, 1)


def _short(names: Iterable[str]) -> list[str]:
    return [name for name in names if "/" not in name]
