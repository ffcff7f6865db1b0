"""Detections as files hold them, before their images and classes are looked up in a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from onestage.records import Detections, Finding, FloatArray, IntArray

# What a class number means: a place in the class list from 0, from 1, or the category id of the truth's COCO file.
Numbering = Literal["indices", "labels", "coco"]


@dataclass(frozen=True, eq=False)
class Rows:
    """N detections in columns, in the order of the files.

    `images` names every image that the files speak of, as they write it, also those in which nothing was found;
    `classes` every class, by name or number. `image` and `label` (N,) are indices into them, `file` (N,) into
    `files`; `line` (N,) counts from 1. `boxes` (N, 4) are half-open xyxy, in pixels, or where `relative` in shares of
    the image's width and height. `scores` (N,) are as written. `extra` holds further columns for `Detections.extra`.
    `findings` list the rows that could not be read; these are not among the N. `numbering` says what classes written
    as numbers mean. Where not `by_line`, `line` counts the entries of a list instead.
    """

    images: tuple[int | str, ...]
    classes: tuple[int | str, ...]
    files: tuple[str, ...]
    image: IntArray
    label: IntArray
    file: IntArray
    line: IntArray
    boxes: FloatArray
    scores: FloatArray
    relative: bool = False
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    numbering: Numbering = "indices"
    by_line: bool = True

    def __len__(self) -> int:
        return len(self.boxes)


def measured(found: Detections, plus_one: bool = False) -> list[str]:
    """Lines `x y width height score`, highest score first, scores to the last bit; `plus_one` adds 1 to both sides."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2] + plus_one
    return [
        f"{x:.9g} {y:.9g} {w:.9g} {h:.9g} {float(score)!r}\n"
        for (x, y), (w, h), score in zip(found.boxes[:, :2], sides, found.scores, strict=True)
    ]
