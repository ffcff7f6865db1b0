"""What is wrong with a batch before any network sees it: truths, labels, pixels, shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestage.records import Batch
from onestage.training.recorder.ring import BoxTable

# A box is out of all proportion when a side is so many times the image's, or it lies so many images away.
OUTSIZE = 4.0
# One pixel of so many along each side is looked at, to see cheaply whether an image may be of one colour.
_GRID = 16


class Fault(NamedTuple):
    """Something wrong with a batch: `code`, which image of which pass, the `row` of its truth, and what it is.

    `severe` ones make the step's loss wrong or not finite; the others are reported. `formula` is what such a truth
    does to a loss that does not guard against it.
    """

    code: str
    image: int
    row: int | None
    what: str
    severe: bool = True
    formula: str | None = None
    part: int = 0


def check_batch(
    batch: Batch, classes: int, size: tuple[int, int] | None = None, table: BoxTable | None = None
) -> list[Fault]:
    """Every fault of a batch for a model of `classes` classes at input `size` (width, height).

    Healthy batches cost little: numpy over all boxes at once, and of the images a grid of pixels (uint8) or one sum
    (float32). `table` is that of the batch where it was made before.
    """
    if not len(batch):
        return [Fault("empty-batch", 0, None, "the batch holds no image")]
    table = BoxTable.of(batch.annotations) if table is None else table
    faults = [*_shape(batch, size), *_boxes(table, batch), *_labels(table, classes), *_pixels(batch)]
    return sorted(faults, key=lambda fault: (not fault.severe, fault.image, fault.row or 0))


def check_before(batch: Batch, classes: int, size: tuple[int, int]) -> list[Fault]:
    """The faults of `check_batch` that would raise an error in the loss rather than make it wrong: labels and shape."""
    if not len(batch):
        return check_batch(batch, classes)
    return [*_shape(batch, size), *_labels(BoxTable.of(batch.annotations), classes)]


def _shape(batch: Batch, size: tuple[int, int] | None) -> list[Fault]:
    height, width = batch.images.shape[2:]
    if size is None or (width, height) == tuple(size):
        return []
    return [Fault("wrong-shape", 0, None, f"images are {width}x{height}, the step is for {size[0]}x{size[1]}")]


def _boxes(table: BoxTable, batch: Batch) -> list[Fault]:
    boxes = table.boxes
    if not len(boxes):
        return []
    height, width = batch.images.shape[2:]
    across = np.array([width, height, width, height], np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]
        away = np.abs(boxes / across - 0.5).max(1)
        share = (sides / across[:2]).max(1)
        # Written such that nan counts as wrong.
        fine = (away <= OUTSIZE + 0.5) & (share <= OUTSIZE) & (sides.min(1) > 0)
    if fine.all():
        return []
    finite = np.asarray(np.isfinite(boxes).all(1))
    wrong = [int(index) for index in np.flatnonzero(~fine)]
    found = [_box_fault(table, index, bool(finite[index]), (width, height)) for index in wrong]
    return [fault for fault in found if fault is not None]


def _box_fault(table: BoxTable, index: int, finite: bool, size: tuple[int, int]) -> Fault | None:
    image, row = table.owner(index)
    if not finite:
        formula = "what is computed from its corners is not finite"
        return Fault("broken-box", image, row, "a corner is not a finite number", formula=formula)
    width, height = (float(side) for side in table.boxes[index, 2:] - table.boxes[index, :2])
    ignored = bool(table.ignored[index])
    for name, side, (low, high) in (("width", width, ["x1", "x2"]), ("height", height, ["y1", "y2"])):
        letter = name[0]
        if side < 0 and not ignored:
            what = f"inverted: {low} is greater than {high}, {name} {side:g}"
            formula = f"ln({letter} / prior {letter}) with {letter} = {side:g} is ln of a negative number: nan"
            return Fault("broken-box", image, row, what, formula=formula)
        if side == 0 and not ignored:
            formula = f"ln({letter} / prior {letter}) with {letter} = 0 is ln(0) = -inf"
            return Fault("broken-box", image, row, f"{name} 0", formula=formula)
    if min(width, height) <= 0:  # a region to ignore without area does nothing
        return None
    what = f"{width:g}x{height:g} px in an image of {size[0]}x{size[1]}, or far outside of it"
    return Fault("outsize-box", image, row, what, severe=False)


def _labels(table: BoxTable, classes: int) -> list[Fault]:
    wrong = (table.labels < 0) | (table.labels >= classes)
    if not wrong.any():
        return []
    faults = []
    for index in np.flatnonzero(wrong & ~table.ignored):
        image, row = table.owner(int(index))
        what = f"label {table.labels[index]}, but the model has {classes} classes, 0 to {classes - 1}"
        faults.append(Fault("label-out-of-range", image, row, what))
    return faults


def _pixels(batch: Batch) -> list[Fault]:
    images = batch.images
    faults = []
    if images.dtype != np.uint8:
        with np.errstate(all="ignore"):
            suspect = not np.isfinite(images.sum(dtype=np.float32))
        faults = [_not_finite(images[i], i) for i in _not_finite_images(images)] if suspect else []
    grid = images[:, :, ::_GRID, ::_GRID]
    flat = np.flatnonzero((grid == grid[:, :1, :1, :1]).all((1, 2, 3)))
    return faults + [fault for i in flat if (fault := _constant(images[i], int(i))) is not None]


def _not_finite_images(images: NDArray[np.uint8] | NDArray[np.float32]) -> Iterable[int]:
    return (i for i in range(len(images)) if not np.isfinite(images[i]).all())


def _not_finite(image: NDArray[np.uint8] | NDArray[np.float32], index: int) -> Fault:
    wrong = np.argwhere(~np.isfinite(image))
    channel, y, x = (int(v) for v in wrong[0])
    value = image[channel, y, x]
    values = f"{len(wrong)} value{'s' * (len(wrong) > 1)} of its pixels"
    what = f"{values} not finite: {value} at x={x}, y={y}, {'RGB'[channel]}"
    return Fault("non-finite-pixel", index, None, what)


def _constant(image: NDArray[np.uint8] | NDArray[np.float32], index: int) -> Fault | None:
    low, high = image.min(), image.max()
    if low != high:
        return None
    colour = "black" if low == 0 else f"{low:g} everywhere"
    return Fault("constant-image", index, None, f"every pixel has the same value: {colour}", severe=False)
