"""Writes detections in the formats that a benchmark's own tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from onestage.data.detections import comp4, fddb, widerface, yolo_txt
from onestage.data.formats.files import printable
from onestage.errors import UsageError, did_you_mean
from onestage.records import Detections, ImageId, ImageInfo

# Formats of one class, whose widths may be written one larger.
FACES = ("widerface", "fddb")
WRITTEN = (*FACES, "yolo", "comp4")


def write_detections(
    format: str, detections: Mapping[ImageId, Detections], images: Sequence[ImageInfo], classes: Sequence[str],
    folder: Path, *, split: str = "val", plus_one: bool = False,
) -> str:  # fmt: skip
    """Write the detections of `images` into `folder` in a format of `WRITTEN`; what was written, in words.

    "widerface" EVENT/NAME.txt, "fddb" one file SPLIT-out.txt, "yolo" NAME.txt, "comp4" comp4_det_SPLIT_CLASS.txt. The
    first two know one class: the only one, or "face" of several. Boxes are written as x2 - x1 wide; with `plus_one` the
    first two have one more, which is what FaceBoxes' own programs write and neither benchmark's tool takes off again.

    Raises UsageError for what a format cannot hold, DataError for images that would share a file, StorageError where
    nothing can be written.
    """
    refuse_unwritable(format, classes, plus_one)
    if format in FACES and len(classes) > 1:
        label = list(classes).index("face")
        detections = {image: found.take(found.labels == label) for image, found in detections.items()}
    write: dict[str, Callable[[], object]] = {
        "widerface": lambda: widerface.write(detections, images, folder, plus_one),
        "fddb": lambda: fddb.write(detections, images, folder / f"{split}-out.txt", plus_one),
        "yolo": lambda: yolo_txt.write(detections, images, folder),
        "comp4": lambda: comp4.write({image.id: detections[image.id] for image in images if image.id in detections},
                                     classes, folder, split),
    }  # fmt: skip
    write[format]()
    rows = sum(len(detections[image.id]) for image in images if image.id in detections)
    return f"{rows} detection{'s' * (rows != 1)} in {len(images)} image{'s' * (len(images) != 1)}"


def refuse_filled(folder: Path) -> None:
    """UsageError for a folder that holds something already."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{printable(str(folder))} holds something already", hint="the name of a new folder")


def refuse_unwritable(format: str, classes: Sequence[str], plus_one: bool = False) -> None:
    """UsageError for a format that is not written, or that cannot hold these classes or this convention."""
    if format not in WRITTEN:
        raise UsageError(f"format {format!r} is not written{did_you_mean(format, WRITTEN)}", hint=", ".join(WRITTEN))
    if plus_one and format not in FACES:
        raise UsageError(f"plus_one has no effect on format={format}", hint=f"it is for {' and '.join(FACES)}")
    if format in FACES and len(classes) > 1 and "face" not in classes:
        some = ", ".join(classes[:8]) + " …" * (len(classes) > 8)
        raise UsageError(f"format={format} is for faces, and none of the classes is 'face': {some}",
                         hint="format=yolo or comp4")  # fmt: skip
