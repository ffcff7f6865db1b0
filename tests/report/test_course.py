"""The course of a run in words: stages, stretches, incidents, what was noticed; and where it stands on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onestage.report.course as course
from onestage.experiments.run import Run
from onestage.report.marked import marked
from onestage.report.page import render
from onestage.report.plots import losses

DOCS = Path(__file__).parents[2] / "docs" / "findings.md"
GROUPS = [
    {"stage": "heads", "epochs": 1, "steps": [0, 4], "optimiser": "adamw", "schedule": "cosine", "lr": 1e-3,
     "groups": [
         {"group": "heads", "tensors": 20, "parameters": 100, "trainable": True, "lr": 1e-3, "decay": 0.05,
          "norms": "-"},
         {"group": "stem (frozen)", "tensors": 27, "parameters": 300, "trainable": False, "lr": None, "decay": None,
          "norms": "kept"},
     ]},
    {"stage": "<all>", "epochs": 2, "steps": [4, 12], "optimiser": "sgd", "schedule": "constant", "lr": 1e-4,
     "groups": []},
]  # fmt: skip
SEGMENTS = [
    {"start": "2026-11-20T13:58:30.034+00:00", "from_step": 0, "to_step": 7, "host": "vm", "cpu": "EPYC",
     "device": "cpu", "precision": "fp32", "threads": 1, "devices": 1},
    {"start": "2026-11-20T13:59:53.000+00:00", "from_step": 7, "to_step": 7, "exact": True, "devices": 2},
    {"start": "2026-11-20T14:59:53.000+00:00", "from_step": 7, "to_step": None, "exact": False,
     "changes": {"epochs": [12, 6], "schedule.gamma": [None, 0.5]}, "reasons": ["epochs was changed"]},
]  # fmt: skip
REPORT = {
    "step": 6, "epoch": 0, "incident": "nan-loss", "headline": "the loss is not a finite number at step 6 (epoch 1)",
    "decision": "stop", "done": "the run was stopped", "replay": "onestage replay x --step 6",
    "causes": [
        {"code": "broken-box", "what": "width 0", "sure": "certain", "severity": "error", "file": "photos/<im1>.jpg",
         "row": 1, "label": "van", "box": [20.0, 10.0, 20.0, 40.0], "formula": "ln(0)", "consequence": "-inf",
         "remedy": "correct the box", "prior": {"number": 5, "box": [16.0, 16.0, 32.0, 32.0], "level": 0}},
        {"code": "exploded-weights", "what": "weights have run away"},
    ],
}  # fmt: skip
LIVE = {
    "code": "empty-level", "severity": "warning", "where": {"step": 200}, "what": "level 2 has had no positive",
    "consequence": "", "remedy": "fit the priors",
}  # fmt: skip
EARLY = {"code": "lr-too-high", "severity": "warning", "where": {}, "what": "lr 1e+06 with sgd", "consequence": "jumps"}
INCIDENT = {"code": "broken-box", "severity": "error", "where": {"step": 6, "file": "a.jpg"}, "what": "width 0",
            "evidence": {"incident": "nan-loss"}}  # fmt: skip
DATA = {"code": "zero-area", "severity": "error", "where": {"file": "a.xml", "line": 3}, "what": "no area"}


def made(tmp_path: Path) -> Run:
    run = Run.create(tmp_path, name="x")
    run.update(groups=GROUPS, segments=SEGMENTS, status="diverged", error="the loss is not a finite number")
    for step in range(1, 8):
        weighted = {"cls": 2.0 / step, "box": 1.0}
        run.append_step({"step": step, "epoch": 0, "loss": 3.0, "weighted": weighted, "lr": {"heads": 1e-3}})
    run.write_findings([LIVE, EARLY, INCIDENT, DATA])
    run.write_file("recorder/step-000006.json", json.dumps(REPORT).encode())
    run.write_file("recorder/step-000002.json", b"[]")  # no report: left out
    return run


def test_foreseen_codes_are_those_of_the_documentation() -> None:
    part = DOCS.read_text().split("## Before the first step")[1].split("\n## ")[0]
    assert frozenset(re.findall(r"^### (\S+)$", part, re.MULTILINE)) == course.FORESEEN


def test_findings_fall_into_data_and_training() -> None:
    assert [course.of_data(row) for row in (LIVE, EARLY, INCIDENT, DATA)] == [False, False, False, True]
    rows = course.noticed([LIVE, EARLY, INCIDENT, DATA])
    assert [(row["code"], row["when"]) for row in rows] == [
        ("lr-too-high", "before the start"), ("empty-level", "step 200"),
    ]  # fmt: skip


def test_stages_say_where_they_lie_and_what_learns() -> None:
    first, second = course.stages({"groups": GROUPS})
    assert (first["title"], second["title"]) == ("heads", "<all>")
    assert first["words"] == "steps 1 to 4, adamw, cosine, lr 0.001, 100 of 400 parameters learn (25%)"
    assert [(group["name"], group["lr"]) for group in first["groups"]] == [
        ("heads", "0.001"), ("stem (frozen)", "frozen"),
    ]  # fmt: skip
    assert course.stages({}) == []
    assert course.stages({"groups": [{"stage": "all", "groups": []}]})[0]["title"] == ""


def test_stretches_say_steps_changes_and_exactness() -> None:
    rows = course.stretches({"segments": SEGMENTS})
    assert [row["steps"] for row in rows] == ["1 to 7", "none", "8 and on"]
    assert [row["exact"] for row in rows] == ["–", "bit for bit", "no longer"]
    assert rows[2]["changes"] == ["epochs: 12 → 6", "schedule.gamma: automatic → 0.5"]
    assert (course.spoken([10.0, "3 steps"]), course.spoken([]), course.spoken(None)) == (
        "10, 3 steps",
        "none",
        "automatic",
    )
    assert rows[0]["machine"] == "vm, EPYC, cpu, fp32, 1 thread"
    assert rows[1]["machine"] == "2 processes"


def test_an_incident_names_image_truth_prior_and_formula() -> None:
    (row,) = course.incident_rows([REPORT])
    facts = dict(row["facts"])
    assert facts["where"] == "photos/<im1>.jpg, truth 1 van (20, 10, 20, 40), prior 5 (16, 16, 32, 32) of level 0"
    assert (facts["formula"], facts["done"]) == ("ln(0)", "the run was stopped")
    assert facts["also found"] == "exploded-weights: weights have run away"
    assert facts["see it again"] == "onestage replay x --step 6"


def test_what_stopped_the_run_stands_first_and_the_rest_is_counted() -> None:
    many = [{**REPORT, "step": step, "decision": "go"} for step in range(1, 40)] + [{**REPORT, "step": 50}]
    rows = course.incident_rows(many)
    assert len(rows) == course.MOST_INCIDENTS
    assert [row["step"] for row in rows[:3]] == [50, 1, 2]


def test_the_page_tells_the_course(tmp_path: Path) -> None:
    text = render(made(tmp_path))
    for words in (
        "<h2>Incidents</h2>", "photos/&lt;im1&gt;.jpg", "<h2>Noticed before and while training</h2>", "empty-level",
        "<h2>Stages</h2>", "&lt;all&gt;", "<h2>Stretches</h2>", "taken up twice", "bit for bit", "epochs: 12 → 6",
        "<h2>Found in the data</h2>", "zero-area",
    ):  # fmt: skip
        assert words in text, words
    assert "<im1>" not in text
    assert text.index("<h2>Incidents</h2>") < text.index("<h2>Loss</h2>")  # a run that failed begins with why
    assert "empty-level" not in text.split("<h2>Found in the data</h2>")[1].split("</section>")[0]


def test_a_plain_run_has_no_empty_sections(tmp_path: Path) -> None:
    text = render(Run.create(tmp_path, name="x"))
    for title in ("Incidents", "Noticed before", "Stages", "What learnt", "Stretches"):
        assert title not in text


def test_damaged_parts_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.write_file("recorder/step-000006.json", b"{")
    run.update(groups=[{"stage": "x", "groups": [{"parameters": "many"}]}])
    text = render(run)
    assert "step-000006.json cannot be read" in text
    assert "a part of the run could not be shown" in text
    assert "Found in the data" in text


def test_marks_lie_between_the_steps_and_incidents_on_them(tmp_path: Path) -> None:
    run = made(tmp_path)
    found = course.marks(run.info, run.incidents)
    assert found == [
        (4.5, "stage", "<all>"), (7.5, "resumed", ""), (7.5, "resumed", ""), (6.0, "incident", "broken-box"),
    ]  # fmt: skip
    figure: Any = marked(losses(run.steps), found).to_plotly_json()
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [4.5, 7.5, 7.5]
    assert figure["layout"]["annotations"][0]["text"] == "&lt;all&gt;"
    assert figure["data"][-1]["name"] == "incident"
