"""What `--explain-protocol` prints, on a set so small that every number can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.cli.explained import ABREAST, show_explanation
from onestage.cli.terminal import Terminal
from onestage.evaluation import PROTOCOLS
from onestage.evaluation.explanation import explain
from onestage.records import Annotations, Detections

TWO = np.array([[10.0, 10, 50, 50], [110, 10, 150, 50]])


def printed(capsys: pytest.CaptureFixture[str], protocols: tuple[str, ...] | None, floor: float | None = None) -> str:
    # One of two truths found, then one false: AP 0.5 by area, 6 of 11 points, 51 of 101 points; half of it with an
    # absent class counted as 0
    truths = {1: Annotations(TWO, np.array([0, 0]), difficult=np.array([False, False]))}
    found = {1: Detections(TWO - [[0, 0, 0, 0], [0, 500, 0, 500]], np.array([0, 0]), np.array([0.9, 0.02]))}
    show_explanation(
        Terminal(), explain(truths, found, ["cat", "absent"], protocols=protocols, score_floor=floor)
    )  # fmt: skip
    return capsys.readouterr().out


def line(text: str, start: str) -> str:
    return next(" ".join(row.split()) for row in text.splitlines() if row.startswith(start))


def test_numbers_gaps_and_probes(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, ("voc10", "voc07", "darknet"), floor=0.005)
    assert line(text, "2 detections") == "2 detections against 2 truths in 1 image"
    assert line(text, "voc10 ") == "voc10 mAP50 VOC devkit, from 2010: whole area 0.5000"
    assert line(text, "voc07 ") == "voc07 mAP50 VOC devkit, 2007: 11 points 0.5455 +4.55"
    assert line(text, "voc10 → voc07") == "voc10 → voc07: +4.55 points"
    assert line(text, "area under").startswith("area under the curve whole area → 11 points")
    assert line(text, "area under").endswith("+4.55 0.5455")
    assert line(text, "voc10 → darknet") == "voc10 → darknet: -25.00 points"
    assert line(text, "classes without").endswith("-25.00 0.2500")
    assert line(text, "detections below 0.05 left out  ") == "detections below 0.05 left out 0 0 0"
    assert "1 of 2 detections score less" in text
    assert "truncated" not in text
    assert all(len(row) <= 120 for row in text.splitlines() if ": " not in row)


def test_all_protocols_side_by_side_in_lines_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, None)
    for name in PROTOCOLS:
        assert name in text
    tables = [row for row in text.splitlines() if row.startswith("points if")]
    assert len(tables) >= 1
    assert all(len(row.split()) - 2 <= ABREAST for row in tables)
    assert "…" not in text
    assert line(text, "note:").startswith("note: average precision is truncated: the lowest score is 0.02")


def test_truth_that_fits_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    odd = PROTOCOLS["voc10"].__class__(PROTOCOLS["voc10"].judge, "mAP50", "a tool", lambda pool: "no ellipses")
    monkeypatch.setitem(PROTOCOLS, "voc10", odd)
    text = printed(capsys, ("voc10",))
    assert "no protocol fits this truth" in text
    assert "voc10 left out: no ellipses" in text
