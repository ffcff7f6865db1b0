"""Names of splits: which word means training, validation or test, and in which order they are told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Role = Literal["train", "trainval", "val", "test"]
_WORDS: dict[Role, str] = {
    "train": r"train(ing)?([-_]?set)?[-_]?\d*",
    "val": r"val(id|idation)?([-_]?set)?[-_]?\d*|dev([-_]?set)?|minival[-_]?\d*",
    "trainval": r"trainval([-_]?set)?[-_]?\d*",
    "test": r"test(ing)?([-_]?set)?[-_]?\d*|test-dev\d*",
}


def role(name: str) -> Role | None:
    """What a split of that name is for: 'valid', 'val2017' → 'val'; None for any other word."""
    return next((key for key, pattern in _WORDS.items() if re.fullmatch(pattern, name.lower())), None)


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted: training first, then validation, both, test, and the rest by the alphabet."""
    order = ["train", "val", "trainval", "test", None]
    return sorted(names, key=lambda name: (order.index(role(name)), name))
