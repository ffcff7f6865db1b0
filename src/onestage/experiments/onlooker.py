"""A run as processes see it that must not write it: reading is the run's, writing does nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.experiments.run import Run


class Onlooker(Run):
    """The run in `folder`, which need not be there on this machine; every method that writes does nothing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says; empty where it is not there."""
        return super().info if self.info_path.is_file() else {}

    def write_asked(self, asked: str | Mapping[str, Any]) -> None:
        """Nothing."""

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Nothing."""

    def update(self, **fields: Any) -> None:
        """Nothing."""

    def begin(self, from_step: int = 0, **facts: Any) -> None:
        """Nothing."""

    def finish(self, status: Any = "finished", error: str | None = None) -> None:
        """Nothing."""

    def append_step(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def append_log(self, lines: Sequence[str]) -> None:
        """Nothing."""

    def append_result(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def write_file(self, relative: str, data: bytes) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def replacing(self, relative: str) -> Iterator[Path]:
        """Refuses: what is written here would be lost."""
        raise AssertionError(f"{relative}: this process does not write the run")
        yield Path()
