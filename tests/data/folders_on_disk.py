"""Small datasets made on disk for the tests of readers: images with cv2, annotations as text."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onestage.data.dataset import Dataset


def picture(path: Path, width: int = 60, height: int = 40, seed: int | None = None) -> Path:
    """An image file; its pixels follow from its name, so that two names give two files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.stem.encode("utf-8", "surrogateescape")) if seed is None else seed)
    ok, data = cv2.imencode(path.suffix, rng.integers(0, 255, (height, width, 3), np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that asks for this orientation."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def voc_xml(
    objects: Sequence[tuple[Any, ...]] = (), filename: str = "", size: tuple[int, int] | None = (60, 40), more: str = ""
) -> str:
    """VOC XML, one line per element; objects are (name, xmin, ymin, xmax, ymax)."""
    lines = ["<annotation>", f"<filename>{filename}</filename>"]
    if size:
        lines.append(f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>")
    for name, *corners in objects:
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
        lines.append(f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>"])


def voc(root: Path, files: dict[str, Sequence[tuple[Any, ...]]], lists: dict[str, Sequence[str]] | None = None) -> Path:
    """A VOC folder with images of 60x40."""
    for stem, objects in files.items():
        picture(root / "JPEGImages" / f"{stem}.jpg")
        write(root / "Annotations" / f"{stem}.xml", voc_xml(objects, f"{stem}.jpg"))
    for name, stems in (lists or {}).items():
        write(root / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems) + "\n")
    return root


def coco(path: Path, images: Sequence[Any], annotations: Sequence[Any], categories: Sequence[Any]) -> Path:
    """A COCO JSON; the image files are not made."""
    return write(path, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def yolo(root: Path, files: dict[str, str | None], folder: str = "") -> Path:
    """images/FOLDER and labels/FOLDER; None is an image without a label file."""
    for stem, text in files.items():
        picture(root / "images" / folder / f"{stem}.jpg")
        if text is not None:
            write(root / "labels" / folder / f"{stem}.txt", text)
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def codes(dataset: Any) -> list[str]:
    """The codes of all findings, in order."""
    return [finding.code for finding in dataset.findings]


def only(dataset: Dataset) -> Any:
    """The annotations of a dataset's single image."""
    (image,) = dataset.images
    return dataset.annotations[image.id]
