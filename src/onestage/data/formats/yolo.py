"""YOLO and darknet txt: data.yaml, .data/.names, or images/ beside labels/; read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from onestage.data.dataset import Dataset
from onestage.data.formats.files import (
    file_stem,
    images_under,
    inside,
    leads_out,
    printable,
    put_image,
    put_text,
    safe_relative,
    shown,
    text_lines,
)  # fmt: skip
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import Row, checked_boxes, label_map, number, probed
from onestage.data.formats.splits import in_order, role
from onestage.data.formats.yolo_folder import YoloFolder, find
from onestage.data.formats.yolo_labels import label_path, orphans
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding, ImageId, ImageInfo

NAME = "YOLO txt"
LOOKED_FOR = "data.yaml, *.data, images/ beside labels/, or image and label (.txt) files together in one folder"
PAST = 1.001  # shares of the image up to this are rounding; beyond it the row counts in something else


def recognise(root: Path) -> str | None:
    """Why `root` (a folder, a data.yaml or a .data file) is taken for YOLO's, in words; None where it is not."""
    folder = find(root)
    return None if folder is None else f"{folder.said}, sets {', '.join(in_order(folder.sources))}"


def declared(root: Path) -> bool:
    """Whether a data.yaml or .data file says outright that this is a YOLO dataset."""
    folder = find(root)
    return folder is not None and folder.declared


def splits(root: Path) -> list[str]:
    """Names of the sets: the keys of data.yaml, or the split folders; ['all'] where nothing divides the images."""
    folder = find(root)
    return [] if folder is None or list(folder.sources) == ["all"] else in_order(folder.sources)


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One split of a YOLO dataset, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of a YOLO dataset.

    A row is `class cx cy w h`, in shares of the image as a viewer shows it. Values up to 1.001 are cut at the border; a
    row with more columns is a polygon where it can be one (class and three or more corners; its rectangle is used),
    otherwise it is refused, as a sixth column is a confidence and the file a detector's output. An image without a
    label file, or with an empty one, is an image without objects. The label file of images/a/b.jpg is
    labels/a/b.txt, or b.txt beside the image. Class order is that of data.yaml, .names or classes.txt; without any,
    classes are called by their number. `probe_images=False` keeps the boxes uncut, for judging detections; the images
    are still asked for their sizes. Raises DataError for an unknown split or a data.yaml that cannot be followed.
    """
    folder = find(root)
    if folder is None:
        raise DataError(f"{shown(root, root.parent)} is no {NAME} dataset", problems=[f"looked for {LOOKED_FOR}"])
    for name in names:
        if name is not None and name not in folder.sources:
            known = in_order(folder.sources)
            raise DataError(f"no set {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    own = folder.names or _numbered(folder)
    chosen = tuple(dict.fromkeys(own)) if classes is None else tuple(classes)
    wanted = [name for name in in_order(folder.sources) if None in names or name in names]
    parts = {name: _read(folder, name, own, chosen, not probe_images) for name in wanted}
    every = list(parts.values())
    return [(every[0] if len(every) == 1 else merged(every, "all")) if name is None else parts[name] for name in names]


def _numbered(folder: YoloFolder) -> tuple[str, ...]:
    largest = -1
    for sources in folder.sources.values():
        for source in sources:
            for path in _images(folder, source, Listing(folder.root)):
                label = label_path(path)
                for line in text_lines(label) if label.is_file() else ():
                    value = number(line.split()[0]) if line.split() else -1.0
                    largest = max(largest, int(value) if 0 <= value < 100_000 else -1)
    return tuple(map(str, range(largest + 1)))


def _images(folder: YoloFolder, source: Path, listing: Listing) -> list[Path]:
    """Image files of a folder, or those that a list file names."""
    if source.is_dir():
        found = []
        for path in images_under(source):
            if leads_out(path, (folder.root, source)):
                listing.add(
                    "path-escape", "the image is a link that leads out of the folder", file=path, image=path.stem
                )
            else:
                found.append(path)
        return found
    found = []
    for number_of_line, line in enumerate(text_lines(source), 1):
        if line.strip():
            named = _listed(folder, source, line.strip())
            if named is not None and inside(named, (folder.root, source.parent)):
                found.append(named)
                continue
            out = named is not None or (safe_relative(line) is None and ".." in line)
            code, what = ("path-escape", "leads out of the folder") if out else ("missing-image", "is not there")
            listing.add(code, f"{printable(line.strip())!r} {what}", file=source, line=number_of_line)
    return list(dict.fromkeys(found))


def _listed(folder: YoloFolder, source: Path, line: str) -> Path | None:
    # Darknet's lists hold paths relative to where it was started, or absolute ones of the machine they were made on:
    # the longest end of the path that exists in this folder is taken.
    named = Path(line.replace("\\", "/"))
    if named.is_absolute() and named.is_file() and inside(named, (folder.root, source.parent)):
        return named
    parts = [part for part in named.parts if part not in ("/", ".")]
    if ".." in parts:
        path = source.parent / named
        return path if path.is_file() else None
    for start in range(len(parts)):
        for base in (source.parent, folder.root):
            if (base.joinpath(*parts[start:])).is_file():
                return base.joinpath(*parts[start:])
    return None


def _read(folder: YoloFolder, split: str, own: tuple[str, ...], classes: tuple[str, ...], as_written: bool) -> Dataset:
    listing, labels = Listing(folder.root), label_map(classes)
    for code, what in folder.complaints:
        listing.add(code, what)
    paths = list(dict.fromkeys(path for source in folder.sources[split] for path in _images(folder, source, listing)))
    known = len(paths) + sum(finding.severity == "error" for finding in listing.findings)
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    counted, used, bare = 0, set(), 0
    for image_id, path in zip(_ids(folder, paths), paths, strict=True):
        label = label_path(path)
        used.add(label)
        there = label.is_file()
        bare += not there
        if there and leads_out(label, (folder.root, *folder.sources[split])):
            listing.add(
                "path-escape", "the label file is a link that leads out of the folder", file=label, image=image_id
            )
            continue
        lines = [(at, line.split()) for at, line in enumerate(text_lines(label) if there else (), 1) if line.strip()]
        counted += len(lines)
        image = probed(image_id, path, listing)
        if image is not None:
            rows = _rows(lines, image, folder, own, listing, label)
            images.append(image)
            truths[image_id] = checked_boxes(rows, image, labels, listing, label, as_written)
    if bare and folder.stops:
        what = f"{bare} of {len(paths)} images of the list {split} have no label file"
        listing.add("no-label-file", what, file=folder.sources[split][0])
    for label in orphans(folder.sources[split], used, paths):
        listing.add("orphan-label-file", "a label file without an image", file=label)
    return Dataset(folder.root, "yolo", split, classes, tuple(images), truths, tuple(listing.findings), counted, known)


def _ids(folder: YoloFolder, paths: Sequence[Path]) -> list[str]:
    """Image ids: the stem where all stems differ, else the path within the dataset, with suffix where it must be."""
    for ids in (
        [printable(path.stem) for path in paths],
        [shown(path.with_suffix(""), folder.root) for path in paths],
    ):
        if len(set(ids)) == len(ids):
            return ids
    return [shown(path, folder.root) for path in paths]


def _rows(
    lines: Iterable[tuple[int, list[str]]], image: ImageInfo, folder: YoloFolder, own: tuple[str, ...],
    listing: Listing, file: Path,
) -> list[Row]:  # fmt: skip
    rows, polygons = [], []
    for line, words in lines:
        values = np.array([number(word) for word in words])
        raw = " ".join(words[:5]) + (" …" if len(words) > 5 else "")
        problem = _problem(values, folder.columns, raw)
        if problem:
            code = "not-a-number" if "finite" in problem else "bad-row"
            listing.add(code, problem, file=file, line=line, image=image.id)
            continue
        index = int(values[0])
        name = own[index] if index < len(own) else f"number {index}"
        if len(values) in (5, folder.columns):
            cx, cy, w, h = values[1:5]
            x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        else:
            polygons.append(line)
            x1, x2 = values[1::2].min(), values[1::2].max()
            y1, y2 = values[2::2].min(), values[2::2].max()
        box = (float(x1) * image.width, float(y1) * image.height, float(x2) * image.width, float(y2) * image.height)
        rows.append(Row(name, box, raw, line, extra={"line": line}))
    if polygons:
        listing.add("polygon-row", f"{len(polygons)} polygons", file=file, line=polygons[0], image=image.id)
    return rows


def _problem(values: np.ndarray, columns: int, raw: str) -> str | None:
    n = len(values)
    if n == 6 and columns != 6:
        return f"{raw}: six columns; a sixth is a confidence, and this a detector's output, not the truth"
    if n != 5 and n != columns and (n < 7 or n % 2 == 0):
        return f"{raw}: {n} columns, expected class cx cy w h"
    if not np.isfinite(values).all():
        return f"{raw}: not all are finite numbers"
    if values[0] < 0 or values[0] != int(values[0]):
        return f"{raw}: the class is not a whole number from 0"
    used = values[1:5] if n in (5, columns) else values[1:]
    if used[2:].min() >= 0 and (used.max() > PAST or used.min() < 1 - PAST):
        return f"{raw}: not within 0 and 1; are these pixels?"
    return None


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one split: images/SPLIT, labels/SPLIT and data.yaml (`images`: 'copy', 'link' or None).

    Nine digits per value, so that boxes come back within a millionth of the image. data.yaml calls the sets train, val
    and test, whatever their folders are called; a lone set of another name is its train. YOLO has no flags: crowds and
    regions to ignore are left out, difficult boxes become plain ones; both are listed in the answer.
    """
    listing, split = Listing(dataset.root), file_stem(dataset.split)
    for image in dataset.images:
        stem, truth = file_stem(image.id), dataset.annotations[image.id]
        put_image(image.path, root / "images" / split / (stem + image.path.suffix), images)
        put_text(root / "labels" / split / f"{stem}.txt", _text(image, truth, listing))
    present = (
        {path.name for path in (root / "images").iterdir() if path.is_dir()} if (root / "images").is_dir() else set()
    )
    sets = {
        str(role(name) or name).replace("trainval", "train"): name for name in reversed(in_order(present | {split}))
    }
    if "train" not in sets:  # a data.yaml without train is none: its other readers refuse it
        sets["train"] = sets.pop(split, split)
    document: dict[str, object] = {"path": ".", **{key: f"images/{sets[key]}" for key in in_order(sets)}}
    document["names"] = dict(enumerate(dataset.classes))
    put_text(root / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return listing.findings


def _text(image: ImageInfo, truth: Annotations, listing: Listing) -> str:
    lines = []
    for i, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
        flags: Mapping[str, bool] = {
            "crowd": truth.crowd[i],
            "ignore": truth.ignore[i],
            "difficult": truth.difficult[i],
        }
        lost = [name for name, value in flags.items() if value]
        if lost:
            what = f"YOLO has no flag for {' and '.join(lost)}: " + ("kept" if lost == ["difficult"] else "left out")
            listing.add("lost-flag", what, file=image.path, image=image.id, box=(x1, y1, x2, y2))
            if lost != ["difficult"]:
                continue
        shares = (
            (x1 + x2) / 2 / image.width,
            (y1 + y2) / 2 / image.height,
            (x2 - x1) / image.width,
            (y2 - y1) / image.height,
        )
        lines.append(f"{truth.labels[i]} " + " ".join(f"{value:.9g}" for value in shares))
    return "".join(f"{line}\n" for line in lines)
