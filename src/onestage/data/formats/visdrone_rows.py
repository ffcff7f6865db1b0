"""The rows of VisDrone's txt files as annotations: regions, scores, and what no one can train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import SILENT
from onestage.data.formats.visdrone_folder import CLASSES, COLUMNS, OTHERS, REGION
from onestage.errors import did_you_mean
from onestage.records import Annotations, BoolArray, FloatArray, ImageInfo, IntArray

Numbered = tuple[int, str, list[float]]


def truth_of(
    rows: Sequence[Numbered], image: ImageInfo, labels: dict[str, int], listing: Listing, file: Path, as_written: bool
) -> Annotations:
    """The annotations of one image from its numbered rows of eight columns; what cannot be used is listed.

    `as_written` keeps boxes uncut, all of them, for judging.
    """
    kept = [
        (line, values) for line, raw, values in rows if not _refused(line, raw, values, labels, listing, file, image)
    ]
    if not kept:
        return Annotations.empty()
    table = np.array([values for _, values in kept]) + 0.0  # no -0.0
    lines, xywh = np.array([line for line, _ in kept]), table[:, :4]
    score, category, truncation, occlusion = table[:, 4:].astype(np.int64).T
    region = (category == REGION) | (category == OTHERS)
    boxes = corners_of(xywh)
    if image.width:
        boxes = np.clip(boxes, 0, [image.width, image.height] * 2)
    aside = _aside(xywh, boxes, region, category, lines, image, listing, file, as_written)
    if as_written:
        boxes, aside = corners_of(xywh), np.zeros_like(aside)
    names = ["", *CLASSES, ""]
    label = [0 if is_region else labels[names[number]] for number, is_region in zip(category, region, strict=True)]
    extra = {
        "score": score, "category": category, "truncation": truncation, "occlusion": occlusion, "line": lines,
        "region": region, "xywh": xywh,
    }  # fmt: skip
    return Annotations(boxes, np.array(label), ignore=region | aside | (score == 0), extra=extra)


def _refused(
    line: int, raw: str, values: Sequence[float], labels: dict[str, int], listing: Listing, file: Path,
    image: ImageInfo,
) -> bool:  # fmt: skip
    """Whether a row cannot be used at all, which is listed."""
    code, what = "bad-row", ""
    if len(values) != len(COLUMNS):
        what = f"{raw}: {len(values)} columns, expected {', '.join(COLUMNS)}"
    elif not all(map(math.isfinite, values)):
        code, what = "not-a-number", f"{raw}: expected eight finite numbers"
    elif values[5] not in range(OTHERS + 1):
        code, what = "unknown-class", f"{raw}: category {values[5]:g}, expected 0 to {OTHERS}"
    elif values[4] not in (0, 1):
        what = f"{raw}: score {values[4]:g} of a truth, expected 0 or 1"
    elif REGION < values[5] < OTHERS and (name := CLASSES[int(values[5]) - 1]) not in labels:
        code, what = "unknown-class", f"class {name!r} is not in the list{did_you_mean(name, labels)}"
    if what:
        listing.add(code, what, file=file, line=line, image=image.id)
    return bool(what)


def _aside(
    xywh: FloatArray, boxes: FloatArray, region: BoolArray, category: IntArray, lines: IntArray, image: ImageInfo,
    listing: Listing, file: Path, as_written: bool,
) -> BoolArray:  # fmt: skip
    """Rows that are kept for the judge but are no object to learn (N,), listed; and boxes cut at the border."""
    aside = np.zeros(len(xywh), np.bool_)
    written = corners_of(xywh)
    flat: BoolArray = np.any(xywh[:, 2:] <= 0, axis=1)
    gone: BoolArray = ~flat & np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    over: FloatArray = np.abs(written - boxes).max(1)
    size = f"the image of {image.width}x{image.height}"

    def say(code: str, i: int, what: str) -> None:
        raw, (x1, y1, x2, y2) = ",".join(f"{v:g}" for v in xywh[i]), written[i].tolist()
        listing.add(
            "kept-as-written" if as_written else code,
            f"{raw}: {what}",
            file=file,
            line=int(lines[i]),
            image=image.id,
            box=(x1, y1, x2, y2),
        )

    seen: set[tuple[float, ...]] = set()
    for i, key in enumerate(map(tuple, np.column_stack([category, xywh]).tolist())):
        aside[i] = flat[i] or gone[i] or (key in seen and not region[i])
        if aside[i]:
            why = f"lies outside {size}" if gone[i] else "stands there twice for its class"
            say("kept-aside", i, "the box has no area" if flat[i] else f"the box {why}")
        elif over[i] > SILENT and not region[i]:
            say("box-clipped", i, f"the box reaches {over[i]:g} px beyond {size}")
        seen.add(key)
    return aside


def corners_of(xywh: FloatArray) -> FloatArray:
    """xyxy of boxes as written; a negative side counts as 0."""
    return corners(np.hstack([xywh[:, :2], np.maximum(xywh[:, 2:], 0)]))
