"""A recipe's keys: files and command lines to dotted names and back, and what is wrong in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from onestage.errors import RecipeError, did_you_mean

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
# Mappings whose keys belong to the model or the policy, which check them when they are made.
FREE = ("options", "loss", "augmentation.options", "optimiser.rates")
# What users of darknet may say out of habit, and the key that means it.
DARKNET = {
    "max_batches": "steps",
    "subdivisions": "accumulate",
    "width": "size=[width, height]",
    "height": "size=[width, height]",
    "learning_rate": "optimiser.lr",
    "decay": "optimiser.decay",
    "momentum": "optimiser.momentum",
    "burn_in": "schedule.warmup",
    "policy": "schedule.name",
    "random": "multiscale.low and multiscale.high",
    "scales": "schedule.factor",
    "letter_box": "fit=letterbox",
    "cfg": "model=my.cfg",
    "thresh": "score, of predict and val",
    "ema_alpha": "ema",
    **{word: f"augmentation.options.{word}" for word in ("hue", "saturation", "exposure", "flip", "jitter")},
}


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file, flat with dots; RecipeError where it is missing or no mapping."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"cannot read the recipe {path}: {error.strerror or error}",
            hint="the path of a YAML file, such as a run's recipe.yaml; keys are written key=value",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise RecipeError(f"{path}: expected keys and values, got {type(found).__name__}")
    return flat(found)


def parse_assignments(words: Iterable[str]) -> dict[str, Any]:
    """`key=value`, `--key value` and `--key=value` as {key: value}; values are read as YAML, mappings are groups."""
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
        except yaml.YAMLError as error:
            value = text
            if text.lstrip()[:1] in ("[", "{"):  # a list or a group, and no word that happens to be no YAML
                problems.append(f"{key}: {text!r} is no YAML: {getattr(error, 'problem', None) or error}")
        if isinstance(value, str) and _EXPONENT.fullmatch(value):  # YAML 1.1 takes 5e-4 for text
            value = float(value)
        changes |= flat({key.replace("-", "_") if word.startswith("--") else key: value})
    if problems:
        raise RecipeError(
            "the command has words that set nothing",
            problems=problems,
            hint="key=value, as in epochs=20; lists and groups as YAML in quotes, as in freeze='[stem, neck]'",
        )
    return changes


def flat(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; the free mappings (`loss`, `options`) and those in them stay whole.

    So `augmentation.options.swap={}` takes the place of a recipe file's `swap`, and `….swap.left=right` is added to it.
    """
    result: dict[str, Any] = {}
    for key, value in keys.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in FREE and not inside_free(path):
            result |= flat(value, f"{path}.")
        else:
            result[path] = value
    return result


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key with the sentence that explains it."""
    keys: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= keys_of(kind, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field.description or ""
    return keys


def inside_free(key: str) -> bool:
    """Whether a key lies in a mapping that its owner checks."""
    return any(key.startswith(f"{free}.") for free in FREE)


def unknown_key(key: str, known: Iterable[str], value: Any = None) -> str:
    """What is wrong with a key that is not `known`, and which was meant with its `value`."""
    inside = [path for path in known if path.startswith(f"{key}.")]
    if not inside:
        if (here := DARKNET.get(key)) is not None:
            return f"a word of darknet's cfg files: {here} here"
        return f"unknown key{_nearest(key, known)}"
    meant = f" (did you mean {key}.name={value}?)" if isinstance(value, str) and f"{key}.name" in inside else ""
    return f"a group of keys: {', '.join(inside)}{meant}"


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


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings; the inverse of `flat`."""
    result: dict[str, Any] = {}
    for path, value in keys.items():
        place = result
        *parents, last = path.split(".")
        for parent in parents:
            inner = place.get(parent)
            place[parent] = place = dict(inner) if isinstance(inner, Mapping) else {}
        place[last] = value
    return result


def sentences(errors: Iterable[Mapping[str, Any]], under: tuple[str | int, ...] = ()) -> list[str]:
    """pydantic's errors in words, one per key: key (its path begins with `under`), what was expected, what was got."""
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for found in errors:
        key = _path(part for part in (*under, *found["loc"]) if not _is_type_name(part)) or "recipe"
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
    if first["type"] == "literal_error" and isinstance(value, str):
        got += did_you_mean(value, re.findall(r"'([^']+)'", message))
    return f"expected {message[0].lower()}{message[1:]}{got}"


def _path(parts: Iterable[Any]) -> str:
    """Words with dots between them, places in a list in brackets: stages[1].epochs."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def _is_type_name(part: Any) -> bool:
    return isinstance(part, str) and (part in ("int", "float", "str") or part.startswith(("tuple[", "constrained-")))
