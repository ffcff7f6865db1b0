"""Sums of rows by cell in every bootstrap resample of the images, by one sparse product."""

from __future__ import annotations

import numpy as np

from onestage.records import FloatArray, IntArray

_AT_ONCE = 1 << 24


def resampled_sums(
    weights: IntArray, image: IntArray, cell: IntArray, n_cells: int, values: FloatArray | None = None
) -> FloatArray:
    """For each weighting of the images the sum of `values` (n,) (None: 1 each) by cell: (n_cells, B).

    `weights` (B, I) says how often an image is in the set; row k lies in image `image[k]` and counts for cell
    `cell[k]`. Costs n times B additions and no more memory than its result and a block of weights.
    """
    from scipy.sparse import coo_array

    given = np.ones(len(image)) if values is None else np.asarray(values, np.float64)
    n_images = weights.shape[1]
    table = coo_array((given, (cell, image)), shape=(n_cells, n_images)).tocsr()
    result = np.zeros((n_cells, len(weights)))
    step = max(1, _AT_ONCE // max(n_images, 1))
    for start in range(0, len(weights), step):
        result[:, start : start + step] = table @ np.ascontiguousarray(weights[start : start + step].T, np.float64)
    return result
