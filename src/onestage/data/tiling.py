"""A dataset cut into tiles and written; objects that a border cuts are ignored, all is counted."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from onestage.boxes.geometry import area, clip
from onestage.data.dataset import Dataset
from onestage.data.formats import READERS
from onestage.data.formats.files import put_text
from onestage.data.images import Pixels, decode
from onestage.data.transform import Window, tile_name, windows, write_jpeg, write_whole
from onestage.errors import DataError, StorageError
from onestage.records import Annotations, BoolArray, Finding, FloatArray, ImageId, ImageInfo

Cut = Literal["ignore", "clip", "drop"]
CUTS: tuple[str, ...] = get_args(Cut)
FLAGLESS = ("yolo", "voc")
"""Formats that have no way to say that a region is to be ignored."""
FORMATS = ("coco", "visdrone", *FLAGLESS)
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_WHOLE = 1 - 1e-9


@dataclass(frozen=True)
class Tiling:
    """How photographs are cut, and what becomes of an object of which a tile shows a part.

    Tiles are `size` pixels a side (or the photograph's side where that is smaller), neighbours share at least `overlap`
    of it, the last ends at the edge. An object of which a tile shows at least `visible` of its area stays a truth, cut
    at the border. One of which it shows less is by `cut`:

    - ignore: a region to ignore. Nothing is learnt there, neither that it is an object nor that it is background.
    - drop: left out. Its part is background, which teaches that a half car is none; for repeating what others did.
    - clip: a truth all the same, as small a part as shows; `visible` does not count.

    `empty=False` writes no tiles without a truth. Parts under a pixel are not shown to anybody and left out.
    """

    size: int = 608
    overlap: float = 0.2
    cut: Cut = "ignore"
    visible: float = 0.9
    empty: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.size < 16:
            problems.append(f"size: expected at least 16 pixels, got {self.size}")
        if not 0 <= self.overlap <= 0.95:
            problems.append(f"overlap: expected 0 to 0.95, got {self.overlap:g}")
        if self.cut not in CUTS:
            problems.append(f"cut: expected one of {', '.join(CUTS)}, got {self.cut!r}")
        if not 0 < self.visible <= 1:
            problems.append(f"visible: expected a share above 0 up to 1, got {self.visible:g}")
        if problems:
            raise ValueError("; ".join(problems))


@dataclass
class Counts:
    """What became of one set.

    `objects` are those of the photographs that count; `truths` the rows of the tiles that do, of which `clipped` are
    not whole; `ignored` and `dropped` the views of objects that were cut too much. Of the objects `repeated` are truths
    in several tiles and `never` in none; `widest` is the longest side of the latter, in pixels.
    """

    photographs: int = 0
    tiles: int = 0
    empty: int = 0
    objects: int = 0
    truths: int = 0
    clipped: int = 0
    ignored: int = 0
    dropped: int = 0
    repeated: int = 0
    never: int = 0
    widest: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Piece:
    """What a tile shows of a photograph's objects: annotations from its own corner, and what became of each object.

    `truth`, `clipped`, `ignored`, `dropped` are masks over the photograph's rows; only rows that count are in them.
    """

    annotations: Annotations
    truth: BoolArray
    clipped: BoolArray
    ignored: BoolArray
    dropped: BoolArray


def cut_out(annotations: Annotations, window: Window, tiling: Tiling, ground: tuple[int, int]) -> Piece:
    """What is to be seen through `window` (xyxy) of the annotations of a photograph of size `ground`.

    Regions to ignore and crowds stay ignored, whatever shows of them. Boxes that reach beyond the photograph end with
    it: that border cuts nothing off.
    """
    left, top, right, bottom = window
    whole = clip(annotations.boxes, *ground)
    shown = clip(whole - np.array([left, top, left, top], np.float64), right - left, bottom - top)
    seen = ((shown[:, 2:] - shown[:, :2]) >= 1.0).all(1) | _entirely(shown, whole)
    share = _shares(shown, whole)
    aside = annotations.ignore | annotations.crowd
    complete = share >= _WHOLE
    enough = complete | (share >= tiling.visible) | (tiling.cut == "clip")
    ignored = seen & ~aside & ~enough & (tiling.cut == "ignore")
    dropped = seen & ~aside & ~enough & (tiling.cut == "drop")
    truth = seen & ~aside & enough
    keep = np.flatnonzero(seen & ~dropped)
    kept = annotations.take(keep, shown[keep])
    extra = {name: column for name, column in kept.extra.items() if column.ndim == 1}  # no shapes of the whole picture
    if "area" in extra:
        extra["area"] = extra["area"] * share[keep]
    if "score" in extra:  # VisDrone's, which says whether a row counts
        extra["score"] = np.where(ignored[keep], 0, extra["score"])
    kept = replace(kept, ignore=kept.ignore | ignored[keep], extra=extra)
    return Piece(kept, truth, truth & ~complete, ignored, dropped)


def _shares(shown: FloatArray, whole: FloatArray) -> FloatArray:
    areas = area(whole)
    result: FloatArray = np.divide(area(shown), areas, out=np.zeros(len(whole)), where=areas > 0)
    return result


def _entirely(shown: FloatArray, whole: FloatArray) -> BoolArray:
    """Boxes that are shown whole, however thin."""
    sides, own = shown[:, 2:] - shown[:, :2], whole[:, 2:] - whole[:, :2]
    return np.asarray(((sides >= own) & (own > 0)).all(1), np.bool_)


def tile_dataset(
    sets: Mapping[str, Dataset], out: Path, tiling: Tiling | None = None, form: str = "coco",
    read: Callable[[Path], Pixels] | None = None, progress: Callable[[], None] | None = None,
) -> tuple[dict[str, Counts], list[Finding]]:  # fmt: skip
    """Every image of every set (name → Dataset) cut up and written to the folder `out`; the counts and what was lost.

    `form` is one of FORMATS. Tiles are PNG where the photograph is without loss, else JPEG of quality 95. Beside the
    set lies tiles.csv: each tile's set, photograph and window there, so that what is found on tiles can be put
    together. `out` is made beside its place and moved there whole. Raises DataError for an unreadable image and for a
    folder that holds something, StorageError where it cannot be written, ValueError for `form` without flags where
    objects would have to be ignored.
    """
    tiling = tiling or Tiling()
    if form in FLAGLESS and tiling.cut == "ignore":
        raise ValueError(f"{form} has no regions to ignore")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} holds something already", hint="name a new folder")
    found: list[Finding] = []
    counts: dict[str, Counts] = {}
    places = [("set", "tile", "photograph", "left", "top", "right", "bottom")]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
            built = Path(beside) / "set"
            for name, dataset in sets.items():
                cutting = _Cutting(dataset, tiling, Path(beside) / "tiles" / name, read or decode, progress)
                tiles = cutting.tiles(name)
                found += READERS[form].write(tiles, built, "link")
                counts[name] = cutting.counts
                places += [(name, *place) for place in cutting.places]
            put_text(built / "tiles.csv", _csv(places))
            built.replace(out)
    except OSError as error:
        hint = "free some space, or choose another folder"
        raise StorageError(f"cannot write {out}: {error.strerror}", hint=hint) from error
    return counts, found


@dataclass
class _Cutting:
    """One set on its way into tiles, which lie in `folder` until they are given their place."""

    dataset: Dataset
    tiling: Tiling
    folder: Path
    read: Callable[[Path], Pixels]
    progress: Callable[[], None] | None

    def __post_init__(self) -> None:
        self.counts = Counts()
        self.places: list[tuple[str, str, str, str, str, str]] = []
        self.images: list[ImageInfo] = []
        self.truths: dict[ImageId, Annotations] = {}

    def tiles(self, split: str) -> Dataset:
        """The set of tiles."""
        for image in self.dataset.images:
            self._cut(image, self.dataset.annotations[image.id])
            if self.progress is not None:
                self.progress()
        return Dataset(
            self.folder, self.dataset.format, split, self.dataset.classes, tuple(self.images), self.truths,
            images_read=len(self.images),
        )  # fmt: skip

    def _cut(self, image: ImageInfo, truth: Annotations) -> None:
        pixels = self.read(image.path)
        ground = pixels.shape[1], pixels.shape[0]
        counted, often = ~(truth.ignore | truth.crowd), np.zeros(len(truth), np.int64)
        counts = self.counts
        counts.photographs += 1
        counts.objects += int(counted.sum())
        for window in windows(*ground, self.tiling.size, self.tiling.overlap):
            piece = cut_out(truth, window, self.tiling, ground)
            often += piece.truth
            if not self.tiling.empty and not piece.truth.any():
                continue
            counts.tiles += 1
            counts.empty += not piece.truth.any()
            for name in ("clipped", "ignored", "dropped"):
                setattr(counts, name, getattr(counts, name) + int(getattr(piece, name).sum()))
            counts.truths += int(piece.truth.sum())
            self._put(image, window, pixels, piece.annotations)
        never = counted & (often == 0)
        counts.repeated += int((often > 1).sum())
        counts.never += int(never.sum())
        if never.any():
            sides = truth.boxes[never, 2:] - truth.boxes[never, :2]
            counts.widest = max(counts.widest, float(sides.max()))

    def _put(self, image: ImageInfo, window: Window, pixels: Pixels, annotations: Annotations) -> None:
        left, top, right, bottom = window
        name = tile_name(str(image.id), window)
        while name in self.truths:
            name += "+"
        path = self.folder / (name + (".png" if image.path.suffix.lower() in _LOSSLESS else ".jpg"))
        part = pixels[top:bottom, left:right]
        if path.suffix == ".png":
            write_whole(path, cv2.imencode(".png", cv2.cvtColor(part, cv2.COLOR_RGB2BGR))[1].tobytes())
        else:
            write_jpeg(path, part)
        self.images.append(ImageInfo(name, path, right - left, bottom - top))
        self.truths[name] = annotations
        self.places.append((name + path.suffix, str(image.id), *map(str, window)))  # type: ignore[arg-type]


def _csv(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
