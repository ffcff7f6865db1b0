"""The numbers of every protocol, what makes the gaps between them, what else would move them."""

from __future__ import annotations

from onestage.cli.terminal import Terminal
from onestage.evaluation.explanation import Account, Explanation

ABREAST = 8  # protocols side by side in a line of 120 columns


def show_explanation(terminal: Terminal, explanation: Explanation) -> None:
    """Print the numbers, then each gap's steps, then the probes. Gaps are in points: hundredths of AP."""
    told = explanation
    images = f"{told.n_images} image{'' if told.n_images == 1 else 's'}"
    terminal.say(f"{told.n_detections} detections against {told.n_truths} truths in {images}")
    if told.reference is None:
        terminal.say("no protocol fits this truth", style="yellow")
    else:
        terminal.table(
            ("protocol", "score", "tool", "value", f"from {told.reference}"),
            [(a.protocol, a.headline, a.about, _share(a.value),
              "" if a.protocol == told.reference else _points(a.delta)) for a in told.accounts], left=3,
        )  # fmt: skip
        for account in told.accounts:
            _gap(terminal, account, told.reference)
        _probes(terminal, told)
    for name, why in told.unfit.items():
        terminal.say(f"{name} left out: {why}")
    for note in told.notes:
        terminal.say(f"note: {note}", style="yellow")


def _gap(terminal: Terminal, account: Account, reference: str) -> None:
    if account.protocol == reference:
        return
    title = f"\n{reference} → {account.protocol}: {_points(account.delta)} points"
    if account.reason is not None:
        terminal.say(title, style="bold")
        terminal.say(f"  {account.reason}")
        return
    terminal.table(
        ("rule", "change", "why", "points", "value"),
        [(step.rule, f"{step.before} → {step.after}", step.why, _points(step.delta), _share(step.value))
         for step in account.steps], title, left=3,
    )  # fmt: skip


def _probes(terminal: Terminal, told: Explanation) -> None:
    if not told.probes:
        return
    names = [account.protocol for account in told.accounts]
    for start in range(0, len(names), ABREAST):
        some = names[start : start + ABREAST]
        terminal.table(
            ("points if", *some),
            [(probe.name, *(_points(probe.deltas[name]) if name in probe.deltas else "–" for name in some))
             for probe in told.probes], "" if start else "\nwhat else would move the numbers",
        )  # fmt: skip
    for why in dict.fromkeys(probe.why for probe in told.probes):
        terminal.say(f"{'; '.join(probe.name for probe in told.probes if probe.why == why)}: {why}")


def _points(delta: float) -> str:
    """Hundredths with a sign; a dash where it is undefined."""
    return "–" if delta != delta else "0" if abs(delta) < 1e-12 else f"{100 * delta:+.2f}"


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"
