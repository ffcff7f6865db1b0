"""WIDER FACE's detections: a folder per event, a txt per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from onestage.boxes.geometry import corners
from onestage.data.detections.faults import fault
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.plain_text import files_inside
from onestage.data.detections.rows import Rows, measured
from onestage.data.formats.files import IMAGE_SUFFIXES, put_text, shown, text_lines
from onestage.data.formats.rows import is_number
from onestage.errors import DataError
from onestage.records import Detections, FloatArray, ImageId, ImageInfo, Where

NAME = "WIDER FACE txt"
LOOKED_FOR = "EVENT/IMAGE.txt: the image's name, the number of rows, then x y width height score"
CLASS = "face"
_COLUMNS = 5
_SAMPLED = 50
_Line = tuple[int, list[str]]


def recognise(path: Path) -> str | None:
    """Why the folder `path` is taken for WIDER FACE's detections, in words; None where it is not.

    Of the first files that hold something, one must begin with its own name, then a count.
    """
    if not path.is_dir():
        return None
    files = files_inside(path, {".txt"})
    for file in files[:_SAMPLED]:
        with file.open("rb") as stream:
            lines = [line for line in stream.read(4096).decode("utf-8-sig", "replace").splitlines() if line.strip()]
        if len(lines) < 2:
            continue
        row = _words(lines[2]) if len(lines) > 2 else ["0"] * _COLUMNS
        if _bare(lines[0]) == file.stem and lines[1].strip().isdecimal() and len(row) >= _COLUMNS:
            events = len({file.parent for file in files})
            return f"{NAME}, {len(files)} files in {events} folder{'s' * (events != 1)}"
    return None


def read(path: Path) -> Rows:
    """The detections of a folder (or of one file), a file per image; images are named "event/name" without suffix.

    The event is the file's folder, the name that of the first line, as the official tool takes them. Numbers may be
    apart by blanks, tabs or commas; columns after the fifth are passed over. Listed in `Rows.findings`: rows that
    cannot be read, a count that disagrees with the rows (which are believed), a first line that is missing or names
    another event or file, empty files, a second file of an image. Raises DataError where there is no .txt.
    """
    files = files_inside(path, {".txt"}) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .txt", hint=f"expected {LOOKED_FOR}")
    reading = _Reading(path if path.is_dir() else path.parent)
    for file in files:
        reading.add(file)
    return reading.gathered.rows()


def write(
    detections: Mapping[ImageId, Detections], images: Sequence[ImageInfo], folder: Path, plus_one: bool = False
) -> list[Path]:
    """Write EVENT/NAME.txt for every image, also for those without detections; the paths, in the images' order.

    The event is the folder that the image lies in, the first line "EVENT/NAME.jpg", rows are x y width height score,
    highest score first. A width is x2 - x1, as the official tool adds it to x, in the truth as here; with `plus_one`
    it is one more. Raises DataError for images that would share a file.
    """
    files = [folder / _event_of(image) / f"{image.path.stem}.txt" for image in images]
    seen: dict[Path, ImageInfo] = {}
    twice = [
        f"{image.path} and {seen[file].path}"
        for file, image in zip(files, images, strict=True)
        if seen.setdefault(file, image) is not image
    ]
    if twice:
        raise DataError(
            "images of one name in folders of one name would share a file", problems=twice[:10],
            hint=f"{NAME} names an image by its folder and its own name alone",
        )  # fmt: skip
    for file, image in zip(files, images, strict=True):
        found = detections.get(image.id, Detections.empty())
        put_text(file, f"{file.parent.name}/{image.path.name}\n{len(found)}\n" + "".join(measured(found, plus_one)))
    return files


def _event_of(image: ImageInfo) -> str:
    return image.path.parent.name or image.path.absolute().parent.name or "images"


@dataclass
class _Reading:
    """What has been read of a folder so far; `files` says which file spoke of an image."""

    root: Path
    gathered: Gathering = field(default_factory=Gathering)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, file: Path) -> None:
        named = shown(file, self.root)
        lines = [(line, words) for line, text in enumerate(text_lines(file), 1) if (words := _words(text))]
        image, count, rows = self._head(file, named, lines)
        if image in self.files:
            self.gathered.refuse(named, None, f"image {image} has a file already: {self.files[image]}", image)
            return
        self.files[image] = named
        self.gathered.speak_of(image)
        numbers, values = self._values(rows, named, image)
        if count is not None and count != len(rows):
            told = f"the count is {count}, there are {len(rows)} rows"
            self._list("count-mismatch", named, None, told, image)
        self.gathered.add(named, numbers, image, CLASS, corners(values[:, :4]), values[:, 4])

    def _head(self, file: Path, named: str, lines: list[_Line]) -> tuple[str, int | None, list[_Line]]:
        """The image that a file speaks of, the count, and the lines after it."""
        if not lines:
            self._list("empty-file", named, None, "the file is empty", None)
        first = " ".join(lines[0][1]) if lines else ""
        is_name = bool(first) and (not is_number(lines[0][1][0]) or (len(lines) > 1 and _count(lines[1]) is not None))
        rest = lines[1:] if is_name else lines
        written = _bare(first) if is_name else file.stem
        event = self._event(file, first if is_name else "")
        image = f"{event}/{written}" if event else written
        if lines and not is_name:
            self._list("no-name", named, 1, "the first line names no image", image)
        elif is_name and written != file.stem:
            told = f"the first line names {written!r}"
            self._list("other-name", named, 1, told, image)
        elif is_name and "/" in first and first.split("/")[-2] != event:
            told = f"the first line names the event {first.split('/')[-2]!r}"
            self._list("other-event", named, 1, told, image)
        count = _count(rest[0]) if rest else None
        if count is not None:
            rest = rest[1:]
        elif lines:
            line = rest[0][0] if rest else None
            told = "the line with the count is missing"
            self._list("count-mismatch", named, line, told, image)
        return image, count, rest

    def _event(self, file: Path, first: str) -> str:
        if file.parent != self.root:
            return file.parent.name
        parts = first.replace("\\", "/").split("/")
        return parts[-2] if len(parts) > 1 else self.root.name if "--" in self.root.name else ""

    def _values(self, rows: Sequence[_Line], named: str, image: str) -> tuple[list[int], FloatArray]:
        """Line numbers (n,) and columns (n, 5) of the rows that can be read."""
        try:
            if any(len(words) != _COLUMNS for _, words in rows):
                raise ValueError
            flat = list(chain.from_iterable(words for _, words in rows))
            if "_" in " ".join(flat):  # Python reads 1_000 as a number
                raise ValueError
            values = np.fromiter(map(float, flat), np.float64, len(flat))
        except ValueError:
            rows = [(line, words) for line, words in rows if self._readable(line, words, named, image)]
            values = np.array([float(word) for _, words in rows for word in words[:_COLUMNS]])
        return [line for line, _ in rows], values.reshape(-1, _COLUMNS)

    def _readable(self, line: int, words: Sequence[str], named: str, image: str) -> bool:
        if len(words) < _COLUMNS or not all(map(is_number, words[:_COLUMNS])):
            self.gathered.refuse(named, line, f"{' '.join(words)[:80]!r}: expected x y width height score", image)
            return False
        if len(words) > _COLUMNS:
            told = f"{len(words)} columns"
            self._list("more-columns", named, line, told, image)
        return True

    def _list(self, code: str, file: str, line: int | None, what: str, image: str | None) -> None:
        self.gathered.note(fault(code, what, Where(file, line, image)))


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _bare(text: str) -> str:
    """The last part of an image's name, without the suffix of an image."""
    name = text.strip().replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _count(line: _Line) -> int | None:
    """The count that a line of one whole number tells."""
    words = line[1]
    if len(words) != 1 or not is_number(words[0]) or not float(words[0]).is_integer():
        return None
    return int(float(words[0]))
