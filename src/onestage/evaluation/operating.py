"""Precision, recall and F1 at a score, the score of best F1, and curves for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onestage.evaluation.average_precision import Ranking, mean_present, per_image_count, precision_recall
from onestage.evaluation.judgement import Judgement, Key
from onestage.records import FloatArray, IntArray

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


def at_score(
    rankings: Sequence[Ranking], classes: Sequence[str], score: float | None, protocol: str, n_images: int
) -> Judgement:
    """Precision, recall and F1 at a fixed `score` as a judgement, so that they carry intervals like any score."""
    truths = {name: ranking.n_truths for name, ranking in zip(classes, rankings, strict=True)}
    tables = [_tables(ranking, score) for ranking in rankings]

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        per_class = [_rates(*(weights @ column for column in table)) for table in tables]
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


def _rates(hits: IntArray, counted: IntArray, truths: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
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
