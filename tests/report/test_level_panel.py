"""The levels of a network on a page: which learns what, right way round, and what no level learns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onestage.experiments.run import Run
from onestage.report.level_panel import STRETCHES, figures, level_panel, lost
from onestage.report.page import render

LEVELS = [
    {"stride": 32, "grid": [13, 13], "anchors": [[116, 90], [373, 326]], "size": "large", "layer": 82},
    {"stride": 8, "grid": [52, 52], "anchors": [[10, 13], [33, 23]], "size": "small", "layer": 106},
]
INFO = {"model": {"levels": LEVELS}}


def row(step: int, large: int = 1, small: int = 3, **changed: Any) -> dict[str, Any]:
    def scale(count: int, value: float) -> dict[str, Any]:
        told = dict.fromkeys(("iou", "cls", "obj", "r50", "r75"), value if count else None)
        return {"count": count, **told, "noobj": 0.01}

    return {
        "step": step, "epoch": (step - 1) // 10, "loss": 2.0, "weighted": {"box": 1.0, "obj": 1.0}, "images": 4,
        "truths": large + small, "scales": [scale(large, 0.75), scale(small, 0.5)], **changed,
    }  # fmt: skip


def test_the_section_says_which_level_has_what() -> None:
    panel, drawn = level_panel(INFO, [row(step) for step in range(1, 21)])
    assert panel is not None
    assert panel["said"] == (
        "Stride 8, small objects has 75.0 % of the 40 truths of steps 11 to 20; stride 32, large objects 25.0 %."
    )
    assert panel["columns"][:4] == ["level", "layer", "count", "share"]
    large, small = panel["rows"]
    assert (large["name"], large["reach"]) == ("stride 32, large objects", "116x90 to 373x326 px")
    assert large["cells"] == ["82", "10", "25.0 %", "0.750", "0.750", "0.750", "0.010", "0.750", "0.750"]
    assert small["cells"][:4] == ["106", "30", "75.0 %", "0.500"]
    assert set(drawn) == {"level_share", "level_iou", "level_class", "level_object"}
    assert [curve.name for curve in drawn["level_object"].data] == ["stride 32, large objects",
                                                                    "stride 8, small objects"] * 2  # fmt: skip
    assert {curve.line.color for curve in drawn["level_iou"].data} == {large["colour"], small["colour"]}


def test_a_level_without_truths_is_a_gap() -> None:
    panel, drawn = level_panel(INFO, [row(step, large=0 if step > 5 else 1) for step in range(1, 11)])
    assert panel is not None
    assert list(drawn["level_iou"].data[0].y) == [0.75] * 5 + [None] * 5
    assert list(drawn["level_share"].data[0].y) == [0.25] * 5 + [0.0] * 5
    panel, _ = level_panel(INFO, [row(1, large=0)])
    assert panel is not None
    assert panel["said"].endswith("has 100.0 % of the 3 truths of step 1; stride 32, large objects none.")
    assert panel["rows"][0]["cells"] == ["82", "0", "0.0 %", "-", "-", "-", "0.010", "-", "-"]
    panel, _ = level_panel(INFO, [row(1, large=0, small=0)])
    assert panel is not None
    assert panel["said"] == "No truth fell to any level in step 1."


def test_long_runs_have_means_weighted_by_counts() -> None:
    steps = [row(step, large=1 + 99 * (step % 2)) for step in range(1, 10 * STRETCHES + 1)]
    for step in steps:
        step["scales"][0]["iou"] = 0.9 if step["step"] % 2 else 0.0
    curve = figures(["large", "small"], steps)["level_iou"].data[0]
    assert len(curve.x) == STRETCHES
    assert list(curve.y) == pytest.approx([0.9 * 100 / 101] * STRETCHES, rel=1e-4)


def test_truths_that_nothing_learns_are_told() -> None:
    steps = [row(1, unanswered=1.0, rewritten=0.0, capped=2.0), row(2, unanswered=0.0, rewritten=0.0, capped=0.0)]
    assert lost(steps) == [
        "In the whole run 1 of 8 truths (12.5 %) had no anchor that answers for them.",
        "In the whole run 2 of 8 truths (25.0 %) lay beyond the largest number that counts in an image.",
    ]
    assert lost([row(1)]) == []


@pytest.mark.parametrize("steps", [[], [{"step": 1, "loss": 1.0}], [row(1, skipped=True)], [row(1, scales="?")]])
def test_other_runs_have_no_section(steps: list[dict[str, Any]]) -> None:
    assert level_panel(INFO, steps) == (None, {})


def test_the_page_has_the_section_its_table_and_its_figures(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="x")
    run.update(model={"levels": LEVELS})
    for step in range(1, 5):
        run.append_step(row(step))
    text = render(run)
    section = text.split("<h2>Levels</h2>")[1].split("</section>")[0]
    for words in (
        '<th scope="col">No Obj</th>', "anchors 116x90 to 373x326 px", "not the share of classes that are right",
        "not the recall of detections", "a large stride finds large objects",
    ):  # fmt: skip
        assert words in section, words
    kept = re.findall(r'data-figure="(level_\w+)">(.*?)</script>', section, re.DOTALL)
    assert [name for name, _ in kept] == ["level_share", "level_iou", "level_class", "level_object"]
    assert all(json.loads(figure)["data"] for _, figure in kept)
    plain = Run.create(tmp_path, name="y")
    plain.append_step({"step": 1, "loss": 1.0, "weighted": {"box": 1.0}})
    assert "<h2>Levels</h2>" not in render(plain)


def test_rows_of_several_networks_are_survived() -> None:
    steps = [row(1), {**row(2), "scales": row(2)["scales"][:1]}, row(3)]
    panel, drawn = level_panel(INFO, steps)
    assert panel is not None
    assert len(drawn["level_iou"].data) == 2
    panel, _ = level_panel({}, [row(1)])
    assert panel is not None
    assert panel["columns"][:2] == ["level", "count"]
    assert panel["rows"][1]["name"] == "level 2 of 2"
