"""What a recipe would do, found out without training: the plan, what it takes, and its first batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onestage.records import Finding
from onestage.training.cost.estimate import Estimate, estimate
from onestage.training.first_batch import FirstBatch, first_batch
from onestage.training.plan import Plan, ask, make_plan


@dataclass(frozen=True, eq=False)
class DryRun:
    """A run that was not begun: `plan` is what would be trained, `estimate` what it would take on this machine."""

    plan: Plan
    estimate: Estimate
    first_batch: FirstBatch

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What stands in the run's way or would make it useless: learning rates, memory, disk."""
        return (*self.plan.foresight, *self.estimate.findings)

    @property
    def title(self) -> str:
        """What a picture of the first batch is called."""
        recipe = self.plan.recipe
        name = recipe.data.rstrip("/").rpartition("/")[2]
        return (
            f"First step of {recipe.model} on {name}: {len(self.first_batch.names)} images, seed {recipe.seed}, "
            f"policy {self.first_batch.policy}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        plan = self.plan
        return {
            "recipe": plan.recipe.as_dict(), "steps": plan.steps, "steps_per_epoch": plan.steps_per_epoch,
            "data": plan.opened.described, "weights": plan.report.as_dict(), "measured": plan.measured,
            "groups": {leg.name: [row.as_dict() for row in rows] for leg, rows in plan.groups},
            "findings": [finding.as_dict() for finding in (*plan.opened.findings, *self.findings)],
            "estimate": self.estimate.as_dict(), "first_batch": self.first_batch.rows(),
            "filtered": None if plan.filtered is None else plan.filtered.as_dict(),
        }  # fmt: skip


def dry_run(keys: Mapping[str, Any], progress: Callable[[str], None] = lambda what: None) -> DryRun:
    """Plan the run of the flat dotted recipe `keys`, try a few of its steps on a copy, and make its first batch.

    Nothing is written. It takes about half a minute, less for light models. `progress` is told in words what is being
    done. Raises RecipeError, DataError, ModelError as training would before it begins, and DivergedError where the loss
    of a first step is not a finite number.
    """
    progress("reading the data, building the model")
    plan = make_plan(ask(keys))
    batch = first_batch(plan)
    return DryRun(plan, estimate(plan, progress=progress), batch)
