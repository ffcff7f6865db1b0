"""Tiling: no part of an object becomes background unless asked for, everything is counted, tiles go back in place."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import READERS
from onestage.data.images import decode
from onestage.data.opening import open_dataset
from onestage.data.tiling import Tiling, cut_out, tile_dataset
from onestage.data.transform import windows
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

GROUND = (100, 80)


@st.composite
def objects(draw: st.DrawFn) -> Annotations:
    n = draw(st.integers(0, 8))
    corners = np.array([draw(st.tuples(*[st.integers(-10, 99)] * 2)) for _ in range(n)], float).reshape(n, 2)
    sides = np.array([draw(st.tuples(*[st.integers(1, 70)] * 2)) for _ in range(n)], float).reshape(n, 2)
    aside = [draw(st.booleans()) for _ in range(n)]
    return Annotations(np.concatenate([corners, corners + sides], 1), np.arange(n), ignore=aside)


@settings(deadline=None, max_examples=120)
@given(objects(), st.sampled_from(["ignore", "clip", "drop"]), st.floats(0.05, 1), st.sampled_from([0.0, 0.2, 0.5]))
def test_what_shows_of_an_object_is_a_truth_ignored_or_counted_as_dropped(
    truth: Annotations, cut: Any, visible: float, overlap: float
) -> None:
    tiling = Tiling(32, overlap, cut, visible)
    for window in windows(*GROUND, 32, overlap):
        piece = cut_out(truth, window, tiling, GROUND)
        left, top, right, bottom = window
        fates = np.stack([piece.truth, piece.ignored, piece.dropped])
        assert (fates.sum(0) <= 1).all()
        assert not (fates & truth.ignore).any()
        assert not piece.clipped[~piece.truth].any()
        kept = dict(zip(piece.annotations.labels.tolist(), range(len(piece.annotations)), strict=True))
        for row, box in enumerate(truth.boxes):
            inner = np.clip(box, 0, [*GROUND, *GROUND])
            part = np.array([max(inner[0], left), max(inner[1], top), min(inner[2], right), min(inner[3], bottom)])
            shows = bool(((part[2:] - part[:2]) >= 1).all())
            assert shows == bool(fates[:, row].any() or (truth.ignore[row] and row in kept))
            if not shows:
                continue
            share = np.prod(part[2:] - part[:2]) / np.prod(inner[2:] - inner[:2])
            if not truth.ignore[row]:
                assert piece.truth[row] == (cut == "clip" or share >= min(visible, 1 - 1e-9))
                assert piece.clipped[row] == (piece.truth[row] and share < 1 - 1e-9)
                assert (row in kept) == (not piece.dropped[row])
            if row in kept:
                assert piece.annotations.boxes[kept[row]].tolist() == (part - [left, top, left, top]).tolist()
                assert piece.annotations.ignore[kept[row]] == (truth.ignore[row] or piece.ignored[row])


def test_by_hand() -> None:
    truth = Annotations(
        np.array([[10.0, 10, 30, 20], [25, 0, 45, 10]]), [0, 1], extra={"area": np.array([100.0, 150.0])}
    )
    for visible, ignored in ((0.25, False), (0.5, True)):  # of the second seven of twenty columns show
        piece = cut_out(truth, (0, 0, 32, 32), Tiling(32, visible=visible), GROUND)
        assert piece.annotations.boxes.tolist() == [[10, 10, 30, 20], [25, 0, 32, 10]]
        assert piece.annotations.ignore.tolist() == [False, ignored]
        assert piece.annotations.extra["area"].tolist() == [100, pytest.approx(150 * 0.35)]
    assert cut_out(truth, (0, 0, 32, 32), Tiling(32, cut="drop"), GROUND).annotations.labels.tolist() == [0]


def photograph(folder: Path, split: str, truth: Annotations, ending: str = ".png", form: str = "coco") -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(len(split)).integers(0, 255, (80, 100, 3), np.uint8)
    path = folder / f"{split}{ending}"
    cv2.imwrite(str(path), image)
    info = ImageInfo(split, path, 100, 80)
    return Dataset(folder, form, split, ("car", "van"), (info,), {split: truth}, (), len(truth), 1)


def scene() -> Annotations:
    return Annotations(
        np.array([[2, 2, 12, 12], [40, 5, 60, 15], [0, 50, 100, 80], [70, 20, 80, 30]], float), [0, 1, 0, 1],
        ignore=[0, 0, 0, 1],
    )  # fmt: skip


@pytest.mark.parametrize("form", ["coco", "visdrone"])
def test_what_is_written_is_read_back_with_its_flags_and_can_be_put_in_place(form: str, tmp_path: Path) -> None:
    sets = {"train": photograph(tmp_path / "in", "train", scene()), "val": photograph(tmp_path / "in", "val", scene())}
    out = tmp_path / "out"
    counts, lost = tile_dataset(sets, out, Tiling(48, 0.25), form)
    assert lost == []
    assert counts["train"].as_dict() == {
        "photographs": 1, "tiles": 6, "empty": 4, "objects": 3, "truths": 2, "clipped": 0, "ignored": 5, "dropped": 0,
        "repeated": 0, "never": 1, "widest": 100.0,
    }  # fmt: skip
    opened = open_dataset(out)
    assert [len(opened.train), len(opened.val)] == [6, 6]
    table = list(csv.DictReader((out / "tiles.csv").read_text().splitlines()))
    assert len(table) == 12
    place = {Path(row["tile"]).stem: (int(row["left"]), int(row["top"])) for row in table if row["set"] == "train"}
    found = set()
    for image in opened.train.images:
        truth = opened.train.annotations[image.id]
        left, top = place[image.path.stem]
        pixels = decode(image.path)
        whole = decode(sets["train"].images[0].path)
        assert np.array_equal(pixels, whole[top : top + pixels.shape[0], left : left + pixels.shape[1]])
        counted = ~(truth.ignore | truth.crowd)
        names = [opened.classes[label] for label in truth.labels[counted]]
        found |= {
            (name, *(box + np.tile([left, top], 2)).tolist())
            for name, box in zip(names, truth.boxes[counted], strict=True)
        }
    assert found == {("car", 2, 2, 12, 12), ("van", 40, 5, 60, 15)}
    assert not list(tmp_path.glob(".out*"))


def test_a_score_of_visdrone_does_not_call_an_ignored_part_back(tmp_path: Path) -> None:
    truth = Annotations(np.array([[20.0, 0, 60, 40]]), [0], extra={
        "score": np.array([1]), "category": np.array([4]), "truncation": np.array([1]), "occlusion": np.array([2]),
        "xywh": np.array([[20.0, 0, 40, 40]]), "region": np.array([False]),
    })  # fmt: skip
    data = photograph(tmp_path / "in", "val", truth, form="visdrone")
    tile_dataset({"val": data}, tmp_path / "out", Tiling(40, 0.0), "visdrone")
    again = READERS["visdrone"].read(tmp_path / "out", "val", ("car", "van"))
    parts = [again.annotations[image.id] for image in again.images]
    assert sum(map(len, parts)) == 2
    assert all(part.ignore.all() for part in parts)
    assert {int(value) for part in parts if len(part) for value in part.extra["occlusion"]} == {2}


def test_empty_tiles_may_be_left_out_and_jpeg_stays_jpeg(tmp_path: Path) -> None:
    data = photograph(tmp_path / "in", "train", scene(), ".jpg")
    counts, _ = tile_dataset({"train": data}, tmp_path / "out", Tiling(48, 0.25, empty=False))
    assert (counts["train"].tiles, counts["train"].empty) == (2, 0)
    assert {path.suffix for path in (tmp_path / "out/images/train").iterdir()} == {".jpg"}


def test_a_format_without_flags_is_refused_where_something_would_be_ignored(tmp_path: Path) -> None:
    data = photograph(tmp_path / "in", "train", scene())
    with pytest.raises(ValueError, match="yolo has no regions to ignore"):
        tile_dataset({"train": data}, tmp_path / "out", Tiling(48), "yolo")
    counts, lost = tile_dataset({"train": data}, tmp_path / "out", Tiling(48, cut="drop"), "yolo")
    assert counts["train"].dropped > 0
    assert {finding.code for finding in lost} == {"lost-flag"}  # the region that the photograph itself had
    with pytest.raises(DataError, match="holds something"):
        tile_dataset({"train": data}, tmp_path / "out", Tiling(48))


def test_an_image_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    data = photograph(tmp_path / "in", "train", scene())
    data.images[0].path.write_bytes(b"\x89PNG cut short")
    with pytest.raises(DataError, match=r"train\.png"):
        tile_dataset({"train": data}, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_set_without_objects_is_tiled_too(tmp_path: Path) -> None:
    data = photograph(tmp_path / "in", "train", Annotations.empty())
    counts, _ = tile_dataset({"train": data}, tmp_path / "out", Tiling(64))
    assert (counts["train"].tiles, counts["train"].empty, counts["train"].never) == (4, 4, 0)


@pytest.mark.parametrize("wrong", [{"size": 8}, {"overlap": 1.0}, {"cut": "cut"}, {"visible": 0.0}])
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tiling(**wrong)
