"""All truths and detections of a set in flat arrays, checked and in one fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, BoolArray, Detections, FloatArray, ImageId, IntArray

_LISTED = 20
_NOTHING = Detections.empty()


@dataclass(frozen=True, eq=False)
class Pool:
    """What every protocol judges: rows grouped by (class, image), detections best first within each group.

    G truths and D detections. A group is label * len(images) + image. `truth_*` rows keep the order of the file
    within a group; `rank` is a detection's place in its group, 0 for the best. `truth_area` is the file's own area
    where it gave one (COCO counts mask pixels), else NaN. `size` (I, 2) is width and height of each image, NaN where
    not known; `row` is a detection's place among all rows of its image as its file has them. `truth_column` and
    `column` give other columns of the records. A truth that is a "region" (see Annotations) stands here once for
    every class; `truth_region` marks these rows. Images are sorted by id, numbers before words, so that
    neither the order of the mapping nor a shuffled file can change a score; equal scores are taken in that order,
    then in the order of rows.
    """

    images: tuple[ImageId, ...]
    classes: tuple[str, ...]
    truth_group: IntArray
    truth_box: FloatArray
    truth_difficult: BoolArray
    truth_ignore: BoolArray
    truth_crowd: BoolArray
    truth_area: FloatArray
    group: IntArray
    box: FloatArray
    score: FloatArray
    rank: IntArray
    size: FloatArray
    row: IntArray
    truth_region: BoolArray
    _truths: tuple[tuple[Annotations, ...], IntArray] = field(repr=False)
    _found: tuple[tuple[Detections, ...], IntArray] = field(repr=False)

    def truth_column(self, name: str, otherwise: Any = 0) -> NDArray[Any] | None:
        """The column `name` of `Annotations.extra` for all truths (G, …), `otherwise` where an image has none.

        None where no image has it.
        """
        return _gathered(*self._truths, name, otherwise)

    def column(self, name: str, otherwise: Any = 0) -> NDArray[Any] | None:
        """The column `name` of `Detections.extra` for all detections (D, …), as `truth_column`."""
        return _gathered(*self._found, name, otherwise)

    def told_classes(self) -> str:
        """The classes in words, five of them by name."""
        more = f", … ({len(self.classes)} in all)" if len(self.classes) > 5 else ""
        return (", ".join(self.classes[:5]) or "none") + more

    def image_of(self, group: IntArray) -> IntArray:
        """Index into `images` of each group."""
        result: IntArray = group % max(len(self.images), 1)
        return result

    def label_of(self, group: IntArray) -> IntArray:
        """Index into `classes` of each group."""
        result: IntArray = group // max(len(self.images), 1)
        return result

    def class_slices(self, group: IntArray) -> list[slice]:
        """The rows of each class, given the sorted group of each row."""
        edges = np.searchsorted(group, np.arange(len(self.classes) + 1) * len(self.images))
        return [slice(int(a), int(b)) for a, b in pairwise(edges)]

    def by_score(self, rows: slice) -> IntArray:
        """The detections of one class, highest score first; equal scores by image, then by row."""
        score = -self.score[rows]
        order = np.argsort(score)  # not stable, but several times as fast; done again where it matters
        ordered = score[order]
        if (ordered[1:] == ordered[:-1]).any():
            order = np.argsort(score, kind="stable")
        result: IntArray = order + rows.start
        return result

    def truths_per_image(self, rows: slice, counted: BoolArray) -> IntArray:
        """How many truths of one class count in each image: (I,)."""
        image = self.image_of(self.truth_group[rows][counted[rows]])
        return np.bincount(image, minlength=len(self.images))


def lay_out(
    truths: Mapping[ImageId, Annotations], detections: Mapping[ImageId, Detections], classes: Sequence[str],
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
) -> Pool:  # fmt: skip
    """Lay out a set for judging; every image of `truths` counts, with or without detections.

    `sizes` are width and height of the images where known, which VisDrone's ignored regions ask for.

    Raises DataError that lists every problem: detections of images that have no truth, labels outside `classes`,
    boxes that are not finite.
    """
    images = tuple(sorted(truths, key=_canonical))
    truth = tuple(truths[image] for image in images)
    found = tuple(detections.get(image) or _NOTHING for image in images)
    box, label = _joined([d.boxes for d in found], (0, 4)), _joined([d.labels for d in found], 0, np.int64)
    _check(truths, detections, classes, images, _sound(label, box, len(classes)))
    if any("region" in t.extra for t in truth):
        truth = tuple(_regions_for_all(t, len(classes)) for t in truth)
        region = _joined([_region(t) for t in truth], 0, np.bool_)
    else:
        region = np.zeros(sum(map(len, truth)), np.bool_)
    truth_group, to = _groups(_joined([t.labels for t in truth], 0, np.int64), [len(t) for t in truth])
    group, do = _groups(label, [len(d) for d in found])
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return Pool(
        images, tuple(classes), truth_group,
        _joined([t.boxes for t in truth], (0, 4))[to],
        _joined([t.difficult for t in truth], 0, np.bool_)[to],
        _joined([t.ignore for t in truth], 0, np.bool_)[to],
        _joined([t.crowd for t in truth], 0, np.bool_)[to],
        _joined([_given_area(t) for t in truth], 0)[to],
        group, box[do], _joined([d.scores for d in found], 0)[do],
        np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group))),
        np.array([(sizes or {}).get(image, (np.nan, np.nan)) for image in images], np.float64).reshape(-1, 2),
        _joined([_places(d) for d in found], 0, np.int64)[do],
        region[to],
        (truth, to), (found, do),
    )  # fmt: skip


def _regions_for_all(truth: Annotations, classes: int) -> Annotations:
    """The truth with each region to ignore once per class, as class-wise judging needs it."""
    if not (region := _region(truth)).any() or classes < 2:
        return truth
    rows = np.repeat(np.arange(len(truth)), np.where(region, classes, 1))
    labels = np.where(region[rows], np.arange(len(rows)) - np.searchsorted(rows, rows), truth.labels[rows])
    whole = truth.take(rows)
    return Annotations(whole.boxes, labels, whole.difficult, whole.ignore, whole.crowd, whole.extra)


def _region(truth: Annotations) -> BoolArray:
    given = truth.extra.get("region")
    return np.zeros(len(truth), np.bool_) if given is None else np.asarray(given, np.bool_) & truth.ignore


def _places(found: Detections) -> IntArray:
    given = found.extra.get("row")
    return np.arange(len(found)) if given is None else np.asarray(given, np.int64)


def _gathered(
    records: tuple[Annotations, ...] | tuple[Detections, ...], order: IntArray, name: str, otherwise: Any
) -> NDArray[Any] | None:
    there = [record.extra[name] for record in records if name in record.extra and len(record)]
    if not there:
        return None
    shape, dtype = there[0].shape[1:], np.result_type(*there, np.asarray(otherwise))
    parts = [
        record.extra[name] if name in record.extra else np.full((len(record), *shape), otherwise, dtype)
        for record in records
    ]
    return np.concatenate(parts)[order]


def _canonical(image: ImageId) -> tuple[bool, ImageId]:
    return (isinstance(image, str), image)


def _joined(parts: Sequence[NDArray[Any]], empty: int | tuple[int, ...], dtype: type = np.float64) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty, dtype)


def _groups(label: IntArray, counts: Sequence[int]) -> tuple[IntArray, IntArray]:
    """The sorted group of each row and the order that sorts them, rows of a group as they came.

    `label` (n,) of all images, one after the other, that have `counts` rows each.
    """
    image = np.repeat(np.arange(len(counts)), counts)
    small = label.astype(np.uint16) if len(label) and label.max() < 2**16 else label
    order = np.argsort(small, kind="stable")  # radix for 16 bits; images already ascend
    return label[order] * len(counts) + image[order], order


def _given_area(truth: Annotations) -> FloatArray:
    given = truth.extra.get("area")
    return np.full(len(truth), np.nan) if given is None else np.asarray(given, np.float64)


def _check(
    truths: Mapping[ImageId, Annotations],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    images: Sequence[ImageId],
    sound: bool,
) -> None:
    problems = _some(
        (image for image in detections if image not in truths),
        lambda image: f"detections of image {image!r}: no truth of that image{_near(image, truths)}",
        "images without truth",
    )
    n = len(classes)
    if len(set(classes)) < n:
        problems.append(
            f"classes: expected {n} different names, got {sorted({c for c in classes if classes.count(c) > 1})}"
        )
    problems += _bad_rows("truths", truths, n)
    if not sound:
        problems += _bad_rows("detections", detections, n)
    if problems:
        raise DataError(
            f"the detections cannot be judged against {len(images)} images and {n} classes", problems=problems,
            hint="image ids and class order of the detections must be those of the truth",
        )  # fmt: skip


def _bad_rows(what: str, records: Mapping[ImageId, Annotations] | Mapping[ImageId, Detections], n: int) -> list[str]:
    parts: list[Annotations | Detections] = list(records.values())
    if _sound(_joined([r.labels for r in parts], 0, np.int64), _joined([r.boxes for r in parts], (0, 4)), n):
        return []
    labels = {i: out for i, r in records.items() if (out := _outside(r.labels, n))}
    boxes = {i: r.boxes for i, r in records.items() if not np.isfinite(r.boxes).all()}
    return _some(
        labels,
        lambda i: f"{what} of image {i!r}: expected labels 0 to {n - 1}, got {labels[i]}",
        f"images with such labels in the {what}",
    ) + _some(
        boxes,
        lambda i: f"{what} of image {i!r}: box {_not_finite(boxes[i])} is not finite",
        f"images with such boxes in the {what}",
    )


def _sound(label: IntArray, box: FloatArray, n: int) -> bool:
    return not len(label) or bool(label.min() >= 0 and label.max() < n and np.isfinite(box).all())


def _some(bad: Iterable[ImageId], say: Callable[[ImageId], str], rest: str) -> list[str]:
    found = list(bad)
    more = [f"… and {len(found) - _LISTED} more {rest}"] if len(found) > _LISTED else []
    return [say(image) for image in found[:_LISTED]] + more


def _near(image: ImageId, truths: Mapping[ImageId, Annotations]) -> str:
    for other in (str(image), int(image) if str(image).isdecimal() else None):
        if other in truths and other is not None:
            return f" (did you mean {other!r}, as {type(other).__name__}?)"
    return did_you_mean(str(image), [str(known) for known in truths])


def _outside(labels: IntArray, n: int) -> list[int]:
    bad = (labels < 0) | (labels >= n)
    return sorted({int(label) for label in labels[bad]}) if bad.any() else []


def _not_finite(boxes: FloatArray) -> list[float]:
    return [float(v) for v in boxes[~np.isfinite(boxes).all(1)][0]]
