"""Scores as `onestage val` prints them where a protocol brings rates of its own."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.cli.scores import show_scores
from onestage.cli.terminal import Terminal
from onestage.evaluation import evaluate
from onestage.records import Annotations, Detections

TWO = np.array([[10.0, 10, 50, 50], [110, 10, 150, 50]])


def printed(capsys: pytest.CaptureFixture[str], *protocols: str) -> list[str]:
    truths = {1: Annotations(TWO, np.array([0, 1]))}
    found = {1: Detections(TWO, np.array([0, 0]), np.array([0.9, 0.002]))}
    show_scores(Terminal(), evaluate(truths, found, ["cat", "dog", "cow"], protocols).as_dict())
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_darknets_rates_stand_apart_from_those_of_the_operating_point(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "voc10", "darknet", "darknet101")
    point = [line for line in lines if "best mean F1" in line]
    assert len(point) == 1
    assert point[0].count("precision") == 1
    own = [line for line in lines if line.startswith("darknet, at confidence 0.25")]
    assert own == [
        "darknet, at confidence 0.25, all classes together: "
        "precision 1.000, recall 0.500, F1 0.667, IoU 1.000, TP 1, FP 0, FN 1"
    ]
    assert "mAP50 darknet 0.333 2" in lines
    assert "mAP50 present darknet 0.500 2" in lines
    assert "note: darknet: mAP50 counts 1 of 3 classes as 0, for they have no truth" in lines


def test_darknet_alone_has_its_classes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "darknet11")
    assert not any("best mean F1" in line for line in lines)
    assert any(line.startswith("class AP50 (darknet11)") for line in lines)
    assert "cat 1.000 1" in lines
