"""VisDrone VID and MOT: one txt and one folder of frames per sequence, read as images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.files import files_under, images_under, leads_out, printable, shown
from onestage.data.formats.headers import probe
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import label_map, probed
from onestage.data.formats.visdrone_folder import COLUMNS, VIDEO_COLUMNS, VisDroneSet, is_place, numbered_rows
from onestage.data.formats.visdrone_rows import Numbered, truth_of
from onestage.errors import DataError
from onestage.records import Annotations, ImageId, ImageInfo

_ALL = (*VIDEO_COLUMNS, *COLUMNS)


def read_videos(of: VisDroneSet, classes: tuple[str, ...], probe_images: bool) -> Dataset:
    """The frames of a set of videos as images, sequence by sequence; ids are SEQUENCE/0000001.

    A frame without rows is an image on which nothing is. A sequence without a txt file, a frame with rows but without
    an image, and a file whose name is no frame number are listed. For judging (`probe_images` false) images may be
    absent: then the frames are those that have rows.
    """
    listing, labels = Listing(of.root), label_map(classes)
    files = {printable(path.stem): path for path in files_under(of.annotations, {".txt"}, deep=False)}
    frames = _frames(of)
    if probe_images and not any(frames.values()):
        raise DataError(
            f"{of.annotations.name} holds {len(files)} sequences, but there are no frames",
            problems=[f"looked in {shown(of.root / 'sequences' / name, of.root.parent)}" for name in sorted(files)[:3]],
            hint="put each sequence's images into sequences/NAME beside annotations/; judging detections needs none",
        )
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    rows_read = known = 0
    for name in sorted(files.keys() | frames.keys()):
        pictures = _numbered(name, frames.get(name, ()), listing)
        file = files.get(name)
        rows: dict[int, list[Numbered]] = {}
        if file is None:
            what = f"a sequence of {len(pictures)} frames without an annotation file"
            listing.add("missing-annotation", what, file=of.root / "sequences" / name, image=name)
        elif leads_out(file, (of.root, *of.folders)):
            listing.add("path-escape", "the file is a link that leads out of the folder", file=file, image=name)
        else:
            numbered = numbered_rows(file)
            rows_read += len(numbered)
            rows = _by_frame(numbered, name, listing, file)
            for image in _images(name, pictures, rows, of, probe_images, listing, file):
                images.append(image)
                own = rows.get(int(str(image.id).rpartition("/")[2]), ())
                truths[image.id] = _truth(own, image, labels, listing, file, not probe_images)
        known += len(pictures.keys() | rows.keys())
    return Dataset(
        of.root, "visdrone", of.name, classes, tuple(images), truths, tuple(listing.findings), rows_read, known
    )


def _frames(of: VisDroneSet) -> dict[str, list[Path]]:
    """The image files of each sequence's folder."""
    folders = [path for folder in of.folders for path in sorted(folder.iterdir()) if path.is_dir()]
    return {printable(path.name): images_under(path, deep=False) for path in folders if not path.name.startswith(".")}


def _numbered(name: str, paths: Sequence[Path], listing: Listing) -> dict[int, Path]:
    """The frames of a sequence by number, in order."""
    found: dict[int, Path] = {}
    for path in paths:
        if re.fullmatch(r"[0-9]+", path.stem):
            found.setdefault(int(path.stem), path)
        else:
            listing.add("missing-annotation", "an image whose name is no frame number", file=path, image=name)
    return dict(sorted(found.items()))


def _by_frame(rows: Sequence[Numbered], name: str, listing: Listing, file: Path) -> dict[int, list[Numbered]]:
    """The rows of a sequence by frame; those of which the frame is not known are listed."""
    found: dict[int, list[Numbered]] = {}
    for line, raw, values in rows:
        what = ""
        if len(values) != len(_ALL):
            what = f"{raw}: {len(values)} columns, expected {', '.join(_ALL)}"
        elif not is_place(values[0], values[1]):
            what = f"{raw}: expected a frame, counted from 1, and a target, both whole numbers"
        if what:
            listing.add("bad-row", what, file=file, line=line, image=name)
        else:
            found.setdefault(int(values[0]), []).append((line, raw, values))
    return found


def _images(
    name: str, pictures: Mapping[int, Path], rows: Mapping[int, Sequence[Numbered]], of: VisDroneSet, needed: bool,
    listing: Listing, file: Path,
) -> list[ImageInfo]:  # fmt: skip
    """The frames of a sequence as images, in order."""
    found = []
    for frame in sorted(pictures.keys() | rows.keys()):
        path = pictures.get(frame)
        image_id = f"{name}/{path.stem if path else f'{frame:07d}'}"
        if path is not None and leads_out(path, (of.root, *of.folders)):
            what = "the file is a link that leads out of the folder"
            listing.add("path-escape", what, file=path, image=image_id)
            continue
        if needed:
            if path is None:
                what = f"there is no image of frame {frame}, which has {len(rows[frame])} rows"
                listing.add("missing-image", what, file=file, line=rows[frame][0][0], image=image_id)
                continue
            image = probed(image_id, path, listing)
        else:
            image = ImageInfo(image_id, path or of.root / "sequences" / f"{image_id}.jpg", *_size(path))
        if image is not None:
            found.append(replace(image, sequence=name))
    return found


def _size(path: Path | None) -> tuple[int, int]:
    """(0, 0) where there is no image, or none that can be read."""
    try:
        return (0, 0) if path is None else probe(path)
    except DataError:
        return 0, 0


def _truth(
    rows: Sequence[Numbered], image: ImageInfo, labels: dict[str, int], listing: Listing, file: Path, as_written: bool
) -> Annotations:
    bare = [(line, raw, values[len(VIDEO_COLUMNS) :]) for line, raw, values in rows]
    truth = truth_of(bare, image, labels, listing, file, as_written)
    told = {line: values[: len(VIDEO_COLUMNS)] for line, _, values in rows}
    if not len(truth):
        return truth
    columns = np.array([told[line] for line in truth.extra["line"].tolist()], np.int64).T
    return replace(truth, extra={**truth.extra, **dict(zip(VIDEO_COLUMNS, columns, strict=True))})
