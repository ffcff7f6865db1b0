"""Figures beyond the scores: what they hold, for one class and for many, for nothing and for evil names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from onestage.evaluation import evaluate
from onestage.evaluation.confusion import Confusion
from onestage.records import Annotations, Detections
from onestage.report.detail_plots import MOST_CELLS, OTHERS, confusion_map, f1_by_score, found_by_false, reliability
from onestage.report.details import calibration_said, closer_look, confusion_said
from onestage.report.plots import MOST_CURVES


def matrix(counts: Any, score: float | None = 0.5) -> Confusion:
    counts = np.asarray(counts, np.int64)
    names = tuple(f"c{k}" for k in range(len(counts) - 1))
    return Confusion(names, counts, score, 0.5, np.zeros(len(names), np.int64))


def metrics(classes: int, images: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(classes)
    corners = rng.uniform(0, 300, (images, 6, 2))
    truths = {i: Annotations(np.hstack([c, c + 40]), rng.integers(0, classes, 6)) for i, c in enumerate(corners)}
    found = {
        i: Detections(t.boxes + rng.normal(0, 4, (6, 4)), (t.labels + (rng.random(6) < 0.3)) % classes, rng.random(6))
        for i, t in truths.items()
    }
    return evaluate(truths, found, [f"c{k}" for k in range(classes)], ("voc10",), resamples=30).as_dict()


def test_the_matrix_is_blue_on_its_diagonal_and_red_beside_it() -> None:
    figure = confusion_map(matrix([[6, 2, 1], [0, 3, 0], [4, 0, 0]]))
    (heat,) = figure.data
    z = np.array(heat.z)
    assert z[0].round(3).tolist() == [round((6 / 9) ** 0.5, 3), round(-((2 / 9) ** 0.5), 3), round(-1 / 3, 3)]
    assert z[2, 0] == -1
    assert heat.customdata[0][1][:3] == ["c0", "c1", 2]
    assert [note.text for note in figure.layout.annotations] == ["6", "2", "1", "3", "4"]
    assert figure.layout.yaxis.ticktext[-1] == "background"
    assert figure.layout.xaxis.ticktext[-1] == "missed"


def test_many_classes_are_folded_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (81, 81))
    counts[-1, -1] = 0
    counts[3, 70] = 500
    (heat,) = confusion_map(matrix(counts)).data
    shown = np.array([[cell[2] for cell in row] for row in heat.customdata])
    names = [row[0][0] for row in heat.customdata]
    assert len(names) <= MOST_CELLS
    assert {"c3", "c70", OTHERS} <= set(names)
    assert shown.sum() == counts.sum()
    assert shown[-1].sum() == counts[-1].sum()
    assert np.array(heat.z)[-2, -2] == 0
    assert names[:-2] == sorted(names[:-2], key=lambda name: int(name[1:]))


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_curves_are_few_and_the_mean_stands_out(classes: int) -> None:
    content = metrics(classes)
    figure = f1_by_score(content["confidence"], [f"c{k}" for k in range(classes)], 0.4)
    occur = len(content["confidence"]["classes"])
    assert len(figure.data) == min(occur, MOST_CURVES) + (occur > 1)
    assert figure.layout.shapes[0].x0 == 0.4
    if occur > 1:
        assert figure.data[-1].line.width > figure.data[0].line.width
        assert list(figure.data[-1].y) == pytest.approx(content["confidence"]["mean"]["F1"], abs=1e-4)


def test_reliability_shows_shares_gaps_and_counts() -> None:
    calibration = metrics(3)["calibration"]
    figure = reliability(calibration)
    rows = [row for row in calibration["bins"]["equal_width"] if row["n"]]
    assert list(figure.data[0].y) == pytest.approx([row["hit_share"] for row in rows], abs=1e-4)
    assert list(figure.data[-1].y) == [row["n"] for row in rows]
    for trace in figure.data:
        if trace.name in ("too sure", "too unsure"):
            tops = np.add(trace.base, trace.y)
            by_place = {(row["low"] + row["high"]) / 2: row for row in rows}
            for x, low, top in zip(trace.x, trace.base, tops, strict=True):
                row = min(by_place.items(), key=lambda item: abs(item[0] - x))[1]
                assert sorted([row["hit_share"], row["mean_score"]]) == pytest.approx([low, top], abs=1e-4)
                assert (row["gap"] < 0) == (trace.name == "too sure")


def test_roc_has_a_curve_per_name() -> None:
    curve = {"false_positives": [0, 5], "true_positive_rate": [0.2, 0.9], "scores": [0.9, 0.1]}
    figure = found_by_false({"discrete": curve, "empty": {"false_positives": []}})
    assert [list(trace.x) for trace in figure.data] == [[0, 5]]


def test_nothing_gives_empty_figures() -> None:
    empty = evaluate({0: Annotations.empty()}, {}, ["a"], ("voc10",), intervals=False).as_dict()
    look, figures = closer_look(json.loads(json.dumps(empty)), ["a"])
    assert look is not None
    assert not any(figure.data for figure in figures.values())
    assert look["calibration_said"] == "No calibration: nothing was found."
    assert look["f1_said"] == "There is no operating point: nothing was found."
    assert closer_look({}, []) == (None, {})
    assert not reliability({}).data
    assert not f1_by_score({}).data


def test_names_in_figures_are_text() -> None:
    evil = "<b>x</b>"
    counts = Confusion((evil,), np.array([[1, 1], [1, 0]]), 0.5, 0.5, np.zeros(1, np.int64))
    figure = confusion_map(counts)
    assert evil not in figure.to_json()
    confidence = {"scores": [0, 1], "mean": {"F1": [0, 1]}, "classes": {evil: {"F1": [0, 1]}}}
    assert evil not in f1_by_score(confidence).to_json()
    assert (
        evil not in found_by_false({evil: {"false_positives": [1], "true_positive_rate": [1], "scores": [1]}}).to_json()
    )


def test_sentences() -> None:
    content = metrics(3)
    said = calibration_said(content["calibration"])
    assert said.startswith("Expected calibration error 0.")
    assert "a perfectly calibrated detector would show about 0." in said
    assert calibration_said({"reason": "scores run from 1 to 9"}) == "No calibration: scores run from 1 to 9."
    assert calibration_said({}) == confusion_said(None) == ""
    assert confusion_said(matrix([[6, 2, 1], [0, 3, 0], [4, 0, 0]]).as_dict()) == (
        "Of 12 truths 9 found, 2 taken for another class, 1 missed; 4 detections on background."
    )
