"""WIDER FACE: official txt or .mat, with the lists of easy, medium and hard faces; read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.geometry import corners
from onestage.data.dataset import Dataset
from onestage.data.formats.files import (
    IMAGE_SUFFIXES,
    file_stem,
    inside,
    is_file,
    printable,
    put_image,
    put_text,
    safe_relative,
    shown,
)  # fmt: skip
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import label_map, probed
from onestage.data.formats.splits import in_order
from onestage.data.formats.widerface_folder import LEVELS, FaceFile, face_files
from onestage.data.formats.widerface_mat import ATTRIBUTES, Record, level_rows, mat_records
from onestage.data.formats.widerface_txt import txt_records
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, BoolArray, Finding, FloatArray, ImageId, ImageInfo, IntArray

NAME = "WIDER FACE"
LOOKED_FOR = "wider_face_*_bbx_gt.txt or wider_face_*.mat, in the folder or in wider_face_split, ground_truth or eval"
CLASS = "face"
_Levels = dict[str, dict[str, tuple[FloatArray, IntArray]]]


def recognise(root: Path) -> str | None:
    """Why `root` (a folder, a .txt or a .mat) is taken for WIDER FACE, in words; None where it is not."""
    files = face_files(root)
    if not files:
        return None
    levels = sorted({level for file in files.values() for level in file.levels}, key=LEVELS.index)
    said = f", with the lists {', '.join(levels)}" if levels else ""
    names = ", ".join(shown(files[name].path, root if root.is_dir() else root.parent) for name in in_order(files))
    return f"{NAME} file{'s' if len(files) > 1 else ''} {names}{said}"


def splits(root: Path) -> list[str]:
    """Names of the sets, one per annotation file: 'train' for wider_face_train_bbx_gt.txt."""
    return in_order(face_files(root))


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One set, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of WIDER FACE; each file is read once.

    x, y, width, height become (x, y, x + width, y + height); the other six columns are kept in `extra` by their
    names, -1 where a file does not tell them. The one class is "face". An image's id is "event/name" without suffix, as
    in the .mat files. `invalid` faces are `ignore`. Every row is kept as written, for the official lists of easy,
    medium and hard faces count rows: boxes are not cut at the border, repeated rows stay, and a box without area is
    kept as `ignore` with `extra["degenerate"]`, so that it is never trained or missed; all of these are listed.

    Where wider_easy_SET.mat, wider_medium_SET.mat and wider_hard_SET.mat lie near, `extra` has the columns "easy",
    "medium", "hard": whether a face belongs to that level. `probe_images=False` opens no image; sizes are then 0 x 0.
    Raises DataError for a .mat that cannot be read, an unknown split, and `classes` without "face".
    """
    files = face_files(root)
    if not files:
        raise DataError(f"{shown(root, root.parent)} holds no {NAME}", problems=[f"looked for {LOOKED_FOR}"])
    wanted = {name for name in names if name is not None}
    for name in sorted(wanted - set(files)):
        raise DataError(f"no set {name!r}{did_you_mean(name, files)}; there are: {', '.join(in_order(files))}")
    chosen = (CLASS,) if classes is None else tuple(classes)
    if CLASS not in label_map(chosen):
        raise DataError(f"{NAME} has the one class {CLASS!r}, got {', '.join(chosen)}", hint=f"classes=[{CLASS}]")
    used = [name for name in in_order(files) if None in names or name in wanted]
    parts = {name: _read(files[name], chosen, probe_images) for name in used}
    every = [parts[name] for name in used]
    return [(every[0] if len(every) == 1 else merged(every, "all")) if name is None else parts[name] for name in names]


def _read(file: FaceFile, classes: tuple[str, ...], probe_images: bool) -> Dataset:
    listing = Listing(file.root)
    is_mat = file.path.suffix.lower() == ".mat"
    records = mat_records(file.path) if is_mat else txt_records(file.path, listing)
    levels: _Levels = {level: level_rows(path, file.faces) for level, path in file.levels.items()}
    finder, label = _Finder(file, listing, probe_images), classes.index(CLASS)
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    for record in (record for record in records if record.name):
        name = safe_relative(record.name)
        if name is None:
            what = f"{printable(record.name)!r} leads out of the folder"
            listing.add("path-escape", what, file=file.path, line=record.line)
            continue
        image_id = name.with_suffix("").as_posix() if name.suffix.lower() in IMAGE_SUFFIXES else name.as_posix()
        if image_id in truths:
            what = f"image {image_id} stands there twice"
            listing.add("repeated-image", what, file=file.path, line=record.line, image=image_id)
            continue
        image = finder.image(image_id, name)
        if image is not None:
            images.append(image)
            truths[image_id] = _annotations(_completed(record, image_id, levels), image, label, levels, file, listing)
    _list_strangers(file, truths, levels, listing)
    return Dataset(
        file.root, "widerface", file.split, classes, tuple(images), truths, tuple(listing.findings),
        sum(len(record.faces) + record.lost for record in records), len(records),
    )  # fmt: skip


def _completed(record: Record, image_id: str, levels: _Levels) -> Record:
    """The record, with the .mat's row of zeros where the txt says that there is no face: the judge counts rows."""
    known = next((faces[image_id][0] for faces in levels.values() if image_id in faces), None)
    if len(record.faces) or known is None or not len(known) or (known[:, 2:] > 0).any():
        return record
    return replace(record, faces=known, attributes=np.zeros((len(known), len(ATTRIBUTES)), np.int64), lines=None)


def _annotations(
    record: Record, image: ImageInfo, label: int, levels: _Levels, file: FaceFile, listing: Listing
) -> Annotations:
    boxes = corners(record.faces)
    degenerate: BoolArray = np.any(record.faces[:, 2:] <= 0, axis=1)
    extra: dict[str, NDArray[Any]] = {"degenerate": degenerate}
    extra |= {name: record.attributes[:, k] for k, name in enumerate(ATTRIBUTES)}
    extra |= {level: _in_level(level, record, image.id, levels, file, listing) for level in levels}
    invalid = extra["invalid"] == 1
    _list_faces(record, image, boxes, file, listing)
    return Annotations(boxes, np.full(len(boxes), label), ignore=invalid | degenerate, extra=extra)


def _in_level(
    level: str, record: Record, image_id: ImageId, levels: _Levels, file: FaceFile, listing: Listing
) -> BoolArray:
    """Which faces of an image belong to a level: by row where the rows are the same, else by equal boxes."""
    inside_level = np.zeros(len(record.faces), np.bool_)
    if str(image_id) not in levels[level]:
        return inside_level
    faces, rows = levels[level][str(image_id)]
    outside = rows[(rows < 0) | (rows >= len(faces))]
    if len(outside):
        what = f"{file.levels[level].name} names row {outside[0] + 1} of {len(faces)}"
        listing.add("level-row", what, file=file.levels[level], image=image_id)
        rows = rows[(rows >= 0) & (rows < len(faces))]
    if np.array_equal(faces, record.faces):
        inside_level[rows] = True
        return inside_level
    places: dict[tuple[float, ...], list[int]] = {}
    for place, face in enumerate(record.faces.tolist()):
        places.setdefault(tuple(face), []).append(place)
    lost, members = 0, set(rows.tolist())
    for row, face in enumerate(faces.tolist()):  # every row takes its own face, so that equal boxes stay in order
        there = places.get(tuple(face))
        own = there.pop(0) if there else None
        if row in members and own is not None:
            inside_level[own] = True
        elif row in members:
            lost += 1
    what = f"its {len(record.faces)} faces are not the {len(faces)} of {file.levels[level].name}"
    listing.add("levels-differ", f"{what}; {lost} of {level} have no equal box", file=file.path, image=image_id)
    return inside_level


def _list_faces(record: Record, image: ImageInfo, boxes: FloatArray, file: FaceFile, listing: Listing) -> None:
    over = np.maximum(-boxes[:, :2], boxes[:, 2:] - [image.width, image.height]).max(1, initial=-np.inf)
    beyond = (over > 0) & (image.width > 0)
    thin = (record.faces[:, 2:] <= 0).any(1)
    unknown = (record.attributes < 0).any(1)
    _, first = np.unique(record.faces, axis=0, return_index=True)
    again = np.ones(len(boxes), np.bool_)
    again[first] = False
    for row in np.flatnonzero(beyond | thin | again | unknown).tolist():
        x, y, width, height = record.faces[row].tolist()
        raw = f"x, y, width, height {x:g} {y:g} {width:g} {height:g}"
        found = {
            "degenerate-face": (thin, "the face has no area"),
            "beyond-image": (beyond & ~thin, f"reaches {over[row]:g} px beyond the image"),
            "repeated-face": (again & ~thin, "the same box stands there twice"),
            "missing-columns": (unknown, f"no more than the columns before {ATTRIBUTES[_first_unknown(record, row)]}"),
        }
        for code, (rows, what) in found.items():
            if rows[row]:
                line = None if record.lines is None else int(record.lines[row])
                box = tuple(boxes[row].tolist())
                listing.add(code, f"{raw}: {what}", file=file.path, line=line, image=image.id, box=box)


def _first_unknown(record: Record, row: int) -> int:
    return int(np.argmax(record.attributes[row] < 0))


def _list_strangers(file: FaceFile, truths: Mapping[ImageId, Annotations], levels: _Levels, listing: Listing) -> None:
    if not levels:
        return
    level, known = next(iter(levels.items()))
    strange = [image_id for image_id in truths if image_id not in known]
    if strange:
        what = f"{len(strange)} images are not in {file.levels[level].name}, the first is {strange[0]}"
        listing.add("levels-differ", f"{what}: none of their faces is easy, medium or hard", file=file.path)
    absent = len(known.keys() - {str(image_id) for image_id in truths})
    if absent:
        what = f"{file.levels[level].name} tells of {len(known)} images, {absent} of them are not here"
        listing.add("part-of-set", what, file=file.path)


class _Finder:
    """Finds the image files of one set: the folder that held the last one is asked first."""

    def __init__(self, file: FaceFile, listing: Listing, probe_images: bool) -> None:
        self.file, self.listing, self.probe_images, self.folders = file, listing, probe_images, list(file.folders)

    def image(self, image_id: str, name: Path) -> ImageInfo | None:
        named = name if name.suffix.lower() in IMAGE_SUFFIXES else name.with_name(f"{name.name}.jpg")
        if not self.probe_images:
            return ImageInfo(image_id, self.file.folders[0] / named, 0, 0)
        folder = next((folder for folder in self.folders if is_file(folder / named)), None)
        if folder is None:
            what = f"{printable(named.as_posix())} is not in {shown(self.folders[0], self.file.root)}"
            self.listing.add("missing-image", what, file=self.file.path, image=image_id)
            return None
        self.folders.remove(folder)
        self.folders.insert(0, folder)
        if not inside(folder / named, (self.file.root, folder)):
            what = "the image is a link that leads out of the folder"
            self.listing.add("path-escape", what, file=folder / named, image=image_id)
            return None
        return probed(image_id, folder / named, self.listing)


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one set: wider_face_split/wider_face_SET_bbx_gt.txt, WIDER_SET/images ('copy', 'link' or None).

    Faces to ignore are written as `invalid`, attributes that are not known as 0, an image without faces as count 0 with
    the official row of zeros. The findings tell what is lost: class names other than "face", the flags difficult and
    crowd, the lists easy, medium and hard, which only the .mat files hold.
    """
    listing, split = Listing(root), file_stem(dataset.split)
    target = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    truths = [dataset.annotations[image.id] for image in dataset.images]
    lines: list[str] = []
    for image, truth in zip(dataset.images, truths, strict=True):
        name = f"{file_stem(image.id)}{image.path.suffix}"
        put_image(image.path, root / f"WIDER_{split}" / "images" / printable(name), images)
        lines += [printable(name), str(len(truth)), *(_rows(truth) or [" ".join(["0"] * (4 + len(ATTRIBUTES)))])]
    if dataset.classes != (CLASS,):
        listing.add("lost-class", f"classes {', '.join(dataset.classes)} are all written as {CLASS}", file=target)
    held = {name: sum(int(getattr(truth, name).sum()) for truth in truths) for name in ("difficult", "crowd")}
    held |= {level: sum(int(truth.extra.get(level, np.zeros(0)).sum()) for truth in truths) for level in LEVELS}
    for name, count in held.items():
        if count:
            what = f"{count} box{'es' * (count != 1)} marked {name}: {NAME}'s txt has no place for it"
            listing.add("lost-flag", what, file=target)
    put_text(target, "".join(f"{line}\n" for line in lines))
    return listing.findings


def _rows(truth: Annotations) -> list[str]:
    unknown = np.zeros(len(truth), np.int64)
    columns = {name: np.maximum(np.asarray(truth.extra.get(name, unknown)).astype(np.int64), 0) for name in ATTRIBUTES}
    degenerate = np.asarray(truth.extra.get("degenerate", unknown), np.bool_)
    columns["invalid"] = np.where(truth.ignore & ~degenerate, 1, columns["invalid"])
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    boxes = np.concatenate([truth.boxes[:, :2], sides], axis=1).tolist()
    tail = np.stack([columns[name] for name in ATTRIBUTES], axis=1).tolist()
    return [" ".join([*(f"{v:.12g}" for v in box), *map(str, more)]) for box, more in zip(boxes, tail, strict=True)]
