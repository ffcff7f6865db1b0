"""The words of a command: places (paths and names) and keys, key=value or --key value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onestage.errors import UsageError, did_you_mean
from onestage.training.recipe.keys import parse_assignments


def split_words(words: Sequence[str] | None) -> tuple[list[str], dict[str, Any]]:
    """(places, keys) of a command line; a word that follows `--key` is its value. RecipeError for a key without one."""
    places: list[str] = []
    keys: list[str] = []
    rest = list(words or ())
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and "=" not in word and rest and not rest[0].startswith("--"):
            keys += [word, rest.pop(0)]
        elif word.startswith("--") or _is_assignment(word):
            keys.append(word)
        else:
            places.append(word)
    return places, parse_assignments(keys)


def known_only(verb: str, keys: Mapping[str, Any], known: Iterable[str]) -> None:
    """UsageError that names every key the verb does not take, and what may have been meant."""
    known = list(known)
    wrong = [f"{key}: unknown key{did_you_mean(key, known)}" for key in keys if key not in known]
    if wrong:
        raise UsageError(f"{verb} does not know {'these keys' if len(wrong) > 1 else 'this key'}", problems=wrong,
                         hint=f"onestage {verb} --help lists its keys")  # fmt: skip


def at_most(verb: str, places: Sequence[str], most: int, what: str) -> None:
    """UsageError where more places are given than the verb takes."""
    if len(places) > most:
        raise UsageError(
            f"{verb}: one {what} is expected, got {', '.join(map(repr, places))}", hint="keys are written key=value"
        )


def listed(value: Any) -> tuple[str, ...] | None:
    """A list of words, written [a,b] or a,b; None where nothing is given."""
    if value is None:
        return None
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else (value,)
    return tuple(word for one in words if (word := str(one).strip()))


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether the value of a key is a number from `low` to `high`; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_assignment(word: str) -> bool:
    """`epochs=3` sets a key; `./a=b/c.json` is a path."""
    key, given, _ = word.partition("=")
    return bool(given) and all(part.isidentifier() for part in key.split("."))
