"""What may be wrong with detections: every code with its weight, effect and remedy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onestage.data.detections.rows import Rows
from onestage.data.formats.listing import in_words
from onestage.records import BoolArray, Finding, FloatArray, IntArray, Severity, Where

LISTED = 10
# What readers call rows that they could not read.
REFUSED = ("bad-row", "not-a-number", "unknown-class")
_STOPS = "nothing is judged; with allow_loss=true the rows are left out"
FAULTS: dict[str, tuple[Severity, str, str]] = {
    # code: (severity, what it does, what to do)
    "bad-row": ("error", _STOPS, "correct the rows, or the program that wrote them"),
    "unknown-image": ("error", _STOPS, "judge on the set the detections were made for: split=train, split=all, data="),
    "ambiguous-image": ("error", _STOPS, "name images by id, or by their path within the dataset"),
    "unknown-class": ("error", _STOPS, "rename the class; for numbers say what they mean: categories="),
    "absent-class": ("warning", "its rows are not judged, for the data has no object of it", "is the set complete?"),
    "not-a-score": ("error", _STOPS, "a score must be a finite number"),
    "not-a-box": ("error", _STOPS, "a box must be four finite numbers"),
    "inverted-box": (
        "error", _STOPS, "are these x y width height where corners are expected, or the other way round?",
    ),
    "unknown-size": ("error", _STOPS, "boxes in shares of the image need the images beside their annotations"),
    "duplicate-row": (
        "warning", "both are judged, as the official tools do: the copy counts as a false positive",
        "delete the copies; was the file written twice, or merged?",
    ),
    "box-outside": (
        "warning", "the row is judged: it can only be a false positive",
        "are these boxes of another size of the image, or not in pixels?",
    ),
    "box-across-border": ("note", "the box is judged as it stands, not cut", ""),
    "zero-area-box": ("warning", "the row is judged: it can only be a false positive", ""),
    "boxes-in-shares": (
        "warning", "they are judged as pixels, as this format counts them", "multiply them by width and height",
    ),
    "boxes-as-corners": (
        "warning", "they are judged as this format counts them", "write x y width height, not x1 y1 x2 y2",
    ),
    "unsorted": (
        "note", "rows are ranked by their scores; only rules on a file's first rows, as VisDrone's, see the order", "",
    ),
    "score-outside": ("note", "scores only rank: the order counts, not the range", ""),
    "silent-images": ("note", "they are judged as images in which nothing was found", "is the file complete?"),
    "silent-classes": ("note", "nothing was found of them: their average precision is 0", "is a file missing?"),
    "file-passed-over": ("warning", "it is not read", "one format at a time: give the file itself"),
    "one-class": ("note", "it is taken for the only class of the data", ""),
    "coarse-scores": (
        "note", "many scores tie, and average precision with them",
        "use a format with more digits, such as darknet's -out result.json",
    ),
    "zero-based": (
        "note", "corners are taken as they stand, as the truth's are; VOC's protocols compare the files' own numbers",
        "",
    ),
    "column-order": ("note", "", "check one row against its image"),
    "count-mismatch": ("warning", "the rows that stand there are judged", "is the file complete?"),
    "repeated-image": ("warning", "the rows of both are judged", "was the file written twice, or merged?"),
    "six-columns": ("note", "", "check one row against its image"),
    "more-columns": ("note", "those after the fifth are passed over", ""),
    "empty-file": ("warning", "an image in which nothing was found", ""),
    "no-name": ("warning", "the file's own name is taken", ""),
    "other-name": ("warning", "the name is taken, as in the official tool", "rename the file, or correct the name"),
    "other-event": ("warning", "the folder's name is taken", "move the file, or correct the name"),
}  # fmt: skip


def fault(code: str, what: str, where: Where) -> Finding:
    """What the reader of a format found, with the weight, effect and remedy that `FAULTS` gives the code."""
    severity, consequence, remedy = FAULTS[code]
    return Finding(code, severity, where, what, consequence, remedy)


class Faults:
    """Collects what is wrong with rows: a finding per code and subject, with its count and its first places."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._name = rows.files[0] if len(rows.files) == 1 else ""
        self.findings: list[Finding] = []
        self.lost: BoolArray = np.zeros(len(rows), np.bool_)
        self.refused = 0
        self.counts: Counter[str] = Counter()

    def rows(self, code: str, which: NDArray[np.bool_], what: Callable[[int], str], unit: str = "rows") -> None:
        """List the rows of a mask (N,) as one finding; `what` says it of the first of them. Errors are lost."""
        self._add(code, np.flatnonzero(which), what, unit)

    def subjects(self, code: str, column: IntArray, wrong: Sequence[int], what: Callable[[int], str]) -> None:
        """List the rows whose `column` is one of `wrong`, a finding for each of the first, one for the rest.

        Subjects without a row are listed too: a file may speak of an image in which it found nothing.
        """
        order = np.argsort(column, kind="stable")
        starts = np.searchsorted(column[order], wrong)
        ends = np.searchsorted(column[order], wrong, side="right")
        groups = sorted(
            ((order[a:b], subject) for a, b, subject in zip(starts, ends, wrong, strict=True)),
            key=lambda group: -len(group[0]),
        )
        for indices, subject in groups[:LISTED]:
            self._add(code, indices, lambda _, named=subject: what(named))  # type: ignore[misc]
        rest = groups[LISTED:]
        if rest:
            indices = np.sort(np.concatenate([group for group, _ in rest]))
            self._add(code, indices, lambda _: f"{len(rest)} more like these")

    def tell(self, code: str, what: str, file: str | None = None, count: int = 1) -> None:
        """List something that is no matter of a row."""
        severity, consequence, remedy = FAULTS[code]
        self.findings.append(Finding(code, severity, Where(file), what, consequence, remedy, {"count": count}))

    def take_over(self, findings: Sequence[Finding]) -> None:
        """List what the reader of the format found, the first of each code, then how many more.

        Codes of `REFUSED` are rows that could not be read, which stop as other errors do.
        """
        by_code: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            by_code[finding.code].append(finding)
        for code, found in by_code.items():
            lost = code in REFUSED
            severity, consequence, remedy = FAULTS["bad-row"] if lost else (found[0].severity, "", "")
            for one in found[:LISTED]:
                said = consequence if lost else one.consequence
                evidence = {**one.evidence, "count": one.evidence.get("rows", 1)}
                self.findings.append(Finding(code, severity, one.where, one.what, said, one.remedy or remedy, evidence))
            if rest := found[LISTED:]:
                places = [str(one.where) for one in rest[:LISTED]]
                what = f"{len(rest)} more like these"
                self.findings.append(Finding(
                    code, severity, rest[0].where, what, consequence, remedy, {"count": len(rest), "places": places}
                ))  # fmt: skip
            if lost:
                self.refused += len(found)
            if severity == "error":
                self.counts[code] += len(found)

    def left_out(self) -> list[Finding]:
        """The findings where errors only cost their rows."""
        said = "the rows are left out"
        return [replace(one, consequence=said) if one.consequence == _STOPS else one for one in self.findings]

    def hint(self) -> str:
        """What to try against the most frequent error."""
        code = self.counts.most_common(1)[0][0]
        return FAULTS[code if code in FAULTS else "bad-row"][2]

    def problems(self) -> list[str]:
        """The findings that stop, in words."""
        return [in_words(finding) for finding in self.findings if finding.severity == "error"]

    def _add(self, code: str, indices: IntArray, what: Callable[[int], str], unit: str = "rows") -> None:
        rows, (severity, consequence, remedy) = self._rows, FAULTS[code]
        if severity == "error":
            self.lost[indices] = True
            self.counts[code] += max(len(indices), 1)
        if not len(indices):
            self.findings.append(Finding(code, severity, Where(), what(-1), consequence, remedy, {"count": 0}))
            return
        at = int(indices[0])
        image = rows.images[rows.image[at]]
        file, line = rows.files[rows.file[at]], int(rows.line[at])
        where = Where(file, line if rows.by_line else None, image if code != "unknown-image" else None)
        places = [self.place(int(i)) for i in indices[:LISTED]]
        first = f", [{line - 1}]" if not rows.by_line else ""
        several = f"also {', '.join(places[1:3])}" if rows.by_line else f"the first {', '.join(places[:3])}"
        many = f" ({len(indices)} {unit}, {several}{' …' * (len(indices) > 3)})"
        said = what(at) + (many if len(indices) > 1 else first)
        evidence = {"count": len(indices), "of": unit, "places": places}
        self.findings.append(Finding(code, severity, where, said, consequence, remedy, evidence))

    def place(self, index: int) -> str:
        """Where a row stands: file:line, or [entry] of a list; the file's name only where there are several."""
        rows, line = self._rows, int(self._rows.line[index])
        if not rows.by_line:
            return f"[{line - 1}]"
        return f"line {line}" if len(rows.files) == 1 else f"{rows.files[rows.file[index]]}:{line}"


def copies(columns: Sequence[NDArray[np.generic]], among: BoolArray) -> BoolArray:
    """Rows of `among` that repeat an earlier one exactly, in every column (N,) of 8 bytes; hashed, then compared."""
    words = [np.ascontiguousarray(column).view(np.uint64) for column in columns]
    mixed = np.zeros(len(among), np.uint64)
    for word in words:
        mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    order = order[among[order]]
    same = mixed[order[1:]] == mixed[order[:-1]]
    for word in words:
        same &= word[order[1:]] == word[order[:-1]]
    result = np.zeros(len(among), np.bool_)
    result[order[1:][same]] = True
    return result


def text_of(box: FloatArray) -> str:
    """A box for a message."""
    return f"box ({', '.join(f'{value:g}' for value in box)})"
