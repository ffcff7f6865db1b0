"""FDDB's one-to-one matching of faces and detections, as the official solver leaves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestage.evaluation.fddb_overlap import Overlaps
from onestage.evaluation.pool import Pool
from onestage.records import BoolArray, FloatArray, IntArray

ENOUGH = 0.5  # IoU above which a matched face is found
_TIGHT = 1e-12


@dataclass(frozen=True, eq=False)
class Gains:
    """What each detection of a pool adds to the matching of its image once it is let in, best score first.

    `found` (D,) is how many faces more are matched with IoU above 0.5 (it may be negative), `overlap` (D,) how much
    the IoU of all matched pairs grows. Detections of one image and score are let in together; what they add stands
    with one of them.
    """

    found: IntArray
    overlap: FloatArray


def gains(pool: Pool, pairs: Overlaps) -> Gains:
    """The matching at every score, as steps; `pairs` in the order of `overlaps`.

    It is the one of greatest total IoU, except where the official solver stops before it (see `stops_early`). Of
    several matchings of the same total any may be taken.
    """
    result = Gains(np.zeros(len(pool.score), np.int64), np.zeros(len(pool.score)))
    image = pool.image_of(pool.truth_group[pairs.truth])
    edges = np.flatnonzero(np.diff(image, prepend=-1, append=-1))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        truths, t = np.unique(pairs.truth[start:end], return_inverse=True)
        detections, d = np.unique(pairs.detection[start:end], return_inverse=True)
        iou = np.zeros((len(truths), len(detections)))
        iou[t, d] = pairs.iou[start:end]
        as_filed = np.argsort(pool.row[detections], kind="stable")
        iou, detections = iou[:, as_filed], detections[as_filed]
        levels, place = np.unique(-pool.score[detections], return_inverse=True)
        found, overlap = _image(iou, place, len(levels))
        at = detections[np.unique(place, return_index=True)[1]]
        result.found[at] = np.diff(found, prepend=0)
        result.overlap[at] = np.diff(overlap, prepend=0.0)
    return result


def _image(iou: FloatArray, place: IntArray, levels: int) -> tuple[IntArray, FloatArray]:
    """Faces found and total IoU of iou (T, D) matched with the columns let in up to each level, given each's level."""
    if len(iou) == 1:
        best = np.zeros(levels)
        np.maximum.at(best, place, iou[0])
        best = np.maximum.accumulate(best)
        return (best > ENOUGH).astype(np.int64), best
    found, overlap = np.zeros(levels, np.int64), np.zeros(levels)
    for level in range(levels):
        matched = matching(iou[:, place <= level])
        found[level], overlap[level] = np.count_nonzero(matched > ENOUGH), matched.sum()
    return found, overlap


def matching(iou: FloatArray) -> FloatArray:
    """The IoU of the pairs that faces (T,) and detections (D,) of `iou` (T, D) are matched in."""
    from scipy.optimize import linear_sum_assignment

    touched = iou.any(1)
    few = iou if touched.all() else iou[touched]
    if len(few) > few.shape[1]:
        few = few.T
    return few[stops_early(few)] if _flawed(few) else few[linear_sum_assignment(few, maximize=True)]


def _flawed(iou: FloatArray) -> bool:
    """Whether the official solver starts from the columns of a matrix that has more columns than rows."""
    return bool(iou.shape[0] < iou.shape[1] and iou.max(1).sum() > iou.max(0).sum())


def stops_early(iou: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows and columns of the matching at which FDDB's solver stops, for a matrix (R, C) with R < C.

    The solver is Kuhn's Hungarian method. It bounds the matrix by prices of rows and columns, matches along tight
    entries, and stops once every row is matched, which is the best matching only if columns left over cost nothing.
    Where the greatest entries of the columns add up to less than those of the rows it takes the former for its first
    prices, and then columns of a high price may be left over: here the result falls short of the best.

    Source: the behaviour of the FDDB evaluation code (2010), written anew from the method's description.
    """
    slack = iou.max(0) - iou
    row_of = np.full(iou.shape[1], -1)
    column_of = np.full(iou.shape[0], -1)
    for column in range(iou.shape[1]):
        free = np.flatnonzero((slack[:, column] <= _TIGHT) & (column_of < 0))
        if len(free):
            row_of[column], column_of[free[0]] = free[0], column
    while True:
        reached = _grow(slack <= _TIGHT, row_of, column_of)
        if reached is None:
            continue  # one row more is matched
        if reached.all():
            return np.arange(len(iou)), column_of
        held = (row_of >= 0) & ~reached[row_of]  # columns of rows that no tight chain reaches
        step = slack[np.ix_(~reached, ~held)].min()
        slack[np.ix_(~reached, ~held)] -= step
        slack[np.ix_(reached, held)] += step


def _grow(tight: BoolArray, row_of: IntArray, column_of: IntArray) -> BoolArray | None:
    """Looks for a free row along alternating tight chains from the free columns, in order, and matches along it.

    None where it did; else the rows that the chains reach.
    """
    reached = np.zeros(len(column_of), np.bool_)
    for start in np.flatnonzero(row_of < 0).tolist():
        chain: list[tuple[int, int]] = []  # (row, the column it was reached from)
        column, first = start, 0
        while True:
            row = next((r for r in range(first, len(reached)) if tight[r, column] and not reached[r]), -1)
            if row >= 0:
                reached[row] = True
                chain.append((row, column))
                if column_of[row] < 0:
                    for r, c in reversed(chain):
                        row_of[c], column_of[r] = r, c
                    return None
                column, first = int(column_of[row]), 0
            elif chain:
                row, column = chain.pop()
                first = row + 1
            else:
                break
    return reached
