"""Fills in what a recipe leaves open: size, epochs, warm-up, averaging, precision; all is recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from onestage import models
from onestage.data import samples
from onestage.data.augment import augmentation
from onestage.data.dataset import Dataset
from onestage.data.opening import Opened, open_dataset
from onestage.data.samples import SAMPLES
from onestage.errors import DataError, RecipeError
from onestage.evaluation import lay_out, usual_protocols
from onestage.experiments.filtered import Filtered
from onestage.models.detector import Detector
from onestage.models.load_report import Report
from onestage.models.weights import quicken_norms, start_from
from onestage.records import Finding
from onestage.training.checks import refuse_impossible
from onestage.training.devices.machine import choose_device, choose_precision, keep_freed_memory
from onestage.training.devices.ranks import Ranks
from onestage.training.filtered import findings as filtered_findings
from onestage.training.filtered import foreseen
from onestage.training.fitted import fit_findings, options_made
from onestage.training.loop.groups import GroupRow, groups_table
from onestage.training.recipe import Recipe, build
from onestage.training.recipe.foresight import foresee
from onestage.training.recipe.stages import Leg, legs

# Images a run sees in all when epochs are automatic: enough for the light models to settle on a set of hundreds, in
# minutes on two cores. Large sets get at least MIN_EPOCHS.
IMAGES_SEEN = 10_000
MIN_EPOCHS, MAX_EPOCHS = 12, 400
EVALUATIONS = 8


@dataclass
class Plan:
    """A run ready to start: the completed recipe, the opened data, the detector with its first weights."""

    recipe: Recipe
    opened: Opened
    detector: Detector
    report: Report
    device: str
    measured: dict[str, float]
    foresight: list[Finding] = field(default_factory=list)
    filtered: Filtered | None = None  # truths that augmentation will leave out in the first epoch
    cfg: str | None = None  # name of the darknet file that the model was built by

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The stages laid out over the run; one where the recipe lists none."""
        return legs(self.recipe, self.steps_per_epoch)

    @property
    def groups(self) -> list[tuple[Leg, list[GroupRow]]]:
        """The table of parameter groups of each leg."""
        return [(leg, groups_table(self.detector, leg, self.recipe.norms)) for leg in self.legs]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch; an incomplete last batch is left out."""
        return steps_per_epoch(len(self.opened.train), self.recipe.batch)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.recipe.steps or self.steps_per_epoch * int(self.recipe.epochs or 0)


def steps_per_epoch(images: int, batch: int) -> int:
    """Full batches in an epoch; one batch where there are fewer images than a batch holds."""
    return max(images // batch, 1)


def ask(keys: Mapping[str, Any]) -> Recipe:
    """The recipe of the user's `keys` over the defaults of the model they name."""
    keys = models.named(keys)
    name = keys.get("model", Recipe.model_fields["model"].default)
    options = keys.get("options")
    cfg = keys.get("options.cfg", options.get("cfg") if isinstance(options, Mapping) else None)
    return build(keys, defaults=models.defaults(str(name), keys.get("weights"), cfg))


def make_plan(recipe: Recipe, weights: bool = True, ranks: int = 1) -> Plan:
    """Open the data, build the detector, and choose every value the recipe leaves open, for `ranks` processes.

    Without `weights` the detector is left at random: a resumed run has its own. Raises RecipeError, DataError,
    ModelError for whatever cannot work: a run that starts gets to its end, as far as can be known beforehand.
    """
    opened = open_data(recipe)
    device = choose_device(recipe.device)
    keep_freed_memory()
    options, made = options_made(recipe, len(opened.classes), opened.train)
    if made is not None:
        recipe = recipe.changed({"options": options})
    torch.manual_seed(recipe.seed)
    detector = models.build(recipe.model, len(opened.classes), recipe.input_size, **recipe.options)
    odd = refuse_impossible(recipe, detector, len(opened.train), opened.val, ranks)
    report = start_from(detector, recipe.weights if weights else None)
    if recipe.weights is None:
        quicken_norms(detector)
    detector = detector.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.precision is None:
        precision, measured = choose_precision(detector, device)
    else:
        precision, measured = recipe.precision, {}
    per_epoch = steps_per_epoch(len(opened.train), recipe.batch)
    epochs = _epochs(recipe, per_epoch) or automatic_epochs(len(opened.train))
    freeze = recipe.freeze
    if freeze is None:
        freeze = ("stem",) if recipe.weights == "imagenet" and "stem" in detector.parts() else ()
    chosen = {
        # Whole, so that the run can be resumed and judged from any folder.
        "data": recipe.data if recipe.data in SAMPLES else str(Path(recipe.data).expanduser().absolute()),
        "size": list(detector.size), "classes": list(opened.classes), "epochs": epochs, "device": device,
        "precision": precision, "freeze": list(freeze),
        "validation.protocols": _protocols(recipe, opened.val),
        "validation.every": recipe.validation.every or max(epochs // EVALUATIONS, 1),
        "loss": {**detector.default_weights, **recipe.loss}, "options": detector.resolved(recipe.options),
    }  # fmt: skip
    completed = laid_out(recipe.changed(chosen), per_epoch)
    detector.hasten(completed.steps or per_epoch * epochs)
    policy = augmentation(completed.augmentation.policy, **completed.augmentation.options)
    filtered = foreseen(policy, opened.train, detector.size, completed.seed)
    foresight = [
        *models.unfollowed(recipe.options), *odd, *foresee(completed, per_epoch),
        *filtered_findings(filtered, detector.size), *fit_findings(detector, completed, opened.train, made),
    ]  # fmt: skip
    return Plan(
        completed, opened, detector, report, device, measured, foresight, filtered, models.cfg_name(recipe.options)
    )


def _epochs(recipe: Recipe, per_epoch: int) -> int | None:
    """The epochs that a recipe's length takes, the last of them begun at least; None where it says no length."""
    if recipe.steps is None:
        return recipe.epochs
    needed = -(-recipe.steps // per_epoch)
    if recipe.epochs not in (None, needed):
        raise RecipeError(
            f"epochs={recipe.epochs} and steps={recipe.steps} are two lengths: {per_epoch} steps make an epoch here",
            hint=f"one of them: steps={recipe.steps}, or epochs={recipe.epochs}",
        )
    return needed


def _protocols(recipe: Recipe, val: Dataset) -> tuple[str, ...]:
    asked = recipe.validation.protocols
    return asked or usual_protocols(val.format, lay_out(val.truths, {}, val.classes, val.sizes))


def plan_together(recipe: Recipe, ranks: Ranks, weights: bool = True) -> Plan:
    """`make_plan` for several processes: what is open the first chooses, which also downloads what is missing.

    Raises DataError where the processes do not see the same images and boxes.
    """
    made: list[Plan] = []

    def make(what: Recipe) -> Recipe:
        made.append(make_plan(what, weights, ranks.count))
        return made[0].recipe

    completed = ranks.first(lambda: make(recipe))
    ranks.together(lambda: completed if ranks.is_first else make(completed))
    plan = made[0]
    plan.recipe = completed
    seen = ranks.gather([(len(part), part.fingerprint()) for part in (plan.opened.train, plan.opened.val)])
    problems = [
        f"rank {rank}: {train[0]} training and {val[0]} validation images"
        for rank, (train, val) in enumerate(seen) if [train, val] != seen[0]
    ]  # fmt: skip
    if problems:
        first = f"rank 0: {seen[0][0][0]} training and {seen[0][1][0]} validation images"
        raise DataError("the processes of the run do not see the same data", problems=[first, *problems],
                        hint="the same folder on every machine, or one they share")  # fmt: skip
    return plan


def laid_out(recipe: Recipe, per_epoch: int) -> Recipe:
    """The recipe with optimiser and schedule, or those of its stages, complete and in steps; `epochs` is known.

    Where there are stages they hold it all, and the recipe's own optimiser and schedule stay as they were asked for.
    """
    laid = legs(recipe, per_epoch)
    if recipe.stages:
        return recipe.changed({"stages": [leg.as_keys() for leg in laid]})
    groups = {"optimiser": laid[0].optimiser.model_dump(), "schedule": laid[0].schedule.model_dump()}
    return recipe.changed({f"{name}.{key}": value for name, keys in groups.items() for key, value in keys.items()})


def open_data(recipe: Recipe) -> Opened:
    """The dataset the recipe names: a path, or a sample, which is fetched when it is not there yet."""
    path = samples.get(recipe.data) if recipe.data in SAMPLES else recipe.data
    return open_dataset(path, classes=recipe.classes, seed=recipe.split_seed, allow_loss=recipe.allow_loss)


def automatic_epochs(images: int) -> int:
    """So many epochs that about IMAGES_SEEN images are seen."""
    return min(max(math.ceil(IMAGES_SEEN / max(images, 1)), MIN_EPOCHS), MAX_EPOCHS)
