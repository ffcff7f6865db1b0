"""PASCAL VOC: 11 points (2007) and the area under the envelope (2010 on), matching as in the devkit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    AreaRule,
    area_under_envelope,
    average_precisions,
    mean_present,
)
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.overlap import paired_iou, pairs
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.records import BoolArray, FloatArray, IntArray


def voc07(pool: Pool, thresholds: Sequence[float] = (0.5,), pixel_offset: float = 0.0) -> Judgement:
    """AP by 11 recall points, as VOC 2007 and the SSD paper report it; mAP over the classes that occur.

    `thresholds` are IoU values in (0, 1]. `pixel_offset` 1 adds a pixel to every side, for boxes whose far edge is
    inside the box; the protocol is then called voc07+1. Our boxes are half-open, so 0 on them equals the devkit's +1
    on the closed pixels of a VOC file; 1 is for boxes read without that conversion (lufficc/SSD, py-faster-rcnn), and
    leaves those alone that had it (see `compared_boxes`).

    Source: VOCevaldet of the VOC devkit, which takes equal scores in the order of its file: so do we where
    extra["place"] tells it (comp4), else by image id, then row. Difference: truths marked `ignore` or `crowd` are
    treated like `difficult` ones.
    """
    return _judge(pool, "voc07", ELEVEN_POINTS, thresholds, pixel_offset)


def voc10(pool: Pool, thresholds: Sequence[float] = (0.5,), pixel_offset: float = 0.0) -> Judgement:
    """AP as the whole area under the falling envelope, as VOC 2010 to 2012; else as `voc07`."""
    return _judge(pool, "voc10", area_under_envelope, thresholds, pixel_offset)


def rankings(
    pool: Pool, thresholds: Sequence[float] = (0.5,), pixel_offset: float = 0.0, difficult_counts: bool = False
) -> list[Ranking]:
    """Each class's detections in order of score with the devkit's verdict at each threshold.

    A detection belongs to the truth of its class and image that it overlaps most (the first of equals), taken or
    not. At IoU >= threshold it is a hit if it is the first to claim that truth, false if a later one, and not
    counted if that truth is difficult. Recall is over the truths that are not difficult. With `difficult_counts`
    difficult truths are truths like any other.
    """
    counts = ~(pool.truth_ignore | pool.truth_crowd)
    counts = counts if difficult_counts else counts & ~pool.truth_difficult
    best, truth = _best_truth(pool, pixel_offset)
    place = pool.column("place")
    result = []
    for rows, own in zip(pool.class_slices(pool.group), pool.class_slices(pool.truth_group), strict=True):
        order = pool.by_score(rows) if place is None else rows.start + np.lexsort((place[rows], -pool.score[rows]))
        hit, counted = _verdict(best[order], truth[order], counts, np.asarray(thresholds, np.float64))
        image = pool.image_of(pool.group[order])
        per_image = pool.truths_per_image(own, counts)
        result.append(Ranking(image, pool.score[order], pool.rank[order], hit, counted, per_image))
    return result


def compared_boxes(pool: Pool, pixel_offset: float) -> tuple[FloatArray, FloatArray, float]:
    """The boxes of detections (D, 4) and truths (G, 4) that VOC compares, and what is added to each side.

    Where both have extra["corners"], closed pixels as VOC's files write them, those and 1: the devkit's own
    arithmetic, which never asks whether a file counts from 0. Otherwise the half-open boxes; `pixel_offset` then
    grows only those that were not made from closed pixels.
    """
    written = pool.column("corners", np.nan), pool.truth_column("corners", np.nan)
    boxes = pool.box, pool.truth_box
    if all(corners is not None and np.isfinite(corners).all() for corners in written):
        return written[0], written[1], 1.0  # type: ignore[return-value]
    if not pixel_offset or (written[0] is None and written[1] is None):
        return *boxes, pixel_offset
    return _grown(boxes[0], written[0], pixel_offset), _grown(boxes[1], written[1], pixel_offset), 0.0


def _grown(box: FloatArray, corners: FloatArray | None, offset: float) -> FloatArray:
    """Boxes (N, 4) with `offset` at their far edges, but those whose `corners` show that the pixel is counted."""
    counted = np.zeros(len(box), np.bool_) if corners is None else corners[:, 0] - box[:, 0] > 0.5
    return box + np.outer(~counted, [0, 0, offset, offset])


def _best_truth(pool: Pool, pixel_offset: float) -> tuple[FloatArray, IntArray]:
    """The IoU and index of the truth that each detection overlaps most: two (D,); -1 where there is none."""
    best = np.full(len(pool.group), -1.0)
    truth = np.full(len(pool.group), -1, np.int64)
    box, truth_box, offset = compared_boxes(pool, pixel_offset)
    for rows, candidates in pairs(pool, np.arange(len(pool.group))):
        overlap = paired_iou(box[rows], truth_box[candidates], offset)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        top = np.maximum.reduceat(overlap, starts)
        best[rows[starts]] = top
        at_top = np.flatnonzero(overlap == np.repeat(top, np.diff(starts, append=len(rows))))
        at_top = at_top[::-1]  # written last wins, and the first of equals is to win
        truth[rows[at_top]] = candidates[at_top]
    return best, truth


def _verdict(
    best: FloatArray, truth: IntArray, counts: BoolArray, thresholds: FloatArray
) -> tuple[BoolArray, BoolArray]:
    """Hit and counted (T, n) of the detections of a class, which come in order of score."""
    hit = np.zeros((len(thresholds), len(best)), np.bool_)
    counted = np.ones_like(hit)
    for t, threshold in enumerate(thresholds):
        near = np.flatnonzero((best >= threshold) & (truth >= 0))
        _, first = np.unique(truth[near], return_index=True)
        hit[t, near[first]] = True
        aside = near[~counts[truth[near]]]
        hit[t, aside] = counted[t, aside] = False
    return hit, counted


def _judge(pool: Pool, name: str, rule: AreaRule, thresholds: Sequence[float], pixel_offset: float) -> Judgement:
    ranked = rankings(pool, thresholds, pixel_offset)
    n_per_class = {c: ranking.n_truths for c, ranking in zip(pool.classes, ranked, strict=True)}
    percent = [f"{100 * threshold:g}" for threshold in thresholds]
    classes, n_images = pool.classes, len(pool.images)  # and no more of the pool, so that it can be let go

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        ap = average_precisions(ranked, rule, weights)
        result: dict[Key, FloatArray] = {}
        for t, iou in enumerate(percent):
            result[f"mAP{iou}", None] = mean_present(ap[:, t]) if len(ranked) else np.full(len(weights), np.nan)
            result.update({(f"AP{iou}", c): ap[k, t] for k, c in enumerate(classes)})
        return result

    def count(key: Key) -> int:
        return sum(n_per_class.values()) if key[1] is None else n_per_class[key[1]]

    protocol = f"{name}+{pixel_offset:g}" if pixel_offset else name
    return Judgement(protocol, scores, count, n_images, {"": ranked}, rule)
