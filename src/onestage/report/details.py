"""What a page says beyond the scores: how far to trust them, what is taken for what, where to cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onestage.report.colours as colours
import onestage.report.detail_plots as plots
from onestage.evaluation.confusion import Confusion
from onestage.report.plots import MOST_CURVES, MOST_NAMED
from onestage.report.scores import operating_score

MOST_LISTED = 12


def closer_look(metrics: Mapping[str, Any], classes: Sequence[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What details.html.j2 shows of the content of a metrics.json, and its figures by name.

    None and no figures where nothing of it is there, as in results of earlier versions.
    """
    calibration, confidence = metrics.get("calibration"), metrics.get("confidence")
    confusion = Confusion.from_dict(metrics["confusion"]) if metrics.get("confusion") else None
    if not (calibration or confidence or confusion):
        return None, {}
    point = metrics.get("operating_point") or {}
    cut = operating_score(metrics, -1.0) if point.get("score") is not None else None
    named = point.get("classes") or {}
    most = sorted(named, key=lambda name: -int(named[name].get("truths") or 0))
    figures = {
        "f1": plots.f1_by_score(confidence or {}, classes, cut, most),
        "reliability": plots.reliability(calibration or {}),
    }
    if confusion is not None:
        figures["confusion"] = plots.confusion_map(confusion)
    look = {
        "cut": point.get("score"), "f1_said": _f1_said(point, len((confidence or {}).get("classes") or {})),
        "calibration_said": calibration_said(calibration or {}),
        "kept_said": kept_said(calibration or {}),
        "confused": [] if confusion is None else confusion.most_confused()[:MOST_LISTED],
        "small_map": confusion is not None and len(confusion.classes) <= 6,
        "folded": confusion is not None and len(confusion.classes) > plots.MOST_CELLS,
        "folded_to": plots.MOST_CELLS - 6, "errors": confusion_said(metrics.get("confusion")),
        "rows": _rows(point, calibration or {}, classes),
        "f1_left_out": max(0, len((confidence or {}).get("classes") or {}) - MOST_CURVES),
    }  # fmt: skip
    return look, figures


def calibration_said(calibration: Mapping[str, Any]) -> str:
    """The expected calibration error in a sentence, beside what chance alone would give; the reason where none is."""
    if not calibration:
        return ""
    if calibration.get("reason"):
        return f"No calibration: {calibration['reason']}."
    if not calibration.get("n"):
        return "No calibration: nothing was found."
    ece, chance = calibration["ECE"], calibration["by_chance"]
    within = calibration.get("interval")
    spread = f" (95 % {within[0]:.3f}–{within[1]:.3f})" if within else ""
    gap = calibration["hit_share"] - calibration["mean_score"]
    lean = f"scores are {abs(gap):.3f} too {'high' if gap < 0 else 'low'} on average"
    verdict = lean if ece > 2 * chance else "no more than chance explains"
    return (
        f"Expected calibration error {ece:.3f}{spread} over {calibration['n']:,} detections; a perfectly calibrated "
        f"detector would show about {chance:.3f} here: {verdict}."
    )


def kept_said(calibration: Mapping[str, Any]) -> str:
    """Mean score and share of hits of the detections from the operating point on; "" where there are none."""
    kept = calibration.get("kept") or {}
    if not kept.get("n"):
        return ""
    return (
        f"From the operating point on ({kept['at']:.2f}): mean score {kept['mean_score']:.2f}, share of hits "
        f"{kept['hit_share']:.2f}, {kept['n']:,} detections."
    )


def _f1_said(point: Mapping[str, Any], classes: int) -> str:
    score, f1 = point.get("score"), point.get("F1")
    if score is None:
        return "There is no operating point: nothing was found."
    best = f"where {'the mean F1' if classes > 1 else 'F1'} is highest"
    chosen = best if point.get("chosen") == "best mean F1" else str(point.get("chosen"))
    said = "" if f1 is None else f": F1 {f1:.2f}"
    named = " Thick: the mean; point at a curve for its class." if classes > MOST_NAMED else ""
    return f"The dotted line is the operating point, score {score:.2f} ({chosen}){said}.{named}"


def confusion_said(content: Mapping[str, Any] | None) -> str:
    """How the truths and the detections of a confusion matrix divide, in a sentence; "" for none."""
    if not content:
        return ""
    confusion = Confusion.from_dict(content)
    n = len(confusion.classes)
    own, whole = int(confusion.counts[:n, :n].trace()), int(confusion.counts[:n].sum())
    missed, nothing = int(confusion.counts[:n, n].sum()), int(confusion.counts[n].sum())
    other = f"{whole - own - missed:,} taken for another class" if n > 1 else ""
    parts = [f"{own:,} found", other, f"{missed:,} missed"]
    twice = int(confusion.twice.sum())
    second = f", {twice:,} of them second boxes on a truth already found" if twice else ""
    return f"Of {whole:,} truths {', '.join(filter(None, parts))}; {nothing:,} detections on background{second}."


def _rows(point: Mapping[str, Any], calibration: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per class its best score with interval, rates there, and its calibration error."""
    rows: list[dict[str, Any]] = []
    named = point.get("classes") or {}
    ordered = [*(name for name in classes if name in named), *(name for name in named if name not in classes)]
    for index, name in enumerate(ordered):
        best, error = named[name].get("best") or {}, (calibration.get("classes") or {}).get(name) or {}
        label = list(classes).index(name) if name in classes else index
        cells = [
            _cell(best.get("score"), best.get("score_interval"), 2), _cell(best.get("precision"), None, 2),
            _cell(best.get("recall"), None, 2), _cell(best.get("F1"), best.get("F1_interval"), 2),
            _cell(best.get("F1_optimism"), None, 3), _cell(error.get("ECE"), error.get("interval"), 2),
            _cell(error.get("by_chance"), None, 2),
        ]  # fmt: skip
        truths = named[name].get("truths")
        rows.append({"name": name, "colour": colours.of_class(label), "n": truths, "cells": cells})
    return rows


def _cell(value: float | None, interval: Sequence[float] | None, digits: int) -> dict[str, str]:
    if value is None:
        return {"text": "–", "interval": ""}
    within = f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}" if interval else ""
    return {"text": f"{value:.{digits}f}", "interval": within}
