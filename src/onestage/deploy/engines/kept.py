"""Graphs kept in the cache folder: written whole or not at all, made again where they are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage.fetch.cache import cache_folder, sha256_of, storage


@dataclass(frozen=True)
class Kept:
    """A graph's file in the cache and what is known of it, under a key that names all it was made from."""

    key: str

    @property
    def file(self) -> Path:
        """Where the graph lies."""
        return cache_folder() / "engines" / self.key / "graph.onnx"

    @property
    def _card(self) -> Path:
        return self.file.with_name("graph.json")

    def facts(self) -> dict[str, Any]:
        """What is known of the graph; {} where there is none, or it is not the file that was written."""
        try:
            facts: dict[str, Any] = json.loads(self._card.read_text(encoding="utf-8"))
            return facts if facts.get("sha256") == sha256_of(self.file) else {}
        except (OSError, ValueError, AttributeError):
            return {}

    def get(self, make: Callable[[Path], None]) -> Path:
        """The graph's file; where there is none that is whole, `make` writes one to the path it is given."""
        if not self.facts():
            with storage(self.file.parent):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with _instead(self.file) as fresh:
                    make(fresh)
                self._write({"sha256": sha256_of(self.file)})
        return self.file

    def note(self, **more: Any) -> None:
        """Add to what is known of the graph."""
        with storage(self.file.parent):
            self._write(self.facts() | more)

    def _write(self, facts: dict[str, Any]) -> None:
        with _instead(self._card) as fresh:
            fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _instead(path: Path) -> Iterator[Path]:
    """A fresh path beside `path` that takes its place when the block ends well and is removed otherwise."""
    fresh = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
