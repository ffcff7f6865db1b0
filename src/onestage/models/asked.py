"""What a detector is asked to be in Python: its model, classes and input size, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any

from onestage import models
from onestage.errors import UsageError


def model_and_options(model: str | Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A model's name and its options: a cfg of darknet's is the option of the model "darknet".

    ModelError where the options name another cfg.
    """
    keys = models.named({"model": str(model), **({"options.cfg": options["cfg"]} if "cfg" in options else {})})
    cfg = keys.get("options.cfg")
    return str(keys["model"]), {**options, **({} if cfg is None else {"cfg": cfg})}


def class_names(classes: int | Sequence[str] | None) -> tuple[str, ...]:
    """Names in the order of the labels, numbers where their count is given, () where nothing is; else UsageError."""
    if isinstance(classes, str):
        raise UsageError(f"classes: expected a list of names, got the text {classes!r}", hint=f"classes=[{classes!r}]")
    if isinstance(classes, int) and not isinstance(classes, bool):
        if classes < 1:
            raise UsageError(f"classes: expected at least 1, got {classes}")
        return tuple(map(str, range(classes)))
    if isinstance(classes, bool | Mapping) or not isinstance(classes, Iterable | None):
        raise UsageError(f"classes: expected a list of names or a number, got {classes!r}")
    names = () if classes is None else tuple(classes)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"classes: expected names, got {wrong[0]!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"classes: names must differ, got {', '.join(twice)} more than once")
    return names


def input_size(size: Any) -> tuple[int, int] | None:
    """(width, height) of one number or of two, None for None; UsageError for anything else."""
    if size is None:
        return None
    sides = size if isinstance(size, list | tuple) else (size, size)
    try:
        width, height = map(index, sides)
    except (TypeError, ValueError):
        width = height = 0
    if min(width, height) < 1:
        raise UsageError(f"size: expected a number of pixels or (width, height), got {size!r}")
    return width, height
