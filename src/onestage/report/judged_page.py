"""One self-contained HTML page for judged detections that belong to no run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onestage.report.facts as facts
import onestage.report.plots as plots
from onestage.evaluation import PROTOCOLS
from onestage.experiments.storage import write_bytes
from onestage.records import Metric
from onestage.report.detail_plots import found_by_false
from onestage.report.details import closer_look
from onestage.report.page import class_curves, class_table
from onestage.report.scores import PER_CLASS, Scores, operating_score, spoken
from onestage.report.template import embedded, fill, library

MOST_TILES = 6
MOST_OPEN = 30  # classes whose table is shown without being asked for


def write_judged_page(
    path: Path,
    metrics: Mapping[str, Any],
    classes: Sequence[str],
    what: str,
    data: str,
    *,
    findings: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page of judged detections to `path` and return it.

    `metrics` is `Evaluation.as_dict()`, `classes` the names in order of labels, `what` says what was judged and `data`
    by what truth, as the reader should read it; `findings` are those of the detection file and the truth, as
    `Finding.as_dict()`. The page needs no network and no other file. Raises StorageError where it cannot be written.
    """
    write_bytes(path, judged_page(metrics, classes, what, data, findings=findings).encode())
    return path


def judged_page(
    metrics: Mapping[str, Any],
    classes: Sequence[str],
    what: str,
    data: str,
    *,
    findings: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML text; see `write_judged_page`."""
    scores, names = Scores.of(metrics), list(classes)
    cut = operating_score(metrics)
    look, figures = closer_look(metrics, names)
    rates = scores.overall("precision")
    at_cut = operating_score(metrics, -1.0) >= 0 and rates is not None and rates.protocol.startswith("voc")
    own, drawn = _curves(metrics, scores, names, cut)
    bars = [row for name in scores.classes() if (row := scores.per_class("AP50", name))]
    figures |= own | {"bars": plots.class_bars(bars if len(bars) > 1 else [], names)}
    counts, listed = facts.finding_rows(findings)
    context: dict[str, Any] = {
        "title": Path(what).name or what, "verdict": verdict(scores, metrics, names),
        "remarks": list(map(str, metrics.get("notes") or [])),
        "headline": _headline(metrics, scores, names, what, data),
        "tiles": _tiles(scores, metrics), "table": class_table(scores, names) if scores.classes() else [],
        "long": len(scores.classes()) > MOST_OPEN, "words": list(PER_CLASS), "cut": cut,
        "cut_known": at_cut, "look": look,
        "drawn": drawn, "scores": _by_protocol(scores), "finding_counts": counts, "findings": listed,
        "figures": embedded(figures), "library": library(),
    }  # fmt: skip
    context["drawn"] = [part for part in drawn if part["name"] in context["figures"]]
    return fill("judged.html.j2", context)


def verdict(scores: Scores, metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The judgement in one sentence: what the first protocol is known by; mAP50 in the words of a run's page."""
    protocols = metrics.get("protocols") or []
    if protocols and protocols[0] in PROTOCOLS and PROTOCOLS[protocols[0]].headline == "mAP50":
        return facts.verdict({}, scores, [], classes)
    for protocol in protocols:
        if row := _headline_row(scores, protocol):
            n = scores.n_images
            where = "" if n is None else f" on {n:,} image{'' if n == 1 else 's'}"
            return f"{protocol} {row.name} {spoken(row, 3)}{where}."
    return "Nothing could be judged."


def _headline_row(scores: Scores, protocol: str) -> Metric | None:
    """The row a protocol is known by, or its first over all classes."""
    rows = [row for row in scores.metrics if row.protocol == protocol and row.class_name is None]
    known = PROTOCOLS[protocol].headline if protocol in PROTOCOLS else ""
    return next((row for row in rows if row.name == known), rows[0] if rows else None)


def _tiles(scores: Scores, metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The usual numbers, then what each other protocol is known by; alone, a protocol shows its first rows."""
    own = {row.protocol for row in scores.metrics if row.class_name is None and row.name in ("mAP50", "mAP50-95")}
    tiles = [tile for tile in facts.tiles(scores) if tile["protocol"] in own]
    said = {tile["protocol"] for tile in tiles}
    others = [name for name in metrics.get("protocols") or [] if name not in said and not (said and name[:3] == "voc")]
    for protocol in others:
        rows = [row for row in scores.metrics if row.protocol == protocol and row.class_name is None]
        head = _headline_row(scores, protocol)
        for row in rows[:MOST_TILES] if not said and len(others) == 1 else [head] if head else []:
            value, _, interval = spoken(row, 3).partition(" (95 % ")
            tiles.append({"word": row.name, "value": value, "interval": interval.rstrip(")"), "protocol": protocol})
    return tiles


def _headline(
    metrics: Mapping[str, Any], scores: Scores, classes: Sequence[str], what: str, data: str
) -> list[tuple[str, str]]:
    floor, objects = metrics.get("score_floor"), scores.objects()
    named = f"{len(classes)}: {', '.join(classes)}" if 1 < len(classes) <= 6 else ", ".join(classes[:1])
    rows = [
        ("Judged", what), ("On", data), ("Images", f"{scores.n_images:,}" if scores.n_images is not None else ""),
        ("Truths", f"{objects:,}" if objects else ""), ("Classes", named if len(classes) <= 6 else str(len(classes))),
        ("Protocols", ", ".join(metrics.get("protocols") or [])),
        ("Lowest score", "" if floor is None else f"{floor:.4g}"),
    ]  # fmt: skip
    return [(word, value) for word, value in rows if value]


def _by_protocol(scores: Scores) -> list[dict[str, Any]]:
    """Every score over all classes, a table per protocol."""
    overall = [row for row in scores.metrics if row.class_name is None]
    return [
        {
            "protocol": name, "about": PROTOCOLS[name].about if name in PROTOCOLS else "",
            "rows": [
                {
                    "name": row.name, "value": spoken(row, 4).split(" ")[0], "n": f"{row.n:,}",
                    "interval": f"{row.interval[0]:.4f} – {row.interval[1]:.4f}" if row.interval else "–",
                }
                for row in overall if row.protocol == name
            ],
        }
        for name in dict.fromkeys(row.protocol for row in overall)
    ]  # fmt: skip


def _curves(
    metrics: Mapping[str, Any], scores: Scores, classes: list[str], cut: float
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Figures of precision and recall by class and of each protocol's own curves, with their titles."""
    figures: dict[str, Any] = {}
    parts: list[dict[str, str]] = []
    kept = metrics.get("curves") or {}
    ours = next((name for name in kept if name.endswith("@0.5")), None)
    if ours is not None and any(name in PROTOCOLS for name in metrics.get("protocols") or []):
        curves = class_curves({"curves": {ours: kept[ours]}}, scores)
        figures["curves"] = plots.precision_recall(curves, classes, cut)
        hidden = len(curves) - len(plots.drawable_curves(curves))
        about = "IoU 0.5, matching of VOC. The dot is the operating point."
        about += " Point at a curve for its class." if len(curves) > plots.MOST_NAMED else ""
        about += f" The classes with most truths; {hidden} more are in the JSON." if hidden else ""
        parts.append({"name": "curves", "title": "Precision and recall", "about": about})
    for number, (protocol, curves) in enumerate((name, own) for name, own in kept.items() if name != ours):
        rates = {name: curve for name, curve in curves.items() if "false_positives" in curve}
        areas = {name: curve for name, curve in curves.items() if "recall" in curve}
        for kind, of_kind, draw in (("found", rates, found_by_false), ("recall", areas, plots.precision_recall)):
            if of_kind:
                figures[f"own{number}{kind}"] = draw(of_kind)
                title = f"{protocol}: {'found against false' if kind == 'found' else 'precision and recall'}"
                parts.append({"name": f"own{number}{kind}", "title": title, "about": "By the protocol's own rules."})
    return figures, parts
