"""Boxes on pictures: found, false and missed told apart at a glance."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

import onestage.report.colours as colours
from onestage.records import Annotations, Detections, FloatArray
from onestage.report.pairing import Outcome, pair

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
_SPELLED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d"})
_FONT = cv2.FONT_HERSHEY_SIMPLEX
PLAIN_SIDE = 800  # pixels of the longer side up to which lines and letters have their plain size
_DARK: Colour = (24, 24, 24)
_WHITE: Colour = (255, 255, 255)


def draw(
    image: Image,
    detections: Detections,
    annotations: Annotations | None = None,
    classes: Sequence[str] = (),
    *,
    outcome: Outcome | None = None,
    longest: int | None = None,
) -> Image:
    """A copy of `image` (H, W, 3, uint8 RGB) with boxes on it; boxes are pixels of `image`.

    Without `annotations` every detection has its class's colour and a tag "name .87". With them, detections that
    found a truth stay so; a false one is red and its tag begins with "?"; a missed truth is dashed yellow; a truth
    that does not count is dashed grey. `outcome` saves pairing again. `longest` scales the picture so that its longer
    side has that many pixels. Lines and letters grow with pictures of more than PLAIN_SIDE pixels. Tags that do not fit
    are shortened or left out. Letters that OpenCV's fonts lack are spelled in ASCII, or the class is called "#3" by its
    label.
    """
    canvas, scale = _scaled(image, longest)
    pen = max(1.0, max(canvas.shape[:2]) / PLAIN_SIDE)
    if annotations is not None:
        outcome = outcome or pair(detections, annotations)
        for box, missed, uncounted in zip(annotations.boxes * scale, outcome.missed, outcome.uncounted, strict=True):
            if missed or uncounted:
                _dashed(canvas, box, colours.rgb(colours.MISSED if missed else "#BBBBBB"), pen)
    tags: list[tuple[FloatArray, str, str, Colour]] = []
    for row in range(len(detections))[::-1]:  # the surest is drawn last, on top
        label, box = int(detections.labels[row]), detections.boxes[row] * scale
        wrong = outcome is not None and bool(outcome.false[row])
        colour = colours.rgb(colours.WRONG if wrong else colours.of_class(label))
        _solid(canvas, box, colour, pen)
        mark = "? " if wrong else ""
        score = f"{detections.scores[row]:.2f}".lstrip("0")
        tags.append((box, f"{mark}{class_tag(label, classes)} {score}", mark + score, colour))
    for box, long, short, colour in tags:
        _tag(canvas, box, long, short, colour, pen)
    return canvas


def contact_sheet(images: Sequence[Image], columns: int = 4, gap: int = 6) -> Image:
    """Pictures (each uint8 RGB of any size) in one, `columns` to a row, on white; ValueError where there are none."""
    if not images or columns < 1:
        raise ValueError(f"contact_sheet: expected pictures and at least one column, got {len(images)} and {columns}")
    height = max(image.shape[0] for image in images) + gap
    width = max(image.shape[1] for image in images) + gap
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height + gap, min(columns, len(images)) * width + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * height, gap + index % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def class_tag(label: int, classes: Sequence[str]) -> str:
    """A class's name in letters that OpenCV can draw, at most 18; "#<label>" where too little is left of it."""
    name = classes[label] if 0 <= label < len(classes) else ""
    letters = unicodedata.normalize("NFKD", name.translate(_SPELLED))
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    spelled = "".join(letter for letter in letters if " " <= letter <= "~").strip()
    if not spelled or 2 * len(spelled) < len(letters.strip()):
        return f"#{label}"
    return spelled if len(spelled) <= 18 else spelled[:16] + ".."


def _scaled(image: Image, longest: int | None) -> tuple[Image, float]:
    scale = 1.0 if longest is None else longest / max(image.shape[:2])
    if scale == 1.0:
        return np.ascontiguousarray(image).copy(), 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=how), np.uint8), scale


def _corners(canvas: Image, box: FloatArray) -> tuple[int, int, int, int]:
    """The half-open box as the pixels of its edge, kept within one pixel of the canvas."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.nan_to_num(box)
    left, top = int(np.clip(x1, -1, width)), int(np.clip(y1, -1, height))
    return left, top, max(left, int(np.clip(x2, -1, width + 1)) - 1), max(top, int(np.clip(y2, -1, height + 1)) - 1)


def _solid(canvas: Image, box: FloatArray, colour: Colour, pen: float) -> None:
    x1, y1, x2, y2 = _corners(canvas, box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), _DARK, round(3 * pen), cv2.LINE_8)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, round(2 * pen), cv2.LINE_8)


def _dashed(canvas: Image, box: FloatArray, colour: Colour, pen: float) -> None:
    x1, y1, x2, y2 = _corners(canvas, box)
    dash, thick = round(6 * pen), round(2 * pen)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), _DARK, round(3 * pen), cv2.LINE_8)
    dashes(canvas, (x1, y1, x2, y2), colour, dash, thick)


def dashes(canvas: Image, box: tuple[int, int, int, int], colour: Colour, dash: int, thick: int) -> None:
    """A rectangle (xyxy, ends inside) of dashes, `dash` pixels long and as far apart."""
    x1, y1, x2, y2 = box
    for start in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2):
            cv2.line(canvas, (start, y), (min(start + dash, x2), y), colour, thick)
    for start in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2):
            cv2.line(canvas, (x, start), (x, min(start + dash, y2)), colour, thick)


def _tag(canvas: Image, box: FloatArray, long: str, short: str, colour: Colour, pen: float) -> None:
    x1, y1, x2, _ = _corners(canvas, box)
    size, thick, edge = 0.36 * pen, round(pen), round(2 * pen)
    for text in (long, short):
        (width, height), _ = cv2.getTextSize(text, _FONT, size, thick)
        if width + 2 * edge <= max(x2 - x1 + 1, 26 * pen):
            break
    else:
        return
    left = int(np.clip(x1 - 1, 0, max(0, canvas.shape[1] - width - 2 * edge)))
    bottom = y1 if y1 - height - 2 * edge >= 0 else min(canvas.shape[0] - 1, height + 2 * edge)
    cv2.rectangle(canvas, (left, bottom - height - 2 * edge), (left + width + 2 * edge - 1, bottom), colour, -1)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    cv2.putText(
        canvas, text, (left + edge, bottom - edge), _FONT, size, _DARK if bright > 150 else _WHITE, thick, cv2.LINE_AA
    )
