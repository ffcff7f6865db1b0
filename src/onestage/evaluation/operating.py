"""Precision, recall and F1 at a score and by score, the score of best F1 and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.evaluation.average_precision import mean_present, per_image_count, precision_recall
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import DRAWS, sums_by_cell
from onestage.evaluation.uncertainty import interval
from onestage.records import FloatArray, IntArray

_TRIED = 200  # scores of a class among which a resample seeks its best

Curve = dict[str, list[float]]


def operating_points(rankings: Sequence[Ranking], classes: Sequence[str], score: float | None = None) -> dict[str, Any]:
    """Precision, recall and F1 where detections below a score are dropped, per class and as their mean.

    Without `score`, the one where the mean F1 over the classes that occur is highest (the highest of equals). Each
    class also tells its own best score. Detections at the score itself are kept. A class of which nothing is kept
    has precision 0; classes without truths are left out of the means (and say null). All as JSON.
    """
    chosen = "given" if score is not None else "best mean F1"
    at = best_score(rankings) if score is None else score
    rows = {}
    for name, ranking in zip(classes, rankings, strict=True):
        own_best = best_score([ranking])
        rows[name] = _plain(ranking, at) | {"truths": ranking.n_truths}
        rows[name]["best"] = {"score": own_best} | _plain(ranking, own_best)
    means = {
        key: _number(mean_present(np.array([_value(row[key]) for row in rows.values()])))
        for key in ("precision", "recall", "F1")
    }
    return {"score": at, "chosen": chosen, **means, "classes": rows}


def best_score(rankings: Sequence[Ranking]) -> float | None:
    """The score at which the mean F1 of the classes that occur is highest; None where nothing was found."""
    scores, gains = [], []
    for ranking in rankings:
        at, f1 = _f1_curve(ranking)
        scores.append(at)
        gains.append(np.diff(f1, prepend=0.0))
    score = np.concatenate(scores) if scores else np.zeros(0)
    if not len(score):
        return None
    order = np.argsort(-score, kind="stable")
    total = np.cumsum(np.concatenate(gains)[order])
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))
    best = ends[np.argmax(np.round(total[ends], 12))]  # rounding, for sums in another order differ in the last digits
    return float(score[order][best])


def curves(rankings: Sequence[Ranking], classes: Sequence[str], points: int = 500, t: int = 0) -> dict[str, Curve]:
    """Recall, precision and scores of each class for drawing, thinned to `points`; ends and jumps' order are kept."""
    result = {}
    for name, ranking in zip(classes, rankings, strict=True):
        recall, precision, scores = precision_recall(ranking, t)
        n = len(scores)
        keep = np.arange(n) if n <= points else np.unique(np.linspace(0, n - 1, points).round().astype(np.int64))
        if not ranking.n_truths:
            keep = keep[:0]
        result[name] = {
            "recall": recall[keep].tolist(),
            "precision": precision[keep].tolist(),
            "scores": scores[keep].tolist(),
        }
    return result


def confidence_curves(rankings: Sequence[Ranking], classes: Sequence[str], points: int = 101) -> dict[str, Any]:
    """Precision, recall and F1 by the score from which on detections are kept, per class and as their mean, as JSON.

    "scores" are `points` even steps from 0 to 1, or over the scores there are where some lie outside. The rest as in
    `operating_points`: a class of which nothing is kept has precision 0, classes without truths are left out.
    """
    rows = [ranking.score[ranking.counted[0]] for ranking in rankings]
    every = np.concatenate(rows) if rows else np.zeros(0)
    low, high = (0.0, 1.0) if not len(every) else (float(every.min()), float(every.max()))
    at = np.linspace(0, 1, points) if low >= 0 and high <= 1 else np.linspace(low, high, points)
    if high - low <= 1e12:
        at = at.round(12)
    each: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = {}
    for name, ranking, score in zip(classes, rankings, rows, strict=True):
        if ranking.n_truths:
            kept = np.searchsorted(-score, -at, side="right")
            hits = np.concatenate([[0], np.cumsum(ranking.hit[0][ranking.counted[0]])])[kept]
            each[name] = _rates(hits, kept, np.array(ranking.n_truths))
    names = ("precision", "recall", "F1")
    means = {key: np.mean([rates[i] for rates in each.values()], axis=0) for i, key in enumerate(names)} if each else {}
    return {
        "scores": at.tolist(),
        "mean": {key: values.round(5).tolist() for key, values in means.items()},
        "classes": {c: {key: r[i].round(5).tolist() for i, key in enumerate(names)} for c, r in each.items()},
    }


def reaching(ranking: Ranking, *, precision: float | None = None, recall: float | None = None) -> dict[str, Any] | None:
    """The score that reaches a wanted `precision` with the most recall, or a wanted `recall` with the most precision.

    Give one of the two, in (0, 1]; ValueError otherwise. Returns score, precision, recall and F1 as JSON, None where
    no score reaches it. Among equals the highest score. Detections of equal score are kept or dropped together.
    """
    if (precision is None) == (recall is None):
        raise ValueError("reaching: expected either precision or recall")
    rows = np.flatnonzero(ranking.counted[0])
    ends = np.flatnonzero(np.diff(ranking.score[rows], append=-np.inf))
    if not ranking.n_truths or not len(ends):
        return None
    hits = np.cumsum(ranking.hit[0][rows])[ends]
    rates = hits / (ends + 1), hits / ranking.n_truths
    wanted, free, least = (*rates, precision) if precision is not None else (rates[1], rates[0], recall)
    fit = np.flatnonzero(wanted >= (least or 0.0))
    if not len(fit):
        return None
    best = int(fit[np.argmax(free[fit])])
    score = float(ranking.score[rows][ends[best]])
    return {"score": score} | _plain(ranking, score)


def best_intervals(ranking: Ranking, weights: IntArray | FloatArray) -> dict[str, Any]:
    """How sure a class's score of best F1 is, from bootstrap `weights` (B, I) over images, of which 200 are used.

    "score_interval" is where the best score of a resample lies in 95 % of them: a wide one says that the score may
    be moved without harm, or that there are too few images to know it. "F1_interval" is that of F1 at the score found
    on the whole set, kept fixed. "F1_optimism" is how much that F1 is too high on average because score and F1 come
    from the same images: best F1 of a resample, less F1 of the whole set at the resample's best score. All None where
    nothing was found. Resamples seek among at most 200 scores of hits, for F1 is highest at a hit. For
    many classes give weights that are `laid_out`.

    Source of the optimism: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 17.6.
    """
    nothing = dict.fromkeys(("score_interval", "F1_interval", "F1_optimism"))
    own_best = best_score([ranking])
    found = np.unique(ranking.score[ranking.hit[0]])[::-1]
    if own_best is None or not len(found) or not len(weights):
        return nothing
    if len(found) > _TRIED:
        found = found[np.linspace(0, len(found) - 1, _TRIED).round().astype(np.int64)]
    tried = np.union1d(found, [own_best])[::-1]
    few = weights[:DRAWS]
    rows = np.flatnonzero(ranking.counted[0] & (ranking.score >= tried[-1]))
    cell = np.searchsorted(-tried, -ranking.score[rows])  # the highest score tried that keeps the row
    hit = ranking.hit[0][rows]
    counted = np.cumsum(sums_by_cell(few, ranking.image[rows], cell, len(tried)), axis=0)
    hits = np.cumsum(sums_by_cell(few, ranking.image[rows[hit]], cell[hit], len(tried)), axis=0)
    truths = few @ ranking.truths
    f1 = np.where(truths > 0, 2 * hits / np.maximum(counted + truths, 1), np.nan)
    known = truths > 0
    if not known.any():
        return nothing
    best = np.argmax(f1[:, known].round(12), axis=0)
    all_hits, all_counted = (np.cumsum(np.bincount(rows, minlength=len(tried))) for rows in (cell[hit], cell))
    whole = 2 * all_hits / (all_counted + ranking.n_truths)
    n_images = len(ranking.truths)
    ends = interval(np.where(known, f1[np.flatnonzero(tried == own_best)[0]], np.nan), n_images)
    scores = interval(tried[best], n_images) if 2 * known.sum() >= len(known) else None
    optimism = f1[:, known][best, np.arange(len(best))] - whole[best]
    return {
        "score_interval": None if scores is None else list(scores),
        "F1_interval": None if ends is None else list(ends),
        "F1_optimism": float(optimism.mean()),
    }


def at_score(
    rankings: Sequence[Ranking], classes: Sequence[str], score: float | None, protocol: str, n_images: int
) -> Judgement:
    """Precision, recall and F1 at a fixed `score` as a judgement, so that they carry intervals like any score."""
    truths = {name: ranking.n_truths for name, ranking in zip(classes, rankings, strict=True)}
    columns = [column for ranking in rankings for column in _tables(ranking, score)]
    filled = [np.flatnonzero(column) for column in columns]
    image = np.concatenate([np.zeros(0, np.int64), *filled])
    cell = np.repeat(np.arange(len(columns)), [len(images) for images in filled])
    counts = np.concatenate([np.zeros(0), *(column[images] for column, images in zip(columns, filled, strict=True))])

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        sums = sums_by_cell(weights, image, cell, len(columns), counts)
        per_class = [_rates(*sums[at : at + 3]) for at in range(0, len(sums), 3)]
        result: dict[Key, FloatArray] = {}
        for i, key in enumerate(("precision", "recall", "F1")):
            stacked = np.stack([rates[i] for rates in per_class]) if per_class else np.full((1, len(weights)), np.nan)
            result[key, None] = mean_present(stacked)
            result.update({(key, name): rates[i] for name, rates in zip(classes, per_class, strict=True)})
        return result

    def count(key: Key) -> int:
        return sum(truths.values()) if key[1] is None else truths[key[1]]

    return Judgement(protocol, scores, count, n_images, {"": rankings})


def _f1_curve(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """F1 at every distinct score, highest first: two (m,) arrays; empty where no truth counts."""
    rows = np.flatnonzero(ranking.counted[0])
    score = ranking.score[rows]
    if not ranking.n_truths or not len(rows):
        return np.zeros(0), np.zeros(0)
    hits = np.cumsum(ranking.hit[0][rows])
    ends = np.flatnonzero(np.diff(score, append=-np.inf))
    return score[ends], 2 * hits[ends] / (ends + 1 + ranking.n_truths)


def _tables(ranking: Ranking, score: float | None) -> tuple[IntArray, IntArray, IntArray]:
    """Hits, counted detections and truths of each image at a score: three (I,)."""
    kept = ranking.score >= (np.inf if score is None else score)
    hits = per_image_count(ranking, kept & ranking.hit[0])
    return hits, per_image_count(ranking, kept & ranking.counted[0]), ranking.truths


_Count = NDArray[np.int64] | NDArray[np.float64]


def _rates(hits: _Count, counted: _Count, truths: _Count) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall, F1 (B,) of counts (B,); NaN where there are no truths."""
    known = truths > 0
    precision = np.where(known, hits / np.maximum(counted, 1), np.nan)
    recall = np.where(known, hits / np.maximum(truths, 1), np.nan)
    return precision, recall, np.where(known, 2 * hits / np.maximum(counted + truths, 1), np.nan)


def _plain(ranking: Ranking, score: float | None) -> dict[str, Any]:
    totals = [np.array([column.sum()]) for column in _tables(ranking, score)]
    precision, recall, f1 = _rates(*totals)
    return {"precision": _number(precision[0]), "recall": _number(recall[0]), "F1": _number(f1[0])}


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _value(value: float | None) -> float:
    return float("nan") if value is None else value
