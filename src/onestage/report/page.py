"""One self-contained HTML page per run, made from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import onestage.data.images as images
import onestage.report.colours as colours
import onestage.report.course as course
import onestage.report.facts as facts
import onestage.report.plots as plots
from onestage.errors import OnestageError
from onestage.experiments.curves import Facts
from onestage.experiments.run import Run
from onestage.experiments.storage import write_bytes
from onestage.experiments.truth import Truth, read_truth
from onestage.records import Detections, ImageId
from onestage.report.chance_lines import has_levels, with_levels
from onestage.report.details import closer_look
from onestage.report.draw import class_tag
from onestage.report.examples import Decode, Example, choose, detections_by_image, picture
from onestage.report.level_panel import level_panel
from onestage.report.marked import marked
from onestage.report.scores import PER_CLASS, Scores, operating_score, spoken
from onestage.report.template import embedded, fill, library

T = TypeVar("T")
Rows = list[dict[str, Any]]


def write_report(run: Run, decode: Decode | None = None) -> Path:
    """Write report.html into the run folder and return its path.

    The page needs no network and no other file: figures, their library and twelve validation images are in it. It
    shows what there is: a run that failed, or is not judged yet, gets a page too, and a damaged file is named on it.
    `decode` reads an image file as uint8 RGB (default: `onestage.data.images.decode`). Raises UsageError where
    run.json cannot be read, StorageError where the page cannot be written.
    """
    write_bytes(run.report_path, render(run, decode).encode())
    return run.report_path


def render(run: Run, decode: Decode | None = None) -> str:
    """The page of a run as HTML text; see `write_report`."""
    info, problems = run.info, list[str]()
    read = _Reader(problems)
    steps: Rows = read(lambda: run.steps, [])
    results: Rows = read(lambda: run.results, [])
    metrics: dict[str, Any] = read(lambda: run.metrics, {})
    scores = read(lambda: Scores.of(metrics), Scores.of({}))
    truth = read(lambda: read_truth(run), None)
    found: dict[ImageId, Detections] = read(lambda: detections_by_image(run.predictions), {})
    recipe: Rows = read(lambda: facts.recipe_rows(run.recipe, run.asked), [])
    left_out: list[tuple[str, str]] = read(lambda: facts.left_out(run.recipe, steps), [])
    none: tuple[Rows, Rows] = ([], [])
    said: Rows = read(lambda: run.findings, [])
    findings = read(lambda: facts.finding_rows([row for row in said if course.of_data(row)]), none)
    incidents: Rows = read(lambda: run.incidents, [])
    if damaged := run.damaged_lines:
        problems.append(f"steps.jsonl: {damaged} line(s) could not be read, such as one cut when the process ended")
    classes = list(truth.classes) if truth else [str(name) for name in facts.at(info, "data", "classes") or []]
    cut = operating_score(metrics)
    judged = bool(scores.metrics.rows)
    pictures: Rows = read(lambda: _pictures(truth, found, cut, decode), []) if judged or found else []
    remarks = [*facts.remarks(info, results), *map(str, metrics.get("notes") or [])]
    context = {
        "run": run.name, "status": str(info.get("status", "unknown")), "status_kind": facts.status_kind(info),
        "verdict": facts.verdict(info, scores, steps, classes), "remarks": remarks,
        "headline": [*facts.headline(info, len(steps), results), *left_out], "tiles": facts.tiles(scores),
        "problems": problems,
        "table": class_table(scores, classes), "words": list(PER_CLASS), "pictures": pictures,
        "cut": cut, "cut_known": operating_score(metrics, -1.0) >= 0, "legend": _legend(classes, pictures),
        "recipe": recipe, "finding_counts": findings[0], "findings": findings[1],
        "environment": facts.flat(info.get("environment")), "provenance": facts.provenance(info),
        "times": facts.times(info, steps), "every": facts.all_scores(scores), "protocols": metrics.get("protocols", []),
        "incident_count": len(incidents), **read(lambda: course.told(info, said, incidents), course.NOTHING),
        "library": library(),
    }  # fmt: skip
    curves: dict[str, Any] = read(lambda: class_curves(metrics, scores), {})
    drawn = read(lambda: len(plots.drawable_curves(curves)), len(curves))
    context |= {"curves_left_out": len(curves) - drawn, "curves_unnamed": drawn > plots.MOST_NAMED}
    marks: list[tuple[float, str, str]] = read(lambda: course.marks(info, incidents), [])
    figures: dict[str, Any] = read(
        lambda: _figures(run, steps, results, metrics, scores, classes, cut, marks), {}
    )  # fmt: skip
    nothing: tuple[dict[str, Any] | None, dict[str, Any]] = (None, {})
    context["look"], more = read(lambda: closer_look(metrics, classes), nothing)
    context["scales"], by_level = read(lambda: level_panel(info, steps), nothing)
    by_level = {name: marked(figure, marks, incidents=False) for name, figure in by_level.items()}
    context["levels"] = "losses" in figures and has_levels(figures["losses"])
    context["figures"] = embedded({**figures, **more, **by_level})
    return fill("page.html.j2", context)


class _Reader:
    """Reads one part of a run; a part that is damaged is named on the page instead of spoiling it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __call__(self, part: Callable[[], T], otherwise: T) -> T:
        try:
            return part()
        except OnestageError as error:
            self.problems.append(error.message)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
            self.problems.append(f"a part of the run could not be shown, for its files do not hold it: {error!r}")
        return otherwise


def _figures(
    run: Run, steps: Rows, results: Rows, metrics: Mapping[str, Any], scores: Scores, classes: list[str], cut: float,
    marks: list[tuple[float, str, str]],
) -> dict[str, Any]:  # fmt: skip
    losses = with_levels(plots.losses(steps, results), Facts.of_run(run), steps, run.recipe.get("loss") or {})
    curves = class_curves(metrics, scores)
    bars = [row for name in scores.classes() if (row := scores.per_class("AP50", name))]
    return {
        "losses": marked(losses, marks if steps else []),
        "rates": marked(plots.learning_rates(steps), marks if steps else [], incidents=False),
        "scores": plots.scores(results, scores.overall("mAP50"), facts.at(run.info, "best", "step")),
        "curves": plots.precision_recall(curves, classes, cut),
        "bars": plots.class_bars(bars if len(bars) > 1 else [], classes),
    }


def class_curves(metrics: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """The curves at IoU 0.5 by class, those with most truths first; empty ones are left out."""
    kept = metrics.get("curves") or {}
    curves: dict[str, Any] = kept.get("voc10@0.5") or next(iter(kept.values()), {})
    counts = {name: row.n for name in curves if (row := scores.per_class("AP50", name))}
    drawable = [name for name, curve in curves.items() if curve.get("recall")]
    return {name: curves[name] for name in sorted(drawable, key=lambda name: -counts.get(name, 0))}


def class_table(scores: Scores, classes: list[str]) -> Rows:
    """Per class its count, colour and numbers; classes in order of labels."""
    there = scores.classes()
    rows: Rows = []
    for name in [*(name for name in classes if name in there), *(name for name in there if name not in classes)]:
        cells = {word: scores.per_class(word, name) for word in PER_CLASS}
        first = cells["AP50"] or next((cell for cell in cells.values() if cell), None)
        label = classes.index(name) if name in classes else len(rows)
        rows.append({
            "name": name, "colour": colours.of_class(label), "n": first.n if first else None,
            "cells": [
                {
                    "text": spoken(cell, 3).split(" ")[0].replace("undefined", "–"),
                    "interval": f"{cell.interval[0]:.2f}–{cell.interval[1]:.2f}" if cell and cell.interval else "",
                    "share": 100 * min(1.0, max(0.0, cell.value)) if cell and cell.value == cell.value else 0,
                }
                for cell in cells.values()
            ],
        })  # fmt: skip
    return rows


def _legend(classes: list[str], pictures: Rows) -> list[dict[str, str]]:
    """The classes that stand on the pictures, with their colours; `tag` where pictures spell the name otherwise."""
    drawn = sorted({label for card in pictures for label in card["labels"] if label < len(classes)})
    return [
        {
            "name": classes[label],
            "colour": colours.of_class(label),
            "tag": tag if (tag := class_tag(label, classes)) != classes[label] else "",
        }
        for label in drawn
    ]


def _pictures(truth: Truth | None, found: Mapping[Any, Any], cut: float, decode: Decode | None) -> Rows:
    if truth is None:
        return []
    return [_card(example, truth.classes, decode or images.decode) for example in choose(truth, found, cut)]


def _card(example: Example, classes: tuple[str, ...], decode: Decode) -> dict[str, Any]:
    outcome = example.outcome
    return {
        "name": example.image.path.name, "kind": example.kind, "uri": picture(example, classes, decode),
        "f1": f"{outcome.f1:.2f}", "right": int(outcome.right.sum()), "false": int(outcome.false.sum()),
        "missed": int(outcome.missed.sum()), "uncounted": int(outcome.uncounted.sum()),
        "width": example.image.width, "height": example.image.height, "labels": set(example.detections.labels.tolist()),
    }  # fmt: skip
