"""What a page says of a run in words and small tables: verdict, remarks, recipe, times, findings."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from onestage.data.face_crops import FaceCrops
from onestage.evaluation.steering import BENCHMARKS
from onestage.experiments.filtered import Filtered
from onestage.records import Metric
from onestage.report.plots import best_row
from onestage.report.scores import OVERALL, Scores, spoken

_KINDS = {"finished": "good", "running": "busy", "failed": "bad", "diverged": "bad", "stopped": "warn"}
_SEVERITIES = ("error", "warning", "note")
# Scores of a benchmark that a page shows first; all stand in the table of scores.
_OFFICIAL = 3


def at(content: Any, *keys: str) -> Any:
    """`content[key][key]…`, or None where a mapping or a key is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def status_kind(info: Mapping[str, Any]) -> str:
    """ "good", "busy", "warn" or "bad": the colour of the status."""
    return _KINDS.get(str(info.get("status")), "warn")


def verdict(info: Mapping[str, Any], scores: Scores, steps: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """The run in one sentence: "mAP50 0.56 (95 % 0.50–0.61) on 40 images, 312 trees." """
    whole, own = scores.overall("mAP50"), official(scores)
    if whole is not None or own:
        n_images, objects = scores.n_images, scores.objects()
        where = [] if n_images is None else [f"{n_images:,} image{'' if n_images == 1 else 's'}"]
        where += [] if objects is None else [_counted(objects, classes)]
        said = ", ".join(f"{row.name} {row.value:.2f}" for row in own)
        said = f"{own[0].protocol}: {said}" if own else f"mAP50 {spoken(whole)}"
        return f"{said}{' on ' if where else ''}{', '.join(where)}."
    done = f"{int(steps[-1]['step']):,} steps" if steps else "before its first step"
    status = info.get("status")
    if status == "running":
        return f"Still running, not judged yet: {done if steps else 'no step done so far'}."
    ends = {"failed": "Failed", "diverged": "Left the finite numbers", "stopped": "Was stopped"}
    return f"{ends.get(str(status), 'Ended')} {'after ' if steps else ''}{done}, and was never judged."


def _counted(n: int, classes: Sequence[str]) -> str:
    name = classes[0] if len(classes) == 1 else ""
    if not re.fullmatch("[A-Za-z ]+", name):
        name = "object"
    return f"{n:,} {name}{'' if n == 1 or name.endswith('s') else 's'}"


def remarks(info: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What should be known beside the verdict: the reason of a failure, a best epoch long past."""
    said = [str(info[key]) for key in ("error", "reason") if info.get(key)]
    best = best_row(results, at(info, "best", "step"))
    if best is not None and len(results) > 1:
        last = results[-1]
        text = f"Best at epoch {_whole(best.get('epoch'))} of {_whole(last.get('epoch'))}."
        final = last.get("metrics/mAP50")
        if isinstance(final, float) and best is not last and final == final:
            text = f"{text[:-1]}; the last evaluation gave {final:.2f}."
        said.append(text)
    return said


def headline(info: Mapping[str, Any], steps: int, results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Model, data, length and time in a few words each."""
    data = at(info, "data") or {}
    rows = [
        ("Model", at(info, "model", "cfg") or at(info, "model", "name")),
        ("Parameters", _grouped(at(info, "model", "parameters"))),
    ]
    rows += [("Data", data.get("name") or data.get("root"))] if isinstance(data, Mapping) else []
    for part, word in (("train", "Trained on"), ("val", "Judged on")):
        images, boxes = at(data, part, "images"), at(data, part, "boxes")
        rows.append((word, f"{_grouped(images)} images, {_grouped(boxes)} boxes" if images is not None else None))
    epochs = _whole(results[-1].get("epoch")) if results else None
    rows.append(("Length", f"{epochs} epoch{'s' * (epochs != 1)}, {steps:,} steps" if epochs else f"{steps:,} steps"))
    rows.append(("Time", duration(at(info, "seconds", "total"))))
    rows.append(("Begun", str(info.get("created") or "")[:16].replace("T", " ") + " UTC"))
    return [(word, str(value)) for word, value in rows if value]


def left_out(recipe: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How many truths the augmentation made `ignore`, where it does such a thing."""
    asked = at(recipe, "augmentation", "options", "min_face")
    filtered = Filtered.of_rows(steps, float(FaceCrops.min_face if asked is None else asked))
    return [] if filtered is None else [("Left out", str(filtered))]


def tiles(scores: Scores) -> list[dict[str, str]]:
    """The numbers over all classes with their intervals and protocols, a benchmark's own first."""
    named = [(row.name, row) for row in official(scores)]
    named += [(word, metric) for word in OVERALL if (metric := scores.overall(word)) is not None]
    rows = []
    for word, metric in named:
        value, _, interval = spoken(metric, 3).partition(" (95 % ")
        rows.append({"word": word, "value": value, "interval": interval.rstrip(")"), "protocol": metric.protocol})
    return rows


def official(scores: Scores) -> list[Metric]:
    """The first scores over all classes by the protocol of a benchmark of its own, such as WIDER FACE's."""
    rows = [row for row in scores.metrics if row.class_name is None and row.protocol in BENCHMARKS]
    first = [row for row in rows if row.protocol == rows[0].protocol and not math.isnan(row.value)]
    return first[:_OFFICIAL]


def all_scores(scores: Scores) -> list[tuple[str, str]]:
    """Every number over all classes, by protocol."""
    rows = [row for row in scores.metrics if row.class_name is None]
    return [(f"{row.protocol} {row.name}", f"{spoken(row, 4)}, n = {row.n:,}") for row in rows]


def flat(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A mapping as rows (dotted key, text); lists of plain values stay on one line."""
    if not isinstance(content, Mapping):
        return []
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{name}.")
        else:
            rows.append((name, _text(value)))
    return rows


def recipe_rows(recipe: Mapping[str, Any], asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipe as rows; `asked` marks what the user wrote himself, nested or as dotted keys."""
    wanted = {name for name, _ in flat(asked)}
    rows = flat(recipe)
    return [
        {"key": key, "value": value, "asked": any(key == name or key.startswith(f"{name}.") for name in wanted)}
        for key, value in rows
    ]


def provenance(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the run came from: id, code, data and its hashes, seed, protocol, segments."""
    kept = {key: info[key] for key in ("id", "parents", "code", "seed", "protocol", "data", "model") if key in info}
    rows = flat(kept)
    for number, part in enumerate(info.get("segments") or [], 1):
        if isinstance(part, Mapping):
            text = f"steps {part.get('from_step')} to {part.get('to_step')}, {part.get('start')} to {part.get('end')}"
            rows.append((f"segment {number}", f"{text}, on {part.get('host')}"))
    return rows


def times(info: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where the time went: waiting for data, steps, evaluation, the rest; seconds and percent of the whole."""
    spent = {key: _seconds(at(info, "seconds", key)) for key in ("data", "train", "eval", "total")}
    if not any(spent.values()):
        for key, name in (("data", "data"), ("train", "step")):
            spent[key] = sum(_seconds(at(step, "seconds", name)) for step in steps)
    parts = {"Steps": spent["train"], "Waiting for data": spent["data"], "Evaluation": spent["eval"]}
    whole = max(spent["total"], sum(parts.values()))
    parts["Rest"] = whole - sum(parts.values())
    return [
        {"word": word, "seconds": duration(value), "percent": 100 * value / whole}
        for word, value in parts.items() if whole and value >= 0.001 * whole
    ]  # fmt: skip


def finding_rows(
    findings: Sequence[Mapping[str, Any]], most: int = 20
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Counts by severity and code, most severe first; and the first `most` findings with their places."""
    rank = {word: place for place, word in enumerate(_SEVERITIES)}
    ordered = sorted(findings, key=lambda row: rank.get(str(row["severity"]), len(rank)))
    counts = Counter((str(row["severity"]), str(row["code"])) for row in ordered)
    rows = [
        {"severity": str(row["severity"]), "where": _place(row.get("where") or {}), "what": str(row.get("what", "")),
         "remedy": str(row.get("remedy", ""))} for row in ordered[:most]
    ]  # fmt: skip
    return [{"severity": severity, "code": code, "n": n} for (severity, code), n in counts.items()], rows


def duration(seconds: Any) -> str:
    """Seconds as "1 h 02 min", "3 min 20 s" or "4.2 s"; "" for what is no number."""
    value = _seconds(seconds)
    if not value:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0.0


def _place(where: Mapping[str, Any]) -> str:
    file, line = where.get("file"), where.get("line")
    parts = [f"{file}:{line}" if file and line else str(file)] if file else []
    parts += [f"{key} {where[key]}" for key in ("image", "step") if where.get(key) is not None]
    parts += [f"box ({', '.join(f'{v:g}' for v in where['box'])})"] if where.get("box") else []
    return ", ".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e15 else str(value)


def _grouped(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int | float) else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None
