"""The size of an image as a viewer shows it, and whether its file is whole, from headers alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from onestage.data.orientation import find_orientation
from onestage.errors import DataError

LARGEST = 2**30  # pixels; OpenCV decodes no more than this
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def probe(path: Path) -> tuple[int, int]:
    """Width and height of an image file in pixels, turned as its EXIF orientation asks.

    Reads headers of JPEG, PNG, BMP, WebP, GIF and TIFF and finds files that are cut short (a JPEG without its end
    marker, a PNG without IEND, a WebP, BMP or TIFF shorter than it says); any other file is decoded with OpenCV.
    Raises DataError with the reason in a few words: empty, cut short, not an image, too large.
    """
    try:
        with path.open("rb") as file:
            size = _by_header(file, path.stat().st_size)
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}") from error
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise DataError("the file is cut short or damaged in its header") from error
    width, height = size if size is not None else _by_decoding(path)
    if width < 1 or height < 1:
        raise DataError(f"its header gives a size of {width}x{height}")
    if width * height > LARGEST:
        raise DataError(f"it says it is {width}x{height}, more pixels than can be decoded")
    return width, height


def _by_header(file: BinaryIO, length: int) -> tuple[int, int] | None:
    magic = file.read(16)
    if not magic:
        raise DataError("the file is empty")
    if magic.startswith(b"\xff\xd8"):
        return _jpeg(file, length)
    if magic.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(file, length)
    if magic.startswith(b"RIFF") and magic[8:12] == b"WEBP":
        return _webp(file, length, struct.unpack("<I", magic[4:8])[0])
    if magic.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack("<HH", magic[6:10])
        return width, height
    if magic.startswith(b"BM"):
        return _bmp(file, length)
    if magic.startswith((b"II*\0", b"MM\0*")):
        return _tiff(file, length)
    return None


def _by_decoding(path: Path) -> tuple[int, int]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DataError("it is not an image that OpenCV can read")
    return int(image.shape[1]), int(image.shape[0])


def _turned(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _jpeg(file: BinaryIO, length: int) -> tuple[int, int] | None:
    file.seek(2)
    size: tuple[int, int] | None = None
    orientation: int | None = None
    while True:
        lead = file.read(1)
        if lead and lead != b"\xff":
            continue
        marker = file.read(1)
        while marker == b"\xff":
            marker = file.read(1)
        if not marker:
            raise DataError("the JPEG is cut short in its header")
        code = marker[0]
        if code in (0x00, 0x01, 0xD8) or 0xD0 <= code <= 0xD7:
            continue
        if code == 0xD9:
            raise DataError("the JPEG holds no picture")
        (step,) = struct.unpack(">H", file.read(2))
        after = file.tell() + step - 2
        if code in _SOF:
            _, height, width = struct.unpack(">BHH", file.read(5))
            size = (width, height)
        elif code == 0xE1:
            data = file.read(step - 2)
            if orientation is None and data.startswith(b"Exif\0\0"):  # of several blocks the first counts
                orientation = _orientation(data)
        elif code == 0xDA:
            break
        file.seek(after)
    if not _ends(file, after, length):
        raise DataError("the JPEG is cut short: it has no end marker")
    if size is None or size[1] == 0:  # the height may stand after the picture; rare, let the decoder say
        return None
    return _turned(*size, orientation or 1)


def _ends(file: BinaryIO, start: int, length: int) -> bool:
    # Within the picture's data FF is always followed by 00 or a restart marker, so FF D9 is the end and nothing else.
    # It is looked for near the end first, then anywhere after the header: phones append films and maps to a photo.
    for begin in (max(start, length - 4096), start):
        file.seek(begin)
        if b"\xff\xd9" in file.read():
            return True
    return False


def _orientation(block: bytes) -> int:
    """The orientation (1 … 8) that an EXIF block asks for; 1 where there is none or the block is damaged."""
    try:
        found = find_orientation(block.removeprefix(b"Exif\0\0"))
    except struct.error:
        return 1
    return 1 if found is None else found[1]


def _png(file: BinaryIO, length: int) -> tuple[int, int]:
    size, at = (0, 0), 8
    orientation: int | None = None
    while at + 12 <= length:
        file.seek(at)
        step, kind = struct.unpack(">I4s", file.read(8))
        if at + 12 + step > length:
            break
        if kind == b"IHDR":
            size = struct.unpack(">II", file.read(8))
        elif kind == b"eXIf" and orientation is None:
            orientation = _orientation(file.read(step))
        elif kind == b"IEND":
            return _turned(*size, orientation or 1)
        at += 12 + step
    raise DataError("the PNG is cut short: it has no end chunk")


def _webp(file: BinaryIO, length: int, said: int) -> tuple[int, int]:
    if said + 8 > length:
        raise DataError(f"the WebP is cut short: {length} of {said + 8} bytes")
    size, at = (0, 0), 12
    orientation: int | None = None
    while at + 8 <= said + 8:
        file.seek(at)
        kind, step = struct.unpack("<4sI", file.read(8))
        if kind == b"VP8X":
            data = file.read(10)
            size = (1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))
        elif kind == b"VP8 " and size == (0, 0):
            width, height = struct.unpack("<HH", file.read(10)[6:10])
            size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and size == (0, 0):
            (bits,) = struct.unpack("<I", file.read(5)[1:5])
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"EXIF" and orientation is None:
            orientation = _orientation(file.read(step))
        at += 8 + step + step % 2
    return _turned(*size, orientation or 1)


def _bmp(file: BinaryIO, length: int) -> tuple[int, int]:
    file.seek(10)
    offset, kind = struct.unpack("<II", file.read(8))
    if kind == 12:
        width, height, _, bits = struct.unpack("<HHHH", file.read(8))
        packed = 0
    else:
        width, height, _, bits, packed = struct.unpack("<iiHHI", file.read(16))
    row = (width * bits + 31) // 32 * 4
    if packed in (0, 3) and offset + row * abs(height) > length:
        raise DataError("the BMP is cut short")
    return width, abs(height)


def _tiff(file: BinaryIO, length: int) -> tuple[int, int] | None:
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    file.seek(4)
    (at,) = struct.unpack(f"{order}I", file.read(4))
    file.seek(at)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    tags: dict[int, tuple[int, ...]] = {}
    entries = [struct.unpack(f"{order}HHI4s", file.read(12)) for _ in range(count)]
    for tag, kind, n, value in entries:
        letter = {3: "H", 4: "I"}.get(kind)
        if letter is None or tag not in (256, 257, 273, 274, 279, 324, 325):
            continue
        if tag == 274 and ((kind, n) != (3, 1) or tag in tags):
            continue
        width = struct.calcsize(letter) * n
        if width > 4:
            file.seek(struct.unpack(f"{order}I", value)[0])
            value = file.read(min(width, length))
        tags[tag] = struct.unpack(f"{order}{n}{letter}", value[:width])
    starts, sizes = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
    if any(start + size > length for start, size in zip(starts, sizes, strict=False)):
        raise DataError("the TIFF is cut short")
    if 256 not in tags or 257 not in tags:
        return None
    return _turned(tags[256][0], tags[257][0], tags.get(274, (1,))[0])
