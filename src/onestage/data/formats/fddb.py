"""FDDB's folds: faces as ellipses, with or without the images; read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onestage.data.dataset import Dataset
from onestage.data.formats.fddb_blocks import Block, blocks
from onestage.data.formats.fddb_folder import Fold, Pictures, folds, known_sizes
from onestage.data.formats.files import file_stem, leads_out, put_image, put_text, safe_relative, shown, text_lines
from onestage.data.formats.listing import Listing
from onestage.data.formats.rows import Box, Row, checked_boxes, label_map, number, probed
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding, ImageId, ImageInfo

NAME = "FDDB"
LOOKED_FOR = "FDDB-folds/FDDB-fold-XX-ellipseList.txt, with the images in originalPics/ beside it"
FACE = "face"


def recognise(root: Path) -> str | None:
    """Why `root` (a folder, or one ellipse list) is taken for FDDB, in words; None where it is not."""
    found = list(folds(root).values())
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{NAME} ellipse list {shown(found[0].ellipses, root if root.is_dir() else root.parent)}{more}"


def splits(root: Path) -> list[str]:
    """One set, "all": the folds are parts of one test set. `read` takes a fold's name ("fold-01") all the same."""
    return ["all"] if folds(root) else []


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """All folds of an FDDB folder, or the one that `split` names ("fold-01"). See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of an FDDB folder: None and "all" are all folds, "fold-01" and so on one of them.

    A box is the upright rectangle around its ellipse; extra["ellipse"] keeps major radius, minor radius, angle in
    radians and centre x, y as written, extra["fold"] the fold's number. The class is "face"; ids are FDDB's names
    ("2002/08/11/big/img_591"). The column after the ellipse, always 1, is not used.

    `probe_images=False` is for judging: boxes stay as written, even beyond the border, as the official tool takes
    them; sizes are those of FDDB's own images, known by name, else the image's where its file is there, else 0 x 0.
    Raises DataError for a folder without folds and for an unknown set.
    """
    found = folds(root)
    if not found:
        raise DataError(
            f"{shown(root, root.parent)} holds no {NAME} ellipse list", problems=[f"looked for {LOOKED_FOR}"]
        )
    wrong = [name for name in names if name not in (None, "all", *found)]
    if wrong:
        there = ["all", *found]
        raise DataError(f"no set {wrong[0]!r}{did_you_mean(str(wrong[0]), there)}; there are: {', '.join(there)}")
    chosen = tuple((FACE,) if classes is None else classes)
    sets = [
        ("all", list(found.values())) if name in (None, "all") else (str(name), [found[str(name)]]) for name in names
    ]
    return [_Reading(root, chosen, probe_images).read(name, parts) for name, parts in sets]


@dataclass
class _Reading:
    """One set while it is read."""

    root: Path
    classes: tuple[str, ...]
    probe_images: bool
    images: list[ImageInfo] = field(default_factory=list)
    annotations: dict[ImageId, Annotations] = field(default_factory=dict)
    boxes_read: int = 0
    images_read: int = 0
    by_table: int = 0

    def __post_init__(self) -> None:
        self.listing = Listing(self.root if self.root.is_dir() else self.root.parent)
        self.labels = label_map(self.classes)

    def read(self, name: str, parts: Sequence[Fold]) -> Dataset:
        for fold in parts:
            self._fold(fold)
        if self.by_table:
            what = f"the sizes of {self.by_table} images are those that FDDB's images of these names have"
            self.listing.add("known-size", what, count=self.by_table)
        return Dataset(
            self.root, "fddb", name, self.classes, tuple(self.images), self.annotations,
            tuple(self.listing.findings), self.boxes_read, self.images_read,
        )  # fmt: skip

    def _fold(self, fold: Fold) -> None:
        found = blocks(fold.ellipses)
        self._compare_names(fold, found)
        pictures = Pictures(self.root, fold.ellipses)
        for block in found:
            wrong = block.miscount(block is found[-1])
            if wrong is not None:
                self.listing.add("count-mismatch", wrong, file=fold.ellipses, line=block.line, image=block.name)
            self.images_read += 1
            self.boxes_read += max(len(block.rows), block.count or 0)
            if block.name in self.annotations:
                what = "this image stands in the lists a second time"
                self.listing.add("repeated-image", what, file=fold.ellipses, line=block.line, image=block.name)
                continue
            image = self._image(block, fold, pictures)
            if image is None:
                continue
            rows = [row for line, words in block.rows if (row := self._row(line, words, block, fold)) is not None]
            # Faces beyond the border are FDDB's rule, not an oddity: without a size none is listed
            frame = image if self.probe_images else ImageInfo(image.id, image.path, 0, 0)
            self.images.append(image)
            self.annotations[image.id] = checked_boxes(
                rows, frame, self.labels, self.listing, fold.ellipses, as_written=not self.probe_images
            )

    def _compare_names(self, fold: Fold, found: Sequence[Block]) -> None:
        if fold.names is None:
            return
        named = {" ".join(line.split()): place for place, line in enumerate(text_lines(fold.names), 1) if line.strip()}
        there = {block.name for block in found}
        for name, place in named.items():
            if name not in there:
                what = f"{fold.ellipses.name} says nothing of it{did_you_mean(name, there - set(named))}"
                self.images_read += 1
                self.listing.add("missing-annotation", what, file=fold.names, line=place, image=name)
        for block in found:
            if block.name not in named:
                what = f"{fold.names.name} does not name it"
                self.listing.add("unlisted-image", what, file=fold.ellipses, line=block.line, image=block.name)

    def _image(self, block: Block, fold: Fold, pictures: Pictures) -> ImageInfo | None:
        relative = safe_relative(block.name)
        if relative is None:
            what = f"the name {block.name!r} leads out of the folder"
            self.listing.add("path-escape", what, file=fold.ellipses, line=block.line, image=block.name)
            return None
        if not self.probe_images and (size := known_sizes().get(block.name)) is not None:
            self.by_table += 1
            return ImageInfo(block.name, self.listing.root / f"{block.name}.jpg", *size)
        path = pictures.find(block.name)
        if path is not None and leads_out(path, [*pictures.folders, self.listing.root]):
            what = "the image is a link that leads out of the folder"
            self.listing.add("path-escape", what, file=path, image=block.name)
            path = None
            if self.probe_images:
                return None
        if self.probe_images:
            if path is None:
                what = f"no image {block.name}.jpg in originalPics/ beside the folds"
                self.listing.add("missing-image", what, file=fold.ellipses, line=block.line, image=block.name)
                return None
            return probed(block.name, path, self.listing)
        quiet = Listing(self.listing.root)
        unknown = ImageInfo(block.name, path or self.listing.root / f"{block.name}.jpg", 0, 0)
        return unknown if path is None else probed(block.name, path, quiet) or unknown

    def _row(self, line: int, words: Sequence[str], block: Block, fold: Fold) -> Row | None:
        values = [number(word) for word in words[:5]]
        raw = " ".join(words)
        if len(values) < 5 or min(values[:2]) < 0:
            what = f"{raw}: expected two radii, an angle and a centre" + (
                f", got {len(words)} numbers" if len(values) < 5 else "; a radius is negative"
            )
            self.listing.add("bad-row", what, file=fold.ellipses, line=line, image=block.name)
            return None
        extra = {"ellipse": tuple(values), "fold": fold.number, "line": line}
        return Row(FACE, upright(values), raw, line, extra=extra)


def upright(ellipse: Sequence[float]) -> Box:
    """The upright rectangle around an ellipse (radii, angle, centre x, y); NaN where a number is not finite."""
    if not all(map(math.isfinite, ellipse)):
        return (math.nan,) * 4
    major, minor, angle, x, y = ellipse
    right = math.hypot(major * math.cos(angle), minor * math.sin(angle))
    down = math.hypot(major * math.sin(angle), minor * math.cos(angle))
    return (x - right, y - down, x + right, y + down)


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes FDDB-folds/FDDB-fold-XX.txt and -ellipseList.txt, and the images to originalPics/ ('copy', 'link', None).

    Images go to the fold of extra["fold"], else to that of the image before, from fold 1. A box without an ellipse is
    written as the one that fills it. FDDB knows faces alone: classes, and boxes marked ignore or crowd, are lost,
    which the answer lists.
    """
    listing = Listing(dataset.root)
    texts: dict[int, tuple[list[str], list[str]]] = {}
    fold = drawn = 0
    if len(dataset.classes) > 1:
        what = f"all boxes are written as faces; the classes were {', '.join(dataset.classes)}"
        listing.add("lost-class", what)
    for image in dataset.images:
        truth, name = dataset.annotations[image.id], file_stem(image.id)
        fold = int(truth.extra["fold"][0]) if len(truth.extra.get("fold", ())) else max(fold, 1)
        kept = truth.take(~(truth.ignore | truth.crowd))
        if len(kept) < len(truth):
            what = f"{len(truth) - len(kept)} boxes left out: {NAME} has no ignore or crowd flag"
            listing.add("lost-flag", what, image=image.id)
        drawn += 0 if "ellipse" in truth.extra else len(kept)
        ellipses = kept.extra["ellipse"] if "ellipse" in truth.extra else [_filling(box) for box in kept.boxes.tolist()]
        names, rows = texts.setdefault(fold, ([], []))
        names.append(name)
        rows += [name, str(len(kept)), *(" ".join(f"{value:.6f}" for value in row) + "  1" for row in ellipses)]
        put_image(image.path, root / "originalPics" / f"{name}{image.path.suffix}", images)
    if drawn:
        listing.add("box-as-ellipse", f"{drawn} boxes had no ellipse", count=drawn)
    for place, (names, rows) in texts.items():
        for suffix, lines in (("", names), ("-ellipseList", rows)):
            path = root / "FDDB-folds" / f"FDDB-fold-{place:02d}{suffix}.txt"
            put_text(path, "".join(f"{line}\n" for line in lines))
    return listing.findings


def _filling(box: Sequence[float]) -> tuple[float, ...]:
    x1, y1, x2, y2 = box
    sides, centre = ((x2 - x1) / 2, (y2 - y1) / 2), ((x1 + x2) / 2, (y1 + y2) / 2)
    return (max(sides), min(sides), math.pi / 2 if sides[1] >= sides[0] else 0.0, *centre)
