"""VisDrone DET txt: annotations/ with or without images/, one file per image; read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
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
from onestage.data.formats.rows import SILENT, label_map, probed
from onestage.data.formats.splits import in_order
from onestage.data.formats.visdrone_folder import (
    CLASSES,
    COLUMNS,
    OTHERS,
    REGION,
    VisDroneSet,
    is_video,
    numbered_rows,
    visdrone_sets,
)  # fmt: skip
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, BoolArray, Finding, FloatArray, ImageId, ImageInfo, IntArray

NAME = "VisDrone txt"
LOOKED_FOR = "annotations/*.txt of eight columns with commas (VisDrone2019-DET-val), alone or beside images/"
_Numbered = tuple[int, str, list[float]]


def recognise(root: Path) -> str | None:
    """Why `root` (a folder) is taken for VisDrone's, in words; None where it is not."""
    if root.is_dir() and is_video(root):
        return "VisDrone folder of videos"
    sets = visdrone_sets(root)
    return f"VisDrone folder, sets {', '.join(in_order(sets))}" if sets else None


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

    Raises DataError for an unknown split, for videos, and where images are asked for and there is none.
    """
    sets = visdrone_sets(root)
    if not sets:
        raise DataError(f"{shown(root, root.parent)} is no {NAME} dataset", problems=[f"looked for {LOOKED_FOR}"])
    for name in names:
        if name is not None and name not in sets:
            raise DataError(f"no set {name!r}{did_you_mean(name, sets)}; there are: {', '.join(in_order(sets))}")
    chosen = CLASSES if classes is None else tuple(classes)
    wanted = [name for name in in_order(sets) if None in names or name in names]
    parts = {name: _read(sets[name], chosen, probe_images) for name in wanted}
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
            truths[stem] = _truth(rows, image, labels, listing, file, not probe_images)
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


def _truth(
    rows: Sequence[_Numbered], image: ImageInfo, labels: dict[str, int], listing: Listing, file: Path, as_written: bool
) -> Annotations:
    kept = [(line, values) for line, raw, values in rows if not _refused(line, raw, values, labels, listing, file)]
    if not kept:
        return Annotations.empty()
    table = np.array([values for _, values in kept]) + 0.0  # no -0.0
    lines, xywh = np.array([line for line, _ in kept]), table[:, :4]
    score, category, truncation, occlusion = table[:, 4:].astype(np.int64).T
    region = (category == REGION) | (category == OTHERS)
    boxes = _corners(xywh)
    if image.width:
        boxes = np.clip(boxes, 0, [image.width, image.height] * 2)
    aside = _aside(xywh, boxes, region, category, lines, image, listing, file, as_written)
    if as_written:
        boxes, aside = _corners(xywh), np.zeros_like(aside)
    names = ["", *CLASSES, ""]
    label = [0 if is_region else labels[names[number]] for number, is_region in zip(category, region, strict=True)]
    extra = {
        "score": score, "category": category, "truncation": truncation, "occlusion": occlusion, "line": lines,
        "region": region, "xywh": xywh,
    }  # fmt: skip
    return Annotations(boxes, np.array(label), ignore=region | aside | (score == 0), extra=extra)


def _refused(
    line: int, raw: str, values: Sequence[float], labels: dict[str, int], listing: Listing, file: Path
) -> bool:  # fmt: skip
    """Whether a row cannot be used at all, which is listed."""
    code, what = "bad-row", ""
    if len(values) != len(COLUMNS):
        what = f"{raw}: {len(values)} columns, expected {', '.join(COLUMNS)}"
    elif not all(map(math.isfinite, values)):
        code, what = "not-a-number", f"{raw}: expected eight finite numbers"
    elif values[5] not in range(OTHERS + 1):
        code, what = "unknown-class", f"{raw}: category {values[5]:g}, expected 0 to {OTHERS}"
    elif values[4] not in (0, 1):
        what = f"{raw}: score {values[4]:g} of a truth, expected 0 or 1"
    elif REGION < values[5] < OTHERS and (name := CLASSES[int(values[5]) - 1]) not in labels:
        code, what = "unknown-class", f"class {name!r} is not in the list{did_you_mean(name, labels)}"
    if what:
        listing.add(code, what, file=file, line=line, image=printable(file.stem))
    return bool(what)


def _aside(
    xywh: FloatArray, boxes: FloatArray, region: BoolArray, category: IntArray, lines: IntArray, image: ImageInfo,
    listing: Listing, file: Path, as_written: bool,
) -> BoolArray:  # fmt: skip
    """Rows that are kept for the judge but are no object to learn (N,), listed; and boxes cut at the border."""
    aside = np.zeros(len(xywh), np.bool_)
    written = _corners(xywh)
    flat: BoolArray = np.any(xywh[:, 2:] <= 0, axis=1)
    gone: BoolArray = ~flat & np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    over: FloatArray = np.abs(written - boxes).max(1)
    size = f"the image of {image.width}x{image.height}"

    def say(code: str, i: int, what: str) -> None:
        raw, (x1, y1, x2, y2) = ",".join(f"{v:g}" for v in xywh[i]), written[i].tolist()
        listing.add(
            "kept-as-written" if as_written else code,
            f"{raw}: {what}",
            file=file,
            line=int(lines[i]),
            image=image.id,
            box=(x1, y1, x2, y2),
        )

    seen: set[tuple[float, ...]] = set()
    for i, key in enumerate(map(tuple, np.column_stack([category, xywh]).tolist())):
        aside[i] = flat[i] or gone[i] or (key in seen and not region[i])
        if aside[i]:
            why = f"lies outside {size}" if gone[i] else "stands there twice for its class"
            say("kept-aside", i, "the box has no area" if flat[i] else f"the box {why}")
        elif over[i] > SILENT and not region[i]:
            say("box-clipped", i, f"the box reaches {over[i]:g} px beyond {size}")
        seen.add(key)
    return aside


def _corners(xywh: FloatArray) -> FloatArray:
    """xyxy of boxes as written; a negative side counts as 0."""
    return corners(np.hstack([xywh[:, :2], np.maximum(xywh[:, 2:], 0)]))


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one split: SPLIT/annotations and SPLIT/images (`images`: 'copy', 'link' or None).

    What a VisDrone file said is written as it was, also beyond the image; other truth gets truncation and occlusion 0
    and score 1, or 0 where it is ignored or a crowd. A region for all classes becomes category 0. `difficult` is lost,
    which is listed. Raises DataError for classes that VisDrone has no number for.
    """
    strange = [f"{name!r}{did_you_mean(name, CLASSES)}" for name in dataset.classes if name not in CLASSES]
    if strange:
        raise DataError(f"{NAME} knows ten classes only", problems=strange, hint=f"they are {', '.join(CLASSES)}")
    listing, split = Listing(dataset.root), file_stem(dataset.split)
    for image in dataset.images:
        stem, truth = file_stem(image.id), dataset.annotations[image.id]
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
        whole = _corners(extra["xywh"])
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
