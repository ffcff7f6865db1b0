"""FDDB's detection files: fold-XX-out.txt or one file, rectangles or ellipses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.detections.faults import fault
from onestage.data.detections.plain_text import files_inside
from onestage.data.detections.rows import Rows, measured
from onestage.data.formats.fddb import FACE, upright
from onestage.data.formats.fddb_blocks import Block, blocks, looks_like
from onestage.data.formats.fddb_folder import TURN
from onestage.data.formats.files import IMAGE_SUFFIXES, put_text, shown
from onestage.data.formats.rows import is_number
from onestage.errors import DataError
from onestage.records import Detections, Finding, ImageId, ImageInfo, Where

NAME = "FDDB detections"
LOOKED_FOR = "fold-XX-out.txt or one text file: an image's name, a count, rows of x y w h score or of an ellipse"
_COLUMNS = (5, 7)
_OWN_NAME = re.compile(r"\d{4}/\d\d/\d\d/big/img_\d+")


def recognise(path: Path) -> str | None:
    """Why `path` (a file, or a folder of such files) is taken for FDDB's detections, in words; None where it is not."""
    files = _files(path)
    if not files:
        return None
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{NAME}: {files[0].name}{more}, blocks of an image's name, a count and rows of numbers"


def read(path: Path) -> Rows:
    """The detections of one file, or of all such files of a folder.

    What the rows are is decided once for all files: rows of six numbers whose third is never beyond a full turn are
    ellipses (major radius, minor radius, angle, centre x, y, score); boxes are the upright rectangles around them and
    extra["ellipse"] (N, 5) keeps them as written. All else is x y w h score, further columns passed over, as the
    official tool reads it: lxg2015's files end each row with a constant 1, and so do six columns whose fifth is
    always from 0 to 1. A finding says which was taken where six columns left a choice.

    Rows that are no numbers, counts that are wrong and images that come twice are findings; rows beyond the count
    are read. Raises DataError where `path` holds no such file or one cannot be opened.
    """
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise DataError(f"{path.name} holds no {NAME}", problems=[f"looked for {LOOKED_FOR}"])
    try:
        read_in = [blocks(file) for file in files]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be opened: {error.strerror}") from error
    home = path if path.is_dir() else path.parent
    reading = _Reading([shown(file, home) for file in files], read_in)
    if path.is_dir():
        for other in sorted(set(files_inside(path, {".txt"}, deep=False)) - set(files)):
            reading.pass_over(shown(other, home))
    return reading.rows()


def write(
    detections: Mapping[ImageId, Detections], images: Sequence[ImageInfo], file: Path, plus_one: bool = False
) -> list[Path]:
    """Write one file of all images in their order, which must be that of the official tool's list of images.

    An image is called as FDDB does (2002/08/11/big/img_591), others by their id. Rows are x y width height score; the
    official tool draws a rectangle from x to x + width, both included. A width is x2 - x1; with `plus_one` it is one
    more, as zisianw/FaceBoxes.PyTorch writes it. What `extra["ellipse"]` says is not written.
    """
    blocks = []
    for image in images:
        own = _OWN_NAME.findall(image.path.as_posix())
        found = detections.get(image.id, Detections.empty())
        name = own[-1] if own else str(image.id)
        blocks.append(f"{name}\n{len(found)}\n" + "".join(measured(found, plus_one)))
    put_text(file, "".join(blocks))
    return [file]


def _files(path: Path) -> list[Path]:
    """The files of a folder: those called fold-…, whatever is in them, if one is of this form; else all that are."""
    if path.is_file():
        return [path] if _fits(path) else []
    if not path.is_dir():
        return []
    texts = files_inside(path, {".txt"}, deep=False)
    named = [file for file in texts if file.stem.lower().startswith("fold-")]
    fitting = [file for file in named or texts if _fits(file)]
    return named if named and fitting else fitting


def _fits(path: Path) -> bool:
    found = looks_like(path, _COLUMNS)
    # WIDER FACE lays out its detections alike, but one image to a file, and the name has its suffix
    return len(found) > 1 or (len(found) == 1 and Path(found[0].name).suffix.lower() not in IMAGE_SUFFIXES)


@dataclass
class _Reading:
    files: Sequence[str]
    blocks: Sequence[Sequence[Block]]
    findings: list[Finding] = field(default_factory=list)

    def pass_over(self, name: str) -> None:
        what = "it is not laid out as the others: an image's name, a count, rows of numbers"
        self.findings.append(fault("file-passed-over", what, Where(name)))

    def rows(self) -> Rows:
        images: dict[str, int] = {}
        ellipses = self._are_ellipses()
        values: list[tuple[float, ...]] = []
        where: list[tuple[int, int, int]] = []
        for file, line, name, words in self._all(images):
            numbers = [float(word) if is_number(word) else None for word in words[: 6 if ellipses else 5]]
            if None in numbers or len(numbers) < (6 if ellipses else 5):
                expected = "two radii, angle, centre x, y, score" if ellipses else "x y w h score"
                self._find("bad-row", f"expected {expected}, got {' '.join(words)[:80]!r}", file, line, name)
                continue
            values.append(tuple(float(number) for number in numbers if number is not None))
            where.append((images[name], file, line))
        table = np.array(values, np.float64).reshape(-1, 6 if ellipses else 5)
        image, file_of, line_of = np.array(where, np.int64).reshape(-1, 3).T
        if ellipses:
            boxes = np.array([upright(row) for row in table[:, :5].tolist()]).reshape(-1, 4)
        else:
            with np.errstate(over="ignore"):
                boxes = corners(table[:, :4])
        return Rows(
            tuple(images), (FACE,), tuple(self.files), image, np.zeros(len(table), np.int64), file_of, line_of, boxes,
            table[:, -1], extra={"ellipse": table[:, :5]} if ellipses else {}, findings=tuple(self.findings),
        )  # fmt: skip

    def _all(self, images: dict[str, int]) -> Iterator[tuple[int, int, str, list[str]]]:
        """Every row with its file, line and image; names go into `images`, wrong counts and repetitions are listed."""
        for file, found in enumerate(self.blocks):
            for block in found:
                wrong = block.miscount(block is found[-1])
                if wrong is not None:
                    self._find("count-mismatch", wrong, file, block.line, block.name)
                if block.name in images:
                    self._find("repeated-image", "this image comes a second time", file, block.line, block.name)
                images.setdefault(block.name, len(images))
                for line, words in block.rows:
                    yield file, line, block.name, words

    def _are_ellipses(self) -> bool:
        """Whether the rows of all files are ellipses; a finding says what was taken where it could be either."""
        rows = [words for found in self.blocks for block in found for _, words in block.rows]
        wide = [[float(word) for word in words] for words in rows if len(words) == 6 and all(map(is_number, words))]
        if not wide or 2 * len(wide) < len(rows):
            return False
        table = np.array(wide)
        constant = bool((table[:, 5] == 1).all())
        score_first = constant and bool(((table[:, 4] >= 0) & (table[:, 4] <= 1)).all())
        turns = bool((np.abs(table[:, 2]) <= TURN).all())
        ellipses = turns and not score_first
        if ellipses:
            what = "ellipses: six columns, and the third is never beyond a full turn"
        elif constant:
            what = "rectangles, x y w h score: six columns, the last is always 1 and is passed over"
        else:
            widest = math.inf if np.isnan(table[:, 2]).all() else float(np.nanmax(np.abs(table[:, 2])))
            what = f"rectangles, x y w h score: the third of six columns goes to {widest:g}; the last is passed over"
        self._find("six-columns", f"the rows are taken for {what}", None, None, None)
        return ellipses

    def _find(self, code: str, what: str, file: int | None, line: int | None, image: str | None) -> None:
        self.findings.append(fault(code, what, Where(None if file is None else self.files[file], line, image)))
