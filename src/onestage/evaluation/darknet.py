"""AlexeyAB's darknet: `detector map` with -points 0, 11 or 101, and its rates at confidence 0.25."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    HUNDRED_AND_ONE_POINTS,
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

CONFIDENCE = 0.25
# darknet is built with -Ofast, which makes point / 10 into point * 0.1: the same doubles as VOC's and COCO's.
RULES: Mapping[int, AreaRule] = {0: area_under_envelope, 11: ELEVEN_POINTS, 101: HUNDRED_AND_ONE_POINTS}
_Single = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Claims:
    """What each detection (D,) claims: `truth` is its index or -1, `overlap` the IoU with it.

    `aside` marks detections that darknet throws away, since nothing but a difficult truth lies under them.
    """

    truth: IntArray
    overlap: FloatArray
    aside: BoolArray


def darknet(pool: Pool, points: int = 0) -> Judgement:
    """mAP50 over all classes of the .names, AP50 of each, and rates at confidence 0.25, as `detector map` prints them.

    `points` 0 takes the whole area, 11 and 101 that many recall points. A class without truths has AP 0 and lowers
    mAP50; "mAP50 present" leaves such classes out. precision, recall, F1 and the counts TP, FP, FN are over all
    classes together; "IoU" is the sum of the IoUs of the TP over TP + FP, so that every false detection pulls it
    down. Undefined rates are NaN (darknet prints -nan).

    Source: validate_detector_map of AlexeyAB/darknet (commit 59596d7), whose numbers these are, quirks too: see
    `rankings` and `_Rates`. Boxes are compared in single precision relative to the image, as there, where all image
    sizes are known, else in pixels: only an IoU within 1e-6 of 0.5 can tell. Differences: equal scores are taken by
    image id, then row (darknet sorts with qsort, which promises no order; glibc's merge sort gives the order of the
    list of images, then of the network's boxes); truths marked `ignore` or `crowd` are treated like difficult ones;
    a set without any detection has AP 0, where darknet reads outside its memory.
    """
    claims = claimed(pool)
    ranked = rankings(pool, claims=claims)
    rates = _Rates.of(pool, claims)
    rule = RULES[points]
    n_truths = [ranking.n_truths for ranking in ranked]

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        ap = average_precisions(ranked, rule, weights)[:, 0]
        known = len(ranked) > 0
        nothing = np.full(len(weights), np.nan)
        result: dict[Key, FloatArray] = {
            ("mAP50", None): np.nan_to_num(ap).mean(0) if known else nothing,
            ("mAP50 present", None): mean_present(ap) if known else nothing,
        }
        result.update(rates.scores(weights, pool.classes))
        result.update({("AP50", c): np.nan_to_num(ap[k]) for k, c in enumerate(pool.classes)})
        return result

    def count(key: Key) -> int:
        if key[0] in ("precision", "IoU"):
            return int((rates.hits + rates.false).sum())
        return sum(n_truths) if key[1] is None else n_truths[pool.classes.index(key[1])]

    name = f"darknet{points or ''}"
    absent = n_truths.count(0)
    notes = [f"mAP50 counts {absent} of {len(n_truths)} classes as 0, for they have no truth"] if absent else []
    notes += [] if relative(pool) else ["boxes compared in pixels, for not all image sizes are known"]
    return Judgement(name, scores, count, len(pool.images), {"": ranked}, rule, notes=tuple(notes), absent_as_zero=True)


def rankings(pool: Pool, difficult_counts: bool = False, claims: Claims | None = None) -> list[Ranking]:
    """Each class's detections in order of score with darknet's verdict.

    A detection claims the truth of its class and image that it overlaps most, taken or not, if IoU is above 0.5; the
    first to claim it is a hit, a later one false. Difficult truths do not compete: only a detection that claims
    nothing else, and overlaps one of them, is left out. Scores of 0 and below are no detections. With
    `difficult_counts` difficult truths are truths like any other.
    """
    claims = claimed(pool, difficult_counts) if claims is None else claims
    counts = _counts(pool, difficult_counts)
    result = []
    for rows, own in zip(pool.class_slices(pool.group), pool.class_slices(pool.truth_group), strict=True):
        order = pool.by_score(rows)
        order = order[pool.score[order] > 0]
        hit = np.zeros(len(order), np.bool_)
        near = np.flatnonzero(claims.truth[order] >= 0)
        hit[near[np.unique(claims.truth[order[near]], return_index=True)[1]]] = True
        image, per_image = pool.image_of(pool.group[order]), pool.truths_per_image(own, counts)
        counted = ~claims.aside[order]
        result.append(Ranking(image, pool.score[order], pool.rank[order], hit[None], counted[None], per_image))
    return result


def claimed(pool: Pool, difficult_counts: bool = False, threshold: float = 0.5) -> Claims:
    """Which truth each detection claims at IoU > `threshold` (see `rankings`)."""
    counts = _counts(pool, difficult_counts)
    truth = np.full(len(pool.group), -1, np.int64)
    overlap, aside = np.zeros(len(pool.group)), np.zeros(len(pool.group), np.bool_)
    singles = relative(pool)
    for rows, candidates in pairs(pool, np.arange(len(pool.group))):
        iou = (
            paired_iou(pool.box[rows], pool.truth_box[candidates]) if singles is None
            else _single_iou(singles[0][rows], singles[1][candidates])
        )  # fmt: skip
        near, plain = iou > threshold, counts[candidates]
        aside[rows[near & ~plain]] = True
        keep = near & plain
        rows, candidates, iou = rows[keep], candidates[keep], iou[keep]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        if len(starts):
            top = np.maximum.reduceat(iou, starts)
            overlap[rows[starts]] = top
            at_top = np.flatnonzero(iou == np.repeat(top, np.diff(starts, append=len(rows))))[::-1]
            truth[rows[at_top]] = candidates[at_top]  # written last wins, and the first of equals is to win
    return Claims(truth, overlap, aside & (truth < 0))


def relative(pool: Pool) -> tuple[_Single, _Single] | None:
    """Detections (D, 4) and truths (G, 4) as darknet holds them: centre, width, height over the image's, single.

    None where the size of an image with boxes is not known.
    """
    image, truth_image = pool.image_of(pool.group), pool.image_of(pool.truth_group)
    if not (pool.size[np.concatenate([image, truth_image])] > 0).all():  # NaN and 0: not known
        return None
    return _relative(pool.box, pool.size[image]), _relative(pool.truth_box, pool.size[truth_image])


def _relative(box: FloatArray, size: FloatArray) -> _Single:
    near, far = box[:, :2], box[:, 2:]
    with np.errstate(over="ignore"):
        return np.concatenate([(near + far) / 2 / size, (far - near) / size], axis=1).astype(np.float32)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _single_iou(a: _Single, b: _Single) -> FloatArray:
    """IoU of boxes (P, 4) of centre and size in single precision, operation by operation as darknet takes it."""
    half_a, half_b = a[:, 2:] / np.float32(2), b[:, 2:] / np.float32(2)
    side = np.minimum(a[:, :2] + half_a, b[:, :2] + half_b) - np.maximum(a[:, :2] - half_a, b[:, :2] - half_b)
    shared = np.where((side < 0).any(1), np.float32(0), side[:, 0] * side[:, 1])
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=(shared != 0) & (union != 0))
    result: FloatArray = np.nan_to_num(iou.astype(np.float64), posinf=0.0)
    return result


def _counts(pool: Pool, difficult_counts: bool) -> BoolArray:
    result: BoolArray = ~(pool.truth_ignore | pool.truth_crowd)
    return result if difficult_counts else result & ~pool.truth_difficult


@dataclass(frozen=True, eq=False)
class _Rates:
    """Counts (C, I) at confidence 0.25: hits, false detections, truths, and the IoUs of the hits summed.

    Two quirks of darknet: a truth belongs to the first detection in the order of the network's boxes (here of the
    file), not of score, and that one may itself lie below 0.25, so that neither is a hit; and a detection thrown away
    for a difficult truth is false here.
    """

    hits: IntArray
    false: IntArray
    truths: IntArray
    overlap: FloatArray

    @classmethod
    def of(cls, pool: Pool, claims: Claims) -> _Rates:
        shape = len(pool.classes), len(pool.images)
        with np.errstate(over="ignore", under="ignore"):
            scored = pool.score.astype(np.float32)
        order = np.lexsort((pool.row, pool.image_of(pool.group)))
        near = order[(claims.truth[order] >= 0) & (scored[order] > 0)]
        first = np.zeros(len(pool.group), np.bool_)
        first[near[np.unique(claims.truth[near], return_index=True)[1]]] = True
        sure = scored > CONFIDENCE

        def per_cell(group: IntArray, weight: FloatArray | None = None) -> NDArray[np.float64] | IntArray:
            return np.bincount(group, weight, minlength=shape[0] * shape[1]).reshape(shape)

        hit = sure & first
        return cls(
            per_cell(pool.group[hit]).astype(np.int64), per_cell(pool.group[sure & ~first]).astype(np.int64),
            per_cell(pool.truth_group[_counts(pool, False)]).astype(np.int64),
            per_cell(pool.group[hit], claims.overlap[hit]).astype(np.float64),
        )  # fmt: skip

    def scores(self, weights: IntArray, classes: tuple[str, ...]) -> dict[Key, FloatArray]:
        """The rates for each row of weights (B, I), all classes together; counts per class too."""
        many = weights.astype(np.float64)  # BLAS has no product of integers; these are exact up to 2**53
        hits, false = many @ self.hits.T, many @ self.false.T  # (B, C)
        truths = many @ self.truths.sum(0)
        tp, fp = hits.sum(1), false.sum(1)
        precision, recall = _ratio(tp, tp + fp), _ratio(tp, truths)
        result: dict[Key, FloatArray] = {
            ("precision", None): precision,
            ("recall", None): recall,
            ("F1", None): _ratio(2 * precision * recall, precision + recall),
            ("IoU", None): np.nan_to_num(_ratio(many @ self.overlap.sum(0), tp + fp)),
            ("TP", None): tp,
            ("FP", None): fp,
            ("FN", None): truths - tp,
        }
        for k, name in enumerate(classes):
            result["TP", name], result["FP", name] = hits[:, k], false[:, k]
        return result


def _ratio(above: FloatArray | IntArray, below: FloatArray | IntArray) -> FloatArray:
    there = below > 0  # False for NaN too
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=there)
