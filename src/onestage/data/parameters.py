"""Parameters of an augmentation policy: changed by name, checked for kind and range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from onestage.data.mirror import Swap
from onestage.errors import RecipeError, did_you_mean

T = TypeVar("T")


def shares(policy: object, *names: str) -> None:
    """ValueError where a parameter, or a number of a list, is not within 0 … 1."""
    for name in names:
        value = getattr(policy, name)
        if not all(0 <= part <= 1 for part in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{type(policy).__name__}.{name}: expected 0 to 1, got {value}")


def spans(policy: object, *names: str) -> None:
    """ValueError where a parameter is no span of two positive numbers, the lower first."""
    for name in names:
        low, high = getattr(policy, name)
        if not 0 < low <= high:
            raise ValueError(f"{type(policy).__name__}.{name}: expected 0 < low <= high, got ({low}, {high})")


def changed(thing: T, overrides: Mapping[str, Any], owner: str) -> T:
    """A dataclass with some fields replaced: nested ones by mappings, tuples by lists, pairs of classes by either."""
    known = {part.name for part in fields(thing)}  # type: ignore[arg-type]
    unknown = [f"{word!r}{did_you_mean(word, known)}" for word in overrides if word not in known]
    if unknown:
        raise RecipeError(f"{owner} has no such parameter", problems=unknown, hint=f"it has {', '.join(sorted(known))}")
    values, problems = {}, []
    for word, value in overrides.items():
        present = getattr(thing, word)
        if isinstance(present, Swap):
            value = Swap.of(value)
        elif isinstance(value, Mapping) and is_dataclass(present):
            value = changed(present, value, f"{owner}, {word}")
        elif isinstance(present, tuple) and isinstance(value, list | tuple):
            value = tuple(value)
        if type(value) is not type(present) and not (isinstance(present, float) and type(value) is int):
            problems.append(f"{word}: expected {_kind(present)}, got {value!r}")
        values[word] = value
    if problems:
        raise RecipeError(f"{owner} cannot be changed so", problems=problems)
    try:
        result: T = replace(thing, **values)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{owner}: {error}") from None
    return result


def _kind(value: object) -> str:
    """What a parameter must look like, told by its default."""
    if isinstance(value, Swap):
        return "pairs of class names"
    if is_dataclass(value):
        return "a mapping of " + ", ".join(part.name for part in fields(value))
    return f"a list of {len(value)} numbers" if isinstance(value, tuple) else f"a {type(value).__name__}"
