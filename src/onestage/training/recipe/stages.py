"""The stages of a run: what each sets itself, what it takes from the recipe, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from onestage.errors import RecipeError
from onestage.training.recipe.keys import flat, keys_of, nested, sentences, unknown_key
from onestage.training.recipe.schedule import OPTIMISER_KEYS, SCHEDULE_KEYS, Optimiser, Schedule, inherited

if TYPE_CHECKING:
    from onestage.training.recipe import Recipe

_GROUPS: Mapping[str, tuple[type[BaseModel], Mapping[str, tuple[str, ...]]]] = {
    "optimiser": (Optimiser, OPTIMISER_KEYS), "schedule": (Schedule, SCHEDULE_KEYS),
}  # fmt: skip


class Stage(BaseModel):
    """One stage of a recipe; what it does not set is as in the recipe. `optimiser` and `schedule` hold its own keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str | None = Field(None, description="what the stage is called; automatic: stage 1, stage 2, …")
    epochs: int = Field(ge=1, description="how long it takes")
    freeze: tuple[str, ...] | None = Field(None, description="what keeps its weights")
    optimiser: dict[str, Any] = Field(default_factory=dict, description="keys of the optimiser that differ")
    schedule: dict[str, Any] = Field(default_factory=dict, description="keys of the schedule that differ")
    clip: float | None = Field(None, ge=0, description="largest gradient norm; 0: no clipping")

    @field_validator("freeze", mode="before")
    @classmethod
    def _one_word(cls, words: Any) -> Any:
        return [words] if isinstance(words, str) else words

    @field_validator("optimiser", "schedule", mode="before")
    @classmethod
    def _nested(cls, keys: Any) -> Any:
        return nested(keys) if isinstance(keys, Mapping) else keys


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
    seed: int = 0

    def share(self, step: int) -> float:
        """Share of the highest lr at `step` (0-based, counted from the run's start)."""
        return self.schedule.share(step - self.first_step, self.steps, self.seed)

    def as_keys(self) -> dict[str, Any]:
        """The leg as a complete stage of a recipe, plain YAML data."""
        return {
            "name": self.name, "epochs": self.epochs, "freeze": list(self.freeze),
            "optimiser": self.optimiser.model_dump(mode="json", exclude_none=True),
            "schedule": self.schedule.model_dump(mode="json", exclude_none=True), "clip": self.clip,
        }  # fmt: skip


def legs(recipe: Recipe, steps_per_epoch: int) -> tuple[Leg, ...]:
    """The legs of a recipe, in order, each complete; a recipe without stages has one. `epochs` must be chosen.

    RecipeError where a stage cannot be what it says, which `recipe.build` has told already.
    """
    if not recipe.stages:
        return (_leg(recipe, Stage(name="all", epochs=int(recipe.epochs or 1)), 0, 0, steps_per_epoch, recipe.steps),)
    laid, first = [], 0
    for index, stage in enumerate(recipe.stages):
        laid.append(_leg(recipe, stage, index, first, steps_per_epoch))
        first += stage.epochs
    return tuple(laid)


def _leg(
    recipe: Recipe, stage: Stage, index: int, first: int, steps_per_epoch: int, length: int | None = None
) -> Leg:  # fmt: skip
    steps = length or stage.epochs * steps_per_epoch
    try:
        optimiser = Optimiser.model_validate(
            inherited(recipe.optimiser.model_dump(), stage.optimiser, OPTIMISER_KEYS)
        )  # fmt: skip
        schedule = Schedule.model_validate(inherited(recipe.schedule.model_dump(), stage.schedule, SCHEDULE_KEYS))
    except ValidationError as error:
        raise RecipeError(f"stages[{index}] cannot be", problems=sentences(error.errors())) from None
    freeze = stage.freeze if stage.freeze is not None else recipe.freeze
    return Leg(
        index, stage.name or f"stage {index + 1}", first, stage.epochs, first * steps_per_epoch, steps, freeze or (),
        optimiser.completed(), schedule.completed(steps, steps_per_epoch),
        recipe.clip if stage.clip is None else stage.clip, recipe.seed,
    )  # fmt: skip


def settled(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A recipe's nested `values` with the sum of its stages' epochs, and what is wrong with the stages.

    Each problem has its path: `stages[1].optimser.lr: unknown key`. Stages that are wrong are left out of the values.
    """
    values = dict(values)
    stages = values.get("stages")
    if not isinstance(stages, Sequence) or isinstance(stages, str) or not stages:
        return values, []
    problems: list[str] = []
    for index, stage in enumerate(stages):
        keys = stage.model_dump(exclude_unset=True) if isinstance(stage, Stage) else stage
        if not isinstance(keys, Mapping):
            problems.append(f"stages[{index}]: expected keys and values, got {keys!r}")
            continue
        problems += _problems(values, keys, index)
    if problems:
        del values["stages"]
        return values, problems
    values["stages"] = [Stage.model_validate(nested(dict(_mapping(stage)))) for stage in stages]
    if values.get("steps") is not None:
        problems.append("steps: each stage has its own epochs: leave steps away")
    lengths = [stage.epochs for stage in values["stages"]]
    said = values.get("epochs")
    if isinstance(said, int) and said != sum(lengths):
        problems.append(
            f"epochs: {said}, but the stages take {' + '.join(map(str, lengths))} = {sum(lengths)}: leave epochs away, "
            "or change a stage's"
        )
    if said is None:
        values["epochs"] = sum(lengths)
    return values, problems


def _problems(values: Mapping[str, Any], stage: Mapping[str, Any], index: int) -> list[str]:
    place = ("stages", index)
    own = flat(stage)
    known = _known()
    unknown = [key for key in own if key not in known and not key.startswith("optimiser.rates.")]
    problems = [f"stages[{index}].{key}: {unknown_key(key, known, own[key])}" for key in unknown]
    keys = nested({key: value for key, value in own.items() if key not in unknown})
    groups = {name: keys.pop(name, None) or {} for name in _GROUPS}
    problems += _told(Stage, keys, place)
    for name, (kind, live) in _GROUPS.items():
        base = values.get(name) or {}
        fine = isinstance(base, Mapping) and not _told(kind, base)  # else the recipe's own keys are told, once
        problems += _told(kind, inherited(base if fine else {}, groups[name], live), (*place, name))
    return problems


def _told(kind: type[BaseModel], keys: Mapping[str, Any], place: tuple[str | int, ...] = ()) -> list[str]:
    try:
        kind.model_validate(keys)
    except ValidationError as error:
        return sentences(error.errors(), place)
    return []


def _known() -> dict[str, str]:
    known = {key: meaning for key, meaning in keys_of(Stage).items() if key not in _GROUPS}
    for name, (kind, _) in _GROUPS.items():
        known |= keys_of(kind, f"{name}.")
    return known


def _mapping(stage: Any) -> Mapping[str, Any]:
    return stage.model_dump(exclude_unset=True) if isinstance(stage, Stage) else stage
