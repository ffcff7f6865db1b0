"""VisDrone's ignored regions: which boxes lie in them by half, in pixels as its toolkit counts them."""

from __future__ import annotations

import numpy as np

from onestage.records import BoolArray, FloatArray


def inside_regions(boxes: FloatArray, regions: FloatArray, size: FloatArray) -> BoolArray:
    """Which `boxes` (N, 4) are covered to half or more of their area by the `regions` (R, 4) of one image: (N,).

    Both are left, top, width, height as the files have them. `size` (2,) is width and height of the image, NaN where
    not known: then nothing is cut at its border, which changes the answer only for a box that reaches beyond a
    border beyond which a region reaches too.

    Source: dropObjectsInIgr of the VisDrone2018-DET toolkit, whose answers these are. Its pixels count from 1, and 0
    and below become 1, of widths too; a region covers both its first and its last pixel, left to left + width; a box
    is rounded (halves away from zero) and its first column and row are not looked at, while its area is the whole
    width x height, also of what lies outside the image; a box that begins left of the image is moved, not cut.
    Regions of fractional pixels stop the toolkit in Octave; here their first pixel is rounded.
    """
    if not len(boxes) or not len(regions):
        return np.zeros(len(boxes), np.bool_)
    limit = np.where(np.isnan(size), np.inf, size)
    given = np.maximum(1.0, regions)
    first = _rounded(given[:, :2])
    last = np.floor(np.minimum(limit, given[:, :2] + given[:, 2:]))
    there = (first <= last).all(1)
    first, end = first[there], last[there] + 1
    x_edges, y_edges = np.unique([first[:, 0], end[:, 0]]), np.unique([first[:, 1], end[:, 1]])
    covered = np.zeros((max(len(y_edges) - 1, 0), max(len(x_edges) - 1, 0)))
    for (left, top), (right, bottom) in zip(first, end, strict=True):
        columns = slice(*np.searchsorted(x_edges, [left, right]).tolist())
        covered[slice(*np.searchsorted(y_edges, [top, bottom]).tolist()), columns] = 1.0
    rounded = np.maximum(1.0, _rounded(boxes))
    near = np.maximum(1.0, np.minimum(limit, rounded[:, :2]))
    far = np.minimum(limit, near + rounded[:, 2:])
    across = _shared(near[:, 0] + 1, far[:, 0] + 1, x_edges)
    down = _shared(near[:, 1] + 1, far[:, 1] + 1, y_edges)
    pixels = ((down @ covered) * across).sum(1)
    result: BoolArray = pixels / (rounded[:, 3] * rounded[:, 2]) >= 0.5
    return result


def _rounded(values: FloatArray) -> FloatArray:
    """To the nearest whole number, halves upwards, which is away from zero for all that stays above 0."""
    floor = np.floor(values)
    result: FloatArray = floor + (values - floor >= 0.5)
    return result


def _shared(start: FloatArray, end: FloatArray, edges: FloatArray) -> FloatArray:
    """Length that each span [start, end) (N,) shares with each of the spans between `edges` (E,): (N, E - 1)."""
    result: FloatArray = np.minimum(end[:, None], edges[None, 1:]) - np.maximum(start[:, None], edges[None, :-1])
    return np.maximum(result, 0.0)
