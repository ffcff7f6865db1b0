"""The whole run as one frozen, validated object: what the user asked, completed to what really runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from onestage.errors import RecipeError, did_you_mean
from onestage.training.schedule import Optimiser, Schedule

Size = int | tuple[int, int]

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class Part(BaseModel):
    """A frozen group of keys; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Part):
    """How training images are varied: a policy of `data.augment` and changes to its parameters."""

    policy: str = Field("mosaic", description="a policy of data.augment: mosaic, zoom, ssd, none")
    options: dict[str, Any] = Field(default_factory=dict, description="changed parameters of the policy")
    rest: float = Field(0.15, ge=0, lt=1, description="last share of the run that uses the policy's calm form")


class Validation(Part):
    """When and how the model is judged during and after training."""

    every: int | None = Field(None, ge=1, description="epochs between evaluations; automatic: about eight in a run")
    protocols: tuple[str, ...] = Field(("voc07", "voc10", "coco"), description="the final judgement")
    metric: Literal["mAP50", "mAP50-95"] = Field("mAP50-95", description="what the best weights are chosen by")
    score: float = Field(0.01, ge=0, le=1, description="score floor of the detections judged")
    iou: float = Field(0.5, gt=0, le=1, description="IoU of non-maximum suppression within a class")


class Recipe(Part):
    """A training run. Every key has a default but `data`; None means chosen automatically and then recorded."""

    data: str = Field(description="a dataset folder or file, a split spec, or the name of a sample (data ls)")
    model: str = Field("ssd-lite0", description="a model by name")
    name: str | None = Field(None, description="name of the run; automatic: model-data-NNN")
    size: Size | None = Field(
        None, description="input size in pixels, one number or [width, height]; automatic: the model's"
    )
    fit: Literal["squash", "letterbox"] = Field("squash", description="how images come to the input size")
    classes: tuple[str, ...] | None = Field(None, description="class names in order; automatic: the dataset's")
    weights: str | None = Field("imagenet", description="imagenet, a weights file, or none")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the model's loss and matching")
    epochs: int | None = Field(None, ge=1, description="automatic: about 10,000 images in all, 12 to 400 epochs")
    batch: int = Field(16, ge=1, description="images per step")
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
        None, description="parts that keep their weights; automatic: stem with ImageNet"
    )
    precision: Literal["fp32", "bf16"] | None = Field(None, description="automatic: what this machine is faster with")
    device: str | None = Field(None, description="cpu, cuda, mps; automatic: the best there is")
    workers: int = Field(0, ge=0, description="loader processes; 0: threads beside the loop")
    cache: bool = Field(True, description="keep decoded images in memory, up to 2 GiB")
    allow_loss: bool = Field(False, description="go on when more than 5 % of the boxes or images cannot be used")
    validation: Validation = Field(default_factory=Validation)

    @field_validator("size")
    @classmethod
    def _positive_size(cls, size: Size | None) -> Size | None:
        sides = (size,) if isinstance(size, int) else size or ()
        if any(side < 32 or side > 4096 for side in sides):
            raise ValueError("a side must be from 32 to 4096 pixels")
        return size

    @field_validator("weights", mode="before")
    @classmethod
    def _no_weights(cls, weights: Any) -> Any:
        return None if weights in ("none", "None", "", False) else weights

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(width, height), or None for the model's own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with dotted keys replaced, validated again."""
        return build({**flat(self.model_dump()), **changes})

    @classmethod
    def recorded(cls, kept: Mapping[str, Any]) -> Recipe:
        """The recipe of a run as its folder keeps it; before there was a `split_seed`, `seed` drew the split too."""
        return cls.model_validate({"split_seed": kept.get("seed", 0), **kept})

    def as_dict(self) -> dict[str, Any]:
        """Every key and value as plain YAML data."""
        return self.model_dump(mode="json")


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file, flat with dots; RecipeError where it is missing or no mapping."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise RecipeError(f"{path}: expected keys and values, got {type(found).__name__}")
    return flat(found)


def parse_assignments(words: Iterable[str]) -> dict[str, Any]:
    """`key=value`, `--key value` and `--key=value` as {key: value}; values are read as YAML."""
    changes: dict[str, Any] = {}
    problems = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, given, text = word.removeprefix("--").partition("=")
        if not given and word.startswith("--") and rest and not rest[0].startswith("--"):
            text, given = rest.pop(0), "="
        if not given or not key:
            problems.append(f"{word!r}: expected key=value")
            continue
        try:
            value = yaml.safe_load(text) if text else None
        except yaml.YAMLError:
            value = text
        if isinstance(value, str) and _EXPONENT.fullmatch(value):  # YAML 1.1 takes 5e-4 for text
            value = float(value)
        changes[key.replace("-", "_") if word.startswith("--") else key] = value
    if problems:
        raise RecipeError(
            "the command has words that set nothing", problems=problems, hint="key=value, as in epochs=20"
        )
    return changes


def build(keys: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of flat dotted `keys` over the model's `defaults`; RecipeError lists every problem at once."""
    known = known_keys()
    unknown = [key for key in keys if key not in known and not _inside_free(key)]
    problems = [f"{key}: {_unknown(key, known)}" for key in unknown]
    nested = _nested({**(defaults or {}), **{key: value for key, value in keys.items() if key not in unknown}})
    try:
        recipe = Recipe.model_validate(nested)
    except ValidationError as error:
        problems += _sentences(error.errors())
    else:
        if not problems:
            return recipe
    raise RecipeError(f"the recipe has {len(problems)} problem{'s' * (len(problems) > 1)}", problems=problems)


def flat(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; the free mappings (`loss`, `options`) stay whole unless set by path."""
    result: dict[str, Any] = {}
    for key, value in keys.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in FREE:
            result |= flat(value, f"{path}.")
        else:
            result[path] = value
    return result


# Mappings whose keys belong to the model or the policy, which check them when they are made.
FREE = ("options", "loss", "augmentation.options")


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, str]:
    """Every dotted key with the sentence that explains it."""
    keys: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= known_keys(kind, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field.description or ""
    return keys


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


def _inside_free(key: str) -> bool:
    return any(key.startswith(f"{free}.") for free in FREE)


def _unknown(key: str, known: Iterable[str]) -> str:
    inside = [path for path in known if path.startswith(f"{key}.")]
    return f"a group of keys: {', '.join(inside)}" if inside else f"unknown key{_nearest(key, known)}"


def _nearest(key: str, known: Iterable[str]) -> str:
    """The nearest key: by whole path first, else one whose last word is meant."""
    known = list(known)
    near = did_you_mean(key, known)
    last = {path.rpartition(".")[2]: path for path in known}
    if not near and key in last:
        return f" (did you mean {last[key]!r}?)"
    if not near:
        near = did_you_mean(key.rpartition(".")[2], last)
        for word, path in last.items():
            near = near.replace(f"'{word}'", f"'{path}'")
    return near


def _nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path, value in keys.items():
        place = result
        *parents, last = path.split(".")
        for parent in parents:
            inner = place.get(parent)
            place[parent] = place = dict(inner) if isinstance(inner, Mapping) else {}
        place[last] = value
    return result


def _sentences(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """pydantic's errors in words, one per key: key, what was expected, what was got."""
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for found in errors:
        key = ".".join(str(part) for part in found["loc"] if not _is_type_name(part)) or "recipe"
        by_key.setdefault(key, []).append(found)
    return [f"{key}: {_sentence(key, found)}" for key, found in by_key.items()]


# What pydantic's kinds of error mean, by the first word of their names that is found here.
_EXPECTED = {
    "int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false",
    "string": "text (a number or date needs quotes)", "tuple": "a list, [a, b]", "dict": "keys and values",
    "model": "keys and values",
}  # fmt: skip


def _sentence(key: str, found: Sequence[Mapping[str, Any]]) -> str:
    first, value = found[0], found[0]["input"]
    got = f", got {value!r}"
    if first["type"] == "missing":
        return "missing" + (" (a dataset folder, or the name of a sample such as trees)" if key == "data" else "")
    if first["type"] == "value_error":  # our own words, which name the key at fault
        return str(first["msg"]).removeprefix("Value error, ") + ("" if isinstance(value, Mapping) else got)
    if len(found) > 1 and key == "size":
        return f"expected one number or [width, height]{got}"
    expected = _EXPECTED.get(str(first["type"]).partition("_")[0])
    if expected is not None:
        return f"expected {expected}{got}"
    message = str(first["msg"]).removeprefix("Input should be ")
    return f"expected {message[0].lower()}{message[1:]}{got}"


def _is_type_name(part: Any) -> bool:
    return isinstance(part, str) and (part in ("int", "float", "str") or part.startswith(("tuple[", "constrained-")))
