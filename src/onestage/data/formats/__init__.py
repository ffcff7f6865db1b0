"""Annotation formats: one file per family, each read and written; the front door with all their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from onestage.data.dataset import Dataset
from onestage.data.formats import coco, voc, yolo
from onestage.records import Finding


class Format(Protocol):
    """What each module of this folder offers."""

    NAME: str
    LOOKED_FOR: str

    def recognise(self, root: Path) -> str | None:
        """Why `root` is taken for this format, in words; None where it is not."""

    def splits(self, root: Path) -> list[str]:
        """The names of the sets that the folder itself names."""

    def read(self, root: Path, split: str | None, classes: Sequence[str] | None = None) -> Dataset:
        """One split, or everything."""

    def read_splits(self, root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None) -> list[Dataset]:
        """Several splits, each file read once, all with the same classes."""

    def write(self, dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
        """Writes one split; the findings tell what the format cannot hold."""


# In this order they are asked whether a folder is theirs: the ones with a file that says so come first.
READERS: Mapping[str, Format] = {
    "yolo": cast(Format, yolo),
    "coco": cast(Format, coco),
    "voc": cast(Format, voc),
}


def recognise(path: Path) -> list[tuple[str, str]]:
    """What `path` may be: (name in READERS, why, in words), the most telling first; [] where nothing fits."""
    found = [(name, reader.recognise(path)) for name, reader in READERS.items()]
    return [(name, why) for name, why in found if why]
