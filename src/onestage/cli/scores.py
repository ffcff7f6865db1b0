"""Scores as tables: each with its protocol, interval and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.cli.terminal import Terminal
from onestage.records import Metric, Metrics

# What is shown of the protocols that judge class by class, where there are several; else every score over all classes.
MEANS, RATES = ("mAP50", "mAP50 present", "mAP50-95", "mAP75"), ("precision", "recall", "F1")
DARKNETS = ("precision", "recall", "F1", "IoU", "TP", "FP", "FN")
MOST_CLASSES = 40


def show_scores(terminal: Terminal, judged: Mapping[str, Any]) -> None:
    """Print the content of a metrics.json: overall scores, rates at the operating point, AP per class, notes."""
    metrics = Metrics.from_list(judged.get("rows", []))
    overall = [row for row in metrics if row.class_name is None]
    usual = [row for row in overall if _by_class(row.protocol)]
    rates = [row for name in RATES for row in usual if row.name == name and row.protocol.startswith("voc")]
    aps = _headline_first([row for row in overall if row not in usual])
    if len({row.protocol for row in overall}) == 1 and usual:
        aps += [row for row in usual if row.name not in (*RATES, *DARKNETS)]
    else:
        aps += [row for name in MEANS for row in usual if row.name == name]
        aps += [row for row in usual if "@" in row.protocol and row.name not in (*MEANS, *RATES)]
    terminal.table(
        ("score", "protocol", "value", "95 % interval", "truths"),
        [(row.name, row.protocol, number(row), interval(row), str(row.n)) for row in aps], left=2,
    )  # fmt: skip
    _rates(terminal, judged.get("operating_point") or {}, rates)
    _darknets_rates(terminal, metrics)
    _classes(terminal, metrics)
    for note in judged.get("notes") or ():
        terminal.say(f"note: {note}", style="yellow")


def _by_class(protocol: str) -> bool:
    return protocol == "coco" or protocol.startswith(("voc", "darknet"))


def _headline_first(rows: list[Metric]) -> list[Metric]:
    """Protocol after protocol, of each the row first that it is known by."""
    from onestage.evaluation import PROTOCOLS

    known = {name: protocol.headline for name, protocol in PROTOCOLS.items()}
    order = list(dict.fromkeys(row.protocol for row in rows))
    return sorted(rows, key=lambda row: (order.index(row.protocol), known.get(row.protocol) != row.name))


def _rates(terminal: Terminal, point: Mapping[str, Any], rates: list[Metric]) -> None:
    if not rates:
        return
    score = point.get("score")
    nothing = "nothing was found" if any(row.n for row in rates) else "no truth that counts"
    at = nothing if score is None else f"at score {threshold(score)} ({point.get('chosen')}), IoU 0.5"
    said = ", ".join(f"{row.name} {number(row)} {interval(row, '[{}]')}".rstrip() for row in rates)
    terminal.say(f"{at}: {said}")


def _darknets_rates(terminal: Terminal, metrics: Metrics) -> None:
    """The rates of the first darknet protocol; -points does not change them."""
    first = next((row.protocol for row in metrics if row.protocol.startswith("darknet")), None)
    rates = [row for row in metrics if row.protocol == first and row.class_name is None and row.name in DARKNETS]
    if rates:
        said = ", ".join(
            f"{row.name} {row.value:g}" if len(row.name) == 2 and row.name != "F1"
            else f"{row.name} {number(row)} {interval(row, '[{}]')}".rstrip() for row in rates
        )  # fmt: skip
        terminal.say(f"darknet, at confidence 0.25, all classes together: {said}")


def _classes(terminal: Terminal, metrics: Metrics) -> None:
    own = [row for row in metrics if row.class_name is not None]
    per_class = [row for row in own if row.name == "AP50" or ("@" in row.protocol and row.name.startswith("AP"))]
    there = dict.fromkeys(row.protocol for row in per_class)
    first = [name for name in list(there)[:1] if not name.startswith(("voc", "coco"))]
    base = next((name for name in (*first, "voc10", "voc07", "voc10+1", "voc07+1", *there) if name in there), None)
    rows = [row for row in per_class if row.protocol == base]
    if len(rows) < 2:
        return
    second = "coco" if "coco" in there else base
    strict = {row.class_name: number(row) for row in metrics if row.name == "AP50-95" and row.protocol == second}
    more = (f"AP50-95 ({second})",) if strict else ()
    terminal.table(
        ("class", f"{rows[0].name} ({base})", "95 % interval", *more, "truths"),
        [(str(row.class_name), number(row), interval(row), *[strict.get(row.class_name, "–") for _ in more], str(row.n))
         for row in rows[:MOST_CLASSES]],
    )  # fmt: skip
    if len(rows) > MOST_CLASSES:
        terminal.say(f"… and {len(rows) - MOST_CLASSES} more classes; --json shows all")


def headline(judged: Mapping[str, Any]) -> str:
    """mAP50, or what the protocol is known by, in one line, with interval and n."""
    metrics = Metrics.from_list(judged.get("rows", []))
    named = [row for row in metrics if row.name == "mAP50" and row.class_name is None]
    if not named:
        named = _headline_first([row for row in metrics if row.class_name is None])
    if not named:
        return "not judged"
    row = next((row for row in named if row.protocol == "voc10"), named[0])
    within = interval(row, ", 95 % interval {}")
    return f"{row.name} {number(row)} ({row.protocol}{within}, {row.n} boxes in {judged.get('n_images')} images)"


def number(row: Metric) -> str:
    """The value to three digits, a dash where it is undefined."""
    return "–" if row.value != row.value else f"{row.value:.3f}"


def interval(row: Metric, form: str = "{}") -> str:
    """The 95 % interval, or nothing."""
    return form.format(f"{row.interval[0]:.3f}–{row.interval[1]:.3f}") if row.interval else ""


def threshold(score: float) -> str:
    """A score at which to cut, to three digits of whatever range scores have."""
    return f"{score:.3f}" if score == 0 or 0.001 <= abs(score) < 10_000 else f"{score:.3g}"
