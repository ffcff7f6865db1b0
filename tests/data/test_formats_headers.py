"""Sizes from headers against what OpenCV decodes, and files that are not whole."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from folders_on_disk import picture, with_orientation
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.formats.headers import probe
from onestage.data.images import decode
from onestage.errors import DataError


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif", ".ppm"])
@pytest.mark.parametrize("size", [(1, 1), (37, 5), (300, 201)])
def test_size_is_what_opencv_decodes(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = picture(tmp_path / f"a{suffix}", *size)
    assert probe(path) == size
    assert cv2.imread(str(path)).shape[1::-1] == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_as_a_viewer_turns_it(tmp_path: Path, orientation: int) -> None:
    path = picture(tmp_path / "a.jpg", 30, 20)
    path.write_bytes(with_orientation(path.read_bytes(), orientation))
    assert probe(path) == ((20, 30) if orientation >= 5 else (30, 20))
    assert cv2.imread(str(path)).shape[1::-1] == probe(path)


def test_png_and_webp_are_turned_too(tmp_path: Path) -> None:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)
    png = picture(tmp_path / "a.png", 30, 20)
    data = png.read_bytes()
    chunk = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    png.write_bytes(data[:33] + chunk + data[33:])
    webp = picture(tmp_path / "a.webp", 30, 20)
    lossless = webp.read_bytes()[12:]
    head = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0, 29, 0, 0, 19, 0, 0])
    body = b"WEBP" + head + lossless + b"EXIF" + struct.pack("<I", len(tiff)) + tiff
    webp.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    for path in (png, webp):
        assert probe(path) == (20, 30) == cv2.imread(str(path)).shape[1::-1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.97])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = picture(tmp_path / f"a{suffix}", 64, 48)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError):
        probe(path)


def test_a_thumbnail_in_the_header_does_not_hide_a_cut(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", 64, 48)
    data = path.read_bytes()
    thumbnail = b"\xff\xe2" + struct.pack(">H", 6) + b"\xff\xd8\xff\xd9"
    path.write_bytes((data[:2] + thumbnail + data[2:])[: len(data) // 2])
    with pytest.raises(DataError, match="cut short"):
        probe(path)


def test_a_long_trailer_after_the_picture_is_fine(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + bytes(50_000))
    assert probe(path) == (60, 40)


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is no image at all", b"<html></html>", bytes(1000), b"\xff\xd8", b"BM"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError):
        probe(tmp_path / "a.jpg")


def test_a_size_that_cannot_be_decoded_is_refused_without_trying(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 200_000, 200_000)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="more pixels"):
        probe(path)


def test_the_suffix_is_not_believed(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 31, 17).rename(tmp_path / "a.jpg")
    assert probe(tmp_path / "a.jpg") == (31, 17)


def test_a_folder_or_nothing_at_all_gives_a_reason(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jpg"):
        with pytest.raises(DataError, match="cannot be opened"):
            probe(path)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"BM", b"II*\0"]),
)
def test_no_bytes_make_it_fall_over(tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.jpg"
    path.write_bytes(magic + data)
    with contextlib.suppress(DataError):
        width, height = probe(path)
        assert width > 0
        assert height > 0


def test_grey_and_16_bit_are_read(tmp_path: Path) -> None:
    for name, image in (("g.jpg", np.zeros((7, 9), np.uint8)), ("d.png", np.zeros((7, 9), np.uint16))):
        cv2.imwrite(str(tmp_path / name), image)
        assert probe(tmp_path / name) == (9, 7)


def exif(order: str, rows: list[tuple[int, int, int]], magic: bool = True) -> bytes:
    """An EXIF block whose directory holds orientations as (kind, count, value)."""
    head = (b"II" if order == "<" else b"MM") + (struct.pack(order + "H", 42) if magic else b"??")
    entries = b"".join(struct.pack(order + "HHIHH", 274, *row, 0) for row in rows)
    return head + struct.pack(order + "IH", 8, len(rows)) + entries + bytes(4)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BLOCKS = st.builds(
    exif, st.sampled_from("<>"),
    st.lists(st.tuples(st.sampled_from((3, 3, 4)), st.integers(1, 2), st.integers(0, 9)), max_size=3), st.booleans(),
)  # fmt: skip


@given(st.lists(BLOCKS, max_size=3), st.booleans())
def test_the_header_says_the_size_that_decoding_gives_whatever_exif_holds(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes], prefixed: bool
) -> None:
    image = np.full((20, 30, 3), 90, np.uint8)
    jpeg, png = (cv2.imencode(suffix, image)[1].tobytes() for suffix in (".jpg", ".png"))
    segments = [b"Exif\0\0" + block for block in blocks]
    apps = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments)
    chunks = b"".join(png_chunk(b"eXIf", part) for part in (segments if prefixed else blocks)[:1])
    for data in (jpeg[:2] + apps + jpeg[2:], png[:33] + chunks + png[33:]):
        path = tmp_path_factory.getbasetemp() / "exif.bin"
        path.write_bytes(data)
        height, width = decode(path).shape[:2]
        assert probe(path) == (width, height)
