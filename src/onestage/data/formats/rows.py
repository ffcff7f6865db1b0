"""Rows of annotation files become annotations: every box checked, every drop listed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.formats.headers import probe
from onestage.data.formats.listing import Listing
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, ImageId, ImageInfo

Box = tuple[float, float, float, float]
SILENT = 0.01  # pixels; rounding of files that write six digits, not worth a line


@dataclass(slots=True)
class Row:
    """One box as its file gives it.

    `box` is xyxy half-open pixels after conversion; `written` the corners before it where the format counts
    differently (VOC), for a box is judged empty or inverted as it was written. `raw` is shown in messages.
    """

    name: str
    box: Box
    raw: str
    line: int | None = None
    written: Box | None = None
    difficult: bool = False
    ignore: bool = False
    crowd: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def is_number(text: str) -> bool:
    """Whether `text` is written as a number, nan and inf among them; 1_000, which Python reads, is none in a file."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def number(text: object) -> float:
    """A coordinate from text or JSON; NaN stands for what is no number, so that the row is listed as such."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)) or (isinstance(text, str) and "_" in text):
        return math.nan
    try:
        return float(text)
    except (ValueError, OverflowError):
        return math.nan


def checked_boxes(
    rows: Sequence[Row], image: ImageInfo, labels: Mapping[str, int], listing: Listing, file: Path,
    as_written: bool = False,
) -> Annotations:  # fmt: skip
    """The annotations of one image from its rows, in pixels of that image.

    A row is left out where its class is not in `labels`, a number is not finite, the box has no area, is inverted,
    lies wholly outside the image, or repeats an earlier row (same class, corners and flags). A box partly outside is
    cut at the border; both are put on `listing`, the latter only beyond a hundredth of a pixel. The image is kept.

    `as_written` keeps every row whose class is known and whose numbers are finite, uncut, as official judges do;
    what training would leave out or cut is listed as "kept-as-written".
    """
    if as_written:
        return _annotations(_as_written(rows, image, labels, listing, file), labels)
    kept: list[tuple[Row, Box]] = []
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        box = _checked(row, image, labels, listing, file)
        if box is None:
            continue
        key = (row.name, box, row.ignore, row.crowd)
        if key in seen:
            listing.add(
                "duplicate-box", f"this box of {row.name!r} stands there twice", file=file, line=row.line,
                image=image.id, box=box,
            )  # fmt: skip
            continue
        seen.add(key)
        kept.append((row, box))
    return _annotations(kept, labels)


def _annotations(kept: Sequence[tuple[Row, Box]], labels: Mapping[str, int]) -> Annotations:
    if not kept:
        return Annotations.empty()
    names = dict.fromkeys(name for row, _ in kept for name in row.extra)
    extra = {name: np.array([row.extra.get(name, 0) for row, _ in kept]) for name in names}
    return Annotations(
        np.array([box for _, box in kept]), np.array([labels[row.name] for row, _ in kept]),
        np.array([row.difficult for row, _ in kept]), np.array([row.ignore for row, _ in kept]),
        np.array([row.crowd for row, _ in kept]), extra,
    )  # fmt: skip


def _as_written(
    rows: Sequence[Row], image: ImageInfo, labels: Mapping[str, int], listing: Listing, file: Path
) -> list[tuple[Row, Box]]:
    kept = []
    for row in rows:
        found = Listing(listing.root)
        box = _checked(row, image, labels, found, file)
        lost = {finding.code for finding in found.findings} & {"not-a-number", "unknown-class"}
        if lost:
            listing.findings += found.findings
            continue
        for finding in found.findings:
            listing.add(
                "kept-as-written", finding.what, file=file, line=row.line, image=image.id, box=row.box, was=finding.code
            )
        kept.append((row, row.box if found.findings or box is None else box))
    return kept


def _checked(row: Row, image: ImageInfo, labels: Mapping[str, int], listing: Listing, file: Path) -> Box | None:
    def drop(code: str, what: str, box: Box | None = None) -> None:
        listing.add(code, what, file=file, line=row.line, image=image.id, box=box)

    x1, y1, x2, y2 = row.box
    left, top, right, bottom = row.written or row.box
    width, height = image.width, image.height
    if not all(map(math.isfinite, row.box)):
        drop("not-a-number", f"{row.raw} are not four finite numbers")
    elif row.name not in labels:
        drop("unknown-class", f"class {row.name!r} is not in the list{did_you_mean(row.name, labels)}", row.box)
    elif right < left or bottom < top:
        drop("inverted-box", f"{row.raw}: the right or lower side lies before the left or upper one", row.box)
    elif right == left or bottom == top:
        drop("zero-area-box", f"{row.raw}: the box has a side of 0", row.box)
    elif (width, height) == (0, 0):  # the size is not known
        return row.box
    elif x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        drop("box-outside", f"{row.raw}: the box lies outside the image of {width}x{height}", row.box)
    else:
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        over = max(abs(a - b) for a, b in zip(row.box, cut, strict=True))
        if over > SILENT:
            drop("box-clipped", f"{row.raw}: the box reaches {over:g} px beyond the image of {width}x{height}", row.box)
        return cut
    return None


def probed(image_id: ImageId, path: Path, listing: Listing) -> ImageInfo | None:
    """The image with its size as a viewer shows it, or None where it cannot be read, which is listed."""
    try:
        width, height = probe(path)
    except DataError as error:
        listing.add("unreadable-image", f"the image is left out: {error.message}", file=path, image=image_id)
        return None
    return ImageInfo(image_id, path, width, height)


def compare_size(image: ImageInfo, width: float, height: float, listing: Listing, file: Path) -> None:
    """Lists a size-mismatch where the size that the annotation gives is not the image's own."""
    if math.isfinite(width) and math.isfinite(height) and (width, height) != (image.width, image.height):
        swapped = (height, width) == (image.width, image.height)
        listing.add(
            "size-mismatch",
            f"the annotation says {width:g}x{height:g}, the image is {image.width}x{image.height}"
            + (": width and height swapped, as when the image was turned later" if swapped else ""),
            file=file, image=image.id, said=[width, height], real=[image.width, image.height],
        )  # fmt: skip


def label_map(classes: Sequence[str]) -> dict[str, int]:
    """Class name → label, in the order of the list; DataError where a name stands twice or the list is empty."""
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise DataError(f"the class list names {', '.join(map(repr, twice))} more than once")
    return {name: label for label, name in enumerate(classes)}
