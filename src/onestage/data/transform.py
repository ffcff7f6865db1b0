"""Large photographs cut into tiles, boxes clipped; tiles written as COCO."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onestage.boxes.geometry import clip, ioa
from onestage.data.images import Pixels
from onestage.errors import StorageError
from onestage.records import Annotations, FloatArray

Window = tuple[int, int, int, int]
JPEG_QUALITY = 95


@dataclass(frozen=True, eq=False)
class Tile:
    """A piece of a photograph: its window there (xyxy, half-open), its pixels, its annotations from its own corner."""

    window: Window
    image: Pixels
    annotations: Annotations


def windows(width: int, height: int, size: int = 320, overlap: float = 0.5) -> list[Window]:
    """Windows that together cover a picture of `width` x `height`, row by row; a pure function of its arguments.

    With `overlap` in (0, 1) every window is `size` x `size` (or the picture's side where that is smaller), neighbours
    share at least that part of a side, they stand at even distances, and the last ends at the edge. With `overlap` 0
    the picture is cut into cells of at most `size` a side, as equal as whole pixels allow: each pixel lies in exactly
    one, so that nothing is counted twice. Raises ValueError for a size below 1 or an overlap outside [0, 1).
    """
    if size < 1 or not 0 <= overlap < 1:
        raise ValueError(f"windows: expected size >= 1 and overlap in [0, 1), got {size} and {overlap}")
    columns, rows = _spans(width, size, overlap), _spans(height, size, overlap)
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def crop(image: Pixels, annotations: Annotations, window: Window, min_visible: float = 0.4) -> Tile:
    """The piece of `image` (H, W, …) inside `window`, with boxes clipped and moved to its corner.

    A box stays when at least `min_visible` of its own area (IoA) lies inside. An `area` among the extra columns is
    scaled by the visible share. The pixels are a view on the image, not a copy.
    """
    left, top, right, bottom = window
    frame = np.array([window], np.float64)
    visible = ioa(annotations.boxes, frame)[:, 0]
    keep = np.flatnonzero((visible > 0) & (visible >= min_visible))
    corner = np.array([left, top, left, top], np.float64)
    kept = annotations.take(keep, clip(annotations.boxes[keep] - corner, right - left, bottom - top))
    if "area" in kept.extra:
        scaled = {**kept.extra, "area": kept.extra["area"] * visible[keep]}
        kept = Annotations(kept.boxes, kept.labels, kept.difficult, kept.ignore, kept.crowd, scaled)
    return Tile(window, image[top:bottom, left:right], kept)


def tile(
    image: Pixels, annotations: Annotations, size: int = 320, overlap: float = 0.5, min_visible: float = 0.4,
    ground: Window | None = None,
) -> list[Tile]:  # fmt: skip
    """A photograph cut into tiles by `windows`; with `ground`, only that part of it (xyxy, half-open) is cut up.

    Pieces without boxes are returned too: they are negatives. Visible shares are of the whole box, also where it
    reaches beyond `ground`.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = ground or (0, 0, width, height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"tile: expected ground inside the picture of {width}x{height}, got {ground}")
    places = windows(right - left, bottom - top, size, overlap)
    moved = [(x1 + left, y1 + top, x2 + left, y2 + top) for x1, y1, x2, y2 in places]
    return [crop(image, annotations, window, min_visible) for window in moved]


def split_ground(width: int, height: int, right_part: int, margin: int) -> tuple[Window, Window]:
    """A picture's left part and its rightmost `right_part` pixels, with `margin` pixels between that belong to neither.

    Where no box is wider than the margin, no object shows in both.
    """
    if margin < 0 or right_part < 1 or right_part + margin >= width:
        raise ValueError(f"split_ground: {right_part} and a margin of {margin} leave nothing of {width} pixels")
    return (0, 0, width - right_part - margin, height), (width - right_part, 0, width, height)


def write_coco(out: Path, split: str, classes: Iterable[str], pieces: Iterable[tuple[str, Tile]]) -> dict[str, int]:
    """Tiles as `images/<split>/<name>.jpg` and `annotations/instances_<split>.json`; how many images and boxes.

    Category ids are label + 1, image and annotation ids count from 1, JPEG quality is 95. A region to ignore is
    written as a crowd, which is what COCO's judge leaves out of the count.
    """
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    for image_id, (name, piece) in enumerate(pieces, 1):
        file_name = f"{name}.jpg" if name not in taken else f"{name}_{image_id}.jpg"
        taken.add(name)
        height, width = piece.image.shape[:2]
        write_jpeg(out / "images" / split / file_name, piece.image)
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for index in range(len(piece.annotations)):
            rows.append({"id": len(rows) + 1, "image_id": image_id, **_coco_row(piece.annotations, index)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    document = {"images": images, "annotations": rows, "categories": categories}
    text = json.dumps(document, separators=(",", ":")) + "\n"
    write_whole(out / "annotations" / f"instances_{split}.json", text.encode())
    return {"images": len(images), "boxes": len(rows)}


def tile_name(stem: str, window: Window) -> str:
    """The file name of a tile, without ending: its photograph and its left upper corner there."""
    return f"{re.sub(r'[^0-9A-Za-z_.-]+', '_', stem)}_x{window[0]:04d}_y{window[1]:04d}"


def write_jpeg(path: Path, image: Pixels) -> None:
    """RGB pixels (H, W, 3) as a JPEG file of quality 95; StorageError where it cannot be written."""
    _, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_whole(path, code.tobytes())


def write_whole(path: Path, content: bytes) -> None:
    """A file with its folders; StorageError where the disk is full or the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        hint = "free some space, or choose another folder"
        raise StorageError(f"cannot write {path}: {error.strerror}", hint=hint) from error


def _spans(length: int, size: int, overlap: float) -> list[tuple[int, int]]:
    if length <= size:
        return [(0, length)]
    if overlap == 0:
        cells = -(-length // size)
        edges = [length * index // cells for index in range(cells + 1)]
        return list(itertools.pairwise(edges))
    stride = max(1, int(size * (1 - overlap)))
    steps = -(-(length - size) // stride)
    starts = [(length - size) * index // steps for index in range(steps + 1)]
    return [(start, start + size) for start in starts]


def _coco_row(truth: Annotations, index: int) -> dict[str, Any]:
    left, top, right, bottom = (_plain(value) for value in truth.boxes[index])
    width, height = right - left, bottom - top
    area = truth.extra["area"][index] if "area" in truth.extra else width * height
    row = {
        "category_id": int(truth.labels[index]) + 1, "bbox": [left, top, width, height], "area": _plain(area),
        "iscrowd": int(truth.crowd[index] or truth.ignore[index]),
    }  # fmt: skip
    flags = {"difficult": truth.difficult[index], "ignore": truth.ignore[index]}
    return {**row, **{name: 1 for name, value in flags.items() if value}}


def _plain(value: FloatArray | float) -> float:
    number = float(value)
    return int(number) if number.is_integer() else number
