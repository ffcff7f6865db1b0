"""What a rule is: looks at row after row, raises a finding once, keeps its state as plain data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.seen import Evaluated, Seen
from onestage.records import Finding, Severity, Where

BLOCK = 10
"""Steps whose mean is taken before a rule compares."""


class Says(NamedTuple):
    """What a rule has to say: of `about` (a level, a part, …; "" for the whole run), seen at `step`."""

    about: str
    step: int
    what: str
    consequence: str
    remedy: str
    evidence: Mapping[str, Any]
    severity: Severity | None = None


class Rule:
    """One live finding. Subclasses set `code` and `severity`, and look at steps, at evaluations or both.

    All attributes but `facts` are plain data (numbers, text, lists, dicts with text keys): they are the state.
    `raised` names what has been said and not been cured since; `says` speaks once until `cured`.
    """

    code: ClassVar[str]
    severity: ClassVar[Severity] = "warning"

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.raised: list[str] = []
        self.open: dict[str, list[float]] = {}
        self.blocks: dict[str, list[float]] = {}

    def step(self, seen: Seen) -> list[Finding] | None:
        """Look at a training step."""

    def evaluated(self, seen: Evaluated) -> list[Finding] | None:
        """Look at an evaluation."""

    def says(self, said: Says) -> list[Finding] | None:
        """The finding, unless it has been raised about the same and not been cured."""
        if said.about in self.raised:
            return None
        self.raised.append(said.about)
        return [
            Finding(
                self.code, said.severity or self.severity, Where(step=said.step), said.what, said.consequence,
                said.remedy, dict(said.evidence),
            )
        ]  # fmt: skip

    def cured(self, about: str = "") -> None:
        """What was said no longer holds; it is said again when it comes back."""
        if about in self.raised:
            self.raised.remove(about)

    def block(self, name: str, value: float, most: int) -> bool:
        """Take `value` into the mean of ten under `name`; True where that is full: `blocks[name]` holds the last."""
        sums = self.open.setdefault(name, [0.0, 0])
        sums[0] += value
        sums[1] += 1
        if sums[1] < BLOCK:
            return False
        push(self.blocks.setdefault(name, []), sums[0] / BLOCK, most)
        self.open[name] = [0.0, 0]
        return True

    def forget(self) -> None:
        """Begin all means anew: something else is trained now."""
        self.open, self.blocks = {}, {}

    def state(self) -> dict[str, Any]:
        """All attributes but the facts, as a copy."""
        return {key: copy.deepcopy(value) for key, value in vars(self).items() if key != "facts"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`; what an older state lacks stays as it is at the start."""
        for key, value in state.items():
            if hasattr(self, key):
                setattr(self, key, copy.deepcopy(value))


def push(values: list[Any], value: Any, most: int) -> None:
    """Append `value` to a list that holds the last `most`."""
    values.append(value)
    if len(values) > most:
        del values[0]


def mean(values: list[float]) -> float:
    """The mean; 0 for none."""
    return sum(values) / len(values) if values else 0.0
