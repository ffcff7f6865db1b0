"""Annotation formats: one file per family, each read and written; the dict of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from onestage.data.dataset import Dataset
from onestage.data.formats import coco, facelist, fddb, visdrone, voc, widerface, yolo
from onestage.records import Finding


class Format(Protocol):
    """What each module of this folder offers."""

    NAME: str
    LOOKED_FOR: str

    def recognise(self, root: Path) -> str | None:
        """Why `root` is taken for this format, in words; None where it is not."""

    def splits(self, root: Path) -> list[str]:
        """The names of the sets that the folder itself names."""

    def read(
        self, root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True
    ) -> Dataset:
        """One split, or everything.

        `probe_images=False` is for judging detections: boxes stay as written, and no image is needed but where the
        format gives shares of its size (YOLO).
        """

    def read_splits(
        self,
        root: Path,
        names: Sequence[str | None],
        classes: Sequence[str] | None = None,
        *,
        probe_images: bool = True,
    ) -> list[Dataset]:
        """Several splits as by `read`, each file read once, all with the same classes."""

    def write(self, dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
        """Writes one split; the findings tell what the format cannot hold."""


READERS: Mapping[str, Format] = {
    "coco": cast(Format, coco),
    "voc": cast(Format, voc),
    "visdrone": cast(Format, visdrone),
    "yolo": cast(Format, yolo),
    "fddb": cast(Format, fddb),
    "widerface": cast(Format, widerface),
    "facelist": cast(Format, facelist),
}


def recognise(path: Path) -> list[tuple[str, str]]:
    """What `path` may be: (name in READERS, why, in words), the most telling first; [] where nothing fits.

    A data.yaml or .data file says outright that a folder is YOLO's; bare label files say so only where nothing else
    fits, for many VOC and COCO folders carry converted labels beside the originals.
    """
    found = [(name, why) for name, reader in READERS.items() if (why := reader.recognise(path))]
    return sorted(found, key=lambda pair: not (pair[0] == "yolo" and yolo.declared(path)))
