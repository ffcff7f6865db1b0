"""The course of a run in words and small tables: stages, stretches, incidents, what was noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Codes of findings that follow from the recipe alone; a test holds them to docs/findings.md.
FORESEEN = frozenset({
    "cfg-not-followed", "lr-at-nothing", "counted-from-the-run", "milestone-beyond-end", "milestone-in-warmup",
    "warmup-too-long", "lr-too-high", "decay-too-strong", "ema-too-long", "fp16-on-cpu",
})  # fmt: skip
# So many incidents are told at length; the others are counted.
MOST_INCIDENTS = 12
# So many changed keys of a segment are shown.
_MOST_CHANGES = 12
Rows = list[dict[str, Any]]
# What a page shows where the course of a run cannot be read.
NOTHING: Mapping[str, Any] = {"stages": (), "segments": (), "noticed": (), "incidents": ()}


def told(
    info: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], incidents: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """All that a page tells of the course of a run, from run.json, findings.json and the recorder's reports."""
    return {
        "stages": stages(info), "segments": stretches(info), "noticed": noticed(findings),
        "incidents": incident_rows(incidents),
    }  # fmt: skip


def of_data(finding: Mapping[str, Any]) -> bool:
    """Whether a finding is about the data, and not about the recipe or the course of the training."""
    where = finding.get("where") or {}
    code = str(finding.get("code"))
    return where.get("step") is None and code not in FORESEEN and not code.startswith("policy-")


def noticed(findings: Sequence[Mapping[str, Any]]) -> Rows:
    """Findings about recipe and training, but for incidents, which are told by themselves; steps rising."""
    kept = [row for row in findings if not of_data(row) and "incident" not in (row.get("evidence") or {})]
    return [
        {"severity": str(row.get("severity")), "code": str(row.get("code")), "when": _when(row),
         "what": str(row.get("what", "")), "consequence": str(row.get("consequence", "")),
         "remedy": str(row.get("remedy", ""))}
        for row in sorted(kept, key=lambda row: (row.get("where") or {}).get("step") or 0)
    ]  # fmt: skip


def _when(finding: Mapping[str, Any]) -> str:
    step = (finding.get("where") or {}).get("step")
    return f"step {step:,}" if step else "before the start"


def incident_rows(incidents: Sequence[Mapping[str, Any]]) -> Rows:
    """The incidents for a page, those that stopped or turned the run first, then by step; at most MOST_INCIDENTS."""
    weight = {"stop": 0, "rollback": 1, "skip": 2}
    ordered = sorted(incidents, key=lambda row: (weight.get(str(row.get("decision")), 3), row.get("step", 0)))
    return [_incident(row) for row in ordered[:MOST_INCIDENTS]]


def _incident(report: Mapping[str, Any]) -> dict[str, Any]:
    causes = [cause for cause in report.get("causes") or [] if isinstance(cause, Mapping)]
    culprit: Mapping[str, Any] = causes[0] if causes else {}
    facts = [
        ("where", _place(culprit)), ("formula", culprit.get("formula")), ("consequence", culprit.get("consequence")),
        ("remedy", culprit.get("remedy")), ("done", report.get("done")),
        ("also found", "; ".join(f"{cause.get('code')}: {cause.get('what')}" for cause in causes[1:4])),
        ("see it again", report.get("replay")),
    ]  # fmt: skip
    return {
        "step": report.get("step"), "code": str(culprit.get("code", "")), "sure": str(culprit.get("sure", "")),
        "severity": str(culprit.get("severity", "error")), "headline": _sentence(str(report.get("headline", ""))),
        "what": _sentence(str(culprit.get("what", ""))), "facts": [(word, str(text)) for word, text in facts if text],
    }  # fmt: skip


def _place(cause: Mapping[str, Any]) -> str:
    """The image, the truth and the prior of a cause, as far as it names them."""
    parts = [str(cause.get("file") or cause.get("image") or "")]
    if cause.get("row") is not None:
        box = cause.get("box")
        corners = f" ({', '.join(_number(v) for v in box)})" if isinstance(box, list) else ""
        parts.append(f"truth {cause['row']}{' ' + str(cause['label']) if cause.get('label') else ''}{corners}")
    prior = cause.get("prior")
    if isinstance(prior, Mapping):
        box = prior.get("box")
        corners = f" ({', '.join(_number(v) for v in box)})" if isinstance(box, list) else ""
        level = f" of level {prior['level']}" if prior.get("level") is not None else ""
        parts.append(f"prior {prior.get('number', '')}{corners}{level}")
    return ", ".join(part for part in parts if part)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def stages(info: Mapping[str, Any]) -> Rows:
    """The stages of a run with their parameter groups, from run.json; runs of earlier versions say less."""
    found = [stage for stage in info.get("groups") or [] if isinstance(stage, Mapping)]
    rows = []
    for place, stage in enumerate(found, 1):
        groups = [group for group in stage.get("groups") or [] if isinstance(group, Mapping)]
        learning = sum(int(group.get("parameters", 0)) for group in groups if group.get("trainable"))
        whole = sum(int(group.get("parameters", 0)) for group in groups)
        steps = stage.get("steps")
        words = [f"steps {steps[0] + 1:,} to {steps[1]:,}"] if isinstance(steps, list) and len(steps) == 2 else []
        words += [str(stage[key]) for key in ("optimiser", "schedule") if stage.get(key)]
        words += [f"lr {stage['lr']:g}"] if isinstance(stage.get("lr"), int | float) else []
        share = f"{learning / whole:.0%}" if whole else "none"
        words.append(f"{learning:,} of {whole:,} parameters learn ({share})")
        title = str(stage.get("stage", place)) if len(found) > 1 else ""
        rows.append({"title": title, "words": ", ".join(words), "groups": [_group(group) for group in groups]})
    return rows


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    frozen = not group.get("trainable")
    rate, decay = group.get("lr"), group.get("decay")
    return {
        "name": str(group.get("group", "")), "frozen": frozen, "norms": str(group.get("norms", "–")).replace("-", "–"),
        "tensors": f"{group.get('tensors', 0):,}", "parameters": f"{group.get('parameters', 0):,}",
        "lr": "frozen" if frozen or rate is None else f"{rate:g}", "decay": "–" if decay is None else f"{decay:g}",
    }  # fmt: skip


def stretches(info: Mapping[str, Any]) -> Rows:
    """The segments of a run, one for each process that trained it: steps, when, where, what changed, whether exact."""
    found = [part for part in info.get("segments") or [] if isinstance(part, Mapping)]
    rows = []
    for place, part in enumerate(found, 1):
        changed = [f"{key}: {spoken(was)} → {spoken(now)}" for key, (was, now) in _pairs(part.get("changes"))]
        more = len(changed) - _MOST_CHANGES
        rows.append({
            "number": place, "steps": steps_of(part), "begun": str(part.get("start") or "")[:19].replace("T", " "),
            "machine": machine(part), "changes": changed[:_MOST_CHANGES] + [f"{more} more in run.json"] * (more > 0),
            "exact": exactness(part, place), "reasons": [str(reason) for reason in part.get("reasons") or []],
        })  # fmt: skip
    return rows


def steps_of(segment: Mapping[str, Any]) -> str:
    """Which steps a segment did: "1 to 400", "none", "401 and on" for one that is not closed."""
    first, last = segment.get("from_step"), segment.get("to_step")
    if not isinstance(first, int):
        return "–"
    if not isinstance(last, int):
        return f"{first + 1:,} and on"
    return f"{first + 1:,} to {last:,}" if last > first else "none"


def machine(segment: Mapping[str, Any]) -> str:
    """Where a segment ran: host, processor, device, precision, number of processes."""
    devices = segment.get("devices")
    words = [str(segment[key]) for key in ("host", "cpu", "gpu", "device", "precision") if segment.get(key)]
    if isinstance(segment.get("threads"), int):
        words.append(f"{segment['threads']} thread{'s' * (segment['threads'] != 1)}")
    return ", ".join([*words, *([f"{devices} processes"] if isinstance(devices, int) and devices > 1 else [])])


def exactness(segment: Mapping[str, Any], place: int) -> str:
    """Whether the segment goes on bit for bit as the run would have gone on without it."""
    said = segment.get("exact")
    return "bit for bit" if said and place > 1 else "no longer" if said is False else "–"


def spoken(value: Any) -> str:
    """A value of a recipe in words; long ones are cut."""
    if isinstance(value, list | tuple):
        return spoken(", ".join(spoken(item) for item in value) or "none")
    text = "automatic" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def marks(info: Mapping[str, Any], incidents: Sequence[Mapping[str, Any]]) -> list[tuple[float, str, str]]:
    """What happened at which step, for the figures: (step, kind, words); kinds are stage, resumed and incident."""
    laid = [stage for stage in info.get("groups") or [] if isinstance(stage, Mapping)][1:]
    found: list[tuple[float, str, str]] = [
        (stage["steps"][0] + 0.5, "stage", str(stage.get("stage", "")))
        for stage in laid if isinstance(stage.get("steps"), list) and len(stage["steps"]) == 2
    ]  # fmt: skip
    parts = [part for part in info.get("segments") or [] if isinstance(part, Mapping)][1:]
    found += [(p["from_step"] + 0.5, "resumed", "") for p in parts if isinstance(p.get("from_step"), int)]
    for report in incidents[:100]:
        causes = report.get("causes") or [{}]
        found.append((float(report["step"]), "incident", str(causes[0].get("code", ""))))
    return found


def _pairs(changes: Any) -> list[tuple[str, tuple[Any, Any]]]:
    if not isinstance(changes, Mapping):
        return []
    return [
        (str(key), (pair[0], pair[1])) for key, pair in changes.items() if isinstance(pair, list) and len(pair) == 2
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
