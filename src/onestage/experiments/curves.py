"""Watches a training curve: what the rules find in its rows, as they come or from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onestage.experiments.curve_rules import RULES, Facts, Rule
from onestage.experiments.curve_rules.seen import Evaluated, Seen
from onestage.experiments.run import Run
from onestage.records import Finding

__all__ = ["Facts", "Watch", "findings_of", "line", "replayed"]


class Watch:
    """The live findings of one run: give it every row as it is written, and say what comes back.

    A finding is given once, and again only when it has been cured and comes back. Memory is constant.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.rules = {code: rule(facts) for code, rule in RULES.items()}
        self._stepwise = [rule for rule in self.rules.values() if type(rule).step is not Rule.step]
        self._judging = [rule for rule in self.rules.values() if type(rule).evaluated is not Rule.evaluated]

    def step(self, row: Mapping[str, Any]) -> list[Finding]:
        """What a row of steps.jsonl shows; mostly nothing."""
        seen = Seen(row)
        found: list[Finding] = []
        for rule in self._stepwise:
            if said := rule.step(seen):
                found += said
        return found

    def evaluated(self, row: Mapping[str, Any]) -> list[Finding]:
        """What a row of results.csv shows; "confusion" may hold {true class: {found class: n}}."""
        seen = Evaluated(row, self.facts.metric)
        return [finding for rule in self._judging for finding in rule.evaluated(seen) or ()]

    def to_dict(self) -> dict[str, Any]:
        """All that has been seen as plain data, for an exact resume."""
        return {code: rule.state() for code, rule in self.rules.items()}

    @classmethod
    def from_dict(cls, facts: Facts, state: Mapping[str, Any]) -> Watch:
        """The inverse of `to_dict`; rules that the state does not know begin anew."""
        watch = cls(facts)
        for code, rule in watch.rules.items():
            rule.restore(state.get(code, {}))
        return watch


def line(finding: Finding) -> str:
    """The finding as one line of a terminal, which ends with its place in the documentation."""
    step = "" if finding.where.step is None else f"step {finding.where.step}: "
    return f"{finding.severity}: {step}{finding.what}; {finding.remedy} (docs/findings.md#{finding.code})"


def replayed(
    facts: Facts, steps: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]] = ()
) -> list[Finding]:
    """What a watch would have said of these rows, each evaluation after the step it was made at."""
    watch, found = Watch(facts), []
    waiting = sorted(results, key=lambda row: float(row.get("step") or 0))
    for row in steps:
        while waiting and float(waiting[0].get("step") or 0) < float(row.get("step") or 0):
            found += watch.evaluated(waiting.pop(0))
        found += watch.step(row)
    for row in waiting:
        found += watch.evaluated(row)
    return found


def findings_of(run: Run) -> list[Finding]:
    """What a watch would have said of a run folder."""
    return replayed(Facts.of_run(run), run.steps, run.results)
