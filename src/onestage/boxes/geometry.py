"""Area, IoU, IoA, clipping and exact NMS in numpy: the reference that all other forms are held to.

Boxes are (N, 4) xyxy, half-open; N = 0 is fine everywhere. An inverted or empty box has area 0 and IoU 0.
"""

from __future__ import annotations

import numpy as np

from onestage.records import BoolArray, FloatArray, IntArray


def area(boxes: FloatArray, offset: float = 0.0) -> FloatArray:
    """Area of each box (N,), in square pixels; `offset` 1 is VOC's closed-pixel convention."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2] + offset, 0, None)
    result: FloatArray = sides[:, 0] * sides[:, 1]
    return result


def corners(xywh: FloatArray) -> FloatArray:
    """xyxy of boxes (N, 4) given by left, top, width, height."""
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])


def intersection(a: FloatArray, b: FloatArray, offset: float = 0.0) -> FloatArray:
    """Area shared by every box of `a` (N, 4) with every box of `b` (M, 4): (N, M)."""
    width = np.minimum(a[:, None, 2], b[None, :, 2])
    width -= np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3])
    height -= np.maximum(a[:, None, 1], b[None, :, 1])
    if offset:
        width += offset
        height += offset
    np.clip(width, 0, None, out=width)
    np.clip(height, 0, None, out=height)
    width *= height
    result: FloatArray = width
    return result


def iou(a: FloatArray, b: FloatArray, offset: float = 0.0) -> FloatArray:
    """Intersection over union of every box of `a` (N, 4) with every box of `b` (M, 4): (N, M) in [0, 1]."""
    shared = intersection(a, b, offset)
    union = area(a, offset)[:, None] + area(b, offset)[None, :] - shared
    result: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def ioa(a: FloatArray, b: FloatArray) -> FloatArray:
    """Share of every box of `a` (N, 4) that lies inside every box of `b` (M, 4): (N, M) in [0, 1]."""
    shared = intersection(a, b)
    own = np.broadcast_to(area(a)[:, None], shared.shape)
    result: FloatArray = np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)
    return result


def clip(boxes: FloatArray, width: float, height: float) -> FloatArray:
    """Boxes cut at the borders of a picture of `width` x `height`; boxes outside come out empty."""
    result: FloatArray = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
    return result


def nms(boxes: FloatArray, scores: FloatArray, threshold: float, block: int = 256) -> IntArray:
    """Exact greedy non-maximum suppression: indices kept, highest score first.

    A box is dropped when its IoU with a kept box of higher score is greater than `threshold`. Equal scores are
    taken in order of index, so the answer does not depend on the machine.

    Source: the greedy rule of Girshick's DPM release and of torchvision.ops.nms (same strict inequality). Ours
    works by blocks: the boxes of a block are compared with each other once and with all later survivors at once.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[IntArray] = []
    while len(order):
        head, rest = order[:block], order[block:]
        keep = _greedy(iou(boxes[head], boxes[head]) > threshold)
        winners = head[keep]
        kept.append(winners)
        if len(rest) and len(winners):
            rest = rest[~_overlaps_any(boxes[rest], boxes[winners], threshold)]
        order = rest
    return np.concatenate(kept).astype(np.int64) if kept else np.zeros(0, np.int64)


def nms_per_class(boxes: FloatArray, scores: FloatArray, labels: IntArray, threshold: float) -> IntArray:
    """`nms` within each class; the kept indices of all classes, highest score first, ties by index."""
    kept = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept.append(members[nms(boxes[members], scores[members], threshold)])
    indices = np.sort(np.concatenate(kept))
    result: IntArray = indices[np.argsort(-scores[indices], kind="stable")]
    return result


def _greedy(overlap: BoolArray) -> IntArray:
    """Indices that survive when each survivor, in order, removes what it overlaps: overlap is (K, K)."""
    alive = np.ones(len(overlap), np.bool_)
    for i in range(len(overlap)):
        if alive[i]:
            alive[i + 1 :] &= ~overlap[i, i + 1 :]
    return np.flatnonzero(alive)


def _overlaps_any(boxes: FloatArray, winners: FloatArray, threshold: float, rows: int = 4096) -> BoolArray:
    """Whether each box has IoU above `threshold` with any winner; by rows, so that memory stays small."""
    parts = [(iou(winners, boxes[i : i + rows]) > threshold).any(0) for i in range(0, len(boxes), rows)]
    return np.concatenate(parts)
