"""A batch as training sees it on one sheet: truths, their priors, and what is left out."""

from __future__ import annotations

import struct
import zlib
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
from onestage.report.draw import Colour, Image, class_tag

if TYPE_CHECKING:
    from onestage.training.first_batch import FirstBatch

# Okabe and Ito's colours and some between, from the finest level to the coarsest.
LEVELS = ("#56B4E9", "#E69F00", "#2FCB9B", "#F0E442", "#E07BB5", "#FF7043", "#B39DDB", "#A5D66B")
TILE, COLUMNS, GAP = 400, 4, 14
SHOWN = 16  # images of a batch that a sheet shows at most
_LINE, _MARGIN = 20, 16
_FONT, _SMALL, _BIG = cv2.FONT_HERSHEY_SIMPLEX, 0.44, 0.62
_PAPER, _INK, _PALE, _DARK = (250, 250, 248), (32, 32, 32), (120, 120, 120), (20, 20, 20)
_WHITE, _WRONG, _GREY = (255, 255, 255), colours.rgb(colours.WRONG), (190, 190, 190)
# Priors drawn on one image in all, so that a crowd of truths stays legible; at least one for each truth.
_PRIORS_SHOWN, _PRIORS_PER_TRUTH = 26, 4
_CROWD = 14  # so many truths get smaller tags
# The text in the file, and where it stands: after PNG's signature and its first chunk, IHDR.
_SIGNED, _PNG_HEAD = b"Software\0onestage train --dry-run", 33


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
    sheet = _blank(head.shape[0] + rows * (height + GAP) + _MARGIN, head.shape[1] + 2 * _MARGIN)
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
    done, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 7])
    if not done:
        raise ValueError(f"batch_sheet: OpenCV could not write {sheet.shape} as PNG")
    whole = data.tobytes()
    chunk = b"tEXt" + _SIGNED
    signed = struct.pack(">I", len(_SIGNED)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return whole[:_PNG_HEAD] + signed + whole[_PNG_HEAD:]


def is_sheet(path: Path) -> bool:
    """Whether the file is a picture of `as_png`."""
    with path.open("rb") as file:
        return _SIGNED in file.read(_PNG_HEAD + 100)


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _level_colour(level: int) -> Colour:
    return colours.rgb(LEVELS[level % len(LEVELS)])


def _panel(one: SheetImage, classes: Sequence[str]) -> Image:
    """The picture with its boxes, above its caption."""
    scale = TILE / max(one.image.shape[:2])
    size = (max(1, round(one.image.shape[1] * scale)), max(1, round(one.image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.asarray(cv2.resize(np.ascontiguousarray(one.image), size, interpolation=how), np.uint8)
    _draw_priors(canvas, one, scale)
    _draw_truths(canvas, one, scale, classes)
    lines = _caption(one)
    panel = _blank(canvas.shape[0] + _LINE * len(lines) + 8, TILE)
    panel[: canvas.shape[0], : canvas.shape[1]] = canvas
    for i, words in enumerate(lines):
        _write(panel, words, 2, canvas.shape[0] + 16 + i * _LINE)
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
        cv2.rectangle(shade, *_corners(mine.priors[prior] * scale), _DARK, 3)
    canvas[:] = cv2.addWeighted(shade, 0.45, canvas, 0.55, 0)
    for prior in drawn:
        cv2.rectangle(canvas, *_corners(mine.priors[prior] * scale), _level_colour(int(mine.level[prior])), 1)


def _draw_truths(canvas: Image, one: SheetImage, scale: float, classes: Sequence[str]) -> None:
    truths = one.truths
    ignored = truths.ignore | truths.crowd
    left_out = set() if one.assigned is None else set(one.assigned.unanswered.tolist())
    taken: list[tuple[int, int, int, int]] = []
    largest_first = np.argsort(-(truths.boxes[:, 2:] - truths.boxes[:, :2]).prod(1), kind="stable")
    for row in map(int, largest_first):
        corners = _corners(truths.boxes[row] * scale)
        if ignored[row] or row in left_out:
            _dashed(canvas, corners, _GREY if ignored[row] else _WRONG)
            continue
        cv2.rectangle(canvas, *corners, _DARK, 4)
        cv2.rectangle(canvas, *corners, _WHITE, 2)
    size = _SMALL if len(truths) < _CROWD else 0.36
    plain = len(classes) == 1 and len(truths) >= _CROWD  # a crowd of one class needs no tags
    for row in map(int, largest_first[::-1]):  # the small ones' tags first: they have the least room elsewhere
        if ignored[row] or (plain and row not in left_out):
            continue
        label = int(truths.labels[row])
        colour = _WRONG if row in left_out else colours.rgb(colours.of_class(label))
        text = class_tag(label, classes) + (": no prior" if row in left_out else "")
        _tag(canvas, _corners(truths.boxes[row] * scale), text, colour, taken, size)


def _corners(box: FloatArray) -> tuple[tuple[int, int], tuple[int, int]]:
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.nan_to_num(np.round(box)), -4, 4 * TILE))
    return (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1))


def _dashed(canvas: Image, corners: tuple[tuple[int, int], tuple[int, int]], colour: Colour) -> None:
    (x1, y1), (x2, y2) = corners
    cv2.rectangle(canvas, (x1, y1), (x2, y2), _WHITE, 3, cv2.LINE_AA)
    for start in range(x1, x2 + 1, 10):
        for y in (y1, y2):
            cv2.line(canvas, (start, y), (min(start + 5, x2), y), colour, 2)
    for start in range(y1, y2 + 1, 10):
        for x in (x1, x2):
            cv2.line(canvas, (x, start), (x, min(start + 5, y2)), colour, 2)


def _tag(
    canvas: Image,
    corners: tuple[tuple[int, int], tuple[int, int]],
    text: str,
    colour: Colour,
    taken: list[tuple[int, int, int, int]],
    size: float,
) -> None:
    """The tag at the first place about the box that no other tag has; left out where there is none."""
    (x1, y1), (x2, y2) = corners
    (width, height), _ = cv2.getTextSize(text, _FONT, size, 1)
    width, height = width + 12, height + 6
    for left, top in ((x1 - 1, y1 - height), (x1 - 1, y2 + 1), (x2 - width, y1 - height), (x1 + 1, y1 + 1)):
        left = int(np.clip(left, 0, max(0, canvas.shape[1] - width)))
        inside = 0 <= top <= canvas.shape[0] - height
        place = (left, top, left + width, top + height)
        if inside and not any(_meet(place, other) for other in taken):
            break
    else:
        return
    taken.append(place)
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), _DARK, -1)
    cv2.rectangle(canvas, (left, top), (left + 4, top + height - 1), colour, -1)
    cv2.putText(canvas, text, (left + 8, top + height - 4), _FONT, size, _WHITE, 1, cv2.LINE_AA)


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


Words = list[tuple[str, Colour]]


def _caption(one: SheetImage) -> list[Words]:
    """Lines of coloured words: the file; how many truths; positives by level; what no prior answers for; the fit."""
    ignored = int((one.truths.ignore | one.truths.crowd).sum())
    count = len(one.truths) - ignored
    told = f"{count} truth{'s' * (count != 1)}" + (f", {ignored} to ignore" if ignored else "")
    name = one.name if len(one.name) <= 34 else f"{one.name[:15]}..{one.name[-17:]}"
    lines: list[Words] = [[(_ascii(name), _INK), (told, _PALE)]]
    if one.assigned is None:
        return lines
    mine = one.assigned
    per_level: Words = [("positives", _PALE)]
    for level, positives in enumerate(mine.per_level):
        per_level.append((str(positives), _darker(_level_colour(level)) if positives else _GREY))
    best = mine.best_iou[~mine.ignore]
    poor = _WRONG if mine.poorly_fitted else _PALE
    fit: Words = [(f"best IoU {best.min():.2f} to {best.max():.2f}", poor) if len(best) else ("nothing to find", _PALE)]
    if len(mine.unanswered):
        fit.append((f"{len(mine.unanswered)} without a prior", _WRONG))
    return [*lines, per_level, fit]


def _head(shown: Sequence[SheetImage], title: str, width: int) -> Image:
    """The title and what the lines mean."""
    head = _blank(70, width)
    cv2.putText(head, _ascii(title), (0, 28), _FONT, _BIG, _INK, 1, cv2.LINE_AA)
    mine = next((one.assigned for one in shown if one.assigned is not None), None)
    words: Words = [("white: truth", _INK)]
    if mine is None:
        words.append(("this model does not say which priors it assigns", _PALE))
    else:
        words.append(("thin: priors that answer for it, by level (usual side in pixels):", _INK))
        for level, side in enumerate(level_sides(mine.priors, mine.level, mine.levels)):
            words.append((f"{level} ({side:.0f})", _darker(_level_colour(level))))
        words.append(("dashed red: no prior answers", _WRONG))
    if any((one.truths.ignore | one.truths.crowd).any() for one in shown):
        words.append(("dashed grey: ignored", _PALE))
    _write(head, words, 0, 54, 14)
    return head


def _write(canvas: Image, words: Words, left: int, bottom: int, space: int = 9) -> None:
    for text, colour in words:
        cv2.putText(canvas, text, (left, bottom), _FONT, _SMALL, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, _FONT, _SMALL, 1)[0][0] + space


def _darker(colour: Colour) -> Colour:
    """The colour as letters on paper need it."""
    return (int(colour[0] * 0.72), int(colour[1] * 0.72), int(colour[2] * 0.72))


def _ascii(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
