"""Whether scores can be read as shares: reliability tables and expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import DRAWS, sums_by_cell
from onestage.evaluation.significance import quantile
from onestage.evaluation.uncertainty import interval, wilson
from onestage.records import BoolArray, FloatArray, IntArray

BINS = 10
FEWEST = 30  # detections that a bin needs before its gap can be the maximum error


@dataclass(frozen=True, eq=False)
class _Rows:
    """All counted detections of all classes: score, hit, image and label, each (n,)."""

    score: FloatArray
    hit: BoolArray
    image: IntArray
    label: IntArray


def calibration(
    rankings: Sequence[Ranking],
    classes: Sequence[str],
    weights: IntArray | None = None,
    *,
    at: float | None = None,
    bins: int = BINS,
) -> dict[str, Any]:
    """Compare the scores of detections with the shares of them that are hits, as JSON.

    Detections are those that count, of all classes and images; hits are the ranking's at its first threshold. "bins"
    holds two tables: "equal_width" (from k / bins up to, not including, the next; the last holds 1) and "equal_mass"
    (about as many detections each; equal scores stay together). A bin tells n, n_images, mean_score, hit_share
    with a 95 % interval, and gap = hit_share - mean_score: below 0 the detector is too sure of itself. "ECE" is
    the sum over the bins of equal width of |gap| n / N, over all detections and per class (its own detections in the
    same bins), with `interval` from bootstrap `weights` (B, I) over images, of which the first 200 are used.
    "max_error" is the largest |gap| of a bin with at least 30 detections, None where no bin has so many. `at` adds
    "kept": the same for detections from that score on only.

    ECE is biased upwards, the more the fewer detections there are, for chance gaps count as errors. Beside each stands
    "by_chance", what a perfectly calibrated detector with the same scores would show on average, were its hits
    independent; an ECE near it speaks of no miscalibration. The interval says how ECE varies over the choice of
    images and is centred on the reported value; it does not take that bias away. In simulation with 25 and 100 images
    it held the mean of ECE at that size in 94 to 99 of 100 sets, but the true 0 of a calibrated detector in 1.

    Where a score lies outside [0, 1] there is no calibration: "reason" says so and the rest is left out.

    Source: Guo et al. 2017 (bins, ECE, MCE), Kueppers et al. 2020 (D-ECE, for detectors). Differences: Guo's bins are
    open below and closed above; Kueppers bin also by the place and size of the box, ours by score alone (their
    one-dimensional case); the maximum error leaves small bins out; and both give no interval and no level of chance.
    """
    rows = _gathered(rankings)
    outside = (rows.score < 0) | (rows.score > 1)
    if outside.any():
        low, high = float(rows.score.min()), float(rows.score.max())
        return {"reason": f"scores run from {low:.4g} to {high:.4g}; only scores in [0, 1] can be read as shares"}
    width = np.minimum((np.searchsorted(np.arange(bins + 1) / bins, rows.score, side="right") - 1), bins - 1)
    mass = _equal_mass(rows.score, bins)
    n_images = len(rankings[0].truths) if rankings else 0
    edges = [(k / bins, (k + 1) / bins) for k in range(bins)]
    result: dict[str, Any] = {"reason": None, "n_bins": bins, "n": len(rows.score)}
    result["bins"] = {
        "equal_width": _table(rows, width, edges, n_images),
        "equal_mass": _table(rows, mass, _ends(rows.score, mass), n_images),
    }
    whole, each = _errors(rows, width, len(classes), bins, weights, n_images)
    result |= whole
    if at is not None:
        keep = rows.score >= at
        kept = _Rows(rows.score[keep], rows.hit[keep], rows.image[keep], rows.label[keep])
        result["kept"] = {"at": at} | _errors(kept, width[keep], len(classes), bins, weights, n_images)[0]
    result["classes"] = dict(zip(classes, each, strict=True))
    return result


def by_chance(n: FloatArray, p: FloatArray) -> FloatArray:
    """Mean of |hits - n p| where each of `n` detections hits with chance `p`: the binomial's mean deviation.

    Source: De Moivre's closed form, 2 v C(n, v) p^v q^(n - v + 1) with v the whole part of n p, plus 1.
    """
    from scipy.special import gammaln, xlogy

    v = np.minimum(np.floor(n * p) + 1, np.maximum(n, 1))
    logs = gammaln(n + 1) - gammaln(v + 1) - gammaln(n - v + 1) + xlogy(v, p) + xlogy(n - v + 1, 1 - p)
    result: FloatArray = np.where(n > 0, 2 * v * np.exp(np.where(n > 0, logs, 0.0)), 0.0)
    return result


def share_interval(hits: FloatArray, n: FloatArray, level: float = 0.95) -> list[float] | None:
    """The interval of a share of hits from the counts of each image, `hits` and `n` (m,): Wilson's, cluster-robust.

    Detections of an image stand and fall together, so n is divided by the design effect (the variance over images as
    a ratio estimator has it, over that of independent draws), never below 1; Student's quantile has m - 1 degrees of
    freedom. Where all or none hit, images count instead of detections. None for fewer than two images. In simulation
    with 25 to 200 images, alike within or not, it held the truth in 94 to 97 of 100 bins.
    """
    there = n > 0
    hits, n = hits[there], n[there]
    m, total = len(n), float(n.sum())
    if m < 2:
        return None
    p = float(hits.sum()) / total
    if 0 < p < 1:
        variance = m / (m - 1) * float(((hits - p * n) ** 2).sum()) / total**2
        effective = min(total, p * (1 - p) / variance) if variance else total
    else:
        effective = float(m)
    return list(wilson(p, effective, quantile(0.5 + level / 2, m - 1)))


def _gathered(rankings: Sequence[Ranking]) -> _Rows:
    rows = [np.flatnonzero(ranking.counted[0]) for ranking in rankings]
    if not rows:
        return _Rows(np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.int64), np.zeros(0, np.int64))
    pairs = list(zip(rankings, rows, strict=True))
    return _Rows(
        np.concatenate([ranking.score[own] for ranking, own in pairs]),
        np.concatenate([ranking.hit[0][own] for ranking, own in pairs]),
        np.concatenate([ranking.image[own] for ranking, own in pairs]),
        np.repeat(np.arange(len(rows)), [len(own) for own in rows]),
    )


def _equal_mass(score: FloatArray, bins: int) -> IntArray:
    """The bin of each score so that each holds about as many; fewer bins where many scores are equal."""
    if not len(score):
        return np.zeros(0, np.int64)
    ordered = np.sort(score)
    inner = np.unique(ordered[np.arange(1, bins) * len(score) // bins])
    result: IntArray = np.searchsorted(inner[inner > ordered[0]], score, side="right")
    return result


def _ends(score: FloatArray, place: IntArray) -> list[tuple[float, float]]:
    """Lowest and highest score in each bin."""
    n = int(place.max()) + 1 if len(place) else 0
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, place, score)
    np.maximum.at(high, place, score)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _table(rows: _Rows, place: IntArray, edges: Sequence[tuple[float, float]], n_images: int) -> list[dict[str, Any]]:
    cell = place * n_images + rows.image
    size = len(edges) * n_images
    n = np.bincount(cell, minlength=size).reshape(len(edges), n_images).astype(np.float64)
    hits = np.bincount(cell, rows.hit, minlength=size).reshape(len(edges), n_images)
    said = np.bincount(place, rows.score, minlength=len(edges))
    table = []
    for k, (low, high) in enumerate(edges):
        total = int(n[k].sum())
        row: dict[str, Any] = {"low": low, "high": high, "n": total, "n_images": int((n[k] > 0).sum())}
        if total:
            share, score = float(hits[k].sum()) / total, float(said[k]) / total
            row |= {
                "mean_score": score,
                "hit_share": share,
                "interval": share_interval(hits[k], n[k]),
                "gap": share - score,
            }
        else:
            row |= {"mean_score": None, "hit_share": None, "interval": None, "gap": None}
        table.append(row)
    return table


def _errors(
    rows: _Rows, place: IntArray, n_classes: int, bins: int, weights: IntArray | None, n_images: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """ECE and its company over all and of each class."""
    cell, cells = rows.label * bins + place, n_classes * bins
    shape = (n_classes, bins)
    n = np.bincount(cell, minlength=cells).reshape(shape).astype(np.float64)
    hits = np.bincount(cell, rows.hit, minlength=cells).reshape(shape)
    said = np.bincount(cell, rows.score, minlength=cells).reshape(shape)
    drawn = None
    if weights is not None and len(rows.score):
        few = weights[:DRAWS]
        missing = sums_by_cell(few, rows.image, cell, cells, rows.hit - rows.score).reshape(*shape, -1)
        drawn = missing, sums_by_cell(few, rows.image, rows.label, n_classes)
    whole = _error(n.sum(0), hits.sum(0), said.sum(0))
    each = [_error(n[k], hits[k], said[k]) for k in range(n_classes)]
    if drawn is not None:
        missing, counts = drawn
        whole["interval"] = _spread(np.abs(missing.sum(0)).sum(0), counts.sum(0), whole["ECE"], n_images)
        for k, row in enumerate(each):
            row["interval"] = _spread(np.abs(missing[k]).sum(0), counts[k], row["ECE"], n_images)
    return whole, each


def _error(n: FloatArray, hits: FloatArray, said: FloatArray) -> dict[str, Any]:
    """Of the sums in each bin (bins,): n, mean score, share of hits, ECE with its level of chance, maximum error."""
    total = float(n.sum())
    if not total:
        nothing = dict.fromkeys(("mean_score", "hit_share", "ECE", "interval", "by_chance", "max_error"))
        return {"n": 0, **nothing}
    expected = by_chance(n, np.divide(said, n, out=np.zeros_like(said), where=n > 0))
    many = n >= FEWEST
    gaps = np.abs(hits[many] - said[many]) / n[many]
    return {
        "n": int(total), "mean_score": float(said.sum() / total), "hit_share": float(hits.sum() / total),
        "ECE": float(np.abs(hits - said).sum() / total), "interval": None,
        "by_chance": float(expected.sum() / total), "max_error": float(gaps.max()) if len(gaps) else None,
    }  # fmt: skip


def _spread(missing: FloatArray, counts: FloatArray, ece: float | None, n_images: int) -> list[float] | None:
    """The interval of ECE over resamples (B,), their own mean put back on the reported value; never below 0."""
    if ece is None:
        return None
    drawn = np.divide(missing, counts, out=np.full(len(missing), np.nan), where=counts > 0)
    there = drawn[~np.isnan(drawn)]
    ends = interval(drawn - (there.mean() - ece), n_images) if len(there) else None
    return None if ends is None else [max(0.0, ends[0]), max(0.0, ends[1])]
