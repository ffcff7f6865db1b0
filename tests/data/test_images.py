from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onestage.data.images import MEAN_COLOUR, decode, fit, fit_transform, frame, native_size, view
from onestage.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
RED, GREEN, BLUE, PALE = (230, 30, 20), (20, 200, 40), (30, 40, 220), (250, 250, 250)


def quarters() -> np.ndarray:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12], image[:8, 12:], image[8:, :12], image[8:, 12:] = RED, GREEN, BLUE, PALE
    return image


def encoded(image: np.ndarray, kind: str = ".png") -> bytes:
    ok, data = cv2.imencode(kind, image)
    assert ok
    return data.tobytes()


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in image[y, x]) for y in (2, -3) for x in (2, -3)]


def exif(orientation: int, order: str = ">") -> bytes:
    head = b"MM\0*" if order == ">" else b"II*\0"
    other = struct.pack(order + "HHII", 0x0100, 4, 1, 24)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(order + "IH", 8, 2) + other + entry + struct.pack(order + "I", 0)


def jpeg_with(block: bytes) -> bytes:
    data = encoded(quarters()[:, :, ::-1], ".jpg")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]


SHOWN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


def test_colour_order_is_rgb() -> None:
    image = decode(encoded(quarters()[:, :, ::-1]))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, quarters())


def test_jpeg_equals_opencv_and_path_equals_bytes(tmp_path: Path) -> None:
    data = encoded(quarters()[:, :, ::-1], ".jpg")
    path = tmp_path / "ein Bild ä.jpg"
    path.write_bytes(data)
    np.testing.assert_array_equal(decode(path), decode(data))
    np.testing.assert_array_equal(decode(data)[:, :, ::-1], cv2.imdecode(np.frombuffer(data, np.uint8), 1))


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".tiff"])
def test_grey(kind: str) -> None:
    grey = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None], 16, 0)
    image = decode(encoded(grey, kind))
    assert image.shape == (16, 24, 3)
    assert np.abs(image.astype(int) - grey[:, :, None]).max() <= (2 if kind == ".jpg" else 0)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    deep = np.array([[0, 128, 129, 257, 4095, 32768, 65278, 65407, 65535]], np.uint16)
    expected = np.rint(deep / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(decode(encoded(deep, kind))[:, :, 0], expected)
    colour = np.dstack([deep, deep[:, ::-1], deep])
    np.testing.assert_array_equal(decode(encoded(colour, kind))[:, :, 1], expected[:, ::-1])


def test_alpha_lies_on_white() -> None:
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[:, :, 0] = 200  # blue in OpenCV's order
    rgba[0, :, 3] = (0, 51, 204, 255)
    expected = [[255, 255, 255], [204, 204, 244], [51, 51, 211], [0, 0, 200]]
    np.testing.assert_array_equal(decode(encoded(rgba))[0], expected)
    deep = rgba.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(encoded(deep))[0], expected)


def test_cmyk_as_a_browser_shows_it() -> None:
    shown = np.array(corners(decode(GOLDEN / "cmyk.jpg")))
    assert np.abs(shown - [RED, GREEN, BLUE, PALE]).max() <= 3


def test_palette_with_transparency() -> None:
    assert corners(decode(GOLDEN / "palette_transparent.png")) == [(255, 255, 255), GREEN, BLUE, PALE]


def test_first_frame() -> None:
    assert corners(decode(GOLDEN / "two_frames.gif")) == [RED, GREEN, BLUE, PALE]


@pytest.mark.parametrize("name", ["turned.webp", "turned.tiff"])
def test_orientation_in_other_formats(name: str) -> None:
    image = decode(GOLDEN / name)
    assert image.shape == (24, 16, 3)
    assert corners(image) == [BLUE, RED, PALE, GREEN]


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_jpeg(orientation: int, order: str) -> None:
    data = jpeg_with(exif(orientation, order))
    upright = decode(encoded(quarters()[:, :, ::-1], ".jpg"))
    np.testing.assert_array_equal(decode(data), SHOWN[orientation](upright))
    np.testing.assert_array_equal(decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_in_png_with_alpha(orientation: int) -> None:
    rgba = np.dstack([quarters()[:, :, ::-1], np.full((16, 24), 255, np.uint8)])
    data, block = encoded(rgba), exif(orientation)
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    np.testing.assert_array_equal(decode(data[:33] + chunk + data[33:]), SHOWN[orientation](quarters()))


@pytest.mark.parametrize(
    "block", [b"", b"MM", exif(0), exif(9), exif(6)[:-12], b"MM\0*\xff\xff\xff\xff", b"XX\0*\0\0\0\x08\0\0"]
)
def test_broken_exif_changes_nothing(block: bytes) -> None:
    assert decode(jpeg_with(block)).shape == (16, 24, 3)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    jpeg = encoded(quarters()[:, :, ::-1], ".jpg")
    contents = {
        "empty.jpg": b"", "text.jpg": b"not an image", "cut.jpg": jpeg[: len(jpeg) * 2 // 3], "head.jpg": jpeg[:20],
        "cut.png": encoded(quarters())[:60], "float.tiff": encoded(np.zeros((4, 4), np.float32), ".tiff"),
    }  # fmt: skip
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    for name in [*contents, "missing.jpg", "folder.jpg"]:
        with pytest.raises(DataError, match=name) as caught:
            decode(tmp_path / name)
        assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="empty"):
        decode(b"")
    with pytest.raises(DataError, match="picture 7"):
        decode(b"junk", name="picture 7")


def test_squash_tells_its_scale() -> None:
    image, transform = fit(quarters(), (48, 48))
    assert image.shape == (48, 48, 3)
    assert (transform.scale_x, transform.scale_y, transform.pad_x, transform.pad_y) == (2, 3, 0, 0)
    assert corners(image) == [RED, GREEN, BLUE, PALE]


def test_letterbox_is_centred_and_keeps_proportions() -> None:
    image, transform = fit(quarters(), (48, 64), "letterbox", fill=(1, 2, 3))
    assert (transform.scale_x, transform.scale_y, transform.pad_x, transform.pad_y) == (2, 2, 0, 16)
    assert (image[:16] == (1, 2, 3)).all()
    assert (image[48:] == (1, 2, 3)).all()
    assert corners(image[16:48]) == [RED, GREEN, BLUE, PALE]


def test_same_size_is_a_copy() -> None:
    source = quarters()
    image, _ = fit(source, (24, 16))
    image[:] = 0
    np.testing.assert_array_equal(source, quarters())


def test_window_beside_the_image_shows_ground_but_for_one_pixel() -> None:
    image, transform = view(quarters(), (100, 100, 130, 120), (30, 20))
    assert (image != MEAN_COLOUR).any(2).sum() == 1
    assert transform.to_net([[0, 0, 24, 16]])[0, 2:].tolist() == [1, 1]


def test_bad_windows_and_words_are_refused() -> None:
    with pytest.raises(ValueError, match="positive size"):
        view(quarters(), (5, 0, 5, 16), (10, 10))
    with pytest.raises(ValueError, match="letterbox"):
        frame((5, 5), (10, 10), "stretch")  # type: ignore[arg-type]


@given(
    st.tuples(*[st.floats(-40, 40)] * 2, *[st.floats(0.5, 120)] * 2), st.integers(1, 90), st.integers(1, 90),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_views_have_the_asked_size_and_a_transform_that_undoes_itself(
    window: tuple[float, ...], width: int, height: int, mirror: bool, upside_down: bool
) -> None:
    left, top, wide, high = window
    image, transform = view(
        quarters(), (left, top, left + wide, top + high), (width, height), mirror=mirror, upside_down=upside_down
    )
    assert image.shape == (height, width, 3)
    boxes = np.array([[1.0, 2.0, 20.0, 14.0]])
    np.testing.assert_allclose(transform.to_image(transform.to_net(boxes)), boxes, atol=1e-9)
    assert (transform.scale_x < 0, transform.scale_y < 0) == (mirror, upside_down)


def test_shrinking_far_averages() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::4] = 255
    image, _ = fit(stripes, (50, 50))
    assert np.ptp(image) <= 1
    assert abs(int(image[0, 0, 0]) - 64) <= 1


def test_native_keeps_every_pixel_and_a_scale_multiplies_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    shown, transform = fit(image, (300, 300), "native")
    np.testing.assert_array_equal(shown, image)
    assert (transform.scale_x, transform.scale_y, transform.pad_x, transform.pad_y) == (1, 1, 0, 0)
    larger, transform = fit(image, (300, 300), "native", scale=2.5)
    assert larger.shape == (18, 12, 3)  # whole pixels, and the transform tells those
    assert (transform.scale_x, transform.scale_y) == (12 / 5, 18 / 7)
    np.testing.assert_array_equal(larger, cv2.resize(image, (12, 18), interpolation=cv2.INTER_LINEAR))
    assert frame((5, 7), (300, 300), "native") == (0, 0, 5, 7)


@given(st.integers(1, 9000), st.integers(1, 9000), st.floats(0.001, 16))
def test_a_native_size_is_near_what_was_asked_and_never_nothing(width: int, height: int, scale: float) -> None:
    assume(width * height * scale**2 < 2**27)
    for asked, got in zip((width * scale, height * scale), native_size((width, height), scale), strict=True):
        assert got >= 1
        assert abs(got - asked) <= 0.5 or (asked < 1 and got == 1)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["squash", "letterbox"]),
)  # fmt: skip
def test_a_transform_is_known_without_pixels(image: tuple[int, int], size: tuple[int, int], how: str) -> None:
    assert fit_transform(image, size, how) == fit(np.zeros((image[1], image[0], 3), np.uint8), size, how)[1]


def test_an_image_grown_beyond_any_memory_is_refused_in_words() -> None:
    with pytest.raises(DataError, match=r"96000x64000 pixels, 16 times 6000x4000, are more"):
        native_size((6000, 4000), 16)
