"""A batch as training sees it on one sheet: truths, their priors, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

import onestage.report.colours as colours
from onestage.boxes.assigned import Assigned, level_sides
from onestage.experiments.storage import write_bytes
from onestage.records import Annotations, FloatArray
from onestage.report import sheet as sheets
from onestage.report.draw import Image, class_tag
from onestage.report.sheet import (
    BIG,
    DARK,
    FONT,
    GREY,
    INK,
    LEVELS,
    PALE,
    SMALL,
    WHITE,
    WRONG,
    Corners,
    Place,
    Words,
    ascii_only,
    blank,
    darker,
    dashed,
    level_colour,
    shortened,
    tag,
    write_words,
)

if TYPE_CHECKING:
    from onestage.training.first_batch import FirstBatch

__all__ = ["LEVELS", "SheetImage", "as_png", "batch_sheet", "is_sheet", "write_batch_sheet"]

TILE, COLUMNS, GAP = 400, 4, 14
SHOWN = 16  # images of a batch that a sheet shows at most
_LINE, _MARGIN = 20, 16
# Priors drawn on one image in all, so that a crowd of truths stays legible; at least one for each truth.
_PRIORS_SHOWN, _PRIORS_PER_TRUTH = 26, 4
_CROWD = 14  # so many truths get smaller tags
_WRITER = "train --dry-run"


@dataclass(frozen=True, eq=False)
class SheetImage:
    """One picture of the sheet: uint8 RGB (H, W, 3), its file's name, boxes in its pixels, and its priors if known."""

    image: NDArray[np.uint8]
    name: str
    truths: Annotations
    assigned: Assigned | None = None


def batch_sheet(shown: Sequence[SheetImage], classes: Sequence[str], title: str) -> Image:
    """The pictures of a batch in one, uint8 RGB, `COLUMNS` to a row, each with a caption; ValueError where none is.

    Truths are white, their tags marked in the class's colour; the priors that answer for a truth are thin, in their
    level's colour, the best fitting ones and not more than stay legible. A truth that no prior answers for is dashed
    red, a region to ignore dashed grey. The caption counts all of them.
    """
    if not shown:
        raise ValueError("batch_sheet: expected at least one picture")
    panels = [_panel(one, classes) for one in shown]
    height, width = max(panel.shape[0] for panel in panels), max(panel.shape[1] for panel in panels)
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    head = _head(shown, title, max(columns * (width + GAP) - GAP, 560))
    sheet = blank(head.shape[0] + rows * (height + GAP) + _MARGIN, head.shape[1] + 2 * _MARGIN)
    sheet[: head.shape[0], _MARGIN : _MARGIN + head.shape[1]] = head
    for index, panel in enumerate(panels):
        top, left = head.shape[0] + index // columns * (height + GAP), _MARGIN + index % columns * (width + GAP)
        sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return sheet


def write_batch_sheet(path: Path, batch: FirstBatch, title: str) -> None:
    """Write the picture of a run's first batch, of SHOWN images at most; StorageError where the disk refuses it."""
    assigned = batch.assigned or (None,) * len(batch.names)
    whole = zip(batch.images, batch.names, batch.annotations, assigned, strict=True)
    shown = [SheetImage(*one) for one in whole][:SHOWN]
    if len(shown) < len(batch.names):
        title += f" (the first {len(shown)} are shown)"
    write_bytes(path, as_png(batch_sheet(shown, batch.classes, title)))


def as_png(sheet: Image) -> bytes:
    """The sheet as a PNG file that says who wrote it, so that `is_sheet` knows it again."""
    return sheets.as_png(sheet, _WRITER)


def is_sheet(path: Path) -> bool:
    """Whether the file is a picture of `as_png`."""
    return sheets.is_written_by(path, _WRITER)


def _panel(one: SheetImage, classes: Sequence[str]) -> Image:
    """The picture with its boxes, above its caption."""
    scale = TILE / max(one.image.shape[:2])
    size = (max(1, round(one.image.shape[1] * scale)), max(1, round(one.image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.asarray(cv2.resize(np.ascontiguousarray(one.image), size, interpolation=how), np.uint8)
    _draw_priors(canvas, one, scale)
    _draw_truths(canvas, one, scale, classes)
    lines = _caption(one)
    panel = blank(canvas.shape[0] + _LINE * len(lines) + 8, TILE)
    panel[: canvas.shape[0], : canvas.shape[1]] = canvas
    for i, words in enumerate(lines):
        write_words(panel, words, 2, canvas.shape[0] + 16 + i * _LINE)
    return panel


def _draw_priors(canvas: Image, one: SheetImage, scale: float) -> None:
    if one.assigned is None:
        return
    mine = one.assigned
    answered = np.flatnonzero(mine.per_truth)
    most = int(np.clip(_PRIORS_SHOWN // max(len(answered), 1), 1, _PRIORS_PER_TRUTH))
    drawn = [int(prior) for truth in answered for prior in mine.priors_of(int(truth), most)[::-1]]
    shade = canvas.copy()
    for prior in drawn:
        cv2.rectangle(shade, *_corners(mine.priors[prior] * scale), DARK, 3)
    canvas[:] = cv2.addWeighted(shade, 0.45, canvas, 0.55, 0)
    for prior in drawn:
        cv2.rectangle(canvas, *_corners(mine.priors[prior] * scale), level_colour(int(mine.level[prior])), 1)


def _draw_truths(canvas: Image, one: SheetImage, scale: float, classes: Sequence[str]) -> None:
    truths = one.truths
    ignored = truths.ignore | truths.crowd
    left_out = set() if one.assigned is None else set(one.assigned.unanswered.tolist())
    taken: list[Place] = []
    largest_first = np.argsort(-(truths.boxes[:, 2:] - truths.boxes[:, :2]).prod(1), kind="stable")
    for row in map(int, largest_first):
        corners = _corners(truths.boxes[row] * scale)
        if ignored[row] or row in left_out:
            dashed(canvas, corners, GREY if ignored[row] else WRONG)
            continue
        cv2.rectangle(canvas, *corners, DARK, 4)
        cv2.rectangle(canvas, *corners, WHITE, 2)
    size = SMALL if len(truths) < _CROWD else 0.36
    plain = len(classes) == 1 and len(truths) >= _CROWD  # a crowd of one class needs no tags
    for row in map(int, largest_first[::-1]):  # the small ones' tags first: they have the least room elsewhere
        if ignored[row] or (plain and row not in left_out):
            continue
        label = int(truths.labels[row])
        colour = WRONG if row in left_out else colours.rgb(colours.of_class(label))
        text = class_tag(label, classes) + (": no prior" if row in left_out else "")
        tag(canvas, _corners(truths.boxes[row] * scale), text, colour, taken, size)


def _corners(box: FloatArray) -> Corners:
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.nan_to_num(np.round(box)), -4, 4 * TILE))
    return (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1))


def _caption(one: SheetImage) -> list[Words]:
    """Lines of coloured words: the file; how many truths; positives by level; what no prior answers for; the fit."""
    ignored = int((one.truths.ignore | one.truths.crowd).sum())
    count = len(one.truths) - ignored
    told = f"{count} truth{'s' * (count != 1)}" + (f", {ignored} to ignore" if ignored else "")
    lines: list[Words] = [[(shortened(one.name, 34), INK), (told, PALE)]]
    if one.assigned is None:
        return lines
    mine = one.assigned
    per_level: Words = [("positives", PALE)]
    for level, positives in enumerate(mine.per_level):
        per_level.append((str(positives), darker(level_colour(level)) if positives else GREY))
    best = mine.best_iou[~mine.ignore]
    poor = WRONG if mine.poorly_fitted else PALE
    fit: Words = [(f"best IoU {best.min():.2f} to {best.max():.2f}", poor) if len(best) else ("nothing to find", PALE)]
    if len(mine.unanswered):
        fit.append((f"{len(mine.unanswered)} without a prior", WRONG))
    return [*lines, per_level, fit]


def _head(shown: Sequence[SheetImage], title: str, width: int) -> Image:
    """The title and what the lines mean."""
    head = blank(70, width)
    cv2.putText(head, ascii_only(title), (0, 28), FONT, BIG, INK, 1, cv2.LINE_AA)
    mine = next((one.assigned for one in shown if one.assigned is not None), None)
    words: Words = [("white: truth", INK)]
    if mine is None:
        words.append(("this model does not say which priors it assigns", PALE))
    else:
        words.append(("thin: priors that answer for it, by level (usual side in pixels):", INK))
        for level, side in enumerate(level_sides(mine.priors, mine.level, mine.levels)):
            words.append((f"{level} ({side:.0f})", darker(level_colour(level))))
        words.append(("dashed red: no prior answers", WRONG))
    if any((one.truths.ignore | one.truths.crowd).any() for one in shown):
        words.append(("dashed grey: ignored", PALE))
    write_words(head, words, 0, 54, 14)
    return head
