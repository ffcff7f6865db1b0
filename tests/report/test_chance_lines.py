"""The chance level in the figure of losses: right for the ratio asked for, for the real one, and absent elsewhere."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest

from onestage.experiments.curve_rules import Facts
from onestage.report.chance_lines import has_levels, with_levels
from onestage.report.plots import losses

Row = dict[str, Any]


def steps(count: int = 50, negatives: float | None = None, **more: Any) -> list[Row]:
    raw = {"cls": 4.0, "box": 2.0}
    extra = {} if negatives is None else {"negatives": round(40 * negatives)}
    return [
        {"step": n, "loss": 8.0, "raw": raw, "weighted": {"cls": 4.0, "box": 4.0}, "positives": 40, **extra, **more}
        for n in range(1, count + 1)
    ]


def facts(model: str = "faceboxes", **options: Any) -> Facts:
    return Facts.of({"model": model, "classes": ["face"], "options": options}, {})


def lines(rows: list[Row], known: Facts, weight: float = 1.0) -> dict[str, list[float]]:
    figure = with_levels(losses(rows), known, rows, {"cls": weight, "box": 2.0})
    assert has_levels(figure) == any(trace.name.startswith("chance") for trace in figure.data)
    return {
        trace.name.rpartition(" ")[0]: list(trace.y) for trace in figure.data
        if str(trace.name).startswith(("chance", "equal"))
    }  # fmt: skip


# by hand, r negatives to a positive: (1 + r) H(1 / (1 + r)) and (1 + r) ln 2, H in nats
@pytest.mark.parametrize(
    ("known", "chance", "equal"),
    [
        (facts(), 3.0143, 8 * math.log(2)), (facts(negatives=3), 2.2493, 2.7726),
        (facts("ssd300"), 2.2493, 2.7726), (facts("ssd-lite0", class_loss="softmax-ohem"), 2.2493, 2.7726),
    ],
)  # fmt: skip
def test_the_level_is_that_of_the_ratio_the_run_mines_with(known: Facts, chance: float, equal: float) -> None:
    drawn = lines(steps(), known)
    assert drawn["chance"] == pytest.approx([chance] * 2, abs=2e-4)
    assert drawn["equal scores"] == pytest.approx([equal] * 2, abs=2e-4)


def test_the_levels_carry_the_weight_of_the_curve_beside_them() -> None:
    assert lines(steps(), facts(negatives=3), weight=2.0)["chance"] == pytest.approx([4.4986] * 2, abs=2e-4)


def test_where_mining_found_fewer_the_level_is_that_of_what_it_found() -> None:
    assert lines(steps(negatives=3), facts())["chance"] == pytest.approx([2.2493] * 2, abs=2e-4)
    rows = [*steps(100, negatives=7), *[{**row, "step": row["step"] + 100} for row in steps(100, negatives=3)]]
    moving = lines(rows, facts())["chance"]
    assert moving[0] == pytest.approx(3.0143, abs=2e-4)
    assert moving[-1] == pytest.approx(2.2493, abs=2e-4)
    assert moving == sorted(moving, reverse=True)


@pytest.mark.parametrize("known", [facts("ssd-lite0"), facts("yolov3"), Facts.of({}, {}), facts(negatives=0)])
def test_a_loss_whose_levels_are_not_known_has_none(known: Facts) -> None:
    assert "chance" not in lines(steps(), known)


@pytest.mark.parametrize("rows", [[], steps(1), steps(3, skipped=True), [{"step": 1, "loss": math.nan, "raw": {}}]])
def test_few_or_broken_rows_make_no_trouble(rows: list[Row]) -> None:
    figure = with_levels(go.Figure(), facts(), rows, {})
    assert has_levels(figure) == (len(rows) == 1 and bool(rows[0]["raw"]))
