"""What a recipe asks that its model, its policy, the judge or the number of images cannot give."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch

from onestage.data.augment import augmentation, for_classes, with_fit
from onestage.data.dataset import Dataset
from onestage.data.policy_check import policy_keeps_boxes
from onestage.errors import DataError, RecipeError, UsageError, did_you_mean
from onestage.evaluation import PROTOCOLS, lay_out, protocols_named
from onestage.evaluation.steering import SHORT, refuse_undefined
from onestage.models.detector import Detector
from onestage.models.inference import refuse_one_size
from onestage.records import Finding
from onestage.training import multiscale
from onestage.training.loop.freezing import frozen_ids, problems_with
from onestage.training.recipe import Recipe
from onestage.training.recipe.schedule import Optimiser


def refuse_impossible(recipe: Recipe, detector: Detector, images: int, val: Dataset, ranks: int = 1) -> list[Finding]:
    """RecipeError with every problem that would otherwise show within the run, or never; what is odd is returned.

    `detector` is the one that is to be trained, on `images` images, by `ranks` processes: its parts, the parts of its
    loss, the augmentation policy with its options, the protocols by which `val` is judged, batches that cannot be cut
    as asked, and micro-batches of one image where batch norm needs more. DataError where all is well but that `val`
    cannot be judged by the metric that is to choose the best weights.
    """
    policy = with_fit(augmentation(recipe.augmentation.policy, **recipe.augmentation.options), recipe.fit)
    policy = for_classes(policy, val.classes)
    tried = policy_keeps_boxes(policy, detector.size)
    problems = [*_loss(recipe, detector), *_freeze(recipe, detector), *_protocols(recipe, val)]
    if recipe.fit_judged == "native":
        refuse_one_size(detector, "validation.fit=native")
    problems += [*multiscale.problems(recipe.multiscale, detector), *_policy(tried)]
    problems += _pieces(recipe, min(recipe.batch, images), ranks)
    if not problems and _smallest(recipe, images, ranks) == 1 and not _learns_from_one(recipe, detector):
        width, height = detector.size
        problems.append(
            f"{_why_one(recipe, images, ranks)}; at {width}x{height} its smallest map is one cell, and batch norm has "
            "nothing to average"
        )
    unjudged = _metric(recipe, val)
    if unjudged is not None and not problems:
        raise DataError(
            f"the validation images cannot be judged by validation.metric={recipe.validation.metric}",
            problems=unjudged, hint="another metric, such as mAP50, or data that the protocol is made for",
        )  # fmt: skip
    problems += unjudged or []
    if problems:
        raise RecipeError(
            f"the recipe asks what {detector.name} cannot do" if len(problems) > 1 else problems[0],
            problems=problems if len(problems) > 1 else (), hint=_hint(problems, recipe),
        )  # fmt: skip
    return tried


def _policy(found: Sequence[Finding]) -> list[str]:
    """What the augmentation does to made pictures that would teach the wrong boxes."""
    return [f"augmentation.policy: {finding.what}" for finding in found if finding.severity == "error"]


def _loss(recipe: Recipe, detector: Detector) -> list[str]:
    known = detector.default_weights
    unknown = [f"loss.{name}: no such part{did_you_mean(name, known)}; there are: {', '.join(known)}"
               for name in recipe.loss if name not in known]  # fmt: skip
    unknown += detector.idle(recipe.options)
    return unknown + [f"loss.{name}: expected 0 or more, got {value:g}" for name, value in recipe.loss.items()
                      if value < 0]  # fmt: skip


def _freeze(recipe: Recipe, detector: Detector) -> list[str]:
    """What is frozen and what has a rate of its own, in the recipe and in each of its stages."""
    problems = problems_with(detector, recipe.freeze or (), "freeze")
    problems += problems_with(detector, recipe.optimiser.rates, "optimiser.rates")
    for index, stage in enumerate(recipe.stages):
        problems += problems_with(detector, stage.freeze or (), f"stages[{index}].freeze")
        rates = Optimiser.model_validate(stage.optimiser).rates if stage.optimiser.get("rates") else {}
        problems += problems_with(detector, rates, f"stages[{index}].optimiser.rates")
    asked = [(f"stages[{index}].", stage.freeze) for index, stage in enumerate(recipe.stages)] or [("", None)]
    for place, words in asked:
        still = frozen_ids(detector, (recipe.freeze or ()) if words is None else words)
        if all(id(parameter) in still for parameter in detector.parameters()):
            problems.append(f"{place}freeze: every part of the model is frozen: nothing could learn")
    return problems


def _protocols(recipe: Recipe, val: Dataset) -> list[str]:
    if recipe.validation.protocols is None:
        return []
    if not recipe.validation.protocols:
        return ["validation.protocols: expected at least one"]
    try:
        asked = protocols_named(recipe.validation.protocols)
    except UsageError as error:
        return [f"validation.protocols: unknown protocol {problem}" for problem in error.problems]
    pool = lay_out(val.truths, {}, val.classes, val.sizes)
    return [
        f"validation.protocols: {name}: {why}"
        for name, protocol in asked.items()
        if (why := protocol.unfit(pool)) is not None
    ]


def _metric(recipe: Recipe, val: Dataset) -> list[str] | None:
    """Why the metric of the recipe means nothing on the validation images; None where it does."""
    metric = recipe.validation.metric
    if metric in SHORT:
        return None
    try:
        refuse_undefined(metric, val.truths, val.classes, val.sizes)
    except DataError as error:
        return list(error.problems) or [error.message]
    return None


def _pieces(recipe: Recipe, images: int, ranks: int) -> list[str]:
    if images < ranks:
        return [f"batch: {images} images in a step for {ranks} processes: expected one for each at least"]
    if recipe.accumulate > images // ranks:
        whose = "" if ranks == 1 else f" that each of {ranks} processes has"
        return [
            f"accumulate={recipe.accumulate}: more micro-batches than the {images // ranks} images{whose} of a step"
        ]
    return []


def _smallest(recipe: Recipe, images: int, ranks: int) -> int:
    """Images of the smallest micro-batch."""
    return max(min(recipe.batch, images) // ranks // recipe.accumulate, 1)


def _why_one(recipe: Recipe, images: int, ranks: int) -> str:
    if recipe.accumulate > 1 or ranks > 1:
        cut = [f"accumulate={recipe.accumulate}"] * (recipe.accumulate > 1) + [f"{ranks} processes"] * (ranks > 1)
        return f"batch={recipe.batch} with {' and '.join(cut)}, so a micro-batch has one image"
    cause = f"batch={recipe.batch}" if recipe.batch == 1 else "there is one training image"
    return f"{cause}, so a step has one image"


def _learns_from_one(recipe: Recipe, detector: Detector) -> bool:
    """Whether a training step of one image goes through; tried on a copy, as batch norm keeps what it sees."""
    if recipe.norms == "frozen":
        return True
    tried = deepcopy(detector).train()
    width, height = detector.size
    place = next(tried.parameters()).device
    try:
        with torch.no_grad():
            tried(torch.zeros(1, 3, height, width, dtype=torch.uint8, device=place))
    except ValueError:  # torch's way to say that a norm has one value per channel
        return False
    return True


def _hint(problems: list[str], recipe: Recipe) -> str | None:
    if "batch norm" in problems[-1]:
        if recipe.accumulate > 1:
            return "a larger batch, fewer micro-batches, a larger size, or norms=frozen"
        return "batch=2 or more, or a larger size" if recipe.batch == 1 else "more training images, or a larger size"
    if "unknown protocol" in problems[-1]:
        return f"one or several of {', '.join(PROTOCOLS)}"
    return None
