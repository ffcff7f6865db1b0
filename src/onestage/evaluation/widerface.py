"""WIDER FACE: average precision of easy, medium and hard faces by the rule of the official tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onestage.boxes import geometry
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.pool import Pool
from onestage.records import FloatArray, IntArray

LEVELS = ("easy", "medium", "hard")
AS_FILED = " as filed"
IOU = 0.5
STEPS = 1000
# Written as the tool computes them, for a score that falls on one of them must fall on the same side
THRESHOLDS: FloatArray = 1 - np.arange(1, STEPS + 1) / STEPS
_PAIRS = 1 << 20


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of the detections: their places (n,), ascending, in the set's order of score, and their images (n,)."""

    place: IntArray
    image: IntArray


@dataclass(frozen=True, eq=False)
class _Level:
    """What one level makes of the detections.

    `hit` are the first to find a face of the level, `aside` those on a face outside it, which are not counted.
    `faces` (I,) is how many faces of each image belong to the level.
    """

    hit: _Some
    aside: _Some
    faces: IntArray


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The scores of all detections (D,), highest first, the detections that count, and what the levels make of them.

    `lowest` and `highest` (I,) are the extreme scores of each image, infinite where nothing was found.
    """

    score: FloatArray
    counted: _Some
    lowest: FloatArray
    highest: FloatArray
    levels: Mapping[str, _Level]


def widerface(pool: Pool) -> Judgement:
    """APeasy, APmedium, APhard: the three numbers of WIDER FACE's validation set.

    Faces need the columns "easy", "medium" and "hard" (see `unfit`); boxes are (x, y, x + width, y + height), to which
    the rule adds a pixel. Scores are stretched over the whole set, from the lowest to the highest, and compared with
    1000 thresholds. A detection belongs to the face that it overlaps most (the first of equals), if IoU is at
    least 0.5: on a face outside the level it is not counted, on a face found before it is false. Detections in an
    image that has no face at all are not counted. A score is NaN where no face belongs to its level. `ignore` and
    `difficult` have no effect: the lists decide.

    Source: the MATLAB eval_tools of WIDER FACE as ported by wondervictor (WiderFace-Evaluation, 53474e0); equal to it.
    Detections are taken in order of score, as the MATLAB original does, which sorts each file; the port believes
    that files are sorted. Where some are not, "APeasy as filed" and its like are the port's numbers. Differences: an
    image without detections is one in which nothing was found, where the port stops; in a resample only the images
    drawn stretch the scores.
    """
    ranked = _rank(pool)
    filed, unsorted = _as_filed(pool)
    takes = {"": ranked} | ({AS_FILED: _rank(filed, ranked)} if unsorted else {})

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        nothing = np.full(len(weights), np.nan)
        result: dict[Key, FloatArray] = {(f"AP{name}{how}", None): nothing.copy() for how in takes for name in LEVELS}
        for b, drawn in enumerate(weights):
            for how, rows in takes.items():
                precisions = _precision_recall(rows, drawn)
                for name in LEVELS:
                    result[f"AP{name}{how}", None][b] = _area(*precisions[name])
        return result

    def count(key: Key) -> int:
        return int(ranked.levels[key[0].removeprefix("AP").removesuffix(AS_FILED)].faces.sum())

    curves, notes = _curves(ranked, len(pool.images)), _notes(ranked, unsorted)
    return Judgement("widerface", scores, count, len(pool.images), {}, None, curves, notes)


def unfit(pool: Pool) -> str | None:
    """Why a set cannot be judged as WIDER FACE; None where it can: it has one class, or one named face, and levels."""
    if len(pool.classes) != 1 and "face" not in pool.classes:
        return f"expected the class 'face', got {pool.told_classes()}"
    missing = [name for name in LEVELS if pool.truth_column(name, False) is None] if len(pool.truth_box) else []
    if not missing:
        return None
    files = ", ".join(f"wider_{name}_val.mat" for name in missing)
    return (
        f"which faces are {', '.join(missing)} is told by {files} alone: "
        "put the official eval_tools/ground_truth beside the annotations, or open it with data="
    )


def _as_filed(pool: Pool) -> tuple[Pool, int]:
    """The set as the port takes it, and how many groups of detections are not sorted by score.

    The port counts, at a threshold, every row up to the last one that reaches it: each row counts with the highest
    score from it on, and rows claim faces in the order of the file.
    """
    order = np.lexsort((pool.row, pool.group))
    score, group = pool.score[order].copy(), pool.group
    fall = np.flatnonzero((score[1:] > score[:-1]) & (group[1:] == group[:-1]))
    unsorted = np.unique(group[fall])
    for one in unsorted.tolist():
        rows = slice(*np.searchsorted(group, [one, one + 1]).tolist())
        score[rows] = np.maximum.accumulate(score[rows][::-1])[::-1]
    return replace(pool, box=pool.box[order], score=score, row=pool.row[order]), len(unsorted)


def _rank(pool: Pool, stretched: _Ranked | None = None) -> _Ranked:
    """The set in order of score; the scores that stretch it are its own, or those of `stretched`."""
    label = pool.classes.index("face") if "face" in pool.classes else 0
    rows, own = pool.class_slices(pool.group)[label], pool.class_slices(pool.truth_group)[label]
    n = len(pool.images)
    image, truth_image = pool.image_of(pool.group[rows]), pool.image_of(pool.truth_group[own])
    order = pool.by_score(rows) - rows.start
    face = _nearest(pool.box[rows], image, pool.truth_box[own], truth_image, n)[order]
    lowest, highest = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(lowest, image, pool.score[rows])
    np.maximum.at(highest, image, pool.score[rows])
    if stretched is not None:
        lowest, highest = stretched.lowest, stretched.highest
    by_score, levels = image[order], {}
    for name in LEVELS:
        column = pool.truth_column(name, False)
        belongs = np.zeros(len(truth_image), np.bool_) if column is None else column[own].astype(np.bool_)
        on = np.flatnonzero(face >= 0)
        good = belongs[face[on]]
        _, first = np.unique(face[on[good]], return_index=True)
        hit, aside = np.sort(on[good][first]), on[~good]
        faces = np.bincount(truth_image[belongs], minlength=n)
        levels[name] = _Level(_Some(hit, by_score[hit]), _Some(aside, by_score[aside]), faces)
    counted = np.flatnonzero((np.bincount(truth_image, minlength=n) > 0)[by_score])
    return _Ranked(pool.score[rows][order], _Some(counted, by_score[counted]), lowest, highest, levels)


def _nearest(
    box: FloatArray, image: IntArray, faces: FloatArray, face_image: IntArray, n_images: int
) -> IntArray:  # fmt: skip
    """The face of its image that each detection overlaps most, where by at least IOU: (D,), else -1.

    `image` and `face_image` ascend.
    """
    result = np.full(len(box), -1, np.int64)
    ends, face_ends = (np.searchsorted(column, np.arange(n_images + 1)) for column in (image, face_image))
    for k in np.flatnonzero((np.diff(ends) > 0) & (np.diff(face_ends) > 0)).tolist():
        own = faces[face_ends[k] : face_ends[k + 1]]
        at_once = max(1, _PAIRS // len(own))
        for start in range(int(ends[k]), int(ends[k + 1]), at_once):
            part = slice(start, min(start + at_once, int(ends[k + 1])))
            overlap = geometry.iou(box[part], own, 1.0)
            best = overlap.argmax(1)
            near = overlap[np.arange(len(best)), best] >= IOU
            result[part] = np.where(near, best + face_ends[k], -1)
    return result


def _precision_recall(ranked: _Ranked, weights: IntArray) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Precision and recall (STEPS,) of each level, with images counted as often as `weights` (I,) say.

    Precision is NaN where nothing counts yet, recall where no face belongs to the level.
    """
    reached = _reached(ranked, weights)
    known = weights.astype(np.int64)
    every = _reaching(ranked.counted, known, reached)
    result = {}
    for name, level in ranked.levels.items():
        hits = _reaching(level.hit, known, reached)
        aside = _reaching(level.aside, known, reached)
        counted, faces = every - aside, known @ level.faces
        nothing = np.full(STEPS, np.nan)
        precision = np.divide(hits, counted, out=nothing.copy(), where=counted > 0)
        result[name] = precision, (hits / faces if faces else nothing)
    return result


def _reaching(some: _Some, weights: IntArray, reached: IntArray) -> IntArray:
    """How many of `some` are among the first `reached` (STEPS,) detections, weighted: (STEPS,)."""
    ends = np.searchsorted(some.place, reached)
    starts = np.union1d(0, ends[ends < len(some.place)])
    if not len(some.place):
        return np.zeros_like(ends)
    sums = np.add.reduceat(weights[some.image], starts)  # much faster than a running sum over all
    before: IntArray = np.concatenate([[0], np.cumsum(sums)])[np.searchsorted(starts, ends)]
    return before


def _reached(ranked: _Ranked, weights: IntArray) -> IntArray:
    """How many of the detections, highest score first, reach each threshold: (STEPS,), ascending.

    The scores are stretched by the extremes of the images drawn, the highest at least 0 and the lowest at most 1, as
    the tool does it. Found by bisection on the stretched scores themselves, so that no rounding can differ.
    """
    drawn = weights > 0
    highest = max(float(ranked.highest[drawn].max(initial=-np.inf)), 0.0)
    lowest = min(float(ranked.lowest[drawn].min(initial=np.inf)), 1.0)
    low, high = np.zeros(STEPS, np.int64), np.full(STEPS, len(ranked.score))
    if highest == lowest:  # the tool divides by zero and no score reaches anything
        return low
    while (open_ := low < high).any():
        middle = (low + high) // 2
        score = ranked.score[np.minimum(middle, len(ranked.score) - 1)]
        passes = (score - lowest) / (highest - lowest) >= THRESHOLDS
        low, high = np.where(open_ & passes, middle + 1, low), np.where(open_ & ~passes, middle, high)
    return low


def _area(precision: FloatArray, recall: FloatArray) -> float:
    """The area under the falling envelope; NaN without faces."""
    if np.isnan(recall).any():
        return float("nan")
    envelope = np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _curves(ranked: _Ranked, n_images: int) -> dict[str, dict[str, list[float]]]:
    """Recall, precision and threshold of each level at every second threshold where something counts."""
    result = {}
    for name, (precision, recall) in _precision_recall(ranked, np.ones(n_images, np.int64)).items():
        keep = np.flatnonzero(~np.isnan(precision) & ~np.isnan(recall))
        keep = keep[(keep % 2 == 1) | (keep == keep[:1])]
        columns = {"recall": recall, "precision": precision, "scores": THRESHOLDS}
        result[name] = {key: column[keep].tolist() for key, column in columns.items()}
    return result


def _notes(ranked: _Ranked, unsorted: int) -> tuple[str, ...]:
    notes = []
    if unsorted:
        notes.append(
            f"the rows of {unsorted} images are not sorted by score; they are sorted first, as in the MATLAB tool; the "
            "Python port takes them as they stand, and gives what is called 'as filed'"
        )
    without = len(ranked.score) - len(ranked.counted.place)
    if without:
        notes.append(f"{without} detections lie in images that have no face at all; the rule does not count them")
    if len(ranked.score) and ranked.score[0] == ranked.score[-1] and 0 <= ranked.score[0] <= 1:
        notes.append("all scores are equal: stretched over the set they reach no threshold, and every AP is 0")
    return tuple(notes)
