"""Figures by the numbers in them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.records import Metric
from onestage.report import plots
from onestage.report.facts import duration, flat, recipe_rows, times
from onestage.report.scores import Scores, operating_score, spoken

NAN = math.nan


def rows(count: int, **more: float) -> list[dict]:
    return [
        {"step": n, "loss": 3.0 / n, "weighted": {"cls": 2.0 / n, "box": 1.0 / n}, "lr": {"all": 0.1}, **more}
        for n in range(1, count + 1)
    ]


def test_losses_have_the_total_and_every_part_raw_and_smooth() -> None:
    figure = plots.losses(rows(50))
    assert [trace.name for trace in figure.data] == ["total", "total", "cls", "cls", "box", "box"]
    assert figure.data[0].y[1] == 1.5
    assert figure.layout.xaxis.title.text == "optimiser step"


def test_a_spike_survives_thinning() -> None:
    steps = rows(20_000)
    steps[12_345]["loss"] = 999.0
    trace = plots.losses(steps).data[0]
    assert len(trace.x) <= plots.MOST_POINTS + 2
    assert dict(zip(trace.x, trace.y, strict=True))[12_346] == 999.0
    assert trace.x[0] == 1
    assert trace.x[-1] == 20_000


def test_steps_that_are_not_finite_are_marked() -> None:
    steps = rows(10)
    steps[4]["loss"] = NAN
    steps[7]["loss"] = math.inf
    figure = plots.losses(steps)
    assert figure.data[-1].name == "not finite"
    assert list(figure.data[-1].x) == [5, 8]
    json.loads(figure.to_json(), parse_constant=pytest.fail)


def test_validation_losses_are_dotted_in_the_same_colour() -> None:
    figure = plots.losses(rows(10), [{"step": 5.0, "val/cls": 0.7}, {"step": 10.0, "val/cls": NAN}])
    judged = next(trace for trace in figure.data if trace.name == "cls, validation")
    assert (list(judged.x), list(judged.y), judged.line.dash) == ([5.0], [0.7], "dot")
    assert judged.line.color == next(trace for trace in figure.data if trace.name == "cls").line.color


def test_no_rows_give_empty_figures() -> None:
    made = (
        plots.losses([]), plots.learning_rates([]), plots.scores([]), plots.precision_recall({}), plots.class_bars([]),
    )  # fmt: skip
    assert [len(figure.data) for figure in made] == [0] * 5


def test_the_best_evaluation_is_marked_with_its_interval() -> None:
    results = [
        {"epoch": float(n), "step": 10.0 * n, "metrics/mAP50": v} for n, v in ((1, 0.3), (2, 0.6), (3, NAN), (4, 0.5))
    ]
    star = plots.scores(results, Metric("voc10", "mAP50", 0.6, 9, interval=(0.5, 0.65))).data[-1]
    assert (star.x, star.y) == ((2.0,), (0.6,))
    assert star.error_y.array == pytest.approx([0.05])
    assert star.error_y.arrayminus == pytest.approx([0.1])
    other = plots.scores(results, Metric("voc10", "mAP50", 0.7, 9, interval=(0.6, 0.8))).data[-1]
    assert other.error_y.array is None  # the interval of another judgement has no place here
    assert plots.scores(results, None, 40.0).data[-1].x == (4.0,)
    assert plots.best_row([], 1) is None


def test_the_operating_point_lies_on_its_curve() -> None:
    curve = {"recall": [0.1, 0.2, 0.3], "precision": [1.0, 0.9, 0.8], "scores": [0.9, 0.5, 0.1]}
    figure = plots.precision_recall({"a": curve, "b": {**curve, "scores": []}}, ("b", "a"), 0.4)
    line, dot, other = figure.data
    assert (dot.x, dot.y) == ((0.2,), (0.9,))
    assert line.line.color != other.line.color
    assert len(plots.precision_recall({str(n): curve for n in range(80)}).data) == plots.MOST_CURVES


def test_bars_run_from_worst_to_best_and_leave_out_the_undefined() -> None:
    made = plots.class_bars([Metric("v", "AP50", v, 3, n) for n, v in (("a", 0.5), ("b", NAN), ("<i>", 0.2))])
    assert made.data[0].x == (0.2, 0.5)
    assert made.layout.yaxis.ticktext == ("&lt;i&gt;", "a")


@given(st.lists(st.floats(-100, 100) | st.just(NAN), min_size=1, max_size=40), st.integers(0, 50))
def test_running_mean_is_the_mean_of_the_finite_neighbours(values: list[float], half: int) -> None:
    smooth = plots.running_mean(np.array(values), half)
    for index in range(len(values)):
        near = [value for value in values[max(0, index - half) : index + half + 1] if not math.isnan(value)]
        assert math.isnan(smooth[index]) if not near else smooth[index] == pytest.approx(np.mean(near), abs=1e-9)


def test_scores_are_found_by_the_judges_names() -> None:
    listed = [
        Metric("voc07", "mAP50", 0.1, 5), Metric("voc10", "mAP50", 0.2, 5), Metric("coco", "mAP50", 0.3, 5),
        Metric("coco", "mAP50-95", 0.4, 5), Metric("voc10", "AP50", 0.5, 3, "a"), Metric("voc10", "AP50", 0.6, 2, "b"),
        Metric("coco", "APs", 0.9, 1),
    ]  # fmt: skip
    found = Scores.of({"rows": [row.as_dict() for row in listed], "n_images": 4})
    assert found.overall("mAP50").value == 0.2
    assert found.overall("mAP50-95").value == 0.4
    assert found.per_class("AP50", "b").value == 0.6
    assert (found.overall("F1"), found.objects(), found.classes()) == (None, 5, ["a", "b"])


def test_numbers_as_they_are_read_aloud() -> None:
    assert spoken(Metric("v", "m", 0.5625, 4, interval=(0.5, 0.61))) == "0.56 (95 % 0.50–0.61)"
    assert (spoken(Metric("v", "m", NAN, 0)), spoken(None)) == ("undefined", "–")
    assert [duration(v) for v in (0, None, 4.21, 200, 3725)] == ["", "", "4.2 s", "3 min 20 s", "1 h 02 min"]
    assert operating_score({"operating_point": {"score": 0.3}}) == 0.3
    assert [operating_score(m) for m in ({}, {"operating_point": {"score": None}}, {"operating_point": 3})] == [0.5] * 3


def test_nested_values_become_dotted_rows_and_asked_ones_are_marked() -> None:
    recipe = {"train": {"lr": 0.1, "ema": None, "steps": [1, 2]}, "model": "x"}
    assert flat(recipe) == [("train.lr", "0.1"), ("train.ema", "none"), ("train.steps", "1, 2"), ("model", "x")]
    for asked in ({"train.lr": 0.2}, {"train": {"lr": 0.2}}):
        assert [row["key"] for row in recipe_rows(recipe, asked) if row["asked"]] == ["train.lr"]


def test_times_add_up_to_the_whole() -> None:
    parts = times({"seconds": {"train": 60, "data": 20, "eval": 10, "total": 100}}, [])
    assert {row["word"]: row["percent"] for row in parts} == {
        "Steps": 60, "Waiting for data": 20, "Evaluation": 10, "Rest": 10,
    }  # fmt: skip
    assert times({}, []) == []
    assert sum(row["percent"] for row in times({}, [{"seconds": {"data": 1, "step": 3}}])) == pytest.approx(100)


def test_long_class_names_are_cut_with_a_sign() -> None:
    rows = [Metric("voc10", "AP50", 0.5, 3, name) for name in ("short", "a name of thirty letters, or more")]
    assert list(plots.class_bars(rows).layout.yaxis.ticktext) == ["short", "a name of thirty letter…"]


def test_a_run_of_one_step_shows_its_loss() -> None:
    figure = plots.losses([{"step": 1, "loss": 2.0, "weighted": {"cls": 1.5, "box": 0.5}}])
    assert [trace.mode for trace in figure.data if trace.showlegend is None] == ["markers"] * 3


def test_many_curves_have_no_legend_that_covers_them() -> None:
    curve = {"recall": [0.1, 0.5], "precision": [1.0, 0.8], "scores": [0.9, 0.4]}
    few, many = ({f"class {i}": curve for i in range(n)} for n in (plots.MOST_NAMED, plots.MOST_NAMED + 1))
    assert plots.precision_recall(few).layout.showlegend
    assert not plots.precision_recall(many).layout.showlegend


def test_scores_of_a_benchmark_s_own_protocol_are_drawn_beside_the_usual_ones() -> None:
    row = {"epoch": 1.0, "step": 10.0, "metrics/mAP50": 0.5, "metrics/mAP50-95": 0.3, "metrics/precision": 0.5}
    levels = {f"metrics/widerface/AP{level}": 0.1 for level in ("easy", "medium", "hard")}
    shown = {trace.name: trace.visible for trace in plots.scores([{**row, **levels}]).data}
    assert {name for name, visible in shown.items() if visible is True} >= {
        "mAP50", "mAP50-95", "widerface/APeasy", "widerface/APmedium", "widerface/APhard",
    }  # fmt: skip
    many = {f"metrics/fddb/{kind}@{k}": 0.1 for kind in ("disc", "cont") for k in (100, 500, 1000, 2000)}
    shown = {trace.name: trace.visible for trace in plots.scores([{**row, **many}]).data}
    assert shown["fddb/disc@1000"] == "legendonly"
