"""WIDER FACE's detections: a folder per event, a txt per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from onestage.data.detections.rows import Rows
from onestage.data.formats.files import IMAGE_SUFFIXES, files_under, shown, text_lines
from onestage.errors import DataError
from onestage.records import Finding, FloatArray, IntArray, Severity, Where

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
    files = files_under(path, {".txt"})
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
    files = files_under(path, {".txt"}) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .txt", hint=f"expected {LOOKED_FOR}")
    root = path if path.is_dir() else path.parent
    reading = _Reading(root)
    for file in files:
        reading.add(file)
    return reading.rows()


@dataclass
class _Reading:
    """What has been read of a folder so far."""

    root: Path
    images: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    parts: list[tuple[int, IntArray, FloatArray]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, file: Path) -> None:
        named = shown(file, self.root)
        texts = text_lines(file)
        if any("," in text for text in texts):
            texts = [text.replace(",", " ") for text in texts]
        lines = [(line, words) for line, text in enumerate(texts, 1) if (words := text.split())]
        name, count, rows = self._head(file, named, lines)
        if name in self.images:
            self._list("bad-row", "error", named, None, f"image {name} has a file already: {self.images[name]}", name)
            return
        self.images[name] = named
        self.files.append(named)
        numbers, values = self._values(rows, named, name)
        if count is not None and count != len(rows):
            told = f"the count is {count}, there are {len(rows)} rows"
            self._list("row-count", "warning", named, None, told, name, "the rows that stand there are judged")
        if len(values):
            self.parts.append((len(self.images) - 1, numbers, values))

    def _head(self, file: Path, named: str, lines: list[_Line]) -> tuple[str, int | None, list[_Line]]:
        """The image that a file speaks of, the count, and the lines after it."""
        if not lines:
            what = "the file is empty"
            self._list("empty-file", "warning", named, None, what, None, "an image in which nothing was found")
        first = " ".join(lines[0][1]) if lines else ""
        is_name = bool(first) and (not _is_number(lines[0][1][0]) or (len(lines) > 1 and _count(lines[1]) is not None))
        rest = lines[1:] if is_name else lines
        written = _bare(first) if is_name else file.stem
        event = self._event(file, first if is_name else "")
        name = f"{event}/{written}" if event else written
        if lines and not is_name:
            told = "the first line names no image"
            self._list("no-name", "warning", named, 1, told, name, "the file's own name is taken")
        elif is_name and written != file.stem:
            told = f"the first line names {written!r}"
            self._list("other-name", "warning", named, 1, told, name, "the name is taken, as in the official tool")
        elif is_name and "/" in first and first.split("/")[-2] != event:
            told = f"the first line names the event {first.split('/')[-2]!r}"
            self._list("other-event", "warning", named, 1, told, name, "the folder's name is taken")
        count = _count(rest[0]) if rest else None
        if count is not None:
            rest = rest[1:]
        elif lines:
            line = rest[0][0] if rest else None
            told = "the line with the count is missing"
            self._list("row-count", "warning", named, line, told, name, "the rows that stand there are judged")
        return name, count, rest

    def _event(self, file: Path, first: str) -> str:
        if file.parent != self.root:
            return file.parent.name
        parts = first.replace("\\", "/").split("/")
        return parts[-2] if len(parts) > 1 else self.root.name if "--" in self.root.name else ""

    def _values(self, rows: Sequence[_Line], named: str, image: str) -> tuple[IntArray, FloatArray]:
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
        return np.array([line for line, _ in rows], np.int64), values.reshape(-1, _COLUMNS)

    def _readable(self, line: int, words: Sequence[str], named: str, image: str) -> bool:
        if len(words) < _COLUMNS or not all(map(_is_number, words[:_COLUMNS])):
            what = f"{' '.join(words)[:80]!r}: expected x y width height score"
            self._list("bad-row", "error", named, line, what, image)
            return False
        if len(words) > _COLUMNS:
            told = f"{len(words)} columns"
            self._list("more-columns", "note", named, line, told, image, "those after the fifth are passed over")
        return True

    def _list(
        self, code: str, severity: Severity, file: str, line: int | None, what: str, image: str | None,
        consequence: str = "",
    ) -> None:  # fmt: skip
        self.findings.append(Finding(code, severity, Where(file, line, image), what, consequence))

    def rows(self) -> Rows:
        """All that was read, in columns."""
        lengths = [len(numbers) for _, numbers, _ in self.parts]
        image = np.repeat(np.array([index for index, _, _ in self.parts], np.int64), lengths)
        lines = np.fromiter(chain.from_iterable(numbers for _, numbers, _ in self.parts), np.int64, sum(lengths))
        values = np.concatenate([np.zeros((0, _COLUMNS)), *(values for _, _, values in self.parts)])
        boxes = values[:, :4].copy()
        boxes[:, 2:] += boxes[:, :2]
        return Rows(
            tuple(self.images), (CLASS,), tuple(self.files), image, np.zeros(len(values), np.int64), image.copy(),
            lines, boxes, values[:, 4].copy(), findings=tuple(self.findings),
        )  # fmt: skip


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _bare(text: str) -> str:
    """The last part of an image's name, without the suffix of an image."""
    name = text.strip().replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _count(line: _Line) -> int | None:
    """The count that a line of one whole number tells."""
    words = line[1]
    if len(words) != 1 or not _is_number(words[0]) or not float(words[0]).is_integer():
        return None
    return int(float(words[0]))
