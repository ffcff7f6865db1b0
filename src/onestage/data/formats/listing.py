"""The list of what was found wrong while reading: every code with its weight, effect and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onestage.data.formats.files import shown
from onestage.records import Finding, ImageId, Severity, Where

_LOST = "the box is left out; the image is kept"
CODES: dict[str, tuple[Severity, str, str]] = {
    # code: (severity, what it does, what to do)
    "bad-row": ("warning", _LOST, "correct the row in the annotation file"),
    "not-a-number": ("warning", _LOST, "write four finite numbers"),
    "zero-area-box": ("warning", _LOST, "draw the box again, or delete it"),
    "inverted-box": ("warning", _LOST, "swap the corners, or draw the box again"),
    "box-outside": ("warning", _LOST, "check that the annotation belongs to this image and to this size of it"),
    "unknown-class": ("warning", _LOST, "add the class to the list, or rename it in the annotation file"),
    "kept-aside": (
        "warning", "it is kept as a region to ignore: not trained, yet counted by VisDrone's judge",
        "correct the row, or delete it",
    ),
    "no-object-category": ("note", "these rows are left out; they keep their place in the file", ""),
    "duplicate-box": ("warning", "the first is kept, the repetition is left out", "delete the repeated row"),
    "orphan-annotation": ("warning", _LOST, "delete the annotation, or add its image to the list of images"),
    "box-clipped": ("note", "the box is cut at the border of the image", ""),
    "kept-as-written": ("note", "it is judged as the file has it; training would leave it out or cut it", ""),
    "polygon-row": ("note", "the rectangle around each polygon is used", ""),
    "zero-based": (
        "note", "xmin and ymin are taken as they stand, without VOC's shift by one pixel; the devkit would still count "
        "xmax and ymax as pixels of the box: with comp4 files so do VOC's protocols, with others voc07+1 and voc10+1",
        "",
    ),
    "size-mismatch": (
        "warning",
        "the image's own size is used and the boxes are kept as written, cut at the image's border",
        "check whether the image was resized or rotated after it was annotated",
    ),
    "unreadable-image": ("error", "the image is left out", "replace the image file"),
    "missing-image": ("error", "the annotation is left out", "add the image file, or delete the annotation"),
    "missing-annotation": ("error", "the image is left out", "add an annotation file; one without objects will do"),
    "unannotated-images": (
        "warning", "they are left out, for it is not known whether they hold objects",
        "annotate them; an annotation file without objects says that there are none",
    ),
    "no-label-file": (
        "note", "they are images without objects; darknet stops at them", "write an empty file where nothing is to be "
        "seen, and find the others",
    ),
    "missing-names": ("warning", "classes are called by their number", "put the .names file beside the .data file"),
    "unread-list": ("note", "objects that it calls difficult are not in the truth", ""),
    "orphan-label-file": ("warning", "its boxes are not used", "add the image file, or delete the label file"),
    "unreadable-annotation": ("error", "the image is left out", "correct or replace the annotation file"),
    "refused-xml": ("error", "the file is not read further and its image is left out", "remove the DOCTYPE"),
    "path-escape": ("error", "the file is not opened", "copy the file into the dataset's folder, or hard-link it"),
    "repeated-image": ("warning", "the first entry is kept", "delete the repeated entry"),
    "repeated-id": (
        "warning", "each annotation counts; pycocotools puts the last with an id in the place of all that have it",
        "number the annotations anew, from 1",
    ),
    "count-mismatch": ("warning", "the rows that stand there are used", "correct the count, or get the whole file"),
    "misfit-line": ("error", "the image is left out, for its boxes are not known", "correct the line"),
    "joined-lines": ("warning", "the boxes of all its lines are used", "write one line per image"),
    "shortened-paths": ("note", "the folders that are not there are left out of all paths of the list", ""),
    "numbered-classes": ("note", "", "give the names with classes=, where these are not the ones you mean"),
    "unlisted-image": ("warning", "it is used all the same", "add it to the list of images, or delete its block"),
    "known-size": ("note", "the image files were not looked at", ""),
    "class-count": ("warning", "the list of names is used", "make the two agree"),
    "classes-differ": ("warning", "the classes of all sets are used, by name", "give every set the same class list"),
    "set-named-twice": ("note", "", "name it once, and give it the ratio that is meant"),
    "shared-images": ("note", "they are taken once, with the boxes of the set that comes first", ""),
    "class-without-boxes": ("warning", "it cannot be learnt or judged", "check the spelling of the class"),
    "train-is-val": (
        "warning", "validating on training images would flatter the model; a split was made instead",
        "name other images for validation",
    ),
    "leak": (
        "warning", "the score on these images shows memory, not skill", "remove them from one of the two sets",
    ),
    "several-formats": ("note", "the first is read", "give the path of the annotation file itself"),
    "thin-box": ("warning", "the box is not written", "VOC cannot hold a box of one pixel or less; use COCO or YOLO"),
    "lost-class": ("warning", "one class is written for all", "write COCO, which can hold them"),
    "box-as-ellipse": ("note", "the ellipse that fills the box is written", ""),
    "cut-short": ("warning", "what could be read is kept; objects may be missing", "fetch the file again"),
    "no-line-end": ("note", "it may have been cut short", "compare its length with that of the original"),
    "missing-columns": ("note", "attributes that are not told are unknown (-1)", ""),
    "degenerate-face": (
        "warning", "it is kept in its place, but ignored: never trained, never missed",
        "draw the box again",
    ),
    "beyond-image": ("note", "it is kept as written, for the judge; training cuts it at the border", ""),
    "repeated-face": ("note", "both are kept, for the official lists count rows", ""),
    "level-row": ("warning", "the row is passed over", "fetch the .mat files again"),
    "levels-differ": (
        "warning", "levels are taken for equal boxes alone; others count as outside every level",
        "use the .mat files of this very set",
    ),
    "part-of-set": ("note", "scores by level are those of the images that are here", ""),
    "lost-flag": ("warning", "", "write COCO, which can hold it"),
}  # fmt: skip


class Listing:
    """Collects findings about one dataset; `root` shortens the file names in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[Finding] = []

    def add(
        self, code: str, what: str, *, file: Path | None = None, line: int | None = None,
        image: ImageId | None = None, box: tuple[float, float, float, float] | None = None, **evidence: Any,
    ) -> None:  # fmt: skip
        """Lists one finding of `CODES`; `what` says in words what stands there."""
        severity, consequence, remedy = CODES[code]
        where = Where(None if file is None else shown(file, self.root), line, image, box)
        self.findings.append(Finding(code, severity, where, what, consequence, remedy, evidence))


def finding_of(code: str, what: str) -> Finding:
    """A finding of `CODES` about a dataset as a whole, of no file."""
    severity, consequence, remedy = CODES[code]
    return Finding(code, severity, Where(), what, consequence, remedy)


def in_words(finding: Finding) -> str:
    """One line for a message to the user: place, what, and what comes of it."""
    place = str(finding.where)
    return f"{place + ': ' if place else ''}{finding.what} [{finding.code}]"
