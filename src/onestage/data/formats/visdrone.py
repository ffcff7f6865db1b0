"""VisDrone txt: DET (a file per image) read and written; VID and MOT (a file per video) as frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.files import (
    file_stem,
    files_under,
    images_under,
    leads_out,
    printable,
    put_image,
    put_text,
    shown,
)  # fmt: skip
from onestage.data.formats.headers import probe
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import label_map, probed
from onestage.data.formats.splits import in_order
from onestage.data.formats.visdrone_folder import (
    CLASSES,
    REGION,
    VisDroneSet,
    numbered_rows,
    visdrone_sets,
)  # fmt: skip
from onestage.data.formats.visdrone_rows import corners_of, truth_of
from onestage.data.formats.visdrone_video import read_videos
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding, ImageId, ImageInfo

NAME = "VisDrone txt"
LOOKED_FOR = (
    "annotations/*.txt of eight columns with commas (VisDrone2019-DET-val), alone or beside images/, "
    "or of ten (VID, MOT) beside sequences/"
)


def recognise(root: Path) -> str | None:
    """Why `root` (a folder) is taken for VisDrone's, in words; None where it is not."""
    sets = visdrone_sets(root)
    of = " of videos" if sets and all(one.videos for one in sets.values()) else ""
    return f"VisDrone folder{of}, sets {', '.join(in_order(sets))}" if sets else None


def splits(root: Path) -> list[str]:
    """Names of the sets: 'val' for VisDrone2019-DET-val; a folder of no such name is the set 'all'."""
    return in_order(visdrone_sets(root))


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One split of a VisDrone folder, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of a VisDrone folder, with its ten classes in the official order unless `classes` says otherwise.

    A row is left, top, width, height, score, category, truncation, occlusion. Rows of category 0 (ignored regions) and
    11 (others) are regions to ignore for every class, rows of score 0 are to be ignored for their own class. Boxes are
    cut at the border of the image. A row that cannot be trained (a side of 0, outside the image, a repetition) is kept
    and ignored, for the official judge counts it. `extra` holds score, category, truncation, occlusion, line, region,
    and as "xywh" the box as written.

    `probe_images=False` is for judging detections: boxes stay as written, all of them, and no image is needed; one that
    is not there, or cannot be read, is 0 x 0.

    **Videos** (VID, MOT): a row has frame and target_id before the eight columns, and a file is a sequence. Every frame
    in sequences/NAME becomes an image with the id NAME/0000001, also one without rows; its `sequence` is NAME, and
    `extra` holds target_id and frame as well. Without images the frames are those that have a row.

    Raises DataError for an unknown split, and where images are asked for and there is none.
    """
    sets = visdrone_sets(root)
    if not sets:
        raise DataError(f"{shown(root, root.parent)} is no {NAME} dataset", problems=[f"looked for {LOOKED_FOR}"])
    for name in names:
        if name is not None and name not in sets:
            raise DataError(f"no set {name!r}{did_you_mean(name, sets)}; there are: {', '.join(in_order(sets))}")
    chosen = CLASSES if classes is None else tuple(classes)
    wanted = [name for name in in_order(sets) if None in names or name in names]
    parts = {name: (read_videos if sets[name].videos else _read)(sets[name], chosen, probe_images) for name in wanted}
    every = list(parts.values())
    return [(every[0] if len(every) == 1 else merged(every, "all")) if name is None else parts[name] for name in names]


def _read(of: VisDroneSet, classes: tuple[str, ...], probe_images: bool) -> Dataset:
    listing, labels = Listing(of.root), label_map(classes)
    files = {printable(path.stem): path for path in files_under(of.annotations, {".txt"}, deep=False)}
    pictures: dict[str, Path] = {}
    for folder in of.folders:
        for path in images_under(folder, deep=False):
            pictures.setdefault(printable(path.stem), path)
    if probe_images and not pictures:
        raise DataError(
            f"{of.annotations.name} holds {len(files)} annotation files, but there are no images",
            problems=[f"looked in {shown(folder, of.root.parent)}" for folder in (of.root / "images", of.annotations)],
            hint="put them into images/ beside annotations/; judging detections needs none",
        )
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    counted = 0
    for stem in sorted(files.keys() | pictures.keys()):
        file, picture = files.get(stem), pictures.get(stem)
        if file is None:
            listing.add("missing-annotation", "an image without an annotation file", file=picture, image=stem)
            continue
        link = next((path for path in (file, picture) if path and leads_out(path, (of.root, *of.folders))), None)
        if link is not None:
            listing.add("path-escape", "the file is a link that leads out of the folder", file=link, image=stem)
            continue
        rows = numbered_rows(file)
        counted += len(rows)
        image = _image(stem, picture, of, probe_images, listing, file)
        if image is not None:
            images.append(image)
            truths[stem] = truth_of(rows, image, labels, listing, file, not probe_images)
    known = len(files.keys() | pictures.keys())
    return Dataset(
        of.root, "visdrone", of.name, tuple(classes), tuple(images), truths, tuple(listing.findings), counted, known
    )


def _image(
    stem: str, picture: Path | None, of: VisDroneSet, needed: bool, listing: Listing, file: Path
) -> ImageInfo | None:  # fmt: skip
    if needed:
        if picture is None:
            listing.add("missing-image", f"there is no image {stem!r}", file=file, image=stem)
            return None
        return probed(stem, picture, listing)
    size = (0, 0)
    if picture is not None:
        try:
            size = probe(picture)
        except DataError:
            size = (0, 0)
    return ImageInfo(stem, picture or of.root / "images" / f"{stem}.jpg", *size)


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one split as DET: SPLIT/annotations and SPLIT/images (`images`: 'copy', 'link' or None).

    DET has no folders below these, so that the frame NAME/0000001 of a video becomes NAME_0000001.

    What a VisDrone file said is written as it was, also beyond the image; other truth gets truncation and occlusion 0
    and score 1, or 0 where it is ignored or a crowd. A region for all classes becomes category 0. `difficult` is lost,
    which is listed. Raises DataError for classes that VisDrone has no number for.
    """
    strange = [f"{name!r}{did_you_mean(name, CLASSES)}" for name in dataset.classes if name not in CLASSES]
    if strange:
        raise DataError(f"{NAME} knows ten classes only", problems=strange, hint=f"they are {', '.join(CLASSES)}")
    listing, split = Listing(dataset.root), file_stem(dataset.split)
    for image in dataset.images:
        stem, truth = file_stem(image.id).replace("/", "_"), dataset.annotations[image.id]
        put_image(image.path, root / split / "images" / (stem + image.path.suffix), images)
        put_text(root / split / "annotations" / f"{stem}.txt", _text(image, truth, dataset.classes, listing))
    return listing.findings


def _text(image: ImageInfo, truth: Annotations, classes: Sequence[str], listing: Listing) -> str:
    numbers = np.array([CLASSES.index(name) + 1 for name in classes], np.int64)
    extra, boxes = truth.extra, truth.boxes
    region = extra.get("region", np.zeros(len(truth), np.bool_)) & truth.ignore
    category = np.where(region, extra.get("category", REGION), numbers[truth.labels] if len(truth) else 0)
    score = extra.get("score", ~(truth.ignore | truth.crowd)).astype(np.int64)
    nothing = np.zeros(len(truth), np.int64)
    more = [extra.get(name, nothing) for name in ("truncation", "occlusion")]
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    if "xywh" in extra:  # unless the boxes were moved since
        whole = corners_of(extra["xywh"])
        cut = np.clip(whole, 0, [image.width, image.height] * 2) if image.width else whole
        same = (whole == boxes).all(1) | (cut == boxes).all(1)
        xywh = np.where(same[:, None], extra["xywh"], xywh)
    for i in np.flatnonzero(truth.difficult):
        box = tuple(boxes[i].tolist())
        listing.add("lost-flag", "VisDrone has no flag for difficult: kept", file=image.path, image=image.id, box=box)
    columns = np.column_stack([score, category, *more]).tolist()
    rows = ((*map(_digits, box), *map(str, rest)) for box, rest in zip(xywh.tolist(), columns, strict=True))
    return "".join(",".join(row) + "\n" for row in rows)


def _digits(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
