"""What became of every tensor when a detector got its weights: loaded, skipped, afresh, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """What became of every tensor: `loaded`, `skipped` (in the file only, or unfit), `initialised` (kept as made).

    A tensor of another shape in the file is both skipped and initialised. `why` says of some names why they were not
    loaded, `shapes` the shapes the model has them in; `notes` are what the user should know of the file.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    initialised: tuple[str, ...]
    why: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded, {len(self.skipped)} skipped, "
            f"{len(self.initialised)} initialised afresh"
        )

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON, the names of what was loaded and initialised left out."""
        return {
            "source": self.source, "loaded": len(self.loaded), "skipped": list(self.skipped),
            "initialised": len(self.initialised), **({"notes": list(self.notes)} if self.notes else {}),
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """One row for every tensor of the model, in its order, then for those that are in the file only.

        {"tensor", "shape", "becomes" ("loaded", "initialised" or "skipped"), "why"}.
        """
        loaded, own = set(self.loaded), {*self.loaded, *self.initialised}
        rest = [name for name in own if name not in self.shapes]
        mine = [name for name in [*self.shapes, *sorted(rest)] if name in own]
        return [
            *(self._row(name, "loaded" if name in loaded else "initialised") for name in mine),
            *(self._row(name, "skipped") for name in self.skipped if name not in own),
        ]

    def _row(self, name: str, becomes: str) -> dict[str, Any]:
        shape = self.shapes.get(name)
        return {
            "tensor": name, "shape": None if shape is None else list(shape), "becomes": becomes,
            "why": self.why.get(name, ""),
        }  # fmt: skip
