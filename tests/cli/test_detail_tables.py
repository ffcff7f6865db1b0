"""The tables beyond the scores on a terminal: their rows, and nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.cli.detail_tables import show_details
from onestage.cli.terminal import Terminal
from onestage.evaluation import evaluate
from onestage.records import Annotations, Detections

BOXES = np.array([[0, 0, 20, 20], [30, 30, 80, 80], [100, 0, 260, 200.0]])


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    truth = {i: Annotations(BOXES + i, [0, 1, 1]) for i in range(6)}
    found = {i: Detections(t.boxes, [0, 1, 0], [0.9, 0.8, 0.85]) for i, t in truth.items()}
    show_details(Terminal(), evaluate(truth, found, ["cat", "[dog]"], ("voc10",), resamples=20).as_dict())
    said = capsys.readouterr().out
    for part in (
        "0.8–0.9          12       0.825          0.500", "0.9–1.0           6       0.900          1.000",
        "Expected calibration error", "[dog]  cat            6         50.0 %",
        "Of 18 truths 12 found, 6 taken for another class, 0 missed; 0 detections on background.",
        "Score of best F1 of each class",
    ):  # fmt: skip
        assert part in said, part
    assert max(map(len, said.splitlines())) <= 200


def test_nothing_found_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_details(Terminal(), evaluate({0: Annotations(BOXES, [0, 0, 0])}, {}, ["cat"], ("voc10",)).as_dict())
    said = capsys.readouterr().out
    assert "No calibration: nothing was found." in said
    assert "Of 3 truths 0 found, 3 missed; 0 detections on background." in said
    show_details(Terminal(), {})
    assert capsys.readouterr().out == ""
