"""Collects detections file by file into columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onestage.data.detections.rows import Numbering, Rows
from onestage.records import Finding, ImageId, Where


class Gathering:
    """Rows of several files in the order they are added; names become indices, unreadable rows become findings."""

    def __init__(self) -> None:
        self._images: dict[int | str, int] = {}
        self._classes: dict[int | str, int] = {}
        self._files: dict[str, int] = {}
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._findings: list[Finding] = []

    def speak_of(self, image: int | str) -> None:
        """Note an image in which nothing may have been found."""
        self._images.setdefault(image, len(self._images))

    def add(
        self, file: str, lines: ArrayLike, images: int | str | Sequence[int | str],
        classes: int | str | Sequence[int | str], boxes: ArrayLike, scores: ArrayLike,
    ) -> None:  # fmt: skip
        """Add the N rows of `file`: `lines` (N,), `boxes` (N, 4) xyxy, `scores` (N,), images and classes one or N."""
        scores = np.asarray(scores, np.float64)
        n, place = len(scores), self._files.setdefault(file, len(self._files))
        self._parts.append((
            _indices(self._images, images, n), _indices(self._classes, classes, n), np.full(n, place),
            np.asarray(lines, np.int64).reshape(n), np.asarray(boxes, np.float64).reshape(n, 4), scores,
        ))  # fmt: skip

    def refuse(self, file: str, line: int | None, what: str, image: ImageId | None = None) -> None:
        """List a row that cannot be read."""
        self._findings.append(Finding("bad-row", "error", Where(file, line, image), what))

    def note(self, finding: Finding) -> None:
        """List something else about the files."""
        self._findings.append(finding)

    def rows(self, *, relative: bool = False, numbering: Numbering = "indices", by_line: bool = True) -> Rows:
        """All that was added."""
        nothing = (*(np.zeros(0, np.int64) for _ in range(4)), np.zeros((0, 4)), np.zeros(0))
        image, label, file, line, boxes, scores = (
            np.concatenate(columns) for columns in zip(nothing, *self._parts, strict=True)
        )
        return Rows(
            tuple(self._images), tuple(self._classes), tuple(self._files), image, label, file, line, boxes, scores,
            relative=relative, findings=tuple(self._findings), numbering=numbering, by_line=by_line,
        )  # fmt: skip


def _indices(known: dict[int | str, int], names: int | str | Sequence[int | str], n: int) -> NDArray[np.int64]:
    if isinstance(names, int | str):
        return np.full(n, known.setdefault(names, len(known)) if n else 0, np.int64)
    for name in dict.fromkeys(names):
        known.setdefault(name, len(known))
    return np.fromiter(map(known.__getitem__, names), np.int64, n)
