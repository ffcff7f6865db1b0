"""Spans of time in a recipe: "500 steps", "3 epochs", "10 %" or a share of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

_WORDS = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)")
EXPECTED = 'a whole number of steps, "500 steps", "3 epochs", "10 %" or a share between 0 and 1'


def as_written(value: Any) -> Any:
    """A span as it stands in a recipe, checked but not counted yet; ValueError in words for what is none."""
    if isinstance(value, str):
        value = value.strip()
        found = _WORDS.fullmatch(value)
        if found and not (found[2].startswith("step") and "." in found[1]) and _at_most_all(found):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0 or 0 < value < 1:
            return value or 0
        if value > 1 and value == int(value):
            return int(value)
        if value == 1 and isinstance(value, int):
            return value
    raise ValueError(f"expected {EXPECTED}")


def _at_most_all(found: re.Match[str]) -> bool:
    return found[2] != "%" or float(found[1]) <= 100


Span = Annotated[int | float | str, BeforeValidator(as_written)]


def in_steps(span: int | float | str, steps: int, steps_per_epoch: int = 0) -> int:
    """A span counted in optimiser steps.

    Shares and per cents are of `steps`, the length of the stage; epochs have `steps_per_epoch`. What comes out is
    rounded to the nearest whole step.
    """
    if isinstance(span, int):
        return span
    if isinstance(span, float):
        return round(span * steps)
    found = _WORDS.fullmatch(span)
    if found is None:
        raise ValueError(f"{span!r}: expected {EXPECTED}")
    if found[2] == "%":
        return round(float(found[1]) / 100 * steps)
    if found[2].startswith("step"):
        return int(found[1])
    if steps_per_epoch < 1:
        raise ValueError(f"{span!r}: how many steps an epoch has is not known here")
    return round(float(found[1]) * steps_per_epoch)


def rising(spans: Sequence[int | float | str]) -> bool:
    """Whether no span is shorter than one before it, as far as spans in one unit tell without knowing the run."""
    last: dict[str, int] = {}
    for span in spans:
        unit = "epochs" if "epoch" in str(span) else "share" if isinstance(span, float) or "%" in str(span) else "steps"
        length = in_steps(span, 10**9, 10**6)
        if length < last.get(unit, 0):
            return False
        last[unit] = length
    return True


def spelled(steps: int) -> str:
    """A number of steps as a completed recipe states it: with its unit."""
    return f"{steps} step" if steps == 1 else f"{steps} steps"
