"""When a run is saved: as often as its recipe asks, unless saving would take too much of the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from onestage.experiments.run import Run
from onestage.training.devices.ranks import Ranks
from onestage.training.recipe import Recipe
from onestage.training.saving.state import save_state

# Saving states may take this share of the time at most, however often the recipe asks for it (0 seconds: always).
SAVING_SHARE = 0.01


class Saver:
    """Saves the states of a run, in the first of its processes."""

    def __init__(self, run: Run, recipe: Recipe, ranks: Ranks) -> None:
        self.run, self.recipe, self.ranks = run, recipe, ranks
        self._took = 0.0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Count the seconds to the next state from now on."""
        self._last = time.perf_counter()

    def is_due(self) -> bool:
        """Whether the last state is older than the recipe wants, as far as its cost allows."""
        asked = self.recipe.saving.seconds
        wait = max(asked, self._took / SAVING_SHARE) if asked else 0.0
        return self.ranks.is_first and time.perf_counter() - self._last >= wait

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save the `state` after `step`; raises StorageError."""
        begin = time.perf_counter()
        if self.ranks.is_first:
            save_state(self.run, state, step=step, recipe=self.recipe.as_dict())
        self._last = time.perf_counter()
        self._took = self._last - begin
