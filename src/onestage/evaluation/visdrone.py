"""VisDrone DET: ignored regions, the first rows of a file, class means weighted by images and plain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.boxes.geometry import corners
from onestage.evaluation.average_precision import area_under_envelope, average_precisions, mean_present, recalls
from onestage.evaluation.coco_matching import Candidates, Outcome, assign, sides
from onestage.evaluation.ignored_regions import inside_regions
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.overlap import Pairs, joined, pairs
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.records import BoolArray, FloatArray, IntArray

# As Octave's 0.5:0.05:0.95 has them: 0.85 is a hair above 85/100
THRESHOLDS: FloatArray = np.add(0.5, np.arange(10) * 0.05, dtype=np.float64)
MAX_DETECTIONS = (1, 10, 100, 500)
OFFICIAL = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100", "AR500")
PLAIN = ("mAP50-95", "mAP50", "mAP75", "mAR1", "mAR10", "mAR100", "mAR500")


def visdrone(pool: Pool) -> Judgement:
    """The seven numbers as `OFFICIAL` names them, the same as plain class means (`PLAIN`), and those of each class.

    AP is the mean over IoU 0.50 to 0.95 in steps of 0.05 of the area under the envelope, AR the recall with the first
    1, 10, 100, 500 rows of each image's file, all in [0, 1]. The official mean counts every class once per image that
    contains it; the plain one once. Of each class: AP50-95, AP50, AR500. NaN where no truth counts.

    Truth and detections that lie by half in an ignored region are left out first (`inside_regions`); `row` says
    which rows of a file come first; rows that are missing there still take their place. Any truth can be judged so:
    what it marks `ignore` or `crowd` is a row of score 0, without regions nothing is left out, `difficult` has no
    effect. Of a VisDrone truth the columns "xywh", "score" and "category" are taken as the file has them.

    Source: the VisDrone2018-DET toolkit 1.0.4 in Octave, whose numbers these are. Recall is over all rows of a class,
    also those of score 0, which cannot be found. Differences: fractions, not percent; an image without a detection
    file is one in which nothing was found, where the toolkit stops.
    """
    truths, found = _as_written(pool)
    kept_truth, kept = _outside_regions(pool, truths, found)
    place = _places(pool, kept)
    per_image = np.bincount(pool.truth_group[kept_truth], minlength=len(pool.classes) * len(pool.images))
    per_image = per_image.reshape(len(pool.classes), len(pool.images))
    aside = _aside(pool)
    candidates = _candidates(pool, truths, found, kept_truth, kept & (place < MAX_DETECTIONS[-1]), aside)
    order = _order(pool)
    ranked = {
        limit: _rankings(pool, candidates, aside, order, place, kept & (place < limit), per_image)
        for limit in MAX_DETECTIONS
    }
    index = {name: k for k, name in enumerate(pool.classes)}

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        return _scores(pool.classes, ranked, per_image > 0, weights)

    def count(key: Key) -> int:
        return int(per_image.sum() if key[1] is None else per_image[index[key[1]]].sum())

    notes = _notes(pool, place, kept)
    last = ranked[MAX_DETECTIONS[-1]]
    return Judgement("visdrone", scores, count, len(pool.images), {"": last}, area_under_envelope, notes=notes)


def _as_written(pool: Pool) -> tuple[FloatArray, FloatArray]:
    """Left, top, width and height of all truths and detections, as their files have them where that is known."""
    sizes = np.where(pool.size > 0, pool.size, np.inf)
    result = []
    for group, box, given in (
        (pool.truth_group, pool.truth_box, pool.truth_column("xywh", np.nan)),
        (pool.group, pool.box, pool.column("xywh", np.nan)),
    ):
        plain = np.column_stack([box[:, :2], *sides(box)])
        if given is not None:
            # what was moved or cut after reading, by a tile or a resize, is no longer where the file has it
            whole = corners(given)
            cut = np.clip(whole, 0, np.tile(sizes[pool.image_of(group)], 2))
            same = (whole == box).all(1) | (cut == box).all(1)
            plain = np.where(same[:, None], given, plain)
        result.append(plain)
    return result[0], result[1]


def _aside(pool: Pool) -> BoolArray:
    """Truths on which a detection counts neither way: score 0 in a VisDrone file, else what is marked so."""
    marked = pool.truth_ignore | pool.truth_crowd
    score = pool.truth_column("score", np.nan)
    return marked if score is None else np.where(np.isnan(score), marked, score == 0)


def _outside_regions(pool: Pool, truths: FloatArray, found: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Truths that are objects, and detections, without those that lie in ignored regions: masks (G,) and (D,)."""
    kept_truth, kept = ~pool.truth_region, np.ones(len(pool.group), np.bool_)
    region = _ignored_regions(pool)
    region_of = pool.image_of(pool.truth_group[region])
    truth_rows = _Rows(pool.image_of(pool.truth_group), kept_truth)
    rows = _Rows(pool.image_of(pool.group), kept)
    for image in np.unique(region_of):
        here = truths[region[region_of == image]]
        for row, boxes, keep in ((truth_rows.of(image), truths, kept_truth), (rows.of(image), found, kept)):
            keep[row] = ~inside_regions(boxes[row], here, pool.size[image])
    return kept_truth, kept


def _ignored_regions(pool: Pool) -> IntArray:
    """The rows of ignored regions, once each: VisDrone's "others" are regions of the record, but not to its judge."""
    first = pool.truth_region & (pool.truth_group < len(pool.images))
    category = pool.truth_column("category", 0)
    return np.flatnonzero(first if category is None else first & (category == 0))


class _Rows:
    """Looks up the chosen rows of an image."""

    def __init__(self, image: IntArray, chosen: BoolArray) -> None:
        rows = np.flatnonzero(chosen)
        self._rows = rows[np.argsort(image[rows], kind="stable")]
        self._image = image[self._rows]

    def of(self, image: int) -> IntArray:
        low, high = np.searchsorted(self._image, [image, image + 1])
        return self._rows[low:high]


def _places(pool: Pool, kept: BoolArray) -> IntArray:
    """The place of each detection in its image's file once the rows in ignored regions are gone: (D,)."""
    image = pool.image_of(pool.group)
    order = np.lexsort((pool.row, image))
    gone = np.cumsum(~kept[order])
    starts = np.searchsorted(image[order], image[order])
    before: IntArray = gone - (gone - ~kept[order])[starts]
    result = np.empty(len(order), np.int64)
    result[order] = pool.row[order] - before
    return result


def _candidates(
    pool: Pool, truths: FloatArray, found: FloatArray, kept_truth: BoolArray, kept: BoolArray, aside: BoolArray
) -> Pairs:
    """Detections and truths of the same class that overlap by the lowest threshold or more, and by how much: (P,)."""
    far, truth_far = found[:, :2] + found[:, 2:], truths[:, :2] + truths[:, 2:]
    area, truth_area = found[:, 2] * found[:, 3], truths[:, 2] * truths[:, 3]
    parts: list[Pairs] = []
    for detection, truth in pairs(pool, np.flatnonzero(kept)):
        object_ = kept_truth[truth]
        d, t = detection[object_], truth[object_]
        side = np.minimum(far[d], truth_far[t]) - np.maximum(found[d, :2], truths[t, :2])
        meet = (side > 0).all(1)
        d, t, shared = d[meet], t[meet], side[meet, 0] * side[meet, 1]
        overlap = shared / np.where(aside[t], area[d], area[d] + truth_area[t] - shared)
        near = overlap >= THRESHOLDS[0]
        parts.append((d[near], t[near], overlap[near]))
    return joined(parts)


def _order(pool: Pool) -> IntArray:
    """All detections by class, score, image in the order of file names, then as they lie in their group."""
    names = [f"{image}.txt" if isinstance(image, str) else "" for image in pool.images]
    place = np.empty(len(names), np.int64)
    place[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return np.lexsort((place[pool.image_of(pool.group)], -pool.score, pool.label_of(pool.group)))


def _rankings(
    pool: Pool, candidates: Pairs, aside: BoolArray, order: IntArray, place: IntArray,
    chosen: BoolArray, per_image: IntArray,
) -> list[Ranking]:  # fmt: skip
    """Each class's `chosen` detections (D,) in order of score with the verdict at each threshold.

    A detection takes, of the truths at IoU >= threshold that are free, the one it overlaps most (the last of equals);
    if there is none, it is not counted where enough of its own area lies in a truth that is `aside`.
    """
    detection, truth, overlap = candidates
    of = chosen[detection]
    found = Candidates.ordered(detection[of], truth[of], overlap[of], pool.group)
    outcome = assign(found, aside, aside[:, None], THRESHOLDS, len(pool.group))
    order = order[chosen[order]]
    result = []
    for rows, truths in zip(pool.class_slices(pool.group[order]), per_image, strict=True):
        own = order[rows]
        state = np.full((len(THRESHOLDS), len(own)), Outcome.FREE, np.int8)
        paired = np.flatnonzero(outcome.place[own] >= 0)
        state[:, paired] = outcome.state[outcome.place[own[paired]], :, 0].T
        image = pool.image_of(pool.group[own])
        hit, counted = state == Outcome.HIT, state != Outcome.ASIDE
        result.append(Ranking(image, pool.score[own], place[own], hit, counted, truths))
    return result


def _scores(
    classes: Sequence[str], ranked: dict[int, list[Ranking]], contains: BoolArray, weights: IntArray
) -> dict[Key, FloatArray]:  # fmt: skip
    if not classes:
        return {(name, None): np.full(len(weights), np.nan) for name in OFFICIAL + PLAIN}
    ap = average_precisions(ranked[MAX_DETECTIONS[-1]], area_under_envelope, weights)
    ar = [mean_present(recalls(of_limit, limit, weights), 1) for limit, of_limit in ranked.items()]
    per_class = [mean_present(ap, 1), ap[:, 0], ap[:, 5], *ar]  # (C, B) each
    images = contains.astype(np.float64) @ weights.T.astype(np.float64)
    result: dict[Key, FloatArray] = {}
    for name, values in zip(OFFICIAL, per_class, strict=True):
        result[name, None] = _weighted(values, images)
    for name, values in zip(PLAIN, per_class, strict=True):
        result[name, None] = mean_present(values)
    for k, class_name in enumerate(classes):
        result["AP50-95", class_name] = per_class[0][k]
        result["AP50", class_name] = per_class[1][k]
        result["AR500", class_name] = per_class[-1][k]
    return result


def _weighted(values: FloatArray, images: FloatArray) -> FloatArray:
    """Mean over classes of `values` (C, B), each as often as `images` (C, B) contain it: (B,), NaN where none does."""
    total = images.sum(0)
    summed = (np.where(images > 0, values, 0.0) * images).sum(0)
    result: FloatArray = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
    return result


def _notes(pool: Pool, place: IntArray, kept: BoolArray) -> tuple[str, ...]:
    region = pool.image_of(pool.truth_group[_ignored_regions(pool)])
    notes: list[str] = []
    unknown = int((~(pool.size[np.unique(region)] > 0).all(1)).sum())
    if unknown:
        notes.append(
            f"the sizes of {unknown} images with ignored regions are not known, so nothing is cut at their borders; "
            "this can matter only for boxes that reach beyond a border beyond which an ignored region reaches too"
        )
    if not len(region):
        notes.append("the truth names no ignored region, so none was left out")
    unsorted = _unsorted(pool, place, kept)
    if unsorted:
        notes.append(
            f"the rows of {unsorted} images are not sorted by score; the first 1, 10, 100 and 500 are taken as they "
            "stand, as the rule says, and are not the best"
        )
    return tuple(notes)


def _unsorted(pool: Pool, place: IntArray, kept: BoolArray) -> int:
    """How many images have a row that stands after one of lower score."""
    rows = np.flatnonzero(kept)
    image = pool.image_of(pool.group[rows])
    order = np.lexsort((place[rows], image))
    image, score = image[order], pool.score[rows][order]
    return len(np.unique(image[1:][(image[1:] == image[:-1]) & (score[1:] > score[:-1])]))
