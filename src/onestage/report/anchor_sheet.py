"""The picture of `data anchors --draw`: where priors stand, and which truths they answer for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from onestage.boxes.answers import BINS
from onestage.experiments.storage import write_bytes
from onestage.report.draw import Image
from onestage.report.lattice_panel import WIDTH, lattice_panel
from onestage.report.matched_panel import Matched, busiest, matched_picture
from onestage.report.sheet import (
    GREY,
    INK,
    PALE,
    WRONG,
    Words,
    as_png,
    ascii_only,
    blank,
    darker,
    dashed,
    is_written_by,
    level_colour,
    shortened,
    text_width,
    write_words,
)

if TYPE_CHECKING:
    from onestage.boxes.answers import Answers
    from onestage.training.anchors import Anchors, Shown

COLUMNS, GAP, MARGIN = 3, 20, 24
INNER = COLUMNS * WIDTH + (COLUMNS - 1) * GAP
LARGE, SMALLER = 1040, (INNER - GAP) // 2  # longer side of the picture of one image, and of several
_LINE, _TITLE, _SECTION = 20, 0.8, 0.62
_GOOD, _WEAK = (110, 150, 190), (236, 173, 118)  # bars at the threshold and above, and below it
_WRITER = "data anchors"


def anchor_sheet(anchors: Anchors, shown: Sequence[Shown], title: str) -> Image:
    """One picture, uint8 RGB: each image with its truths and their priors, then a panel for each lattice of priors.

    The lattices are drawn over the first image; without any, over plain ground.
    """
    parts = [_head(anchors, title, any(one.assigned is not None for one in shown))]
    answered = [one for one in shown if one.assigned is not None]
    if answered:
        parts.append(_section("Which priors answer for which truth", _legend()))
    if len(answered) == 1:
        parts.append(_large(anchors, answered[0]))
    elif answered:
        parts += _rows([_smaller(anchors, one) for one in answered], 2)
    parts.append(_section("Where the priors stand", []))
    width, height = anchors.size
    ground = shown[0].image if shown else np.full((height, width, 3), 128, np.uint8)
    panels = [
        lattice_panel(ground, same, anchors.priors, level_colour(i)) for i, same in enumerate(anchors.groups)
    ]  # fmt: skip
    parts += _rows(panels, COLUMNS)
    whole = blank(sum(part.shape[0] + GAP for part in parts) + MARGIN, INNER + 2 * MARGIN)
    top = MARGIN
    for part in parts:
        whole[top : top + part.shape[0], MARGIN : MARGIN + part.shape[1]] = part
        top += part.shape[0] + GAP
    return whole


def write_anchor_sheet(path: Path | str, anchors: Anchors, shown: Sequence[Shown], title: str) -> None:
    """Write the picture of `anchor_sheet` as PNG; StorageError where the disk refuses it."""
    write_bytes(Path(path), as_png(anchor_sheet(anchors, shown, title), _WRITER))


def is_anchor_sheet(path: Path) -> bool:
    """Whether the file is a picture of `write_anchor_sheet`."""
    return is_written_by(path, _WRITER)


def _head(anchors: Anchors, title: str, matched: bool) -> Image:
    head = blank(62, INNER)
    write_words(head, [(ascii_only(title), INK)], 0, 24, size=_TITLE)
    levels = len({same[0].level for same in anchors.groups})
    threshold = "" if anchors.threshold is None or not matched else f", positive from IoU {anchors.threshold:g}"
    sound = all(same[0].lattice.sound for same in anchors.groups)
    words: Words = [
        (f"{len(anchors.priors):,} priors on {levels} level{'s' * (levels != 1)}{threshold}", PALE),
        ("every lattice is uniform, no duplicates" if sound else "not every lattice is uniform: see below",
         PALE if sound else WRONG),
    ]  # fmt: skip
    write_words(head, words, 0, 52, 18, 0.5)
    return head


def _section(name: str, words: Words) -> Image:
    part = blank(30, INNER)
    cv2.line(part, (0, 2), (INNER - 1, 2), (214, 214, 210), 1)
    write_words(part, [(name, INK)], 0, 24, size=_SECTION)
    write_words(part, words, text_width(name, _SECTION) + 28, 24, 16)
    return part


def _legend() -> Words:
    return [
        ("white: truth", INK), ("thin: priors, coloured as below", INK),
        ("thin and dashed: forced, below the threshold", INK), ("red: no prior answers", WRONG),
        ("grey and dashed: ignored", darker(GREY)), ("tag: how many priors, best IoU", PALE),
    ]  # fmt: skip


def _rows(panels: Sequence[Image], columns: int) -> list[Image]:
    """Panels side by side, `columns` to a row."""
    rows = []
    for start in range(0, len(panels), columns):
        held = panels[start : start + columns]
        row = blank(max(panel.shape[0] for panel in held), INNER)
        left = 0
        for panel in held:
            row[: panel.shape[0], left : left + panel.shape[1]] = panel
            left += panel.shape[1] + GAP
        rows.append(row)
    return rows


def _matched(anchors: Anchors, one: Shown) -> tuple[Matched, Answers]:
    assert one.assigned is not None  # noqa: S101  # only answered images come here
    assert one.tiling is not None  # noqa: S101
    found = anchors.answered(one.assigned, one.tiling)
    return Matched(one.image, one.assigned, anchors.group_of[one.tiling], anchors.threshold), found


def _large(anchors: Anchors, one: Shown) -> Image:
    """One image large, beside it its numbers and a closer look at where most truths are."""
    matched, found = _matched(anchors, one)
    picture = matched_picture(matched, LARGE)
    beside = INNER - picture.shape[1] - GAP
    side = blank(max(picture.shape[0], 860), min(beside, 760))
    bottom = _numbers(side, anchors, one, found)
    window = busiest(matched)
    room = min(side.shape[1], side.shape[0] - bottom - 34)
    if window is not None and room > 160:
        close = matched_picture(matched, room, window)
        side[bottom + 30 : bottom + 30 + close.shape[0], : close.shape[1]] = close
        x1, y1, x2, y2 = window
        write_words(side, [(f"closer: {x2 - x1} px about ({(x1 + x2) // 2}, {(y1 + y2) // 2})", PALE)], 0, bottom + 20)
        scale = LARGE / max(one.image.shape[:2])
        dashed(picture, ((round(x1 * scale), round(y1 * scale)), (round(x2 * scale), round(y2 * scale))),
               (255, 255, 255), 3, 1, ground=False)  # fmt: skip
    whole = blank(max(picture.shape[0], side.shape[0]), INNER)
    whole[: picture.shape[0], : picture.shape[1]] = picture
    whole[: side.shape[0], picture.shape[1] + GAP : picture.shape[1] + GAP + side.shape[1]] = side
    return whole


def _smaller(anchors: Anchors, one: Shown) -> Image:
    """One image of several, above its numbers."""
    matched, found = _matched(anchors, one)
    picture = matched_picture(matched, SMALLER)
    numbers = blank(330 + 20 * len(anchors.groups), SMALLER)
    bottom = _numbers(numbers, anchors, one, found, histogram=False)
    panel = blank(picture.shape[0] + 8 + bottom, SMALLER)
    panel[: picture.shape[0], : picture.shape[1]] = picture
    panel[picture.shape[0] + 8 :] = numbers[:bottom]
    return panel


def _numbers(side: Image, anchors: Anchors, one: Shown, found: Answers, histogram: bool = True) -> int:
    """Counts, a row for each group of priors, the histogram of best IoUs; the line on which they end."""
    told = found.as_dict()
    write_words(side, [(shortened(one.name, 52), INK)], 0, 18, size=0.55)
    ignored = f", {told['ignored']} ignored" if told["ignored"] else ""
    words: Words = [(f"{told['truths']} truths{ignored}", INK)]
    words.append((f"{told['unanswered']} without a prior", WRONG if told["unanswered"] else PALE))
    if told["forced"] is not None:
        words.append((f"{told['forced']} forced", INK if told["forced"] else PALE))
    write_words(side, words, 0, 44, 18, 0.5)
    row = _table(side, anchors.answer_rows(found), 72)
    if histogram and told["truths"]:
        row = _histogram(side, told, row + 26)
    return row


def _table(side: Image, rows: Sequence[dict[str, Any]], top: int) -> int:
    """What each group of priors answers for; the line below it."""
    places = (side.shape[1] - 300, side.shape[1] - 200, side.shape[1] - 110, side.shape[1] - 6)
    for text, right in zip(("positives", "best of", "forced", "median IoU"), places, strict=True):
        write_words(side, [(text, PALE)], right - text_width(text), top)
    write_words(side, [("priors", PALE)], 22, top)
    for i, row in enumerate(rows):
        top += _LINE
        cv2.rectangle(side, (0, top - 11), (13, top), level_colour(i), -1)
        ink = INK if row["positives"] else GREY
        sizes = row["sizes"] if len(row["sizes"]) <= 20 else f"level {row['level']}"
        cells = (row["positives"], row["truths"], row["forced"], row["median_best_iou"])
        write_words(side, [(sizes, ink)], 22, top)
        for value, right in zip(cells, places, strict=True):
            text = "" if value is None else f"{value:,}"
            write_words(side, [(text, ink)], right - text_width(text), top)
    return top + 6


def _histogram(side: Image, told: dict[str, Any], top: int) -> int:
    """Best IoUs as bars, what lies below the threshold paler; the line below it."""
    counts, threshold = np.array(told["histogram"]), told["threshold"]
    width, height = side.shape[1], 120
    write_words(side, [(f"best IoU with any prior: median {told['best_iou']['0.5']:.2f}", PALE)], 0, top)
    bar = width / BINS
    base = top + 14 + height
    for i, count in enumerate(counts):
        tall = round(height * count / max(counts.max(), 1))
        weak = threshold is not None and (i + 0.5) / BINS < threshold
        left, right = round(i * bar) + 1, round((i + 1) * bar) - 2
        if count:
            cv2.rectangle(side, (left, base - max(tall, 1)), (right, base), _WEAK if weak else _GOOD, -1)
    cv2.line(side, (0, base), (width - 1, base), (160, 160, 160), 1)
    for value in (0, 0.25, 0.5, 0.75, 1):
        text = f"{value:g}"
        place = int(np.clip(value * width - text_width(text, 0.4) / 2, 0, width - text_width(text, 0.4)))
        write_words(side, [(text, PALE)], place, base + 16, size=0.4)
    if threshold is not None:
        place = round(threshold * width)
        cv2.line(side, (place, top + 12), (place, base), INK, 1)
        write_words(side, [(f"threshold {threshold:g}", INK)], place + 5, top + 22, size=0.4)
    return base + 24
