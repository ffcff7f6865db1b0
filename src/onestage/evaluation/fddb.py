"""FDDB's ROC curves: share of faces found, whole or by overlap, at a number of false positives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.evaluation.fddb_matching import gains
from onestage.evaluation.fddb_overlap import LARGEST, overlaps
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.pool import Pool
from onestage.records import BoolArray, FloatArray, IntArray

LEVELS = (100, 500, 1000, 2000)
POINTS = 5000
_ROWS, _BLOCK = 250, 8192  # weights and detections looked at in one go
_NONE = np.zeros((0, 2 * len(LEVELS)))


def fddb(pool: Pool) -> Judgement:
    """True positive rate at 100, 500, 1000 and 2000 false positives over the whole set: "disc@100", "cont@100", ….

    At every score, each image's faces and the detections of at least that score are matched one to one so that the
    sum of their IoU is greatest. The discrete rate counts matched faces of IoU above 0.5, the continuous rate adds
    up the IoU of all matched faces; both are divided by the number of faces. False positives are the detections that
    are not such matches of more than 0.5, for both curves. "@k" is the point of lowest score that has at most k of
    them, 0 where none has; where the curve ends before, it is its last point, and a note says so. In a resample of the
    images all counts are those of the resample. `curves` are the two ROCs, from the highest score down, of at most
    5,000 points each.

    Faces are the ellipses of extra["ellipse"], boxes where some have none (a note says so); detections likewise.
    Regions are drawn in pixels and cut at the image's border, see `overlaps`. Every truth counts; `difficult` has no
    effect.

    Source: the evaluation code of FDDB (Jain and Learned-Miller 2010), whose two ROC files these are, line for line,
    where the sizes of the images are known. Differences: it has no "@k" rows; matchings of equal total IoU may be
    chosen otherwise; regions without a pixel in the image overlap by 0, where it divides 0 by 0.
    """
    curve = roc(pool)

    def scores(weights: IntArray) -> dict[Key, FloatArray]:
        return _scores(curve, weights)

    return Judgement(
        "fddb", scores, lambda _: int(curve.faces.sum()), len(pool.images), {}, curves=_curves(curve),
        notes=_notes(pool, curve), whole_curve=False,
    )  # fmt: skip


def unfit(pool: Pool) -> str | None:
    """Why FDDB's rule cannot judge this set, in words; None where it can."""
    if len(pool.classes) > 1:
        return f"it judges one class, faces; this truth has {pool.told_classes()}"
    flagged = int((pool.truth_ignore | pool.truth_crowd).sum())
    if flagged:
        return f"{flagged} truths are marked as ignore or crowd, and FDDB's rule counts every face"
    if len(pool.truth_group) and pool.truth_column("ellipse", np.nan) is None:
        return "it judges faces marked by ellipses; this truth has none"
    for what, ellipse in (
        ("truths", pool.truth_column("ellipse", np.nan)),
        ("detections", pool.column("ellipse", np.nan)),
    ):
        if ellipse is not None and ellipse.shape[1:] != (5,):
            return f"ellipses of the {what}: expected five values each, got shape {ellipse.shape}"
        if ellipse is not None and (bad := _bad(ellipse)).any():
            row = ", ".join(f"{value:g}" for value in ellipse[bad][0])
            return (
                f"{int(bad.sum())} ellipses of the {what} are none, such as ({row}): expected radii from 0 to "
                f"{LARGEST:g} pixels and finite numbers"
            )
    return None


def _bad(ellipse: FloatArray) -> BoolArray:
    given = ~np.isnan(ellipse).all(1)
    sane = np.isfinite(ellipse).all(1) & (ellipse[:, :2] >= 0).all(1) & (ellipse[:, :2] <= LARGEST).all(1)
    result: BoolArray = given & ~(sane & (np.abs(ellipse[:, 2]) < 1e6))
    return result


@dataclass(frozen=True, eq=False)
class Roc:
    """The detections of a set in order of score, and what each adds to the curve; see `Gains`.

    `last` are the places at which a score ends, the points of the curve; `faces` (I,) the truths of each image.
    """

    image: IntArray
    score: FloatArray
    found: IntArray
    overlap: FloatArray
    last: IntArray
    faces: IntArray

    def points(self) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
        """Score, false positives, and total of the discrete and the continuous hits, at each point."""
        found: IntArray = np.cumsum(self.found)[self.last]
        return self.score[self.last], self.last + 1 - found, found, np.cumsum(self.overlap)[self.last]


def roc(pool: Pool) -> Roc:
    """The curve of a pool of one class."""
    gained = gains(pool, overlaps(pool))
    order = pool.by_score(slice(0, len(pool.score)))
    score = pool.score[order]
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1) if len(score) else np.zeros(0, np.int64)
    faces = np.bincount(pool.image_of(pool.truth_group), minlength=len(pool.images))
    return Roc(pool.image_of(pool.group[order]), score, gained.found[order], gained.overlap[order], last, faces)


def _scores(curve: Roc, weights: IntArray) -> dict[Key, FloatArray]:
    hits = np.concatenate([_hits(curve, weights[k : k + _ROWS]) for k in range(0, len(weights), _ROWS)] or [_NONE])
    faces = weights @ curve.faces
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = np.where(faces[:, None] > 0, hits / faces[:, None], np.nan)
    names = [f"{kind}@{level}" for kind in ("disc", "cont") for level in LEVELS]
    return {(name, None): rates[:, k] for k, name in enumerate(names)}


def _hits(curve: Roc, weights: IntArray) -> FloatArray:
    """Hits (b, 8) at each level, discrete and then continuous, of each row of weights.

    The curve is followed down in blocks until no later point can come back to the last level: false positives become
    fewer only where one detection more lets two faces more be found.
    """
    hits = np.zeros((len(weights), 2 * len(LEVELS)))
    steep = np.flatnonzero(curve.found > 1)
    total = np.zeros((3, len(weights)))  # false positives, discrete and continuous hits so far
    for ends in np.split(curve.last, np.flatnonzero(np.diff(curve.last // _BLOCK)) + 1) if len(curve.last) else []:
        rows = slice(_before(curve.last, int(ends[0])), int(ends[-1]) + 1)
        weight = weights[:, curve.image[rows]]
        steps = (1 - curve.found[rows], curve.found[rows], curve.overlap[rows])
        sums = [
            total[k][:, None] + np.cumsum(weight * step, axis=1)[:, ends - rows.start] for k, step in enumerate(steps)
        ]
        total = np.stack([column[:, -1] for column in sums])
        for k, level in enumerate(LEVELS):
            within = sums[0] <= level
            some = np.flatnonzero(within.any(1))
            at = within.shape[1] - 1 - np.argmax(within[some, ::-1], axis=1)
            hits[some, k], hits[some, k + len(LEVELS)] = sums[1][some, at], sums[2][some, at]
        later = steep[steep >= rows.stop]
        if (total[0] - weights[:, curve.image[later]] @ (curve.found[later] - 1) > LEVELS[-1]).all():
            break
    return hits


def _before(last: IntArray, end: int) -> int:
    """Where the rows of the point that ends at `end` begin."""
    place = int(np.searchsorted(last, end))
    return int(last[place - 1]) + 1 if place else 0


def _curves(curve: Roc) -> dict[str, dict[str, list[float]]]:
    score, false, found, overlap = curve.points()
    faces = int(curve.faces.sum())
    kept = np.unique(np.linspace(0, len(score) - 1, min(len(score), POINTS)).round().astype(np.int64))
    return {
        name: {
            "false_positives": false[kept].tolist(),
            "true_positive_rate": (hits[kept] / faces).tolist() if faces else [0.0] * len(kept),
            "scores": score[kept].tolist(),
        }
        for name, hits in (("discrete", found), ("continuous", overlap))
    }


def _notes(pool: Pool, curve: Roc) -> tuple[str, ...]:
    notes = []
    false = curve.points()[1]
    ends = int(false[-1]) if len(false) else 0
    beyond = [f"@{level}" for level in LEVELS if level > ends]
    if beyond:
        notes.append(f"the curve ends at {ends} false positives: {', '.join(beyond)} are its last point")
    unknown = int((np.isnan(pool.size).any(1) | (pool.size <= 0).any(1)).sum())
    if unknown:
        notes.append(
            f"the size of {unknown} of {len(pool.images)} images is not known: what lies beyond their right and lower "
            "border counts, where the official tool cuts it off"
        )
    ellipse = pool.truth_column("ellipse", np.nan)
    boxes = len(pool.truth_group) if ellipse is None else int(np.isnan(ellipse).any(1).sum())
    if boxes:
        notes.append(f"{boxes} of {len(pool.truth_group)} faces have no ellipse and are judged as rectangles")
    return tuple(notes)
