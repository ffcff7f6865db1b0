"""Sums over the images of bootstrap resamples, for hundreds of weightings at once by sparse products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from onestage.records import FloatArray, IntArray

DRAWS = 200  # resamples that the details beyond the scores rest on
_FEWEST, _MOST = 150, 1024  # weightings at once
_LAID_OUT = 1 << 25
_AT_ONCE = 1 << 24


def parts(weights: IntArray) -> Iterator[tuple[slice, FloatArray]]:
    """The weightings (B, I), some at a time: which, and they as (I, b), so that the inner loops run along b."""
    step = int(np.clip(_LAID_OUT // max(weights.shape[1], 1), _FEWEST, _MOST))
    for start in range(0, len(weights), step):
        part = slice(start, min(start + step, len(weights)))
        yield part, np.ascontiguousarray(weights[part].T, dtype=np.float64)


def sums(counts: Sequence[IntArray], weights: FloatArray) -> FloatArray:
    """For each list of images (with repeats) the sum of the `weights` (I, b) of its members: (len(counts), b)."""
    ends = np.cumsum([0, *(len(part) for part in counts)])
    members = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    return sums_of_runs(members, ends, weights)


def sums_of_runs(members: IntArray, ends: IntArray, weights: FloatArray) -> FloatArray:
    """As `sums`, of lists that follow each other in `members`, from one of `ends` (n + 1,) to the next: (n, b)."""
    from scipy.sparse import csr_array  # late: it is slow to import

    ones = np.ones(len(members))
    matrix: Any = csr_array((ones, members.astype(np.int32), ends.astype(np.int32)), (len(ends) - 1, len(weights)))
    result: FloatArray = matrix @ weights
    return result


def laid_out(weights: IntArray) -> FloatArray:
    """The weights (B, I), laid out so that many sums over them can be asked for without laying them out each time."""
    return np.ascontiguousarray(weights.T, np.float64).T


def sums_by_cell(
    weights: IntArray | FloatArray, image: IntArray, cell: IntArray, n_cells: int, values: FloatArray | None = None
) -> FloatArray:
    """For each weighting of the images the sum of `values` (n,) (None: 1 each) by cell: (n_cells, B).

    `weights` (B, I) says how often an image is in the set; row k lies in image `image[k]` and counts for cell
    `cell[k]`. Costs n times B additions and no more memory than its result and a block of weights. Ask for many such
    sums with weights that are `laid_out`.
    """
    from scipy.sparse import coo_array

    given = np.ones(len(image)) if values is None else np.asarray(values, np.float64)
    n_images = weights.shape[1]
    table = coo_array((given, (cell, image)), shape=(n_cells, n_images)).tocsr()
    if weights.dtype == np.float64 and weights.T.flags.c_contiguous:
        sums: FloatArray = table @ weights.T
        return sums
    result = np.zeros((n_cells, len(weights)))
    step = max(1, _AT_ONCE // max(n_images, 1))
    for start in range(0, len(weights), step):
        result[:, start : start + step] = table @ np.ascontiguousarray(weights[start : start + step].T, np.float64)
    return result
