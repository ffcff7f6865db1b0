"""All runs of a folder as one tidy table, whatever state they are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onestage.errors import OnestageError
from onestage.experiments.lock import abandoned
from onestage.experiments.naming import runs_root
from onestage.experiments.run import Run

COLUMNS = (
    "name", "status", "model", "data", "mAP50", "mAP50-95", "best_epoch", "epochs", "steps", "seconds", "created",
    "reason",
)  # fmt: skip


def runs(root: Path | None = None) -> list[dict[str, Any]]:
    """One row per folder under `root` (default: `runs_root()`), oldest first; every row has all of COLUMNS.

    Scores are those of the best evaluation, in [0, 1]; `seconds` is the whole time; what is not known is None. A
    folder that is no run, or whose files are damaged, is listed with the status "unreadable", and one whose process on
    this machine ended without a word as "killed". `reason` says why a run
    is unreadable, failed or diverged.
    """
    root = root or runs_root()
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
    return sorted((_row(folder) for folder in folders), key=lambda row: (row["created"] or "", row["name"]))


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["name"] = folder.name
    if not (folder / "run.json").is_file():
        return row | {"status": "unreadable", "reason": "no run.json"}
    try:
        return row | _facts(Run(folder))
    except OnestageError as error:
        reason = error.message
    except (AttributeError, TypeError, ValueError, KeyError, OSError) as error:
        reason = f"its files do not hold what a run's should: {error!r}"
    return row | {"status": "unreadable", "reason": reason}


def _facts(run: Run) -> dict[str, Any]:
    info, results = run.info, run.results
    model = info.get("model", {})
    best = _best(results, info.get("best", {}).get("step"))
    last = results[-1] if results else {}
    return {
        "status": "killed"
        if info["status"] == "running" and abandoned(run.state_dir / "lock")
        else str(info["status"]),
        "model": model.get("cfg") or model.get("name"),
        "data": info.get("data", {}).get("name") or _last_part(info.get("data", {}).get("root")),
        "mAP50": best.get("metrics/mAP50"),
        "mAP50-95": best.get("metrics/mAP50-95"),
        "best_epoch": _whole(best.get("epoch")),
        "epochs": _whole(last.get("epoch")),
        "steps": _whole(last.get("step")),
        "seconds": info.get("seconds", {}).get("total"),
        "created": str(info["created"]),
        "reason": info.get("error"),
    }


def _best(results: list[dict[str, Any]], step: Any) -> dict[str, Any]:
    """The evaluation at the step that run.json calls best, or else the one of the highest mAP50."""
    named = [row for row in results if row["step"] == step]
    scored = [row for row in results if isinstance(score := row.get("metrics/mAP50"), float) and score == score]
    return named[0] if named else max(scored, key=lambda row: row["metrics/mAP50"], default={})


def _last_part(root: str | None) -> str | None:
    return None if root is None else Path(root).name


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
