"""What sheets of pictures are drawn with: paper, words, tags, dashed boxes, a signed PNG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

import onestage.report.colours as colours
from onestage.report.draw import Colour, Image, dashes

# Okabe and Ito's colours and some between, from the finest level to the coarsest.
LEVELS = ("#56B4E9", "#E69F00", "#2FCB9B", "#F0E442", "#E07BB5", "#FF7043", "#B39DDB", "#A5D66B")
PAPER, INK, PALE, DARK = (250, 250, 248), (32, 32, 32), (120, 120, 120), (20, 20, 20)
WHITE, WRONG, GREY = (255, 255, 255), colours.rgb(colours.WRONG), (190, 190, 190)
FONT, SMALL, BIG = cv2.FONT_HERSHEY_SIMPLEX, 0.44, 0.62
_PNG_HEAD = 33  # bytes of a PNG's signature and its first chunk, IHDR

Words = list[tuple[str, Colour]]
Corners = tuple[tuple[int, int], tuple[int, int]]
Place = tuple[int, int, int, int]


def blank(height: int, width: int) -> Image:
    """Empty paper."""
    return np.full((height, width, 3), PAPER, np.uint8)


def level_colour(level: int) -> Colour:
    """The colour of a level; colours repeat after eight."""
    return colours.rgb(LEVELS[level % len(LEVELS)])


def darker(colour: Colour) -> Colour:
    """The colour as letters on paper need it."""
    return (int(colour[0] * 0.72), int(colour[1] * 0.72), int(colour[2] * 0.72))


def ascii_only(text: str) -> str:
    """The text with "?" for letters that OpenCV cannot draw."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def shortened(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than `most` letters."""
    text = ascii_only(text)
    return text if len(text) <= most else f"{text[: (most - 2) // 2]}..{text[-((most - 1) // 2) :]}"


def text_width(text: str, size: float = SMALL) -> int:
    """Pixels that a text takes."""
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def write_words(canvas: Image, words: Words, left: int, bottom: int, space: int = 9, size: float = SMALL) -> None:
    """Words side by side, each in its colour, on the line that ends at `bottom`."""
    for text, colour in words:
        cv2.putText(canvas, text, (left, bottom), FONT, size, colour, 1, cv2.LINE_AA)
        left += text_width(text, size) + space


def dashed(canvas: Image, corners: Corners, colour: Colour, dash: int = 5, thick: int = 2, ground: bool = True) -> None:
    """A dashed rectangle, with `ground` on a white one that shows between the dashes."""
    (x1, y1), (x2, y2) = corners
    if ground:
        cv2.rectangle(canvas, (x1, y1), (x2, y2), WHITE, thick + 1, cv2.LINE_AA)
    dashes(canvas, (x1, y1, x2, y2), colour, dash, thick)


def tag(canvas: Image, corners: Corners, text: str, colour: Colour, taken: list[Place], size: float) -> None:
    """The tag at the first place about the box that is not `taken`, which then is; left out where there is none."""
    (x1, y1), (x2, y2) = corners
    (width, height), _ = cv2.getTextSize(text, FONT, size, 1)
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
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), DARK, -1)
    cv2.rectangle(canvas, (left, top), (left + 4, top + height - 1), colour, -1)
    cv2.putText(canvas, text, (left + 8, top + height - 4), FONT, size, WHITE, 1, cv2.LINE_AA)


def _meet(a: Place, b: Place) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def as_png(sheet: Image, writer: str) -> bytes:
    """The sheet as a PNG file that says which command wrote it, so that `is_written_by` knows it again."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 7])
    if not done:
        raise ValueError(f"as_png: OpenCV could not write {sheet.shape} as PNG")
    whole, signed = data.tobytes(), _signed(writer)
    chunk = b"tEXt" + signed
    text = struct.pack(">I", len(signed)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return whole[:_PNG_HEAD] + text + whole[_PNG_HEAD:]


def is_written_by(path: Path, writer: str) -> bool:
    """Whether the file is a picture of `as_png` by that command."""
    with path.open("rb") as file:
        return _signed(writer) in file.read(_PNG_HEAD + 100)


def _signed(writer: str) -> bytes:
    return b"Software\0onestage " + writer.encode("ascii")
