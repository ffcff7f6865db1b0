"""FDDB's text layout: an image's name, a count, that many rows; for ellipses and detections alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from onestage.data.formats.files import text_lines
from onestage.data.formats.rows import is_number

_LINE = 512  # bytes that a line has at most on average


@dataclass(slots=True)
class Block:
    """What a file says of one image: its name, the count it gives (None: no count), and the rows, each with its line.

    `line` is that of the name, counted from 1.
    """

    name: str
    line: int
    count: int | None
    rows: list[tuple[int, list[str]]] = field(default_factory=list)

    def miscount(self, last: bool) -> str | None:
        """What is wrong with the count, in words; `last` for the last block of a file. None where it is right."""
        if self.count is None:
            return f"image {self.name}: no line with the number of rows follows its name"
        if self.count == len(self.rows):
            return None
        cut = " where the file ends: it is cut short" if last and len(self.rows) < self.count else ""
        return f"image {self.name}: the count says {self.count}, there are {len(self.rows)} rows{cut}"


def blocks(path: Path) -> list[Block]:
    """The blocks of a file in order, with whatever line ends, blank lines and spaces. Nothing is checked but shape.

    A line is a row where its first word is a number and others follow; more or fewer of them than the count says are
    taken as they stand.
    """
    lines = [(place, line.split()) for place, line in enumerate(text_lines(path), 1)]
    return _blocks([(place, words) for place, words in lines if words])


def looks_like(path: Path, columns: tuple[int, int], most: int = 400) -> list[Block]:
    """The first blocks of a file if it is laid out so, rows of `columns` (fewest, most) numbers; else [].

    A damaged file is still one: half of the blocks with a count and half of the rows are enough, from its first
    `most` lines.
    """
    try:
        with path.open("rb") as file:  # not line by line: a file of another kind may be one line of a gigabyte
            head = file.read(most * _LINE)
    except OSError:
        return []
    if b"\0" in head:
        return []
    if len(head) == most * _LINE:  # the last line may be cut
        head = head[: head.rfind(b"\n") + 1]
    lines = enumerate(head.decode("utf-8-sig", "replace").splitlines()[:most], 1)
    found = _blocks([(place, words) for place, line in lines if (words := line.split())])
    if not found or found[0].count is None or is_number(found[0].name.split()[0]):
        return []
    rows = [_fits(words, columns) for block in found for _, words in block.rows]
    counts = [block.count for block in found]
    empty = not rows and not any(counts)
    if 2 * sum(count is not None for count in counts) < len(found) or not (empty or 2 * sum(rows) > len(rows)):
        return []
    return found


def _fits(words: list[str], columns: tuple[int, int]) -> bool:
    return columns[0] <= len(words) <= columns[1] and all(map(is_number, words))


def _blocks(lines: list[tuple[int, list[str]]]) -> list[Block]:
    found: list[Block] = []
    at = 0
    while at < len(lines):
        place, words = lines[at]
        after = lines[at + 1][1] if at + 1 < len(lines) else []
        at += 1
        if found and _is_row(words, after, found[-1]):
            found[-1].rows.append((place, words))
            continue
        count = int(after[0]) if _is_count(after) else None
        found.append(Block(" ".join(words), place, count))
        at += count is not None
    return found


def _is_count(words: list[str]) -> bool:
    return len(words) == 1 and words[0].isascii() and words[0].isdigit() and len(words[0]) < 10


def _is_row(words: list[str], after: list[str], block: Block) -> bool:
    if not is_number(words[0]):
        return False
    # A lone number is the name of an image where a count follows, else what is left of a row
    return len(words) > 1 or (not _is_count(after) and block.count is not None and len(block.rows) < block.count)
