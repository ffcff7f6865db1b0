"""A user's keys over the defaults of a model: what loses its meaning beside them is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.training.recipe.keys import FREE, flat, nested
from onestage.training.recipe.schedule import OPTIMISER_KEYS, SCHEDULE_KEYS, inherited

_LENGTHS = ("epochs", "steps", "stages")


def over(keys: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of the dotted `keys` over the dotted `defaults`; mappings such as `options` are joined key by key.

    What a default says of another length, schedule, optimiser, policy or loss than the one that is asked for is left
    out: a cfg's milestones would be an error beside schedule.name=cosine.
    """
    asked, base = nested(keys), nested(_spread(defaults))
    if any(asked.get(name) for name in _LENGTHS):
        base = {name: value for name, value in base.items() if name not in _LENGTHS}
    if _other(asked, base, "augmentation", "policy"):
        base["augmentation"] = {k: v for k, v in base.get("augmentation", {}).items() if k != "options"}
    if _other(asked, base, "options", "loss", "darknet"):  # weights belong to the parts of one loss
        base.pop("loss", None)
    for group, live in (("optimiser", OPTIMISER_KEYS), ("schedule", SCHEDULE_KEYS)):
        own = asked.get(group)
        if isinstance(own, Mapping) and "name" in own and group in base:
            base[group] = inherited(base[group], own, live)
    return _joined(base, asked)


def _other(asked: Mapping[str, Any], base: Mapping[str, Any], group: str, key: str, usual: Any = None) -> bool:
    """Whether `asked` names another `key` of a group than the defaults do."""
    own, inner = asked.get(group), base.get(group, {})
    return isinstance(own, Mapping) and key in own and own[key] != inner.get(key, usual)


def _spread(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with the free mappings by path too, so that single keys of them can be replaced."""
    spread: dict[str, Any] = {}
    for key, value in flat(defaults).items():
        whole = key in FREE and isinstance(value, Mapping)
        spread |= {f"{key}.{name}": inner for name, inner in value.items()} if whole else {key: value}
    return spread


def _joined(base: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked` over `base`, groups key by key."""
    joined = dict(base)
    for key, value in asked.items():
        before = joined.get(key)
        joined[key] = _joined(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return joined
