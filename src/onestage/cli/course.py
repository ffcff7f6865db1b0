"""The course of a run on the terminal: stages, stretches with what changed, incidents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from onestage.cli.terminal import Terminal
from onestage.experiments.run import Run
from onestage.report.course import machine, spoken, stages, steps_of, stretches

# So many incidents have a line each; the files in recorder/ have all.
MOST_INCIDENTS = 10


def show_course(terminal: Terminal, run: Run, info: Mapping[str, Any]) -> None:
    """The stages where there are several, the stretches where the run was taken up, and the incidents."""
    laid = stages(info)
    if len(laid) > 1:
        terminal.say()
        terminal.table(("stage", "what"), [[stage["title"], stage["words"]] for stage in laid], left=2)
    segments = [part for part in info.get("segments") or [] if isinstance(part, Mapping)]
    if len(segments) > 1:
        _show_stretches(terminal, info, segments)
    incidents = run.incidents
    if incidents:
        terminal.say()
        for report in incidents[-MOST_INCIDENTS:]:
            told = summary(report)
            terminal.say(f"incident: {told['headline']}: {told['what']}; {told['done']}", style="yellow")
        folder = run.folder / "recorder"
        more = len(incidents) - MOST_INCIDENTS
        terminal.say((f"{more} more, and the" if more > 0 else "the") + f" reports are in {folder}; "
                     f"to see a step again: onestage replay {run.name} --step {incidents[-1]['step']}")  # fmt: skip


def _show_stretches(terminal: Terminal, info: Mapping[str, Any], segments: list[Mapping[str, Any]]) -> None:
    """One row for each process that trained the run; the machine only where it changed."""
    rows, before = [], machine(segments[0])
    for told, part in zip(stretches(info), segments, strict=True):
        place = machine(part)
        said = [*told["changes"], *([place] if place != before else [])] or told["reasons"]
        rows.append([steps_of(part), told["begun"][:16], told["exact"], "; ".join(said) or "–"])
        before = place
    terminal.say()
    terminal.table(("steps", "begun, UTC", "exact", "changed"), rows, left=4)


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """An incident for a line and for machines: step, headline, code, what, and what was done."""
    cause = next((cause for cause in report.get("causes") or [] if isinstance(cause, Mapping)), {})
    where = cause.get("file")
    what = str(cause.get("what", ""))
    return {
        "step": report.get("step"), "headline": report.get("headline"), "code": cause.get("code"),
        "what": f"{where}: {what}" if where else what, "done": report.get("done"),
    }  # fmt: skip


def as_word(value: Any) -> str:
    """A value as it could be typed on a command line."""
    if isinstance(value, list | dict):
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
        return f"'{text}'" if isinstance(value, dict) or " " in text else text
    return spoken(value) if isinstance(value, float) else "null" if value is None else str(value)
