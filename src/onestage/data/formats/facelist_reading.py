"""One face list as a dataset: lines parsed, images found, every box checked, all oddities listed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.facelist_folder import Parts, Pictures, parts_of
from onestage.data.formats.facelist_lines import Faces, Layout, Line, faces_of, layout_of, lines_of
from onestage.data.formats.files import IMAGE_SUFFIXES, decoded, is_file, leads_out, printable
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import SILENT, Box, number, probed
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, ImageId, ImageInfo

CLASS = "face"
_CORNERS_FROM = 5  # boxes that say whether numbers are corners; fewer may reach beyond their images by chance


@dataclass(slots=True)
class _Face:
    """One box as its line gives it; `sides` are x, y, width, height, `number` its class."""

    line: int
    raw: str
    sides: tuple[float, ...]
    number: int

    @property
    def box(self) -> Box:
        x, y, width, height = self.sides
        return (x, y, x + width, y + height)

    @property
    def is_degenerate(self) -> bool:
        return self.sides[2] <= 0 or self.sides[3] <= 0


@dataclass
class FaceList:
    """A list with its lines parsed and nothing looked up yet; `numbers` are the class numbers of its boxes."""

    path: Path
    split: str
    layout: Layout
    lines: Sequence[Line]
    listing: Listing
    faces: dict[Parts, list[_Face]] = field(default_factory=dict)
    first: dict[Parts, Line] = field(default_factory=dict)
    lost: int = 0
    lost_images: int = 0

    @property
    def numbers(self) -> set[int]:
        """The class numbers of all boxes that have an area."""
        return {face.number for faces in self.faces.values() for face in faces if not face.is_degenerate}


def one_list(path: Path, split: str, root: Path) -> FaceList:
    """The lines of a file as faces by image, in order; what cannot be read is listed.

    Raises DataError where most lines fit no layout, or hold shares of the image.
    """
    text = decoded(path.read_bytes())
    lines = lines_of(text)
    layout, fitting, told = layout_of(lines)
    if layout is None:
        raise _no_layout(path, lines, fitting, told)
    one = FaceList(path, split, layout, lines, Listing(root))
    for line in lines:
        _take(one, line)
    if lines and lines[-1].last:
        one.listing.add("no-line-end", "the last line has no line end", file=path, line=lines[-1].at)
    _refuse_shares(one)
    return one


def _no_layout(path: Path, lines: Sequence[Line], fitting: int, told: int) -> DataError:
    shown_lines = [line for line in lines if line.words][:3]
    problems = [f"line {line.at}: {len(line.words)} numbers after {printable(line.name)!r}" for line in shown_lines]
    return DataError(
        f"{printable(path.name)}: of {told} lines with numbers no more than {fitting} fit one layout",
        problems=problems,
        hint="path count x y w h class …, the same without class or without count; class a whole number, w and h sizes",
    )


def _take(one: FaceList, line: Line) -> None:
    """Adds what a line says to the list."""
    add, parts = one.listing.add, parts_of(line.name)
    if not line.name:
        add("misfit-line", f"{' '.join(line.words)[:40]!r} names no image", file=one.path, line=line.at)
        return
    if parts is None:
        add("path-escape", f"{printable(line.name)!r} leads out of the folder", file=one.path, line=line.at)
        one.lost_images += 1
        return
    name = "/".join(parts)
    found = faces_of(line, one.layout)
    if found.wrong is not None:
        add(found.wrong[0], found.wrong[1], file=one.path, line=line.at, image=name)
    if not found.usable:
        one.lost, one.lost_images = one.lost + found.told, one.lost_images + 1
        return
    faces = _faces(one, line, found, name)
    if parts not in one.faces:
        one.faces[parts], one.first[parts] = faces, line
        return
    known = {(face.sides, face.number) for face in one.faces[parts]}
    more = [face for face in faces if (face.sides, face.number) not in known]
    at = f"it stands in line {one.first[parts].at} too"
    if not more:
        add("repeated-image", f"{at}, with the same boxes", file=one.path, line=line.at, image=name)
    elif one.layout.counted:
        add("joined-lines", f"{at}, with other boxes", file=one.path, line=line.at, image=name)
    one.faces[parts] += more


def _faces(one: FaceList, line: Line, found: Faces, name: str) -> list[_Face]:
    """The boxes of a line whose numbers are numbers."""
    faces = []
    for row in found.rows:
        sides = tuple(number(word) for word in row[:4])
        kind = number(row[4]) if len(row) == 5 else 1.0
        raw = f"x, y, width, height {' '.join(row[:4])[:60]}"
        if not all(map(math.isfinite, (*sides, sides[0] + sides[2], sides[1] + sides[3]))):
            what = f"{raw} are not four finite numbers"
            one.listing.add("not-a-number", what, file=one.path, line=line.at, image=name)
        elif not (0 <= kind < 1e6 and kind.is_integer()):
            what = f"{raw}: the class {row[4][:20]!r} is no whole number"
            one.listing.add("bad-row", what, file=one.path, line=line.at, image=name)
        else:
            faces.append(_Face(line.at, raw, sides, int(kind)))
            continue
        one.lost += 1
    return faces


def _refuse_shares(one: FaceList) -> None:
    faces = (face for faces in one.faces.values() for face in faces if not face.is_degenerate)
    sides = [value for face in faces for value in face.sides]
    if sides and max(map(abs, sides)) <= 1 and not all(value.is_integer() for value in sides):
        raise DataError(
            f"{printable(one.path.name)}: all numbers lie between -1 and 1: shares of the image, not pixels",
            hint="multiply them by width and height of each image",
        )


def read_list(one: FaceList, classes: tuple[str, ...], labels: Mapping[int, int], probe_images: bool) -> Dataset:
    """The dataset of one list; `labels` by class number. DataError where the numbers are corners, not sizes."""
    pictures = Pictures(one.path, one.split, one.lines)
    found: dict[ImageId, tuple[ImageInfo, list[_Face]]] = {}
    for parts, faces in one.faces.items():
        image = _image(one, parts, _free_id(parts, found), pictures, probe_images)
        if image is not None:
            found[image.id] = (image, faces)
    _refuse_corners(one, list(found.values()))
    truths = {key: _annotations(one, image, faces, labels, classes) for key, (image, faces) in found.items()}
    if pictures.dropped and found:
        first = next(iter(one.faces))
        what = f"{'/'.join(first)} was looked for as {'/'.join(pictures.short(first))}, the others likewise"
        one.listing.add("shortened-paths", what, file=one.path, line=one.first[first].at)
    return Dataset(
        one.listing.root, "facelist", one.split, classes, tuple(image for image, _ in found.values()), truths,
        tuple(one.listing.findings), sum(map(len, one.faces.values())) + one.lost, len(one.faces) + one.lost_images,
    )  # fmt: skip


def _free_id(parts: Parts, taken: Mapping[ImageId, object]) -> str:
    """The path without its ending, or with it where another file of that name has it."""
    name = "/".join(parts)
    short = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
    return name if short in taken else short


def _image(one: FaceList, parts: Parts, image_id: str, pictures: Pictures, probe_images: bool) -> ImageInfo | None:
    line = one.first[parts]
    if not probe_images:
        return ImageInfo(image_id, one.path.parent / "/".join(parts), 0, 0)
    path = pictures.find(parts)
    if path is None and Path(line.name).is_absolute() and is_file(Path(line.name)):
        what = f"{printable(line.name)} lies outside the folder of the list"
        one.listing.add("path-escape", what, file=one.path, line=line.at, image=image_id)
        return None
    if path is None:
        short = "/".join(pictures.short(parts))[:200]
        what = f"no {short} beside the list, in images/ below it, or in the other usual folders"
        one.listing.add("missing-image", what, file=one.path, line=line.at, image=image_id)
        return None
    if leads_out(path, pictures.roots):
        one.listing.add("path-escape", "the image is a link that leads out of the folder", file=path, image=image_id)
        return None
    return probed(image_id, path, one.listing)


def _refuse_corners(one: FaceList, found: Sequence[tuple[ImageInfo, Sequence[_Face]]]) -> None:
    """DataError where most boxes reach out of their images as sizes, and none as corners."""
    sized = [(image, face) for image, faces in found if image.width for face in faces if not face.is_degenerate]
    out = [face for image, face in sized if face.box[2] > image.width + 1 or face.box[3] > image.height + 1]
    if len(sized) < _CORNERS_FROM or 2 * len(out) <= len(sized):
        return
    as_corners = sum(
        x1 < x2 <= image.width + 1 and y1 < y2 <= image.height + 1
        for image, face in sized for x1, y1, x2, y2 in (face.sides,)
    )  # fmt: skip
    if as_corners == len(sized):
        raise DataError(
            f"{printable(one.path.name)}: the numbers look like corners (x1 y1 x2 y2), not like x y width height",
            problems=[f"as sizes {len(out)} of {len(sized)} boxes reach out of their images, as corners none"],
            hint="write width and height: x2 - x1 and y2 - y1",
        )


def _annotations(
    one: FaceList, image: ImageInfo, faces: Sequence[_Face], labels: Mapping[int, int], classes: Sequence[str]
) -> Annotations:
    seen: set[tuple[int, tuple[float, ...]]] = set()
    kept = [face for face in faces if _stays(one, image, face, labels, classes, seen)]
    if not kept:
        return Annotations.empty()
    degenerate = np.array([face.is_degenerate for face in kept])
    return Annotations(
        np.array([face.box for face in kept]), np.array([labels.get(face.number, 0) for face in kept]),
        ignore=degenerate, extra={"degenerate": degenerate, "line": np.array([face.line for face in kept])},
    )  # fmt: skip


def _stays(
    one: FaceList, image: ImageInfo, face: _Face, labels: Mapping[int, int], classes: Sequence[str],
    seen: set[tuple[int, tuple[float, ...]]],
) -> bool:  # fmt: skip
    """Whether a box is kept; whatever is odd about it is listed."""

    def tell(code: str, what: str) -> None:
        one.listing.add(code, what, file=one.path, line=face.line, image=image.id, box=face.box)

    x1, y1, x2, y2 = face.box
    width, height = image.width, image.height
    key = (face.number, face.sides)
    judged = not width  # without sizes boxes stay as written
    if face.is_degenerate:
        tell("degenerate-face", f"{face.raw}: the box has no area")
        return True
    if face.number not in labels:
        name = str(face.number)
        tell("unknown-class", f"class {name!r} is not in the list{did_you_mean(name, classes)}")
        return False
    if key in seen:
        tell("kept-as-written" if judged else "duplicate-box", f"{face.raw}: this box stands there twice")
        return judged
    seen.add(key)
    if judged:
        return True
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        tell("box-outside", f"{face.raw}: the box lies outside the image of {width}x{height}")
        return False
    over = max(-x1, -y1, x2 - width, y2 - height)
    if over > SILENT:
        tell("beyond-image", f"{face.raw}: reaches {over:g} px beyond the image of {width}x{height}")
    return True
