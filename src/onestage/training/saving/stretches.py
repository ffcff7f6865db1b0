"""By which recipe each stretch of a run's steps was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onestage.experiments.run import Run
from onestage.training.recipe import Recipe
from onestage.training.saving.state import digest


@dataclass(frozen=True)
class Stretch:
    """Steps after `first` up to `last` that were done by one recipe."""

    recipe: Recipe
    first: int
    last: int


def in_force(run: Run) -> Recipe:
    """The recipe of the run's last segment; recipe.yaml is already another where a resume was killed at its start."""
    segments = run.info.get("segments", [])
    kept = _by_digest(run).get(segments[-1].get("recipe")) if segments else None
    return Recipe.recorded(run.recipe if kept is None else kept)


def stretches(run: Run, start: int, step: int) -> list[Stretch]:
    """By which recipes the steps after `start` up to `step` were done, as the run's segments say.

    The data are read where the run found them last: they may have moved, and are the same.
    """
    segments = run.info.get("segments", [])
    place = run.recipe.get("data")
    recipes = [Recipe.recorded({**kept, "data": place}) for kept in _recipes(run, segments)]
    found: list[Stretch] = []
    at = step
    for segment, recipe in zip(reversed(segments), reversed(recipes), strict=True):
        first = max(int(segment["from_step"]), start)
        if first >= at:
            continue
        if found and found[0].recipe == recipe:
            found[0] = Stretch(recipe, first, found[0].last)
        else:
            found.insert(0, Stretch(recipe, first, at))
        at = first
    return found or [Stretch(Recipe.recorded(run.recipe), start, step)]


def _recipes(run: Run, segments: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The recipe of each segment: that of its digest, in earlier versions' runs one more for each change."""
    known, kept = _by_digest(run), [*run.earlier_recipes, run.recipe]
    found: list[Mapping[str, Any]] = []
    version = 0
    for segment in segments:
        version += bool(segment.get("changes"))
        found.append(known.get(segment.get("recipe"), kept[min(version, len(kept) - 1)]))
    return found


def _by_digest(run: Run) -> dict[Any, dict[str, Any]]:
    return {digest(kept): kept for kept in (*run.earlier_recipes, run.recipe)}
