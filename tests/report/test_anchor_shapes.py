"""The picture of anchors beside boxes: marks where the sides are, colours of heads, nothing breaks on nothing."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.boxes.anchor_fit import Heads, refit
from onestage.report.anchor_shapes import INNER, MARGIN, PANEL, _at, _limits, _panel, shapes_sheet
from onestage.report.sheet import darker, level_colour

HEADS = Heads(((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)), ((3, 4, 5), (1, 2, 3)), (32.0, 16.0))


def sides(count: int) -> np.ndarray:
    return np.exp(np.random.default_rng(0).normal(3.5, 0.8, (count, 2)))


@pytest.mark.parametrize("count", [60, 6000])
def test_a_sheet_with_two_panels(count: int) -> None:
    boxes = sides(count)
    sheet = shapes_sheet(refit(boxes, np.arange(count) // 5, HEADS), boxes, "yolov4-tiny at 416x416")
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == INNER + 2 * MARGIN
    assert sheet.shape[0] > PANEL


def test_marks_stand_where_the_sides_are_in_the_colours_of_their_heads() -> None:
    limits = _limits(sides(60), refit(sides(60), np.arange(60), HEADS))
    panel = _panel(np.zeros((0, 2)), HEADS, limits)
    plot = panel[: PANEL - 40, 46:]
    places = _at(HEADS.sides, limits, plot)
    assert (np.diff(places[:, 0]) > 0).all()  # wider lies further right
    assert (np.diff(places[:, 1]) < 0).all()  # higher lies further up
    x, y = places[4]
    assert tuple(plot[y, x]) == darker(level_colour(1))
    x, y = places[1]
    assert tuple(plot[y, x]) == darker(level_colour(0))
