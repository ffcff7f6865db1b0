"""Findings in a few lines: how many of which kind, the first ones, what follows and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from onestage.cli.terminal import Terminal
from onestage.data.formats.listing import in_words
from onestage.records import Finding


def counted(findings: Sequence[Finding]) -> str:
    """ "2 zero-area-box, 1 unreadable-image", the most frequent first; a finding may stand for several rows."""
    codes: Counter[str] = Counter()
    for finding in findings:
        codes[finding.code] += finding.evidence.get("count", 1)
    return ", ".join(f"{count} {code}" for code, count in codes.most_common())


COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def explain_findings(terminal: Terminal, findings: Iterable[Finding]) -> None:
    """What each finding is, in a line; once for those alike what comes of it, what to try, where more is told."""
    for (code, consequence, remedy), alike in groupby(findings, lambda one: (one.code, one.consequence, one.remedy)):
        for finding in alike:
            terminal.say(f"{finding.severity}: {finding.what}", style=COLOURS[finding.severity])
        terminal.say(f"  {consequence}; try: {remedy} (docs/findings.md#{code})")


def show_findings(terminal: Terminal, findings: Sequence[Finding], most: int = 10) -> None:
    """Print the first findings, errors before warnings before notes."""
    order = ("error", "warning", "note")
    ranked = sorted(findings, key=lambda finding: order.index(finding.severity))
    for finding in ranked[:most]:
        terminal.say(f"  {finding.severity}: {in_words(finding)}", style=COLOURS[finding.severity])
    if len(ranked) > most:
        terminal.say(f"  … and {len(ranked) - most} more", style="dim")
