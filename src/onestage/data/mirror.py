"""Classes that are one another's mirror image, as left and right signs: swapped when mirrored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onestage.errors import RecipeError, did_you_mean
from onestage.records import Annotations

_HINT = "write {left: right}, one entry per pair; each works both ways"


@dataclass(frozen=True)
class Swap:
    """Pairs of class names that a mirror exchanges; once the classes are known, `labels[label]` is the mirrored one."""

    pairs: tuple[tuple[str, str], ...] = ()
    labels: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Swap:
        """From a mapping {name: name} or a list of pairs; RecipeError for what is none, all problems at once."""
        if isinstance(value, Swap):
            return value
        listed = list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise RecipeError(f"swap: expected pairs of class names, got {value!r}", hint=_HINT)
        partner: dict[str, str] = {}
        problems = []
        for entry in listed:
            pair = [entry] if isinstance(entry, str) or not isinstance(entry, Sequence) else list(entry)
            if len(pair) != 2 or any(isinstance(name, (Mapping, list, tuple)) or name is None for name in pair):
                problems.append(f"expected two class names, got {entry!r}")
                continue
            a, b = map(str, pair)  # YAML takes a class called 30 for a number
            if a == b:
                problems.append(f"{a!r} is paired with itself; a class that looks the same mirrored is left out")
            elif partner.get(a, b) != b or partner.get(b, a) != a:
                other = a if partner.get(a, b) != b else b
                problems.append(f"{other!r} is in two pairs")
            partner.setdefault(a, b)
            partner.setdefault(b, a)
        if problems:
            raise RecipeError("swap: not pairs of classes", problems=problems, hint=_HINT)
        return cls(tuple(dict.fromkeys((min(pair), max(pair)) for pair in partner.items())))

    def among(self, classes: Sequence[str]) -> Swap:
        """The same for these classes, in the order of their labels; RecipeError naming every unknown one."""
        place = {name: label for label, name in enumerate(classes)}
        unknown = [name for pair in self.pairs for name in pair if name not in place]
        if unknown:
            raise RecipeError(
                "swap names classes that the data has not",
                problems=[f"{name!r}{did_you_mean(name, classes)}" for name in unknown],
                hint=f"its classes are {', '.join(classes)}; swap={{}} where none is the mirror image of another",
            )
        labels = list(range(len(classes))) if self.pairs else []
        for a, b in self.pairs:
            labels[place[a]], labels[place[b]] = place[b], place[a]
        return replace(self, labels=tuple(labels))


AS_IT_IS = Swap()
"""No class is another's mirror image."""


def mirrored(annotations: Annotations, swap: Swap) -> Annotations:
    """The annotations of a mirrored picture with their classes exchanged; labels beyond the classes stay.

    Raises ValueError for names whose classes are not known yet: they would be passed over in silence.
    """
    if not swap.pairs:
        return annotations
    if not swap.labels:
        raise ValueError("swap: the classes of the data are not known yet; use onestage.data.augment.for_classes")
    table = np.array(swap.labels, np.int64)
    labels = annotations.labels
    known = labels < len(table)
    return replace(annotations, labels=np.where(known, table[np.where(known, labels, 0)], labels))
