"""Boxes of cells in numpy: those of torch's decoding, and a few that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onestage.boxes.cells import MAX_GROWTH, boxes_of_cells
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.geometry import Geometry, geometry

CFG = """[net]
width=96
height=64
[convolutional]
filters=18
stride=16
size=1
pad=1
activation=linear
[yolo]
mask=0,2
anchors=10,14,23,27,37,58
num=3
classes=4
scale_x_y=1.05
[route]
layers=0
[convolutional]
filters=9
stride=2
size=1
activation=linear
[yolo]
mask=1
anchors=10,14,23,27,37,58
num=3
classes=4
"""


@pytest.fixture(scope="module")
def places() -> Geometry:
    return geometry(architecture(parse(CFG)).heads, (96, 64), [(6, 4), (3, 2)])


def rows(places: Geometry) -> np.ndarray:
    columns = [places.cells, places.stride[:, None], places.sides, places.scale_xy[:, None]]
    return torch.cat(columns, 1).numpy()


def test_numpy_decodes_cells_as_torch_does(places: Geometry) -> None:
    cells = rows(places)
    offsets = np.random.default_rng(1).normal(0, 3, (2, len(cells), 4)).astype(np.float32)
    offsets[0, 0], offsets[1, 1] = (500, -500, 500, -500), (-1e30, 1e30, 80, -80)
    expected = places.decode(torch.from_numpy(offsets)).numpy()
    found = boxes_of_cells(offsets, cells)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-4)
    some = np.array([3, 50, 17])
    np.testing.assert_array_equal(boxes_of_cells(offsets[:, some], cells[some]), found[:, some])
    assert boxes_of_cells(offsets[:, :0], cells[:0]).shape == (2, 0, 4)


def test_a_cell_by_hand() -> None:
    cells = np.array([[32, 64, 16, 20, 40, 1], [32, 64, 16, 20, 40, 1.2]], np.float32)
    middle = np.zeros((2, 4), np.float32)
    assert boxes_of_cells(middle, cells).tolist() == [[30, 52, 50, 92]] * 2  # 40 ± 10, 72 ± 20 with either stretch
    far = np.array([[99, -99, np.log(2), 99]] * 2, np.float32)
    (x1, y1, x2, y2), stretched = boxes_of_cells(far, cells).astype(float)
    assert (x1 + x2) / 2 == pytest.approx(48)  # the cell's right border
    assert (y1 + y2) / 2 == pytest.approx(64, abs=0.02)
    assert x2 - x1 == pytest.approx(40)
    assert y2 - y1 == pytest.approx(40 * MAX_GROWTH)
    assert (stretched[0] + stretched[2]) / 2 == pytest.approx(48 + 0.1 * 16)


def test_offsets_stay_as_they_were(places: Geometry) -> None:
    offsets = np.full((1, places.count, 4), 99, np.float32)
    boxes_of_cells(offsets, rows(places))
    assert (offsets == 99).all()
