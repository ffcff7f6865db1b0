"""What of a recipe may change when a run is taken up again, and what the change does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.errors import RecipeError
from onestage.training.recipe import Recipe
from onestage.training.recipe.keys import flat
from onestage.training.recipe.stages import Leg, legs

# Keys, and groups of keys, that touch no step: the run stays bit for bit what it would have been.
FREE = (
    "workers", "cache", "allow_loss", "saving", "guard", "log", "validation.every", "validation.protocols",
    "validation.score", "validation.iou", "validation.candidates", "validation.most", "validation.fit",
    "validation.scale", "data",
)  # fmt: skip
# Those that change the steps from here on: allowed, and recorded with the new segment.
ALLOWED = (
    "epochs", "steps", "stages", "optimiser", "schedule", "loss", "augmentation", "multiscale", "accumulate", "clip",
    "ema", "freeze", "norms", "precision", "device",
)  # fmt: skip
# Those that make it another run: the reason, and what to do instead.
_NEW = "start a new run from what this one has learnt: weights={best}"
REFUSED = {
    "name": ("a run keeps its name", "rename its folder"),
    "model": ("what was learnt belongs to the model", _NEW),
    "options": ("what was learnt rests on the model's matching and loss", _NEW),
    "size": ("the priors and what was learnt belong to the input size", _NEW),
    "fit": ("the model has seen images fitted the other way, and so has the best so far", _NEW),
    "classes": ("the heads have an output for each class in this order", _NEW),
    "weights": ("a run starts from them, and this one has long started", "start a new run"),
    "seed": ("the order of the images and their augmentation follow from it, in the midst of which the run stands",
             "start a new run"),
    "split_seed": ("the model would be judged on images it has learnt from", "start a new run"),
    "batch": ("the run's place in the data and its schedule are counted in batches of this size",
              "accumulate=2 does the same steps with less memory; for another batch " + _NEW),
    "optimiser.name": ("what the optimiser remembers of earlier steps means nothing to another", _NEW),
    "validation.metric": ("the best weights so far were chosen by it, and two metrics do not compare",
                          "judge the run by other metrics when it is done: onestage val RUN"),
}  # fmt: skip
# Of `validation`, those that do not change what an evaluation finds.
_OFTEN = ("validation.every", "validation.protocols")
# From one step to the next a schedule hardly moves; what moves lr by more is told.
JUMP = 1.1


@dataclass(frozen=True)
class Progress:
    """How far a run has come: optimiser steps done, steps in each epoch, the file of its best weights.

    `lr_factor` is what rollbacks have multiplied the learning rates by.
    """

    step: int
    steps_per_epoch: int
    best: str = "weights/best.safetensors"
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Changes:
    """What a resume changed: {key: [before, now]}, whether that leaves the steps alone, and what to know of it."""

    changed: dict[str, list[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """Which of the changes make the run another than the uninterrupted one, in words."""
        return [f"{key} was changed" for key in self.changed if not _belongs(key, FREE)]


def changed_recipe(old: Recipe, asked: Mapping[str, Any], progress: Progress) -> Recipe:
    """The complete recipe `old` of a run with the flat dotted keys `asked`, values left open where they follow anew.

    RecipeError lists every key that is unknown, out of range or cannot change within a run, with the reason and what
    to do instead. A key asked for with the value it has is no change.
    """
    problems, message = _dead(old, asked), "a run that is resumed cannot change"
    new, following = old, _following(old, asked)
    try:
        new = old.changed({**following, **asked})
    except RecipeError as error:
        problems += error.problems
        message = "the changes cannot be made"
    touched = _compared(old, new)
    for key in asked if new is old else [key for key in touched if key not in following]:
        rule = next((name for name in REFUSED if _belongs(key, (name,))), None)
        if rule is not None:
            reason, instead = REFUSED[rule]
            problems.append(f"{key}: {reason}; instead, {instead.format(best=progress.best)}")
    if "ema" in touched and not (old.ema and new.ema):
        problems.append(
            "ema: no average of the weights so far was kept, so that none can be taken up; " if not old.ema else
            "ema: the averaged weights were judged and kept as best so far; others would not compare; "
        )  # fmt: skip
        problems[-1] += f"instead, {_NEW.format(best=progress.best)}"
    if new.epochs is None and new.steps is None and old.epochs is not None:
        problems.append("epochs: expected a number, for the run has one already")
    elif not problems:
        problems += _too_short(new, progress)
    if problems:
        raise RecipeError(message, problems=problems, hint="without these keys the run goes on")
    return new


def changes(old: Recipe, new: Recipe, progress: Progress) -> Changes:
    """What was changed between two complete recipes of one run, and what jumps at the next step.

    RecipeError where a stage that is over, or begun, would have been another.
    """
    _refuse_another_past(old, new, progress)
    changed = _compared(old, new)
    _refuse_idle(new, changed, progress)
    notes = [note for tell in (_length, _rates, _calm, _judged) for note in tell(old, new, progress)]
    return Changes(changed, tuple(notes))


def _dead(old: Recipe, asked: Mapping[str, Any]) -> list[str]:
    """Keys that would change nothing, as the stages hold their own."""
    keys = [key for key in asked if old.stages and _belongs(key, ("optimiser", "schedule", "clip", "freeze"))]
    return [
        f"{key}: no effect, for each stage of this run has its own; instead, give stages=[…] with the stages of its "
        "recipe.yaml, changed"
        for key in keys if key not in REFUSED
    ]  # fmt: skip


def _following(old: Recipe, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that lose their meaning with what is asked, back to automatic."""
    reset: dict[str, Any] = {}
    for group, kept in (("schedule", ("name", "warmup", "start", "rise")), ("optimiser", ("name", "lr", "backbone"))):
        part = getattr(old, group)
        if asked.get(f"{group}.name", part.name) != part.name:
            reset |= {f"{group}.{key}": info.get_default(call_default_factory=True)
                      for key, info in type(part).model_fields.items() if key not in kept}  # fmt: skip
    if asked.get("augmentation.policy", old.augmentation.policy) != old.augmentation.policy:
        reset["augmentation.options"] = {}
    lengths = {"epochs": old.epochs, "steps": old.steps, "stages": None}
    if any(asked.get(key, was) != was for key, was in lengths.items()):  # one length takes the place of another
        reset |= {"epochs": None, "steps": None}
    if old.stages and not asked.get("stages") and isinstance(asked.get("epochs"), int):  # of the last stage
        *earlier, last = (stage.model_dump() for stage in old.stages)
        reset["stages"] = [*earlier, {**last, "epochs": asked["epochs"] - sum(stage["epochs"] for stage in earlier)}]
    return {key: value for key, value in reset.items() if key not in asked}


def _compared(old: Recipe, new: Recipe) -> dict[str, list[Any]]:
    """{key: [before, now]} of every dotted key whose value differs, the free mappings key by key."""
    before, now = (_spread(recipe) for recipe in (old, new))
    keys = [*before, *(key for key in now if key not in before)]
    return {key: [before.get(key), now.get(key)] for key in keys if before.get(key) != now.get(key)}


def _spread(recipe: Recipe) -> dict[str, Any]:
    kept = {**flat(recipe.as_dict()), "size": list(recipe.input_size or ())}
    stages = kept.pop("stages")
    kept |= {
        f"stages[{place}].{key}": value for place, stage in enumerate(stages) for key, value in flat(stage).items()
    }
    for key in [key for key, value in kept.items() if isinstance(value, dict)]:
        kept |= {f"{key}.{inner}": value for inner, value in kept.pop(key).items()}
    return kept


def _belongs(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in names)


def _too_short(new: Recipe, progress: Progress) -> list[str]:
    if new.steps is not None:
        short = new.steps < progress.step
        return [f"steps: expected at least {progress.step}, for so many are done; got {new.steps}"] if short else []
    done = -(-progress.step // max(progress.steps_per_epoch, 1))
    if new.epochs is None or new.epochs >= done:
        return []
    begun = f"{done} epochs are done" if progress.step == done * progress.steps_per_epoch else f"epoch {done} is begun"
    return [f"epochs: expected at least {done}, for {begun}; got {new.epochs}"]


def _refuse_another_past(old: Recipe, new: Recipe, progress: Progress) -> None:
    """RecipeError where the steps done would lie in other stages than they did."""
    begun = [
        [leg for leg in legs(recipe, progress.steps_per_epoch) if leg.first_step < progress.step]
        for recipe in (old, new)
    ]
    before, now = (
        [(leg.name, leg.first_step, min(leg.first_step + leg.steps, progress.step)) for leg in laid] for laid in begun
    )
    problems = [
        f"stage {was[0]}: steps {was[1] + 1} to {was[2]} were done in it; the change makes them "
        f"{f'{to[1] + 1} to {to[2]} of stage {to[0]}' if to else 'part of no stage'}"
        for was, to in zip(before, [*now, *[None] * len(before)], strict=False)
        if to != was
    ]
    problems += [
        f"stage {was.name}: what {was.optimiser.name} remembers of its steps means nothing to {to.optimiser.name}"
        for was, to in zip(*begun, strict=False)
        if was.optimiser.name != to.optimiser.name and old.stages
    ]
    if problems:
        raise RecipeError(
            "a stage that is over or begun cannot change so", problems=problems,
            hint="what can change is the length and the rates of the present stage, and the stages after it",
        )  # fmt: skip


def _refuse_idle(new: Recipe, changed: Mapping[str, Any], progress: Progress) -> None:
    """RecipeError where no step is left that the changes could touch."""
    left = _steps(new, progress) - progress.step
    idle = [key for key in changed if not _belongs(key, FREE)]
    if idle and left <= 0 and not {"epochs", "steps"} & set(changed):
        raise RecipeError(
            "these changes would change nothing, for the run has done all its steps",
            problems=[f"{key}: {changed[key][0]} did the {progress.step} steps" for key in idle],
            hint=f"{f'steps={2 * new.steps}' if new.steps else f'epochs={2 * int(new.epochs or 1)}'} besides makes the "
            "run longer",
        )  # fmt: skip


def _length(old: Recipe, new: Recipe, progress: Progress) -> Iterator[str]:
    steps = [_steps(recipe, progress) for recipe in (old, new)]
    if steps[0] != steps[1]:
        yield (
            f"the run takes {new.epochs} epochs instead of {old.epochs}: {steps[1]} steps instead of {steps[0]}, "
            f"of which {progress.step} are done"
        )


def _rates(old: Recipe, new: Recipe, progress: Progress) -> Iterator[str]:
    """The learning rate of the last step beside that of the next, where it jumps because of the change."""
    step = progress.step
    after = _rate(new, progress, step)
    if not step or after is None:
        return
    before = _rate(old, progress, step - 1)
    expected = _rate(old, progress, step)
    if before is None or _near(before, after) or (expected is not None and _near(expected, after)):
        return
    why = ""
    leg = _leg(new, progress, step)
    if (
        _steps(old, progress) != _steps(new, progress)
        and leg is not None
        and leg.schedule.name not in ("constant", "random")
    ):
        why = f": its {leg.schedule.name} schedule is laid over {leg.steps} steps now"
    yield f"the learning rate was {before:.3g} at step {step} and is {after:.3g} at step {step + 1}{why}"
    if after > before and why and "schedule.name" not in _compared(old, new):
        yield f"schedule.name=constant schedule.warmup=0 optimiser.lr={before:.3g} would go on at the earlier rate"


def _calm(old: Recipe, new: Recipe, progress: Progress) -> Iterator[str]:
    """Whether the calm form of the augmentation ends or begins by the change."""
    epoch = progress.step // max(progress.steps_per_epoch, 1)
    was, now = old.calm_from, new.calm_from
    if progress.step and was != now and was < epoch < now:
        yield (
            f"augmentation has been in its calm form since epoch {was + 1}; it takes its full form again until "
            f"epoch {now}"
        )
    elif now < epoch <= was:
        yield f"augmentation takes its calm form from here on; it would have from epoch {was + 1}"


def _judged(old: Recipe, new: Recipe, progress: Progress) -> Iterator[str]:
    keys = [key for key in _compared(old, new) if key in FREE and key.startswith("validation.") and key not in _OFTEN]
    if keys:
        yield f"{' and '.join(keys)} moves every score a little: evaluations before and after do not compare"


def _steps(recipe: Recipe, progress: Progress) -> int:
    return sum(leg.steps for leg in legs(recipe, progress.steps_per_epoch))


def _near(a: float, b: float) -> bool:
    return a == b or (min(a, b) > 0 and max(a, b) / min(a, b) < JUMP)


def _rate(recipe: Recipe, progress: Progress, step: int) -> float | None:
    """The highest learning rate at `step` (0-based), None where the run has no such step."""
    leg = _leg(recipe, progress, step)
    return None if leg is None else leg.optimiser.lr * leg.share(step) * progress.lr_factor


def _leg(recipe: Recipe, progress: Progress, step: int) -> Leg | None:
    laid = legs(recipe, progress.steps_per_epoch)
    return next((leg for leg in laid if leg.first_step <= step < leg.first_step + leg.steps), None)
