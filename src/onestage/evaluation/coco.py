"""COCO's twelve numbers, per class too: the rules of pycocotools, all thresholds and areas at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from onestage.evaluation.average_precision import HUNDRED_AND_ONE_POINTS, average_precisions, mean_present, recalls
from onestage.evaluation.coco_matching import Outcome, match, sides
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.records import BoolArray, FloatArray, IntArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10),
}  # fmt: skip
SUMMARY = (
    "mAP50-95", "mAP50", "mAP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
PER_CLASS = tuple(name.removeprefix("m") for name in SUMMARY)
_SIZED = {"s": "small", "m": "medium", "l": "large"}


def coco(pool: Pool) -> Judgement:
    """The twelve numbers as `SUMMARY` names them, and the same of each class as `PER_CLASS` names them.

    AP is the mean over IoU 0.50 to 0.95 in steps of 0.05 and over the classes that occur; s, m, l are truths of area
    up to 32², up to 96² and above, in square pixels (the file's own area where it gives one, which counts the mask,
    not the box); AR1, AR10, AR100 are recalls with that many detections per class and image. NaN where pycocotools
    says -1.

    Source: COCOeval of pycocotools 2.0.11, whose numbers these are (to rounding: it adds 2⁻⁵² to each denominator).
    Difference: truths marked `ignore` count neither way and take one detection each, where pycocotools overwrites
    that mark with iscrowd, so a reader that wants its number must not set it. `difficult` is not a word of COCO's
    and has no effect. pycocotools takes a match with the annotation whose id is 0 for none: so do we where
    extra["null_id"] marks it, and say so.
    """
    ranked = rankings(pool)
    n_truths = {area: [r.n_truths for r in of_area] for area, of_area in ranked.items()}
    classes = pool.classes  # and no more of the pool, so that it can be let go
    index = {name: k for k, name in enumerate(classes)}

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        return _scores(classes, ranked, weights)

    def some(weights: IntArray, keys: Collection[Key]) -> dict[Key, FloatArray]:
        return _scores(classes, ranked, weights, keys)

    def count(key: Key) -> int:
        name, class_name = key
        counts = n_truths[_SIZED.get(name[-1], "all")]
        return sum(counts) if class_name is None else counts[index[class_name]]

    return Judgement(
        "coco", scores, count, len(pool.images), ranked, HUNDRED_AND_ONE_POINTS, notes=_notes(pool), some=some
    )


def rankings(
    pool: Pool,
    thresholds: FloatArray = THRESHOLDS,
    max_detections: int = MAX_DETECTIONS[-1],
    areas: Mapping[str, tuple[float, float]] = AREAS,
) -> dict[str, list[Ranking]]:
    """Each class's detections in order of score with COCO's verdict at T `thresholds`, per area range.

    `max_detections` is how many per class and image are looked at.
    """
    area = _truth_area(pool)
    limits = list(areas.values())
    outside = np.stack([(area < low) | (area > high) for low, high in limits], axis=1)
    ignored = outside | (pool.truth_ignore | pool.truth_crowd)[:, None]
    outcome = match(pool, ignored, thresholds, max_detections, _unseen(pool))
    width, height = sides(pool.box)
    box_area = width * height
    result: dict[str, list[Ranking]] = {name: [] for name in areas}
    for rows, own in zip(pool.class_slices(pool.group), pool.class_slices(pool.truth_group), strict=True):
        order = pool.by_score(rows)
        order = order[pool.rank[order] < max_detections]
        for a, (name, (low, high)) in enumerate(areas.items()):
            inside = (box_area[order] >= low) & (box_area[order] <= high)
            per_image = pool.truths_per_image(own, ~ignored[:, a])
            result[name].append(_ranking(pool, order, inside, outcome, a, per_image))
    return result


def _ranking(pool: Pool, order: IntArray, inside: BoolArray, outcome: Outcome, area: int, truths: IntArray) -> Ranking:
    """One class in one area range; detections that count at no threshold are left out."""
    n_thresholds = outcome.state.shape[1]
    hit = np.zeros((n_thresholds, len(order)), np.bool_)
    counted = np.repeat(inside[None], n_thresholds, axis=0)
    place = outcome.place[order]
    paired = np.flatnonzero(place >= 0)
    state = outcome.state[place[paired], :, area].T
    hit[:, paired] = state == Outcome.HIT
    counted[:, paired] = (counted[:, paired] & (state == Outcome.FREE)) | (state == Outcome.HIT)
    if not inside.all():
        keep = counted.any(0)
        order, hit, counted = order[keep], hit[:, keep], counted[:, keep]
    return Ranking(pool.image_of(pool.group[order]), pool.score[order], pool.rank[order], hit, counted, truths)


def _scores(
    classes: tuple[str, ...], ranked: dict[str, list[Ranking]], weights: IntArray, keys: Collection[Key] | None = None
) -> dict[Key, FloatArray]:
    """All scores, or at least those of `keys`."""
    if not classes:
        return {(name, None): np.full(len(weights), np.nan) for name in SUMMARY}
    wanted = set(SUMMARY) if keys is None else {name for name, _ in keys}
    result: dict[Key, FloatArray] = {}

    def put(name: str, values: FloatArray, of_class: str | None = None) -> None:
        """`values` are (C, T, B): their mean over classes as `name`, and of each class."""
        result[name, None] = mean_present(values, (0, 1))
        result.update({(of_class or name, c): mean_present(values[k]) for k, c in enumerate(classes)})

    if wanted & {"mAP50-95", "mAP50", "mAP75", *PER_CLASS[:3]}:
        ap = average_precisions(ranked["all"], HUNDRED_AND_ONE_POINTS, weights)
        put("mAP50-95", ap, "AP50-95")
        put("mAP50", ap[:, :1], "AP50")
        put("mAP75", ap[:, 5:6], "AP75")
    for s, area in _SIZED.items():
        if f"AP{s}" in wanted:
            put(f"AP{s}", average_precisions(ranked[area], HUNDRED_AND_ONE_POINTS, weights))
    found = {f"AR{limit}": ("all", limit) for limit in MAX_DETECTIONS}
    found |= {f"AR{s}": (area, MAX_DETECTIONS[-1]) for s, area in _SIZED.items()}
    for name, (area, limit) in found.items():
        if name in wanted:
            put(name, recalls(ranked[area], limit, weights))
    return result


def _unseen(pool: Pool) -> BoolArray | None:
    """The truths that pycocotools cannot see to be found, (G,); None where it sees all."""
    marked = pool.truth_column("null_id", False)
    return None if marked is None else marked.astype(np.bool_)


def _notes(pool: Pool) -> tuple[str, ...]:
    unseen = _unseen(pool)
    if unseen is None or not (unseen & ~pool.truth_crowd & ~pool.truth_ignore).any():
        return ()
    return (
        "the annotation with id 0 can only be missed, and what is found there is false, as in pycocotools; "
        "annotations numbered from 1 do not meet this",
    )


def _truth_area(pool: Pool) -> FloatArray:
    width, height = sides(pool.truth_box)
    return np.where(np.isnan(pool.truth_area), width * height, pool.truth_area)
