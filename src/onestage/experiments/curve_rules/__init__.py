"""Live findings about a run: the rules by their codes, which are the headings of docs/findings.md."""

from __future__ import annotations

from onestage.experiments.curve_rules import evaluations, gradients, levels, losses, machine, truths
from onestage.experiments.curve_rules.facts import Facts
from onestage.experiments.curve_rules.rule import Rule

_ALL: tuple[type[Rule], ...] = (
    losses.ChanceLevel, losses.HighStart, losses.LossFlat, losses.OnePart,
    levels.EmptyLevel, levels.EmptyBatches, levels.BatchesAlike, levels.PositivesJump,
    truths.UnansweredTruths, truths.RewrittenTruths, truths.CappedTruths,
    gradients.DeadPart, gradients.ClippedGradient, gradients.SkippedSteps, gradients.ScaleFalling,
    gradients.NothingMoves, gradients.FrozenMoved,
    machine.DataWait, machine.MemoryGrows, machine.DiskFills,
    evaluations.ValidationBetter, evaluations.Overfit, evaluations.Plateau, evaluations.ZeroScore,
    evaluations.ValidationNotFinite, evaluations.ClassesExchanged,
)  # fmt: skip
RULES: dict[str, type[Rule]] = {rule.code: rule for rule in _ALL}

__all__ = ["RULES", "Facts", "Rule"]
