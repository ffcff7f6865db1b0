"""How many truths an augmentation left out of the training, and why, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Filtered:
    """Truths that augmentation made `ignore`, of all `of` that it met: too `small`, or `cut` by the border.

    The same face counts anew in every sample that shows it. `min_face` is in pixels of the network's input.
    """

    small: int
    cut: int
    of: int
    min_face: float

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]], min_face: float) -> Filtered | None:
        """The sum over rows of steps.jsonl; None where none of them says anything, as with most policies."""
        seen = [row["filtered"] for row in rows if isinstance(row.get("filtered"), Mapping)]
        if not seen:
            return None
        small, cut, of = (sum(int(one.get(name) or 0) for one in seen) for name in ("small", "cut", "of"))
        return cls(small, cut, of, min_face)

    @property
    def share(self) -> float:
        """The share of truths that are too small, 0 … 1."""
        return self.small / self.of if self.of else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.of:
            return "the samples showed no truth"
        cut = f", {_percent(self.cut, self.of)} cut by the border" if self.cut else ""
        size = f"{_percent(self.small, self.of)} of {self.of:,} truths under {self.min_face:g} px"
        return f"{size}{cut}: ignored, none taken for background"


def _percent(part: int, whole: int) -> str:
    """Whole percents, and never 0 % of what there is or 100 % of what is not all."""
    share = 100 * part / whole
    if 0 < part < whole and not 0.5 <= share < 99.5:
        return f"{share:.1f} %" if 0.05 <= share < 99.95 else "under 0.1 %" if share < 1 else "over 99.9 %"
    return f"{share:.0f} %"
