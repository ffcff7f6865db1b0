from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.boxes.geometry import ioa
from onestage.data import transform
from onestage.data.images import decode
from onestage.data.transform import crop, split_ground, tile, windows, write_coco
from onestage.errors import DataError, StorageError
from onestage.records import Annotations

sides = st.integers(1, 90)
overlaps = st.floats(0, 0.9)


def covered(width: int, height: int, places: list[tuple[int, int, int, int]]) -> np.ndarray:
    count = np.zeros((height, width), int)
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        count[y1:y2, x1:x2] += 1
    return count


@st.composite
def annotated(draw: st.DrawFn) -> tuple[int, int, Annotations]:
    width, height, n = draw(sides), draw(sides), draw(st.integers(0, 12))
    corners = [
        (draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1)), draw(sides), draw(sides)) for _ in range(n)
    ]
    boxes = np.array([(x, y, min(x + w, width), min(y + h, height)) for x, y, w, h in corners], float)
    return width, height, Annotations(boxes, np.arange(n), extra={"line": np.arange(n)})


@settings(deadline=None)
@given(sides, sides, st.integers(3, 60), overlaps)
def test_windows_cover_every_pixel(width: int, height: int, size: int, overlap: float) -> None:
    places = windows(width, height, size, overlap)
    assert (covered(width, height, places) > 0).all()
    assert len(set(places)) == len(places)
    assert max(x2 for _, _, x2, _ in places) == width
    assert max(y2 for *_, y2 in places) == height
    assert windows(width, height, size, overlap) == places
    if overlap:
        expected = (min(size, width), min(size, height))
        assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in places} == {expected}
        starts = sorted({x1 for x1, *_ in places})
        assert all(b - a <= max(1, size * (1 - overlap)) for a, b in itertools.pairwise(starts))


@settings(deadline=None)
@given(sides, sides, st.integers(2, 60))
def test_windows_without_overlap_hold_each_pixel_once(width: int, height: int, size: int) -> None:
    places = windows(width, height, size, 0)
    assert (covered(width, height, places) == 1).all()
    widths = {x2 - x1 for x1, _, x2, _ in places}
    assert max(widths) <= size
    assert max(widths) - min(widths) <= 1


def test_windows_by_hand() -> None:
    assert windows(10, 4, 4, 0.5) == [(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4), (6, 0, 10, 4)]
    assert windows(400, 400, 320, 0.5) == [(0, 0, 320, 320), (80, 0, 400, 320), (0, 80, 320, 400), (80, 80, 400, 400)]
    assert windows(5, 3, 8) == [(0, 0, 5, 3)]
    assert windows(5, 3, 3, 0) == [(0, 0, 2, 3), (2, 0, 5, 3)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0.5), (8, 1.0), (8, -0.1), (8, float("nan"))])
def test_windows_refuse_what_never_ends(size: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="windows"):
        windows(10, 10, size, overlap)


@settings(deadline=None, max_examples=60)
@given(annotated(), st.integers(12, 60), overlaps, st.sampled_from([0.0, 0.4, 1.0]))
def test_tiles_hold_the_boxes_they_show(
    case: tuple[int, int, Annotations], size: int, overlap: float, min_visible: float
) -> None:
    width, height, truth = case
    image = np.arange(width * height, dtype=np.uint32).view(np.uint8).reshape(height, width, 4)
    for piece in tile(image, truth, size, overlap, min_visible):
        x1, y1, x2, y2 = piece.window
        np.testing.assert_array_equal(piece.image, image[y1:y2, x1:x2])
        there = piece.annotations
        back = there.boxes + np.array([x1, y1, x1, y1])
        for row, line in enumerate(there.extra["line"]):
            original = truth.boxes[line]
            expected = np.maximum(original[:2], [x1, y1]), np.minimum(original[2:], [x2, y2])
            np.testing.assert_array_equal(back[row], np.concatenate(expected))
        inside = ioa(truth.boxes, np.array([piece.window], float))[:, 0]
        assert set(there.extra["line"]) == set(np.flatnonzero((inside >= min_visible) & (inside > 0)))
        np.testing.assert_array_equal(there.labels, there.extra["line"])
        assert (there.boxes >= 0).all()
        assert (there.boxes <= [x2 - x1, y2 - y1, x2 - x1, y2 - y1]).all()


@settings(deadline=None, max_examples=60)
@given(annotated(), st.integers(5, 60))
def test_cells_share_out_the_area_of_every_box(case: tuple[int, int, Annotations], size: int) -> None:
    width, height, truth = case
    shares = np.zeros(len(truth))
    for piece in tile(np.zeros((height, width, 3), np.uint8), truth, size, 0, 0):
        box = piece.annotations.boxes
        np.add.at(shares, piece.annotations.extra["line"], (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    whole = truth.boxes.reshape(-1, 4)
    np.testing.assert_allclose(shares, (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1]))


def test_the_share_that_must_be_visible() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    truth = Annotations(
        [[0, 0, 10, 10], [6, 0, 16, 10], [7, 0, 17, 10], [3, 3, 3, 8]], [0, 1, 2, 3], difficult=[0, 1, 0, 0],
        extra={"area": np.array([80.0, 50.0, 100.0, 0.0])},
    )  # fmt: skip
    piece = crop(image, truth, (0, 0, 10, 10), 0.4)  # the second shows 40 %, the third 30 %, the last has no area
    np.testing.assert_array_equal(piece.annotations.boxes, [[0, 0, 10, 10], [6, 0, 10, 10]])
    np.testing.assert_array_equal(piece.annotations.difficult, [False, True])
    np.testing.assert_allclose(piece.annotations.extra["area"], [80, 20])
    assert np.shares_memory(piece.image, image)


def test_pieces_without_boxes_stay() -> None:
    pieces = tile(np.zeros((8, 8, 3), np.uint8), Annotations.empty(), 4, 0)
    assert len(pieces) == 4
    assert all(piece.annotations.boxes.shape == (0, 4) for piece in pieces)


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 300), st.integers(1, 50), st.data())
def test_the_two_grounds_share_no_pixel(width: int, height: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(1, width - 1))
    margin = data.draw(st.integers(0, width - right - 1))
    left_ground, right_ground = split_ground(width, height, right, margin)
    image = np.zeros((height, width, 3), np.uint8)
    truth = Annotations.empty()
    size = data.draw(st.integers(12, 60))
    train = covered(width, height, [p.window for p in tile(image, truth, size, 0.5, ground=left_ground)]) > 0
    val = covered(width, height, [p.window for p in tile(image, truth, size, 0, ground=right_ground)]) > 0
    assert not (train & val).any()
    assert train.any(axis=0).sum() == width - right - margin
    assert val.any(axis=0).sum() == right
    gap = np.flatnonzero(val.any(axis=0))[0] - np.flatnonzero(train.any(axis=0))[-1] - 1
    assert gap == margin


@pytest.mark.parametrize(("right", "margin"), [(0, 1), (6, 4), (3, -1)])
def test_grounds_must_both_be_left(right: int, margin: int) -> None:
    with pytest.raises(ValueError, match="split_ground"):
        split_ground(10, 10, right, margin)


@pytest.mark.parametrize("ground", [(0, 0, 9, 8), (-1, 0, 8, 8), (4, 0, 4, 8)])
def test_ground_outside_the_picture_is_refused(ground: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="inside the picture of 8x8"):
        tile(np.zeros((8, 8, 3), np.uint8), Annotations.empty(), 4, ground=ground)


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    pieces = tile(np.zeros((4, 4, 3), np.uint8), Annotations.empty(), 4)
    counts = write_coco(tmp_path, "train", ["a"], [(transform.tile_name("a/b", pieces[0].window), pieces[0])] * 2)
    assert counts["images"] == len(list((tmp_path / "images/train").iterdir())) == 2


def test_a_set_without_images_is_still_readable(tmp_path: Path) -> None:
    assert write_coco(tmp_path, "val", ["a"], []) == {"images": 0, "boxes": 0}
    document = json.loads((tmp_path / "annotations/instances_val.json").read_text())
    assert document == {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}


def test_an_undecodable_image_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"a\.png"):
        decode(tmp_path / "a.png")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        transform.write_jpeg(tmp_path / "b.jpg", np.zeros((4, 4, 3), np.uint8))
