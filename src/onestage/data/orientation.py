"""EXIF's orientation: where it stands in an image file, and which way up the image is to be shown."""

from __future__ import annotations

import struct

TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">"}
"""How a TIFF structure begins, and the order of bytes that says."""


def orientation_tag(data: bytes) -> tuple[int, int] | None:
    """Where the value of EXIF's orientation stands in the file, and the value 1 … 8; None where there is none."""
    try:
        start = _exif_start(data)
        return None if start is None else find_orientation(data, start)
    except struct.error:  # a block that points outside the file says nothing
        return None


def _exif_start(data: bytes) -> int | None:
    """Where the TIFF structure that holds EXIF begins in a JPEG, PNG, WebP or TIFF file."""
    if data[:4] in TIFF_HEADS:
        return 0
    if data[:2] == b"\xff\xd8":
        return _exif_in_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        position, kind, head, order = 8, b"eXIf", ">I4s", slice(None)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        position, kind, head, order = 12, b"EXIF", "<4sI", slice(None, None, -1)
    else:
        return None
    while position + 8 <= len(data):
        length, name = struct.unpack_from(head, data, position)[order]
        if name == kind:
            start = position + 8
            return start + 6 if data[start : start + 6] == b"Exif\0\0" else start
        position += 8 + length + (4 if kind == b"eXIf" else length % 2)  # PNG: a checksum; WebP: even lengths
    return None


def _exif_in_jpeg(data: bytes) -> int | None:
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0xD9, 0xDA):  # the picture itself begins
            return None
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return position + 10
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def find_orientation(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """As `orientation_tag`, of the TIFF structure that begins at `start`; struct.error where it is cut short."""
    order = TIFF_HEADS.get(data[start : start + 4])
    if order is None:
        return None
    directory = start + struct.unpack_from(order + "I", data, start + 4)[0]
    for i in range(struct.unpack_from(order + "H", data, directory)[0]):
        entry = directory + 2 + 12 * i
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        if (tag, kind, count) == (0x0112, 3, 1):
            value = struct.unpack_from(order + "H", data, entry + 8)[0]
            return (entry + 8, value) if 1 <= value <= 8 else None
    return None
