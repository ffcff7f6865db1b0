"""The picture of `data anchors --cluster`: sides of boxes with the model's own anchors and those made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from onestage.boxes.anchor_fit import AnchorFit, Heads, Refit
from onestage.boxes.clusters import shape_iou
from onestage.experiments.storage import write_bytes
from onestage.records import FloatArray, IntArray
from onestage.report.draw import Colour, Image
from onestage.report.sheet import (
    INK,
    PALE,
    WHITE,
    WRONG,
    Words,
    as_png,
    ascii_only,
    blank,
    darker,
    level_colour,
    text_width,
    write_words,
)

PANEL, GAP, MARGIN = 760, 40, 28
LEFT, BOTTOM = 46, 40  # room for the scales of a panel
INNER = 2 * PANEL + GAP
_WRITER = "data anchors"
_DOT = 0.45  # how much of the paper a single box covers
_FEW = 4000  # boxes up to which each has a larger dot
_GRID = (226, 226, 222)


def shapes_sheet(refit: Refit, sides: FloatArray, title: str) -> Image:
    """One picture, uint8 RGB: left the model's own anchors, right those made, each over all boxes' sides.

    `sides` (N, 2) are in pixels of the input. Both axes are logarithmic and alike. A box has the colour of the head
    that owns its best anchor.
    """
    limits = _limits(sides, refit)
    parts = [
        _head(refit, title, len(sides)),
        _row([_panel(sides, refit.old, limits), _panel(sides, refit.new, limits)]),
        _row([
            _numbers("the model's own", refit.old, refit.old_fit),
            _numbers(f"{refit.how} of these boxes", refit.new, refit.new_fit),
        ]),
        _verdict(refit),
    ]  # fmt: skip
    whole = blank(sum(part.shape[0] for part in parts) + 2 * MARGIN, INNER + 2 * MARGIN)
    top = MARGIN
    for part in parts:
        whole[top : top + part.shape[0], MARGIN : MARGIN + part.shape[1]] = part
        top += part.shape[0]
    return whole


def write_shapes_sheet(path: Path | str, refit: Refit, sides: FloatArray, title: str) -> None:
    """Write the picture of `shapes_sheet` as PNG; StorageError where the disk refuses it."""
    write_bytes(Path(path), as_png(shapes_sheet(refit, sides, title), _WRITER))


def _limits(sides: FloatArray, refit: Refit) -> tuple[float, float]:
    """The least and the largest side shown, as powers of two, with some room."""
    shown = np.concatenate([sides.ravel(), refit.old.sides.ravel(), refit.new.sides.ravel()])
    low, high = np.log2(max(shown.min(), 0.5)) - 0.3, np.log2(shown.max()) + 0.3
    return float(low), float(max(high, low + 1))


def _head(refit: Refit, title: str, boxes: int) -> Image:
    part = blank(66, INNER)
    write_words(part, [(ascii_only(title), INK)], 0, 22, size=0.8)
    order = refit.old.finest_first
    words: Words = [(f"{boxes:,} boxes at the input's size; colours: the head that owns a box's best anchor", PALE)]
    words += [(f"stride {refit.old.strides[head]:g}", darker(_colour(refit.old, head))) for head in order]
    words += [("no head", WRONG)] * bool(refit.old_fit.unowned)
    write_words(part, words, 0, 48, 18, 0.5)
    return part


def _row(panels: Sequence[Image]) -> Image:
    row = blank(max(panel.shape[0] for panel in panels), INNER)
    for i, panel in enumerate(panels):
        row[: panel.shape[0], i * (PANEL + GAP) : i * (PANEL + GAP) + PANEL] = panel
    return row


def _colour(heads: Heads, head: int) -> Colour:
    return level_colour(heads.finest_first.index(head)) if head >= 0 else WRONG


def _panel(sides: FloatArray, heads: Heads, limits: tuple[float, float]) -> Image:
    """Sides of boxes and anchors: width to the right, height upwards."""
    plot = np.full((PANEL - BOTTOM, PANEL - LEFT, 3), WHITE, np.uint8)
    whole = blank(PANEL, PANEL)
    ticks = [2.0**power for power in range(int(np.ceil(limits[0])), int(np.floor(limits[1])) + 1)]
    for tick in ticks:
        x, y = _at(np.array([[tick, tick]]), limits, plot)[0]
        cv2.line(plot, (x, 0), (x, plot.shape[0]), _GRID, 1)
        cv2.line(plot, (0, y), (plot.shape[1], y), _GRID, 1)
        text = f"{tick:g}"
        if x + text_width(text) // 2 < plot.shape[1]:
            write_words(whole, [(text, PALE)], LEFT + x - text_width(text) // 2, PANEL - BOTTOM + 18)
        if y >= 8:
            write_words(whole, [(text, PALE)], LEFT - 8 - text_width(text), y + 5)
    if len(sides):
        best = heads.owner[shape_iou(sides, heads.sides).argmax(1)]
        for head in (-1, *heads.finest_first):
            _dots(plot, _at(sides[best == head], limits, plot), _colour(heads, head), 2 if len(sides) <= _FEW else 1)
    for n, place in enumerate(_at(heads.sides, limits, plot)):
        _anchor(plot, (int(place[0]), int(place[1])), _colour(heads, int(heads.owner[n])))
    for n, place in enumerate(_at(heads.sides, limits, plot)):
        _name(plot, (int(place[0]), int(place[1])), "{:g}x{:g}".format(*heads.anchors[n]))
    cv2.rectangle(plot, (0, 0), (plot.shape[1] - 1, plot.shape[0] - 1), (190, 190, 186), 1)
    whole[: PANEL - BOTTOM, LEFT:] = plot
    write_words(whole, [("width px", PALE)], PANEL - text_width("width px"), PANEL - 4)
    write_words(whole, [("height px", PALE)], 0, PANEL - 4)
    return whole


def _at(sides: FloatArray, limits: tuple[float, float], plot: Image) -> IntArray:
    """Pixels (N, 2) of the plot, whole numbers, where boxes with these sides lie."""
    share = (np.log2(np.maximum(sides, 0.5)) - limits[0]) / (limits[1] - limits[0])
    room = np.array([plot.shape[1] - 1, plot.shape[0] - 1])
    share[:, 1] = 1 - share[:, 1]
    pixels: IntArray = np.clip(np.rint(share * room), 0, room).astype(np.int64)
    return pixels


def _dots(plot: Image, places: IntArray, colour: Colour, radius: int) -> None:
    """Small discs that grow denser where many lie on each other."""
    if not len(places):
        return
    counts = np.zeros(plot.shape[:2], np.float32)
    np.add.at(counts, (places[:, 1], places[:, 0]), 1.0)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.clip(radius + 0.7 - np.hypot(x, y), 0, 1).astype(np.float32)
    cover = (1 - (1 - _DOT) ** cv2.filter2D(counts, -1, disc))[..., None]
    plot[...] = np.rint(plot * (1 - cover) + np.array(colour, np.float32) * cover).astype(np.uint8)


def _anchor(plot: Image, place: tuple[int, int], colour: Colour) -> None:
    cv2.circle(plot, place, 10, WHITE, -1, cv2.LINE_AA)
    cv2.circle(plot, place, 8, darker(colour), -1, cv2.LINE_AA)
    cv2.circle(plot, place, 8, INK, 1, cv2.LINE_AA)


def _name(plot: Image, place: tuple[int, int], text: str) -> None:
    """The anchor's sides beside its mark, on a ground that can be read; on the other side near the right border."""
    wide = text_width(text)
    left = place[0] + 14 if place[0] + 20 + wide < plot.shape[1] else place[0] - 14 - wide
    bottom = int(np.clip(place[1] + 5, 14, plot.shape[0] - 6))
    ground = plot[max(bottom - 13, 0) : bottom + 4, left - 3 : left + wide + 3]
    ground[...] = (ground * 0.25 + 191.25).astype(np.uint8)
    write_words(plot, [(text, INK)], left, bottom)


def _numbers(name: str, heads: Heads, fit: AnchorFit) -> Image:
    """Shares in words, and a bar for each head."""
    part = blank(64 + 26 * (len(heads.masks) + bool(fit.unowned)), PANEL)
    write_words(part, [(ascii_only(name), INK)], LEFT, 26, size=0.55)
    words: Words = [
        (f"mean IoU {100 * fit.mean_iou:.1f} %", INK), (f"IoU 0.5 or more {100 * fit.recall:.1f} %", PALE),
        (f"within ratio 4 {100 * fit.within:.1f} %", PALE), (f"below the smallest {100 * fit.below:.1f} %", PALE),
    ]  # fmt: skip
    write_words(part, words, LEFT, 50, 18, 0.46)
    rows = [(f"stride {heads.strides[head]:g}", fit.load[head], _colour(heads, head)) for head in heads.finest_first]
    rows += [("no head", fit.unowned, WRONG)] * bool(fit.unowned)
    room = PANEL - LEFT - 170
    for i, (text, share, colour) in enumerate(rows):
        bottom = 78 + 26 * i
        write_words(part, [(text, INK)], LEFT, bottom)
        cv2.rectangle(part, (LEFT + 90, bottom - 12), (LEFT + 90 + max(round(room * share), 1), bottom + 2), colour, -1)
        write_words(part, [(f"{100 * share:.1f} %", INK)], LEFT + 98 + round(room * share), bottom)
    return part


def _verdict(refit: Refit) -> Image:
    """The verdict, broken into lines."""
    lines = [""]
    for word in ascii_only(f"verdict: {refit.verdict}").split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, 0.5) > INNER - LEFT:
            lines.append(word)
        else:
            lines[-1] = longer
    part = blank(20 + 22 * len(lines), INNER)
    for i, line in enumerate(lines):
        write_words(part, [(line, INK)], LEFT, 26 + 22 * i, size=0.5)
    return part
