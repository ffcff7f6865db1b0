"""The legs of a run: each stage of the recipe with its epochs, frozen parts, optimiser and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from onestage.training.recipe import Recipe
from onestage.training.schedule import Optimiser, Schedule


@dataclass(frozen=True)
class Leg:
    """A stage laid out over the run: epochs and steps are counted from the run's start, the schedule from the leg's."""

    index: int
    name: str
    first_epoch: int
    epochs: int
    first_step: int
    steps: int
    freeze: tuple[str, ...]
    optimiser: Optimiser
    schedule: Schedule
    clip: float

    def share(self, step: int) -> float:
        """Share of the highest lr at `step` (0-based, counted from the run's start)."""
        return self.schedule.share(step - self.first_step, self.steps)


def legs(recipe: Recipe, steps_per_epoch: int) -> tuple[Leg, ...]:
    """The legs of a completed recipe, in order; a recipe without stages has one."""
    epochs = int(recipe.epochs or 0)
    return (
        Leg(0, "all", 0, epochs, 0, epochs * steps_per_epoch, recipe.freeze or (), recipe.optimiser, recipe.schedule,
            recipe.clip),
    )  # fmt: skip
