"""The sheet of a batch: its size, what is drawn where, crowds, nothing to find, and the file that knows itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from onestage.boxes.assigned import Assigned
from onestage.records import Annotations
from onestage.report import colours
from onestage.report.batch_sheet import LEVELS, TILE, SheetImage, as_png, batch_sheet, is_sheet

GREY = np.full((100, 100, 3), 90, np.uint8)


def shown(boxes: list[list[float]], priors: list[list[float]], match: list[int], level: list[int]) -> SheetImage:
    truths = Annotations(np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), int))
    of = Assigned(
        np.array(match), np.array(priors, float).reshape(-1, 4), np.array(level), 3, truths.boxes, truths.ignore
    )
    return SheetImage(GREY, "street.jpg", truths, of)


def has(sheet: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((sheet == np.array(colour)).all(-1).any())


def test_priors_are_drawn_in_the_colour_of_their_level() -> None:
    one = shown([[20, 20, 60, 60]], [[18, 22, 58, 62], [70, 70, 90, 90]], [0, -1], [1, 2])
    tile = batch_sheet([one], ["car"], "")[70 : 70 + TILE, 16 : 16 + TILE]
    assert has(tile, colours.rgb(LEVELS[1]))
    assert not has(tile, colours.rgb(LEVELS[2]))  # the prior of level 2 answers for nothing
    scale = TILE / 100
    assert tuple(tile[round(22 * scale), round(30 * scale)]) == colours.rgb(LEVELS[1])  # its upper edge
    assert (tile[round(20 * scale), round(30 * scale)] == 255).all()  # the truth's upper edge


def test_a_truth_without_a_prior_is_dashed_red_and_counted() -> None:
    answered = shown([[20, 20, 60, 60]], [[20, 20, 60, 60]], [0], [0])
    left_out = shown([[20, 20, 60, 60]], [[70, 70, 90, 90]], [-1], [0])
    red = colours.rgb(colours.WRONG)
    assert not has(batch_sheet([answered], ["car"], "")[70:, :], red)
    assert has(batch_sheet([left_out], ["car"], "")[70 : 70 + TILE, :], red)


def test_a_region_to_ignore_is_not_called_left_out() -> None:
    truths = Annotations(np.array([[20.0, 20, 60, 60]]), np.array([0]), ignore=np.array([True]))
    of = Assigned(np.array([-2]), np.array([[20.0, 20, 60, 60]]), np.array([0]), 1, truths.boxes, truths.ignore)
    sheet = batch_sheet([SheetImage(GREY, "a.jpg", truths, of)], ["car"], "")
    assert not has(sheet[70 : 70 + TILE, :], colours.rgb(colours.WRONG))


def test_four_to_a_row_whatever_their_shape() -> None:
    tall = SheetImage(np.zeros((200, 100, 3), np.uint8), "tall.jpg", Annotations.empty())
    wide = SheetImage(np.zeros((100, 200, 3), np.uint8), "wide.jpg", Annotations.empty())
    one, five = batch_sheet([tall], [], ""), batch_sheet([tall, wide] * 2 + [wide], [], "five")
    assert five.shape[1] == 4 * TILE + 3 * 14 + 2 * 16
    assert five.shape[0] > 2 * one.shape[0] - 200
    assert five.dtype == np.uint8


def test_a_crowd_and_boxes_far_outside_are_drawn_without_complaint() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-500, 500, (300, 4)).tolist()
    boxes[0] = [float("nan")] * 4
    sheet = batch_sheet([shown(boxes, [[0, 0, 10, 10]] * 300, list(range(300)), [2] * 300)], ["\u8eca"], "\u8eca")
    assert sheet.shape[2] == 3


def test_no_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        batch_sheet([], [], "")


def test_the_file_is_a_png_that_knows_itself(tmp_path: Path) -> None:
    sheet = batch_sheet([SheetImage(GREY, "a.jpg", Annotations.empty())], [], "title")
    ours, other = tmp_path / "ours.png", tmp_path / "other.png"
    ours.write_bytes(as_png(sheet))
    cv2.imwrite(str(other), sheet)
    assert (cv2.imread(str(ours))[..., ::-1] == sheet).all()
    assert is_sheet(ours)
    assert not is_sheet(other)
