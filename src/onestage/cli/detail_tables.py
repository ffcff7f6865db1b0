"""What the scores do not say, as tables: calibration, confusions, best score of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onestage.cli.scores import MOST_CLASSES, threshold
from onestage.cli.terminal import Terminal

MOST_CONFUSIONS = 8


def show_details(terminal: Terminal, judged: Mapping[str, Any]) -> None:
    """Print calibration, confusions and best scores of the content of a metrics.json; what it lacks is left out."""
    _calibration(terminal, judged.get("calibration") or {})
    _confusion(terminal, judged.get("confusion") or {})
    _best(terminal, judged.get("operating_point") or {}, judged.get("calibration") or {})


def _calibration(terminal: Terminal, calibration: Mapping[str, Any]) -> None:
    if not calibration:
        return
    from onestage.report.details import calibration_said, kept_said

    rows = [row for row in (calibration.get("bins") or {}).get("equal_width") or [] if row["n"]]
    if rows:
        terminal.say()
        terminal.table(
            ("score", "detections", "mean score", "share of hits", "95 % interval", "gap"),
            [
                (f"{row['low']:.1f}–{row['high']:.1f}", f"{row['n']:,}", _text(row["mean_score"]),
                 _text(row["hit_share"]), _ends(row["interval"]), f"{row['gap']:+.3f}")
                for row in rows
            ],
            title="Calibration (share of detections that are hits, IoU 0.5)",
        )  # fmt: skip
    terminal.say(calibration_said(calibration))
    if kept := kept_said(calibration):
        terminal.say(kept)


def _confusion(terminal: Terminal, confusion: Mapping[str, Any]) -> None:
    if not confusion:
        return
    from onestage.report.details import confusion_said

    terminal.say()
    score = confusion.get("score")
    at = "nothing was found" if score is None else f"from score {threshold(score)}, IoU {confusion.get('iou', 0.5):g}"
    terminal.say(f"What is taken for what ({at})", style="bold")
    terminal.say(confusion_said(confusion))
    rows = (confusion.get("most_confused") or [])[:MOST_CONFUSIONS]
    if rows:
        terminal.table(
            ("truth", "taken for", "times", "of its truths"),
            [(row["truth"], row["said"], f"{row['n']:,}", f"{100 * row['share']:.1f} %") for row in rows], left=2,
        )  # fmt: skip


def _best(terminal: Terminal, point: Mapping[str, Any], calibration: Mapping[str, Any]) -> None:
    classes = point.get("classes") or {}
    known = [(name, row.get("best") or {}) for name, row in classes.items() if row.get("truths")]
    if not known:
        return
    errors = calibration.get("classes") or {}
    terminal.say()
    terminal.table(
        ("class", "best score", "95 % interval", "precision", "recall", "F1", "95 % interval", "ECE", "by chance"),
        [
            (name, _around([best.get("score")]), _around(best.get("score_interval")), _text(best.get("precision")),
             _text(best.get("recall")), _text(best.get("F1")), _ends(best.get("F1_interval")),
             _text((errors.get(name) or {}).get("ECE")), _text((errors.get(name) or {}).get("by_chance")))
            for name, best in known[:MOST_CLASSES]
        ],
        title="Score of best F1 of each class, and expected calibration error",
    )  # fmt: skip
    if len(known) > MOST_CLASSES:
        terminal.say(f"… and {len(known) - MOST_CLASSES} more classes; --json shows all")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _around(scores: Sequence[float | None] | None) -> str:
    return "–".join(threshold(score) for score in scores or () if score is not None) or "–" * bool(scores)


def _ends(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else ""
