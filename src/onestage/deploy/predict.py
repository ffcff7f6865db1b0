"""Images in, boxes out, with any predictor; no torch needed."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.selection import PRESETS, Selection, select_in_image
from onestage.data.images import Fit, Pixels, Size, decode, fit
from onestage.deploy.sources import names
from onestage.errors import DataError, ModelError, UsageError
from onestage.records import Detections, FloatArray, ImageTransform, IntArray

Predictor = Callable[[NDArray[np.uint8]], tuple[NDArray[np.floating], NDArray[np.floating]]]
Skipped = Callable[[Path, str], None]


@runtime_checkable
class Candidates(Protocol):
    """What a predictor may have besides: only the boxes that count, so that the others need not be decoded."""

    def candidates(
        self, images: NDArray[Any], score: float
    ) -> Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]:
        """Boxes (N, 4) and scores (N, C) of each image that have `score` or more for some class."""
        ...


Show = Callable[[Pixels], tuple[Pixels, ImageTransform]]


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a detector found in one image of `width` x `height` pixels, as a viewer shows it.

    `name` is the image's own among those predicted together, `path` its file (None for an array), `detections` the
    record: boxes (M, 4) xyxy in pixels of the image, labels (M,) as indices of `classes`, scores (M,), highest first.
    """

    name: str
    path: Path | None
    width: int
    height: int
    detections: Detections
    classes: tuple[str, ...]
    pixels: Pixels | None = None

    def __repr__(self) -> str:
        return f"Prediction({self.name!r}, {self.width}x{self.height}, {len(self)} detections)"

    def __len__(self) -> int:
        return len(self.detections)

    @property
    def boxes(self) -> FloatArray:
        """Boxes (M, 4), xyxy in pixels of the image."""
        return self.detections.boxes

    @property
    def labels(self) -> IntArray:
        """Labels (M,), indices of `classes`."""
        return self.detections.labels

    @property
    def scores(self) -> FloatArray:
        """Scores (M,) in [0, 1], highest first."""
        return self.detections.scores

    @property
    def class_names(self) -> list[str]:
        """The class of each detection by name."""
        return [self.classes[label] for label in self.labels]

    def image(self) -> Pixels:
        """The image as RGB uint8 (height, width, 3): the array that was given, or the file decoded once more."""
        if self.pixels is not None:
            return self.pixels
        assert self.path is not None  # noqa: S101  # an image without a path keeps its pixels
        return decode(self.path)


def predict(
    predictor: Predictor,
    images: Sequence[Path | Pixels],
    classes: Sequence[str],
    size: Size,
    how: Fit = "squash",
    selection: Selection | None = None,
    *,
    batch: int = 8,
    scale: float = 1.0,
    skipped: Skipped | None = None,
) -> Iterator[Prediction]:
    """What `predictor` finds in each image, in their order, as soon as its batch is done.

    `predictor` takes uint8 RGB (B, 3, H, W) of `size` (width, height) and gives all boxes (B, P, 4) in pixels of its
    input and scores (B, P, C) for the C `classes`: a TorchPredictor, an exported model, any function. `images` are
    files (see `sources`) or RGB arrays uint8 (H, W, 3). `how` must be the fit the model was trained with, or "native"
    for a `predictor` that takes any size: then each image goes alone, at `scale` times its own pixels. `selection` is
    by default the preset "view". Files are decoded by a thread ahead of the network.

    A file that cannot be read is left out and told to `skipped(path, why)`, by default as a warning. Raises UsageError
    for an array that is no RGB image, ModelError where the answer does not fit the classes or is not finite.

    >>> everywhere = lambda x: (np.tile([[[1.0, 1, 3, 3]]], (len(x), 1, 1)), np.full((len(x), 1, 1), 0.9))
    >>> [found] = predict(everywhere, [np.zeros((8, 16, 3), np.uint8)], ["cat"], size=(4, 4))
    >>> found.boxes.tolist(), found.class_names
    ([[4.0, 2.0, 12.0, 6.0]], ['cat'])
    """
    if batch < 1:
        raise UsageError(f"batch: expected at least 1, got {batch}")
    if not 0 < scale < math.inf:
        raise UsageError(f"scale: expected more than 0, got {scale:g}")
    if how == "native":
        batch = 1
    inputs = _inputs(images)
    chunks = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    show = partial(fit, size=size, how=how, scale=scale)
    return _predictions(predictor, chunks, tuple(classes), show, selection or PRESETS["view"], skipped or _warn)


@dataclass(frozen=True, eq=False)
class _Input:
    """An image to predict on, before it is read."""

    name: str
    path: Path | None = None
    pixels: Pixels | None = None


@dataclass(frozen=True, eq=False)
class _Ready:
    """An image at the network's size, or why there is none."""

    asked: _Input
    shown: Pixels | None = None
    transform: ImageTransform = field(default_factory=ImageTransform)
    width: int = 0
    height: int = 0
    trouble: str = ""


def _inputs(images: Sequence[Path | Pixels]) -> list[_Input]:
    paths = [image for image in images if isinstance(image, Path)]
    named = iter(names(paths))
    inputs, problems = [], []
    for index, image in enumerate(images):
        if isinstance(image, Path):
            inputs.append(_Input(next(named), path=image))
        elif _is_rgb(image):
            inputs.append(_Input(f"array-{index:03d}", pixels=np.ascontiguousarray(image)))
        else:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else repr(image)[:60]
            problems.append(f"image {index}: expected a path or an array uint8 (H, W, 3), got {got}")
    if problems:
        raise UsageError("some of the images cannot be predicted on", problems=problems, hint="RGB, 0 … 255, uint8")
    return inputs


def _is_rgb(image: object) -> TypeGuard[Pixels]:
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size > 0


def _predictions(
    predictor: Predictor, chunks: Sequence[Sequence[_Input]], classes: tuple[str, ...], show: Show,
    selection: Selection, skipped: Skipped,
) -> Iterator[Prediction]:  # fmt: skip
    for chunk in _ready_ahead(chunks, show):
        for left_out in (ready for ready in chunk if ready.shown is None):
            skipped(left_out.asked.path or Path(left_out.asked.name), left_out.trouble)
        used = [ready for ready in chunk if ready.shown is not None]
        if not used:
            continue
        shown = np.stack([ready.shown for ready in used if ready.shown is not None])
        answers = _answers(predictor, shown.transpose(0, 3, 1, 2), selection.score, len(classes))
        for ready, (boxes, scores) in zip(used, answers, strict=True):
            found = select_in_image(boxes, scores, selection, ready.transform, ready.width, ready.height)
            asked = ready.asked
            yield Prediction(asked.name, asked.path, ready.width, ready.height, found, classes, asked.pixels)


def _ready_ahead(chunks: Sequence[Sequence[_Input]], show: Show) -> Iterator[list[_Ready]]:
    """The images of each chunk at the network's size; the next chunk is made while this one is used."""

    def make(chunk: Sequence[_Input]) -> list[_Ready]:
        return [_ready(asked, show) for asked in chunk]

    waiting = iter(chunks)
    ahead: deque[Future[list[_Ready]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="onestage-predict")
    try:
        ahead.extend(pool.submit(make, chunk) for chunk in islice(waiting, 2))
        while ahead:
            ready = ahead.popleft().result()
            ahead.extend(pool.submit(make, chunk) for chunk in islice(waiting, 1))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ready(asked: _Input, show: Show) -> _Ready:
    try:
        image = asked.pixels if asked.path is None else decode(asked.path)
        assert image is not None  # noqa: S101  # one of the two is always there
        shown, transform = show(image)
    except DataError as error:
        return _Ready(asked, trouble=error.message)
    return _Ready(asked, shown, transform, image.shape[1], image.shape[0])


def _answers(
    predictor: Predictor, images: NDArray[np.uint8], score: float, classes: int
) -> Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Boxes and scores of each image: of predictors that can, only those with `score` or more."""
    if isinstance(predictor, Candidates):
        answers = predictor.candidates(images, score)
        for boxes, scores in answers:
            _check(boxes[None], scores[None], 1, classes)
        return answers
    boxes, scores = predictor(images)
    _check(boxes, scores, len(images), classes)
    return list(zip(boxes, scores, strict=True))


def _check(boxes: NDArray[np.floating], scores: NDArray[np.floating], images: int, classes: int) -> None:
    places = scores.shape[1] if scores.ndim == 3 else 0
    if boxes.shape != (images, places, 4) or scores.shape != (images, places, classes):
        raise ModelError(
            f"the network's answer does not fit {images} images and {classes} classes: "
            f"boxes {boxes.shape}, scores {scores.shape}",
            hint="classes=[…] with as many names as the model was trained for",
        )
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ModelError("the network's answers are not finite numbers", hint="other weights: these are damaged")


def _warn(path: Path, why: str) -> None:
    warnings.warn(f"{path} was left out: {why}", stacklevel=2)
