"""Reads detections of any format as those of a dataset, every row checked and every fault listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.detections import FORMATS, ONE_CLASS, comp4, recognise
from onestage.data.detections.checks import check_places, check_values, places
from onestage.data.detections.faults import Faults
from onestage.data.detections.lookup import Classes, Images
from onestage.data.detections.plain_text import text_files
from onestage.data.detections.rows import Numbering, Rows
from onestage.data.detections.telling import described, tell_of_files, tell_of_silence
from onestage.data.formats.files import files_under, printable
from onestage.errors import DataError, UsageError, did_you_mean
from onestage.records import BoolArray, Detections, Finding, FloatArray, ImageId, IntArray

# Formats of one file; the others are folders, or one file of such a folder.
ONE_FILE = ("coco", "darknet", "csv")
_LONGEST = 100


@dataclass(frozen=True, eq=False)
class Found:
    """Detections of a dataset's images, as read from files.

    `detections` holds the images that have some; `extra["row"]` is each one's place among the rows of its image.
    `findings` list what was wrong or odd, a finding per kind and subject, with how many rows and where they are;
    `described` says in one sentence what was read; `rows` is how many rows the files hold.
    """

    format: str
    detections: Mapping[ImageId, Detections]
    findings: tuple[Finding, ...]
    described: str
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """What was read and what was wrong, as JSON."""
        read = {"format": self.format, "rows": self.rows, "described": self.described}
        return {"detections": read, "findings": [finding.as_dict() for finding in self.findings]}


def read_detections(
    path: Path, dataset: Dataset, categories: Mapping[int, int] | Numbering | None = None, *,
    format: str | None = None, floor: float = -np.inf, allow_loss: bool = False,
) -> Found:  # fmt: skip
    """The detections of a file or folder as those of `dataset`: images by id, name or path, classes by name or number.

    `format` is a name in `FORMATS`; without it the content decides. `categories` maps the category ids of COCO results
    to labels (see `coco_labels` and `own_labels`; without it 1 is the first class), or says what the class numbers of
    any format mean: "labels" count from 1, "indices" from 0. Rows below score `floor` are left out.

    Rows that cannot be judged stop with DataError, which tells every kind with its count and first places; with
    `allow_loss` they are left out and listed, as long as any are left. Whatever else looks wrong is kept and listed.
    """
    if not path.exists():
        raise no_such_place(path)
    if format is not None and format not in FORMATS:
        raise UsageError(f"format {format!r} is not known{did_you_mean(format, FORMATS)}", hint=", ".join(FORMATS))
    if format in ONE_FILE and path.is_dir():
        said = f"{printable(str(path))} is a folder; {FORMATS[format].NAME} is one file"
        raise DataError(said, hint=_inner(path, format))
    images = Images(dataset)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond all bounds are listed
        try:
            name = format or _settled(path, images)
            rows = FORMATS[name].read(path)
        except OSError as error:
            raise DataError(f"{printable(str(error.filename or path))} cannot be read: {error.strerror}") from error
        return _found(path, name, rows, dataset, images, categories, floor, allow_loss)


def no_such_place(path: Path) -> DataError:
    """That there is nothing at `path`, and what beside it is called nearly so."""
    near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else ""
    return DataError(f"no such file or folder: {printable(str(path))}{near}")


def _found(
    path: Path, name: str, rows: Rows, dataset: Dataset, images: Images,
    categories: Mapping[int, int] | Numbering | None, floor: float, allow_loss: bool,
) -> Found:  # fmt: skip
    """The rows as those of the dataset, checked."""
    classes = Classes(
        dataset.classes, _numbers(rows, categories, len(dataset.classes)), tails=name == "comp4",
        alone=name in ONE_CLASS,
    )  # fmt: skip
    faults = Faults(rows)
    faults.take_over(rows.findings)
    meant = [images.find(name) for name in rows.images]
    image = _looked_up_images(rows, meant, images, faults)
    elsewhere = comp4.CHALLENGE if name == "comp4" else frozenset[str]()
    label = _looked_up_classes(rows, classes, dataset, faults, elsewhere)
    size = np.array([(one.width, one.height) for one in dataset.images], np.float64).reshape(-1, 2)
    size = np.vstack([np.where(size > 0, size, np.nan), np.full((1, 2), np.nan)])[image]  # -1: the last
    boxes = rows.boxes * np.tile(size, 2) if rows.relative else rows.boxes
    if dataset.zero_based and "corners" in rows.extra:
        boxes = np.asarray(rows.extra["corners"], np.float64)
        faults.tell("zero-based", "the data's VOC files count from 0, and so do these")
    check_values(rows, boxes, faults)
    if faults.counts:
        _stop(path, rows, dataset, faults, allow_loss)
    check_places(rows, image, label, boxes, size, faults)
    tell_of_files(path, rows, faults)
    tell_of_silence(meant, label[~faults.lost], dataset, faults)
    kept = ~faults.lost & (rows.scores >= floor)
    detections = _by_image(dataset, rows, image, label, boxes, kept)
    findings = tuple(faults.left_out() if allow_loss else faults.findings)
    total = len(rows) + faults.refused
    said = described(FORMATS[name].NAME, total, rows.scores[kept], detections, dataset)
    return Found(name, detections, findings, said, total)


def _settled(path: Path, images: Images) -> str:
    """The format of `path`; DataError where it is none, or could be several."""
    found = dict(recognise(path))
    if set(found) == {"comp4", "cartucho"}:
        stems = [file.stem for file in text_files(path)[:20]]
        return "cartucho" if any(images.find(stem) for stem in stems) else "comp4"
    if len(found) > 1:
        raise DataError(
            f"{printable(str(path))} may be {' or '.join(found)}", problems=list(found.values()),
            hint=f"say which: format={next(iter(found))}",
        )  # fmt: skip
    by_suffix = {".json": "coco", ".csv": "csv", ".tsv": "csv"}
    name = next(iter(found), by_suffix.get(path.suffix.lower()) if path.is_file() else None)
    if name is None:
        raise _nothing_here(path)
    return name


def _nothing_here(path: Path) -> DataError:
    looked = [f"looked for {name}: {module.LOOKED_FOR}" for name, module in FORMATS.items()]
    if path.is_file():
        with path.open("rb") as stream:
            packed = stream.read(2) in (b"\x1f\x8b", b"PK")
        said = "is compressed" if packed else "is no detection file of a known format"
        return DataError(
            f"{printable(str(path))} {said}", problems=() if packed else looked, hint="unpack it first" * packed
        )
    inner = _recognised_inside(path)
    if not any(path.iterdir()):
        return DataError(f"{printable(str(path))} is empty", problems=looked)
    several = f"; {len(inner)} things in it are, each by itself" if len(inner) > 1 else ""
    return DataError(
        f"{printable(str(path))} is neither a run nor detections of one known format{several}", problems=looked,
        hint=_inner(path) or "format= says what it is",
    )  # fmt: skip


def _recognised_inside(folder: Path, format: str | None = None) -> list[Path]:
    """Files and folders in a folder that are detections by themselves, of `format` or any."""
    inside = files_under(folder, {".json", ".csv", ".tsv", ".txt"}, deep=False)[:50]
    inside += [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")][:20]
    return [child for child in inside if (recognise(child) if format is None else FORMATS[format].recognise(child))]


def _inner(folder: Path, format: str | None = None) -> str:
    """What to try instead of a folder of several things."""
    inner = _recognised_inside(folder, format)
    return f"one at a time: {printable(str(inner[0]))}" if inner else ""


def _numbers(rows: Rows, categories: Mapping[int, int] | Numbering | None, classes: int) -> Mapping[int, int]:
    """What class numbers mean: number → label."""
    numbering = rows.numbering
    if isinstance(categories, str):
        numbering = categories
    elif categories is not None and numbering == "coco":
        return categories
    first = 0 if numbering == "indices" else 1
    return {label + first: label for label in range(classes)}


def _looked_up_images(rows: Rows, meant: Sequence[Sequence[int]], images: Images, faults: Faults) -> IntArray:
    """The index of each row's image in the dataset (N,), -1 where it has none; what is not found is listed."""
    unknown = [i for i, found in enumerate(meant) if not found]
    if unknown:
        near = {i: images.near(rows.images[i]) for i in unknown[:3]}
        faults.subjects(
            "unknown-image", rows.image, unknown,
            lambda i: f"image {_quoted(rows.images[i])} is not in the data{near.get(i, '')}",
        )  # fmt: skip
    doubtful = [i for i, found in enumerate(meant) if len(found) > 1]
    if doubtful:
        faults.subjects(
            "ambiguous-image", rows.image, doubtful,
            lambda i: f"image {_quoted(rows.images[i])} may be {images.told(meant[i])}",
        )  # fmt: skip
    return _taken([found[0] if len(found) == 1 else -1 for found in meant], rows.image)


def _quoted(name: int | str) -> str:
    """A name for a message, long ones cut: in a file of another format a whole line may be taken for one."""
    text = repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _looked_up_classes(
    rows: Rows, classes: Classes, dataset: Dataset, faults: Faults, elsewhere: frozenset[str]
) -> IntArray:  # fmt: skip
    """The label of each row (N,), -1 where it has none; a class known `elsewhere` may be missing here."""
    meant = [classes.find(name) for name in rows.classes]
    used = set(np.unique(rows.label).tolist())
    unknown = [i for i, label in enumerate(meant) if label is None and i in used]
    if absent := [i for i in unknown if rows.classes[i] in elsewhere]:
        of_absent = np.isin(rows.label, absent)
        faults.lost |= of_absent
        named = ", ".join(str(rows.classes[i]) for i in absent)
        faults.tell("absent-class", f"the data has no class {named}", count=int(of_absent.sum()))
        unknown = [i for i in unknown if i not in absent]
    if unknown:
        faults.subjects("unknown-class", rows.label, unknown, lambda i: classes.unknown(rows.classes[i]))
    other = [name for name, label in zip(rows.classes, meant, strict=True) if label == 0 and classes.assumed(name)]
    if other:
        faults.tell("one-class", f"class {other[0]!r} is called {dataset.classes[0]!r} in the data")
    return _taken([-1 if label is None else label for label in meant], rows.label)


def _taken(values: list[int], indices: IntArray) -> IntArray:
    taken: IntArray = np.array([*values, -1], np.int64)[indices]
    return taken


def _stop(path: Path, rows: Rows, dataset: Dataset, faults: Faults, allow_loss: bool) -> None:
    """DataError that tells of all rows that cannot be judged, unless they may be lost and some are left."""
    lost, total = int(faults.lost.sum()) + faults.refused, len(rows) + faults.refused
    if allow_loss and (lost < total or not total):
        return
    what = f"{lost} of {total} detections cannot be judged" if lost else "names that mean no image"
    raise DataError(
        f"{printable(path.name)}: {what} against {len(dataset)} images and {len(dataset.classes)} classes",
        problems=faults.problems(), hint=faults.hint() + " (allow_loss=true leaves the rows out)" * (not allow_loss),
    )  # fmt: skip


def _by_image(
    dataset: Dataset, rows: Rows, image: IntArray, label: IntArray, boxes: FloatArray, kept: BoolArray
) -> dict[ImageId, Detections]:
    """The kept rows as one record per image, each row with its place among all rows of its image."""
    order = np.flatnonzero(kept)[np.argsort(image[kept], kind="stable")]
    columns = {name: np.asarray(column)[order] for name, column in ({"row": places(image)} | dict(rows.extra)).items()}
    whose, box, score, kind = image[order], boxes[order], rows.scores[order], label[order]
    edges = [*np.flatnonzero(np.diff(whose, prepend=-1)).tolist(), len(order)]
    result = {}
    for start, end in pairwise(edges):
        extra = {name: column[start:end] for name, column in columns.items()}
        found = Detections(box[start:end], kind[start:end], score[start:end], extra)
        result[dataset.images[int(whose[start])].id] = found
    return result
