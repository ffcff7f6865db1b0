"""Default boxes: SSD's of Liu et al. 2016, and a grid of sizes and ratios for any input size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onestage.records import FloatArray, IntArray


def ssd_priors(
    maps: Sequence[int],
    image_size: float,
    min_sizes: Sequence[float],
    max_sizes: Sequence[float],
    ratios: Sequence[Sequence[float]],
    strides: Sequence[float],
    clip: bool = True,
) -> FloatArray:
    """SSD's default boxes (P, 4) as cx, cy, w, h relative to a square input of `image_size` pixels.

    One entry per level in each argument: `maps` cells along a side, sizes and strides in pixels, `ratios` above 1.
    Rows go by level, then row, column, and within a cell: s_min, sqrt(s_min s_max), then r and 1/r of every ratio.
    A cell's centre is (j + 0.5) stride / image_size; `clip` cuts centres and sizes, not corners, to [0, 1].
    Raises ValueError when the arguments do not have one entry per level.

    Source: Liu et al. 2016, in the form of lufficc/SSD (order, strides, clipping in centre form).
    """
    _same_length(maps=maps, min_sizes=min_sizes, max_sizes=max_sizes, ratios=ratios, strides=strides)
    levels = [np.zeros((0, 4))]
    for cells, least, most, level_ratios, stride in zip(maps, min_sizes, max_sizes, ratios, strides, strict=True):
        shapes = [(least, least), (np.sqrt(least * most),) * 2]
        for ratio in level_ratios:
            wide, narrow = least * np.sqrt(ratio), least / np.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        levels.append(_tile((cells, cells), stride, np.array(shapes)) / image_size)
    priors = np.concatenate(levels)
    return np.clip(priors, 0, 1) if clip else priors


def grid_priors(
    size: tuple[int, int],
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[Sequence[float]],
) -> tuple[FloatArray, IntArray]:
    """A grid of priors (P, 4), cx, cy, w, h in pixels of an input of `size` (width, height), and their levels (P,).

    One entry per level: `strides` in pixels, `sizes` the square roots of the areas in pixels, `ratios` width over
    height, 1 and inverses written out. A level has ceil(width / stride) x ceil(height / stride) cells, what padded
    convolutions of stride 2 leave. Rows go by level, then row, column, size, and ratio innermost. Not clipped.
    Raises ValueError when the arguments do not have one entry per level.

    Source: the anchors of Ren et al. 2015 over several levels as in Lin et al. 2017.
    """
    _same_length(strides=strides, sizes=sizes, ratios=ratios)
    levels = [np.zeros((0, 4))]
    for stride, level_sizes, level_ratios in zip(strides, sizes, ratios, strict=True):
        roots = np.sqrt(np.array(level_ratios, np.float64))
        sides = np.array(level_sizes, np.float64)[:, None]
        shapes = np.stack([sides * roots, sides / roots], -1).reshape(-1, 2)
        levels.append(_tile(grid_cells(size, stride), stride, shapes))
    level = np.repeat(np.arange(len(strides)), [len(priors) for priors in levels[1:]])
    return np.concatenate(levels), level.astype(np.int64)


def grid_cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Cells (across, down) of a map of `stride` over an input of `size` (width, height) pixels, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def to_corners(priors: FloatArray) -> FloatArray:
    """Priors (P, 4) from cx, cy, w, h to x1, y1, x2, y2, in the same units."""
    half = priors[:, 2:] / 2
    return np.concatenate([priors[:, :2] - half, priors[:, :2] + half], 1)


def _tile(cells: tuple[int, int], stride: float, shapes: FloatArray) -> FloatArray:
    """`shapes` (A, 2) of width and height at every cell (across, down): (down * across * A, 4), row-major."""
    across, down = cells
    x, y = np.meshgrid((np.arange(across) + 0.5) * stride, (np.arange(down) + 0.5) * stride)
    centres = np.stack([x, y], -1).reshape(-1, 1, 2)
    shape = (across * down, len(shapes), 2)
    return np.concatenate([np.broadcast_to(centres, shape), np.broadcast_to(shapes, shape)], -1).reshape(-1, 4)


def _same_length(**levels: Sequence[object]) -> None:
    """ValueError unless every argument has as many entries."""
    lengths = {name: len(values) for name, values in levels.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected one entry per level in each argument, got {lengths}")
