"""Rules about truths that nothing learns: no anchor answers, another took the box, beyond the cap."""

from __future__ import annotations

from typing import ClassVar

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import Rule, Says
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import Finding, Severity

SPAN = 100  # steps after which is looked first, or an epoch where that is shorter
LEAST = 50  # truths that must have been seen
WARNING = 0.01  # share of the truths from which it is more than a note
REWRITTEN = 0.05


class LostTruths(Rule):
    """Counts truths that a loss leaves out, and says once how many there are; subclasses say which."""

    key: ClassVar[str]
    limit: ClassVar[float] = 0.0
    words: ClassVar[tuple[str, str, str]]

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.truths = self.lost = 0.0
        self.steps = 0

    def step(self, seen: Seen) -> list[Finding] | None:
        """Count; look at the sums of all steps after every span."""
        lost = seen.lost.get(self.key)
        if lost is None or seen.skipped:
            return None
        self.steps += 1
        self.lost += lost
        self.truths += seen.truths or 0
        if self.raised or self.steps % min(SPAN, self.facts.steps_per_epoch or SPAN) or self.truths < LEAST:
            return None
        share = self.lost / self.truths
        if share <= self.limit:
            return None
        what, consequence, remedy = self.words
        severity: Severity = "warning" if share >= WARNING else "note"
        return self.says(Says(
            "", seen.step, f"{int(self.lost):,} of {int(self.truths):,} truths ({_percent(share)}) {what}",
            consequence, remedy, {"truths": int(self.truths), self.key: int(self.lost), "share": share}, severity,
        ))  # fmt: skip


class UnansweredTruths(LostTruths):
    """Truths for which no box answers."""

    code, key = "truths-unanswered", "unanswered"
    words = (
        "have no anchor that answers for them",
        "nothing teaches the network to find objects of these sizes",
        "take anchors that fit the boxes (onestage data anchors), and let the mask of some level name each of them",
    )


class RewrittenTruths(LostTruths):
    """Truths whose box another truth took."""

    code, key, limit = "truths-rewritten", "rewritten", REWRITTEN
    words = (
        "lost a box to another truth in the same cell",
        "of objects that crowd into one cell only the last is learnt there",
        "take a larger size or tiles, or a level with finer cells",
    )


class CappedTruths(LostTruths):
    """Truths beyond the cap of an image."""

    code, key = "truths-capped", "capped"
    words = (
        "lie beyond the largest number of truths that count in an image",
        "the network is taught that there is nothing where they are",
        "raise options.most, or leave it at 0: then all count",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"
