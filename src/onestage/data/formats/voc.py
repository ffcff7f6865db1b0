"""PASCAL VOC: one XML per image, with or without ImageSets lists; read and written."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from onestage.data.dataset import Dataset
from onestage.data.formats.files import (
    file_stem,
    leads_out,
    printable,
    put_image,
    put_text,
    safe_relative,
    shown,
)  # fmt: skip
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import Row, checked_boxes, compare_size, label_map, probed
from onestage.data.formats.voc_folder import Place, VocFolder
from onestage.data.formats.voc_xml import RefusedXmlError, VocFile, VocObject
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding, ImageInfo

NAME = "PASCAL VOC"
LOOKED_FOR = "Annotations/*.xml beside JPEGImages/ (or images/), or XML and image files together in one folder"


def recognise(root: Path) -> str | None:
    """Why `root` is taken for a VOC folder, in words; None where it is not."""
    folder = VocFolder(root)
    if not folder.places:
        return None
    place = folder.places[0]
    first = list(place.files.values())[:5]
    if not any(b"<annotation" in path.read_bytes()[:4096] for path in first):
        return None
    if place.split is not None:
        return f"{NAME} in the folders {', '.join(str(place.split) for place in folder.places)}"
    lists = f", lists {', '.join(folder.lists)} in ImageSets" if folder.lists else ", no ImageSets lists"
    return f"{NAME} folder with XML in {shown(place.annotations, root)}{lists}"


def splits(root: Path) -> list[str]:
    """Names of the lists in ImageSets/Main, or of the split folders; [] where there are none."""
    folder = VocFolder(root)
    return list(folder.lists) or [place.split for place in folder.places if place.split is not None]


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One split of a VOC folder, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several splits of a VOC folder; each XML is parsed once.

    VOC counts pixels from 1 and includes the last: boxes become (xmin - 1, ymin - 1, xmax, ymax), half-open and
    0-based, as in the devkit's own area. Many tools write VOC files that count from 0; where the folder's boxes show
    it (VocFolder.zero_based) xmin and ymin are not shifted, which is listed as a note. Where they do not show it, such
    boxes come out one pixel to the left and up. `extra["corners"]` (N, 4) keeps the corners as written. A box with
    xmin = xmax is dropped as empty, for the tools that write it mean two equal edges, not a pixel. Without `classes`
    the names of the whole folder are sorted.

    The image is the file of the XML's own name; <filename> is asked only where there is none, and may not leave the
    folder. An XML with a DOCTYPE or entities is refused, never expanded. `probe_images=False` is for judging: no image
    is needed, <size> is believed, boxes stay as written. Raises DataError for an unknown split.
    """
    folder = VocFolder(root)
    if not folder.places:
        raise DataError(f"{shown(root, root.parent)} is no {NAME} folder", problems=[f"looked for {LOOKED_FOR}"])
    names_of_classes = tuple(folder.classes if classes is None else classes)
    return [_read(folder, name, names_of_classes, probe_images) for name in names]


def _read(folder: VocFolder, split: str | None, classes: tuple[str, ...], probe_images: bool) -> Dataset:
    if split is None or split in folder.lists:
        places = folder.places
    else:
        places = [place for place in folder.places if place.split == split]
        if not places:
            known = [*folder.lists, *(place.split for place in folder.places if place.split)]
            raise DataError(
                f"no split {split!r}{did_you_mean(split, known)}; there are: {', '.join(known) or 'none'}"
            )  # fmt: skip
    ids = folder.lists.get(split or "")
    parts = [_read_place(folder, place, ids, place.split or split or "all", classes, probe_images) for place in places]
    return parts[0] if len(parts) == 1 else merged(parts, "all")


def _read_place(
    folder: VocFolder, place: Place, ids: list[str] | None, split: str, classes: tuple[str, ...], probe_images: bool
) -> Dataset:
    listing, labels = Listing(folder.root), label_map(classes)
    images: list[ImageInfo] = []
    annotations: dict[int | str, Annotations] = {}
    counted = 0
    if folder.zero_based:
        zeros, ones = folder.corner_counts
        listing.add("zero-based", f"coordinates count from 0: {zeros} left or upper sides are 0, {ones} are 1")
    for image_id in place.files if ids is None else ids:
        voc = place.parsed.get(image_id)
        if voc is None:
            listing.add("missing-annotation", f"the list {split} names it, but there is no XML", image=image_id)
            continue
        counted += len(voc.objects)
        image = _image(voc, image_id, place, listing, probe_images)
        if image is None:
            continue
        if probe_images and voc.width and voc.height:
            compare_size(image, voc.width, voc.height, listing, voc.path)
        rows = [row for item in voc.objects if (row := _row(item, folder.zero_based, listing, voc, image_id))]
        images.append(image)
        annotations[image_id] = checked_boxes(rows, image, labels, listing, voc.path, as_written=not probe_images)
    if ids is None and probe_images:
        _list_unannotated(place, listing)
    read_images = len(place.files if ids is None else ids)
    return Dataset(
        folder.root, "voc", split, classes, tuple(images), annotations, tuple(listing.findings), counted, read_images
    )


def _image(voc: VocFile, image_id: str, place: Place, listing: Listing, probe_images: bool) -> ImageInfo | None:
    if voc.error is not None:
        code = "refused-xml" if isinstance(voc.error, RefusedXmlError) else "unreadable-annotation"
        listing.add(code, voc.error.message, file=voc.path, image=image_id)
        return None
    if not probe_images:
        sizes = [int(side) if side >= 1 else 0 for side in (voc.width, voc.height)]
        return ImageInfo(image_id, place.images[0] / f"{image_id}.jpg", *(sizes if all(sizes) else (0, 0)))
    found = place.pictures.get(image_id, [])
    written = voc.filename.replace("\\", "/").rsplit("/", 1)[-1]
    path = next((path for path in found if path.name == written), found[0] if found else None)
    if path is None:
        name = safe_relative(voc.filename) if voc.filename else None
        if voc.filename and name is None:
            listing.add(
                "path-escape", f"<filename> {voc.filename!r} leads out of the folder", file=voc.path, image=image_id
            )
            return None
        if name is not None:
            tries = (name.as_posix(), name.name, name.stem)
            found = next((place.pictures[key] for key in tries if key in place.pictures), [])
        if not found:
            what = f"no image named {image_id!r}" + (f" or {voc.filename!r}" if voc.filename else "")
            listing.add("missing-image", what, file=voc.path, image=image_id)
            return None
        path = found[0]
    if leads_out(path, (*place.images, place.annotations)):
        listing.add("path-escape", "the image is a link that leads out of the folder", file=path, image=image_id)
        return None
    return probed(image_id, path, listing)


def _row(item: VocObject, zero_based: bool, listing: Listing, voc: VocFile, image_id: str) -> Row | None:
    if item.corners is None or not item.name:
        what = f"object {item.name!r}: {item.raw}" if item.name else "an object without <name>"
        listing.add("bad-row", what, file=voc.path, line=item.line, image=image_id)
        return None
    x1, y1, x2, y2 = item.corners
    shift = 0.0 if zero_based else 1.0
    extra = {"truncated": item.truncated, "occluded": item.occluded, "line": item.line, "corners": item.corners}
    box = (x1 - shift, y1 - shift, x2, y2)
    return Row(item.name, box, item.raw, item.line, item.corners, item.difficult, extra=extra)


def _list_unannotated(place: Place, listing: Listing) -> None:
    used = {key.rsplit("/", 1)[-1] for key in place.files}
    used |= {Path(file.filename.replace("\\", "/")).stem for file in place.parsed.values()}
    paths = {path for paths in place.pictures.values() for path in paths}
    alone = sorted(shown(path, listing.root) for path in paths if printable(path.stem) not in used)
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        listing.add(
            "unannotated-images", f"{len(alone)} images without XML: {', '.join(alone[:3])}{more}", count=len(alone)
        )


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one split: Annotations/, JPEGImages/ (`images`: 'copy', 'link' or None) and its list in ImageSets/Main.

    Coordinates are 1-based and closed, with decimals (up to six) only where the box has them. VOC cannot hold boxes of
    a pixel or less, nor ignore and crowd flags: such boxes are left out, and listed in the answer.
    """
    listing = Listing(dataset.root)
    for image in dataset.images:
        stem = file_stem(image.id)
        truth = dataset.annotations[image.id]
        name = stem + image.path.suffix
        put_text(root / "Annotations" / f"{stem}.xml", _xml(dataset, image, truth, name, listing))
        put_image(image.path, root / "JPEGImages" / name, images)
    ids = "".join(f"{file_stem(image.id)}\n" for image in dataset.images)
    put_text(root / "ImageSets" / "Main" / f"{file_stem(dataset.split)}.txt", ids)
    return listing.findings


def _xml(dataset: Dataset, image: ImageInfo, truth: Annotations, name: str, listing: Listing) -> str:
    lines = [
        "<annotation>", "  <folder>JPEGImages</folder>", f"  <filename>{escape(name)}</filename>",
        f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>",
    ]  # fmt: skip
    flags = [truth.extra.get(key, [0] * len(truth)) for key in ("truncated", "occluded")]
    for i, box in enumerate(truth.boxes):
        x1, y1, x2, y2 = (float(side) for side in box)
        if x2 - x1 <= 1 or y2 - y1 <= 1:
            what = "a side of one pixel or less"
            listing.add("thin-box", what, file=image.path, image=image.id, box=(x1, y1, x2, y2))
            continue
        if truth.ignore[i] or truth.crowd[i]:
            what = "left out: VOC has no ignore or crowd flag"
            listing.add("lost-flag", what, file=image.path, image=image.id, box=(x1, y1, x2, y2))
            continue
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True)
        lines += [
            "  <object>", f"    <name>{escape(dataset.classes[truth.labels[i]])}</name>",
            f"    <truncated>{_short(flags[0][i])}</truncated>", f"    <occluded>{_short(flags[1][i])}</occluded>",
            f"    <difficult>{int(truth.difficult[i])}</difficult>",
            "    <bndbox>" + "".join(f"<{tag}>{_short(side)}</{tag}>" for tag, side in corners) + "</bndbox>",
            "  </object>",
        ]  # fmt: skip
    return "\n".join([*lines, "</annotation>", ""])


def _short(value: float) -> str:
    return f"{float(value):.6f}".rstrip("0").rstrip(".")
