"""What the levels of a detector are, told by its own priors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onestage import models
from onestage.models.detector import Assignment
from onestage.training.levels import levels_of


def test_levels_of_an_ssd() -> None:
    levels = levels_of(models.build("ssd-lite0", 2, (320, 320)))
    assert [(level.stride, level.grid, level.layer) for level in levels] == [
        (8, (40, 40), None), (16, (20, 20), None), (32, (10, 10), None), (64, (5, 5), None), (128, (3, 3), None),
    ]  # fmt: skip
    assert [level.size for level in levels] == ["very small", "small", "medium", "large", "very large"]


def test_a_level_of_one_cell_is_as_wide_as_the_input() -> None:
    last = levels_of(models.build("ssd300", 2))[-1]
    assert (last.stride, last.grid, last.size) == (300, (1, 1), "largest")


@pytest.mark.parametrize(("name", "size", "words"), [
    ("yolov3-tiny", (416, 416), {
        16: "stride 32, large objects (81x82 to 344x319 px)", 23: "stride 16, small objects (10x14 to 37x58 px)",
    }),
    ("yolov4-tiny", (608, 352), {
        30: "stride 32, large objects (81x82 to 344x319 px)", 37: "stride 16, small objects (10x14 to 37x58 px)",
    }),
])  # fmt: skip
def test_levels_of_darknets_networks(name: str, size: tuple[int, int], words: dict[int, str]) -> None:
    detector: Any = models.build(name, 6, size)
    at = detector.boxes
    detector.assign = lambda truths: Assignment(torch.full((1, len(at.priors)), -1), at.priors, at.level)
    levels = levels_of(detector)
    assert {level.layer: level.words for level in levels} == words
    assert [level.grid for level in levels] == [(size[0] // s, size[1] // s) for s in (32, 16)]


def test_a_detector_that_tells_no_priors_has_no_levels() -> None:
    detector: Any = models.build("ssd-small", 1, (64, 64))

    def silent(truths: Any) -> Assignment:
        raise NotImplementedError

    detector.assign = silent
    assert levels_of(detector) == []
