"""`onestage runs`: the ledger of all runs, and everything about one of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.experiments.run import Run

EXAMPLES = (
    ("runs", "all runs in ./runs or $ONESTAGE_RUNS, oldest first"),
    ("runs show ssd-lite0-trees-001", "scores, data, choices, environment and files of one run"),
    ("runs ls --json | jq -r '.runs[].name'", "for programs"),
)

Words = Annotated[list[str] | None, typer.Argument(metavar="[ls | show RUN]", show_default=False)]


@verb(EXAMPLES)
def runs(words: Words = None, as_json: Json = False) -> None:
    """List all runs with their scores, or show one."""
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import known_only, split_words
    from onestage.errors import UsageError, did_you_mean
    from onestage.experiments.run import Run

    places, keys = split_words(words)
    known_only("runs", keys, ())
    terminal = Terminal(as_json)
    match places or ["ls"]:
        case ["ls"]:
            _ls(terminal)
        case ["show", name]:
            _show(terminal, Run.open(name))
        case ["show", *_]:
            raise UsageError("runs show: the name of one run is needed", hint="onestage runs ls lists them")
        case [word, *_]:
            raise UsageError(
                f"runs does not know {word!r}{did_you_mean(word, ('ls', 'show'))}", hint="runs ls, or runs show RUN"
            )


def _ls(terminal: Terminal) -> None:
    from onestage.cli.pace import clock
    from onestage.experiments.ledger import runs
    from onestage.experiments.naming import runs_root

    rows = runs()
    if rows:
        columns = ("name", "status", "model", "data", "mAP50", "mAP50-95", "epochs", "time", "created")
        table = [
            [row["name"], row["status"], row["model"] or "–", row["data"] or "–", _score(row["mAP50"]),
             _score(row["mAP50-95"]), str(row["epochs"] or "–"), clock(row["seconds"]), (row["created"] or "–")[:16]]
            for row in rows
        ]  # fmt: skip
        terminal.table(columns, table, left=4)
        for row in rows:
            if row["reason"]:
                terminal.say(f"{row['name']}: {row['reason']}", style="yellow")
    else:
        terminal.say(f"{runs_root()} holds no runs yet; `onestage train` makes one")
    terminal.result({"root": str(runs_root()), "runs": rows})


def _show(terminal: Terminal, run: Run) -> None:
    from onestage.cli.course import show_course, summary
    from onestage.cli.level_table import show_levels
    from onestage.cli.scores import show_scores

    info = run.info
    metrics = run.metrics
    findings = Counter(str(finding.get("code")) for finding in run.findings)
    terminal.facts([*_facts(run, info), *_noticed(run, findings)])
    show_course(terminal, run, info)
    levels = show_levels(terminal, info, run.steps)
    if metrics:
        terminal.say()
        show_scores(terminal, metrics)
    kept = {key: value for key, value in metrics.items() if key != "curves"}
    terminal.result({
        "folder": str(run.folder), "info": info, "asked": run.asked, "recipe": run.recipe, "results": run.results,
        "metrics": kept, "findings": dict(findings), "incidents": [summary(report) for report in run.incidents],
        "report": _there(run.report_path), **({"levels": levels} if levels else {}),
    })  # fmt: skip


def _noticed(run: Run, findings: Counter[str]) -> list[tuple[str, str]]:
    if not findings:
        return []
    counts = ", ".join(f"{count} {code}" for code, count in findings.most_common())
    return [("findings", f"{counts}; the list is in {run.folder / 'findings.json'}")]


def _facts(run: Run, info: dict[str, Any]) -> list[tuple[str, str]]:
    from onestage.cli.course import as_word
    from onestage.cli.pace import clock

    data, model, best = (_part(info, key) for key in ("data", "model", "best"))
    environment, seconds, weights = _part(info, "environment"), _part(info, "seconds"), _part(model, "weights")
    steps = run.steps
    asked = ", ".join(f"{key}={as_word(value)}" for key, value in run.asked.items())
    times = len(info.get("segments") or []) - 1
    often = {1: "once", 2: "twice"}.get(times, f"{times} times")
    facts = [
        ("run", f"{run.folder}"),
        ("status", f"{_status(run, info)}; begun {str(info.get('created'))[:16].replace('T', ' ')} UTC"
                   + (f", taken up {often}" if times > 0 else "")),
        *([("error", str(info["error"]))] if info.get("error") else []),
        ("asked", asked or "–"),
        ("data", str(data.get("described") or data.get("root") or "–")),
        ("model", f"{model.get('cfg') or model.get('name', '–')}, {model.get('parameters', 0):,} parameters, "
                  f"first weights: {weights.get('source', '–')}"),
        ("steps", f"{len(steps)}, {len(run.results)} evaluations, {clock(seconds.get('total'))} in all "
                  f"(training {clock(seconds.get('train'))}, waiting for data {clock(seconds.get('data'))}, "
                  f"judging {clock(seconds.get('eval'))})"),
    ]  # fmt: skip
    if best:
        facts.append(("best", f"epoch {best.get('epoch')}: {best.get('metric')} {_score(best.get('value'))}"))
    facts.append((
        "machine",
        f"{environment.get('cpu', '–')}, {environment.get('device', '–')}, {environment.get('precision', '–')}, "
        f"torch {environment.get('torch', '–')}, Python {environment.get('python', '–')}",
    ))  # fmt: skip
    facts.append(("weights", _there(run.weights_dir / "best.safetensors") or "none yet"))
    facts.append(("report", _there(run.report_path) or f"none yet; onestage report {run.name}"))
    return facts


def _status(run: Run, info: dict[str, Any]) -> str:
    """The status; a run that says it is running while no process holds it was killed."""
    from onestage.experiments.lock import abandoned, holder

    status, lock = str(info.get("status")), run.state_dir / "lock"
    if status != "running":
        return status
    if abandoned(lock):
        return f"was killed: onestage train --resume {run.name} goes on"
    by = holder(lock) or {}
    return f"running in process {by['pid']} on {by.get('host', 'this machine')}" if "pid" in by else status


def _part(info: dict[str, Any], key: str) -> dict[str, Any]:
    found = info.get(key)
    return found if isinstance(found, dict) else {}


def _there(path: Any) -> str | None:
    return str(path) if path.is_file() else None


def _score(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) and value == value else "–"
