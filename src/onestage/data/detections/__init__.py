"""Detection files of any program, read as those of a dataset; the dict of their formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from onestage.data.detections import cartucho, coco_json, comp4, csv_table, darknet, fddb, visdrone, widerface, yolo_txt
from onestage.data.detections.rows import Rows


class DetectionFormat(Protocol):
    """What each module of this folder offers that reads detections."""

    NAME: str
    LOOKED_FOR: str

    def recognise(self, path: Path) -> str | None:
        """Why `path` is taken for this format, in words; None where it is not. Cheap, by content."""

    def read(self, path: Path) -> Rows:
        """All rows; those that cannot be read as findings."""


FORMATS: Mapping[str, DetectionFormat] = {
    "coco": cast(DetectionFormat, coco_json),
    "comp4": cast(DetectionFormat, comp4),
    "yolo": cast(DetectionFormat, yolo_txt),
    "darknet": cast(DetectionFormat, darknet),
    "cartucho": cast(DetectionFormat, cartucho),
    "csv": cast(DetectionFormat, csv_table),
    "visdrone": cast(DetectionFormat, visdrone),
    "fddb": cast(DetectionFormat, fddb),
    "widerface": cast(DetectionFormat, widerface),
}
# Formats that name no class: theirs is the only one of the truth.
ONE_CLASS = ("widerface", "fddb")


def recognise(path: Path) -> list[tuple[str, str]]:
    """What the detections at `path` may be: (name in FORMATS, why, in words); [] where nothing fits."""
    return [(name, why) for name, module in FORMATS.items() if (why := module.recognise(path))]
