"""Lines of a face list: an image's path, a count or none, numbers per box; which layout a file has."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onestage.data.formats.files import IMAGE_SUFFIXES
from onestage.data.formats.rows import is_number, number

_ENDING = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES, key=len, reverse=True)))})(?=[\s\"']|$)", re.IGNORECASE
)
_CLASSES = 20  # a column of more different numbers is hardly one of classes


class Layout(NamedTuple):
    """How the numbers of a line stand: whether a count goes before, and how many there are per box."""

    counted: bool
    columns: int

    def __str__(self) -> str:
        row = "x y w h class" if self.columns == 5 else "x y w h"
        return f"path {'count ' * self.counted}{row} {row} …"


LAYOUTS = (Layout(True, 5), Layout(True, 4), Layout(False, 5), Layout(False, 4))


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number from 1, the image's path as written, and the words after it.

    `last`: the file ends within this line or right behind it, without a line end; `open_end`: with its last word, so
    that a number may have lost digits. `joined` is the path that stands before the path: two lines in one.
    """

    at: int
    name: str
    words: Sequence[str]
    last: bool = False
    open_end: bool = False
    joined: str | None = None


@dataclass(slots=True)
class Faces:
    """What a line says of its image: a row of words per box, `told` rows in all, and what is wrong with it.

    `wrong` is (code of a finding, what) or None; without `usable` no box of the line can be relied on.
    """

    rows: list[Sequence[str]] = field(default_factory=list)
    told: int = 0
    wrong: tuple[str, str] | None = None
    usable: bool = True


def lines_of(text: str) -> list[Line]:
    """The lines of a list, blank ones and comments (#) passed over; a line that names no image has the name ""."""
    texts = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    last = texts[-1][0] if texts and not text.endswith(("\n", "\r")) else 0
    return [_line(at, line, at == last) for at, line in texts if not line.lstrip().startswith("#")]


def _line(at: int, text: str, last: bool) -> Line:
    """The path goes up to the last image ending; without one, up to the numbers at the end of the line."""
    open_end = last and not text[-1:].isspace()
    endings = list(_ENDING.finditer(text))
    if not endings:
        words = list(re.finditer(r"\S+", text))
        start = len(words)
        while start > 0 and is_number(words[start - 1][0]):
            start -= 1
        name = text[words[0].start() : words[start - 1].end()] if start else ""
        return Line(at, name, [word[0] for word in words[start:]], last, open_end)
    end = endings[-1].end()
    for earlier in endings[:-1]:
        between = text[earlier.end() : end].split()
        if sum(map(is_number, between[:4])) == 4:
            return Line(at, _bare(text[:end]), text[end:].split(), last, open_end, _bare(text[: earlier.end()]))
    rest = text[end:]
    quoted = rest[:1] in ("'", '"') and text.lstrip()[:1] == rest[:1]
    return Line(at, _bare(text[:end]), rest[quoted:].split(), last, open_end)


def _bare(name: str) -> str:
    return name.strip().strip("'\"")


def fits(values: Sequence[float], layout: Layout) -> bool:
    """Whether the numbers after a path stand as `layout` says, without a remainder."""
    if not values or not all(map(math.isfinite, values)):
        return False
    rest = values[layout.counted :]
    if layout.counted and (_is_no_face(values) or len(rest) != values[0] * layout.columns):
        return _is_no_face(values)
    if len(rest) % layout.columns:
        return False
    return layout.columns == 4 or all(value >= 0 and value.is_integer() for value in rest[4::5])


def _is_no_face(values: Sequence[float]) -> bool:
    """A count of 0, alone or before a row of zeros."""
    return not any(values) and len(values) in (1, 5, 6)


def layout_of(lines: Sequence[Line]) -> tuple[Layout | None, int, int]:
    """The layout that most lines have, how many have it, and how many lines have numbers; None where fewer than half.

    Of layouts that fit equally many lines the one with a count goes first, then the one with a class. A last line
    without line end may be cut and does not count.
    """
    lines = whole_lines(lines)
    told = [[number(word) for word in line.words] for line in lines if line.name and line.words]
    votes = {layout: [values for values in told if fits(values, layout)] for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: len(votes[layout]))
    if best.columns == 5 and not _holds_classes(votes[best], best):
        best = max((layout for layout in LAYOUTS if layout.columns == 4), key=lambda layout: len(votes[layout]))
    return (best if 2 * len(votes[best]) > len(told) else None), len(votes[best]), len(told)


def whole_lines(lines: Sequence[Line]) -> Sequence[Line]:
    """All but a last one that may be cut, where there are others."""
    return [line for line in lines if not line.last] or lines


def _holds_classes(lines: Sequence[Sequence[float]], layout: Layout) -> bool:
    """Whether the fifth numbers are few different ones, as classes are; ten landmark coordinates are not."""
    numbers = [value for values in lines for value in values[layout.counted :][4::5]]
    return len(set(numbers)) <= max(_CLASSES, len(numbers) // 2) and max(numbers, default=0) < 1000


def faces_of(line: Line, layout: Layout) -> Faces:
    """The rows of a line of a file that has this layout, and what is wrong with it."""
    words = line.words[layout.counted :]
    whole, left = divmod(len(words), layout.columns)
    rows = [words[at : at + layout.columns] for at in range(0, whole * layout.columns, layout.columns)]
    told = whole + (left > 0)
    count = _count(line.words[0]) if layout.counted and line.words else None
    if line.joined is not None:
        return Faces([], told, ("misfit-line", f"two lines stand in one, for {line.joined!r} comes before"), False)
    if layout.counted and line.words and _is_no_face([number(word) for word in line.words]):
        return Faces()
    if line.last and (not line.words or left or (layout.counted and (count is None or whole < count))):
        if rows and not left and line.open_end and layout.columns == 4:
            rows.pop()  # its last number may have lost digits
        said = f"{len(rows)} of {count} boxes are whole" if count else f"{len(rows)} boxes are whole"
        return Faces(rows, told, ("cut-short", f"the file ends within the line; {said}"), bool(rows))
    if not line.words and layout.counted:
        return Faces([], 0, ("misfit-line", "nothing follows the path, not even a count"), False)
    if left:
        before = f"after the count {line.words[0]} " if layout.counted else ""
        what = f"{len(words)} number{'s' * (len(words) != 1)} {before}are no whole boxes of {layout.columns}"
        return Faces([], told, ("misfit-line", what), False)
    if layout.counted and count != whole:
        said = f"{line.words[0][:20]!r} is no count" if count is None else f"a count of {line.words[0][:20]}"
        return Faces(rows, told, ("count-mismatch", f"{said}, {whole} box{'es' * (whole != 1)}"))
    return Faces(rows, told)


def _count(word: str) -> int | None:
    value = number(word)
    return int(value) if math.isfinite(value) and value >= 0 and value.is_integer() else None
