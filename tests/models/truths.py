"""Truths of one image for tests of losses."""

from __future__ import annotations

import torch

from onestage.models.detector import Truth

BOX = tuple[float, float, float, float]


def truth(*boxes: BOX, labels: list[int] | None = None, ignore: list[bool] | None = None) -> Truth:
    """These boxes, of classes 0, 1, 2, 3, 0 … where none are said; none is to be ignored."""
    n = len(boxes)
    return Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
        torch.tensor(labels if labels is not None else [i % 4 for i in range(n)], dtype=torch.int64),
        torch.tensor(ignore if ignore is not None else [False] * n, dtype=torch.bool),
    )
