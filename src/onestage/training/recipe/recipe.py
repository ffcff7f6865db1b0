"""The whole run as one frozen, validated object: what the user asked, completed to what really runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from onestage.errors import RecipeError, UsageError
from onestage.models import TOLD
from onestage.training.recipe.keys import flat, inside_free, keys_of, sentences, unknown_key
from onestage.training.recipe.layered import over
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Stage, settled

if TYPE_CHECKING:  # numpy and OpenCV, which help pages do without
    from onestage.boxes.selection import Selection
    from onestage.data.images import Fit

Size = int | tuple[int, int]


class Part(BaseModel):
    """A frozen group of keys; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Part):
    """How training images are varied: a policy of `data.augment` and changes to its parameters."""

    policy: str = Field("mosaic", description="a policy of data.augment: mosaic, zoom, ssd, faceboxes, darknet, none")
    options: dict[str, Any] = Field(
        default_factory=dict, description="changed parameters of the policy, as mirror: 0 or swap: {left: right}"
    )
    rest: float = Field(0.15, ge=0, lt=1, description="last share of the run that uses the policy's calm form")


class Validation(Part):
    """When and how the model is judged during and after training."""

    every: int | None = Field(None, ge=1, description="epochs between evaluations; automatic: about eight in a run")
    protocols: tuple[str, ...] | None = Field(
        None, description="the final judgement; automatic: voc07, voc10, coco, before them the benchmark's own where "
        "the data is of one (widerface, fddb, visdrone)"
    )  # fmt: skip
    metric: str = Field(
        "mAP50-95", description="what the best weights are chosen by: mAP50, mAP50-95, or PROTOCOL/SCORE as in "
        "widerface/APhard or fddb/disc@1000"
    )  # fmt: skip
    score: float = Field(0.01, ge=0, le=1, description="score floor of the detections judged")
    iou: float = Field(0.5, gt=0, le=1, description="IoU of non-maximum suppression within a class")
    candidates: int = Field(400, ge=1, description="boxes of each class in an image that suppression looks at")
    most: int = Field(300, ge=1, description="detections of an image that are kept")
    fit: Literal["squash", "letterbox", "native"] | None = Field(
        None, description="how images come to the network when it judges and predicts: squash, letterbox, or native, "
        "their own pixels; automatic: fit"
    )  # fmt: skip
    scale: float = Field(1.0, gt=0, le=16, description="of fit=native: images at so many times their own pixels")

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The protocols of the final judgement; () while they are open."""
        return self.protocols or ()

    @field_validator("metric")
    @classmethod
    def _metric_in_full(cls, metric: str) -> str:
        if metric in ("mAP50", "mAP50-95"):  # judged by in every run; help pages need not load the protocols
            return metric
        from onestage.evaluation.steering import spelt

        try:
            return spelt(metric)
        except UsageError as error:
            raise ValueError(error.message) from None

    @model_validator(mode="after")
    def _scale_has_effect(self) -> Self:
        if self.scale != 1 and self.fit != "native":
            raise ValueError(f"scale: {self.scale:g} has no effect without fit=native")
        return self


class MultiScale(Part):
    """Input sizes that change from step to step, drawn from (seed, step)."""

    low: float = Field(1.0, gt=0, le=1, description="smallest input size as a share of size; 1: one size throughout")
    high: float = Field(1.0, ge=1, description="largest input size as a share of size")
    step: int = Field(32, ge=1, description="sizes are whole multiples of so many pixels")
    every: int = Field(10, ge=1, description="steps between changes of size")


class Guard(Part):
    """What is done when a step goes wrong; the flight recorder reports it in any case."""

    nan: Literal["stop", "skip", "rollback"] = Field("stop", description="on a loss or gradient that is not finite")
    spike: Literal["report", "stop", "skip", "rollback"] = Field("report", description="on a spike that is finite")
    sigmas: float = Field(8.0, gt=0, description="robust deviations from the recent log loss that make a spike")
    lr_factor: float = Field(0.5, gt=0, le=1, description="learning rates are multiplied by it after a rollback")
    most: int = Field(5, ge=1, description="so many skips and rollbacks end the run")
    steps: int = Field(256, ge=1, description="steps that the flight recorder holds; their records take a few kB each")


class Saving(Part):
    """When the state for an exact resume is written."""

    seconds: float = Field(60.0, ge=0, description="a state is saved when the last is older than this; 0: every step")


class Recipe(Part):
    """A training run. Every key has a default but `data`; None means chosen automatically and then recorded."""

    data: str = Field(description="a dataset folder or file, a split spec, or the name of a sample (data ls)")
    model: str = Field("ssd-lite0", description="a model by name")
    name: str | None = Field(None, description="name of the run; automatic: model-data-NNN")
    size: Size | None = Field(
        None, description="input size in pixels, one number or [width, height]; automatic: the model's"
    )
    fit: Literal["squash", "letterbox"] = Field("squash", description="how images come to the input size in training")
    classes: tuple[str, ...] | None = Field(None, description="class names in order; automatic: the dataset's")
    weights: str | None = Field("imagenet", description="imagenet, a weights file, published weights by name, or none")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the model's loss and matching")
    epochs: int | None = Field(None, ge=1, description="automatic: about 10,000 images in all, 12 to 400 epochs")
    steps: int | None = Field(
        None, ge=1, description="length in optimiser steps instead of epochs, the last of which may stay unfinished"
    )
    batch: int = Field(16, ge=1, description="images per step, over all micro-batches and devices")
    accumulate: int = Field(1, ge=1, description="micro-batches a step is cut into (darknet: subdivisions)")
    multiscale: MultiScale = Field(default_factory=MultiScale)
    seed: int = Field(0, ge=0, description="order, augmentation and first weights follow from it")
    split_seed: int = Field(
        0, ge=0, description="of the validation split, where only one set is given; alike for runs to be compared"
    )
    optimiser: Optimiser = Field(default_factory=Optimiser)
    schedule: Schedule = Field(default_factory=Schedule)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    loss: dict[str, float] = Field(
        default_factory=dict, description="weight of each part of the loss; 1 where not named"
    )
    ema: float = Field(
        0.998, ge=0, lt=1, description="decay of the averaged weights that are judged and saved; 0: none"
    )
    clip: float = Field(10.0, ge=0, description="largest gradient norm; 0: no clipping")
    freeze: tuple[str, ...] | None = Field(
        None, description="parts, modules or patterns that keep their weights, all-but-heads, none; automatic: "
        "stem with ImageNet"
    )  # fmt: skip
    stages: tuple[Stage, ...] = Field(
        (), description="stages one after another: each with epochs, and name, freeze, optimiser, schedule, clip where "
        "they differ"
    )  # fmt: skip
    norms: Literal["own", "synchronised", "frozen"] = Field(
        "own", description="batch norms' statistics: each device's own, over all devices, or those of the start"
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        None, description="automatic: fp32 or bf16, what this machine is faster with"
    )
    device: str | None = Field(None, description="cpu, cuda, mps; automatic: the best there is")
    workers: int = Field(0, ge=0, description="loader processes; 0: threads beside the loop")
    cache: bool = Field(True, description="keep decoded images in memory, up to 2 GiB")
    allow_loss: bool = Field(False, description="go on when more than 5 % of the boxes or images cannot be used")
    validation: Validation = Field(default_factory=Validation)
    guard: Guard = Field(default_factory=Guard)
    log: Literal["own", "faceboxes", "darknet"] = Field(
        "own", description="steps on the terminal and in train.log also as another program prints them: "
        "faceboxes lxg2015/faceboxes, darknet pjreddie's darknet"
    )  # fmt: skip
    saving: Saving = Field(default_factory=Saving)

    @field_validator("size")
    @classmethod
    def _positive_size(cls, size: Size | None) -> Size | None:
        sides = (size,) if isinstance(size, int) else size or ()
        if any(side < 32 or side > 4096 for side in sides):
            raise ValueError("a side must be from 32 to 4096 pixels")
        return size

    @field_validator("fit", mode="before")
    @classmethod
    def _trains_at_one_size(cls, fit: Any) -> Any:
        if fit == "native":
            raise ValueError("training takes batches of one size, squash or letterbox; validation.fit=native judges so")
        return fit

    @field_validator("options")
    @classmethod
    def _options_of_the_model(cls, options: dict[str, Any]) -> dict[str, Any]:
        if told := [name for name in TOLD if name in options]:
            raise ValueError(f"{' and '.join(told)}: no option of a model, but what the run itself says")
        return options

    @field_validator("freeze", mode="before")
    @classmethod
    def _one_word(cls, words: Any) -> Any:
        return [words] if isinstance(words, str) else words

    @field_validator("weights", mode="before")
    @classmethod
    def _no_weights(cls, weights: Any) -> Any:
        return None if weights in ("none", "None", "", False) else weights

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(width, height), or None for the model's own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def fit_judged(self) -> Fit:
        """How images come to the network when it judges and predicts."""
        return self.validation.fit or self.fit

    @property
    def selection(self) -> Selection:
        """Which boxes are judged."""
        from onestage.boxes.selection import Selection

        limits = self.validation
        return Selection(limits.score, limits.iou, limits.candidates, limits.most)

    @property
    def calm_from(self) -> int:
        """The first epoch, counted from 0, of the calm augmentation; `epochs`, which must be chosen, for none."""
        epochs = int(self.epochs or 0)
        return round(epochs * (1 - self.augmentation.rest))

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with dotted keys replaced, validated again."""
        return build({**flat(self.model_dump()), **changes})

    @classmethod
    def recorded(cls, kept: Mapping[str, Any]) -> Recipe:
        """The recipe of a run as its folder keeps it.

        Before there was a `split_seed`, `seed` drew the split too; and before `step` had a span of its own (`every`),
        it was the name of what is multi-step now.
        """
        kept = {"split_seed": kept.get("seed", 0), **kept}
        schedule = kept.get("schedule")
        if isinstance(schedule, Mapping) and schedule.get("name") == "step" and "every" not in schedule:
            kept["schedule"] = {**schedule, "name": "multi-step"}
        return cls.model_validate(kept)

    def as_dict(self) -> dict[str, Any]:
        """Every key and value as plain YAML data."""
        return self.model_dump(mode="json")


def build(keys: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of flat dotted `keys` over the model's `defaults`; RecipeError lists every problem at once."""
    known = known_keys()
    unknown = [key for key in keys if key not in known and not inside_free(key)]
    problems = [f"{key}: {unknown_key(key, known, keys[key])}" for key in unknown]
    values = over({key: value for key, value in keys.items() if key not in unknown}, defaults or {})
    values, wrong = settled(values)
    problems += wrong
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += sentences(error.errors())
    else:
        if not problems:
            return recipe
    raise RecipeError(f"the recipe has {len(problems)} problem{'s' * (len(problems) > 1)}", problems=problems)


def known_keys() -> dict[str, str]:
    """Every dotted key with the sentence that explains it."""
    return keys_of(Recipe)


def describe_keys() -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every key, for help pages."""
    defaults = flat(Recipe(data="…").as_dict())
    return [(key, _shown(defaults.get(key), key), meaning) for key, meaning in known_keys().items()]


def _shown(value: Any, key: str) -> str:
    if key == "data":
        return "required"
    if value is None:
        return "automatic"
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
