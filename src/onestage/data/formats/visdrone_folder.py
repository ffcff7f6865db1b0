"""Where the txt files and images of a VisDrone folder lie, and what their rows look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onestage.data.formats.files import files_under, text_lines
from onestage.data.formats.rows import number
from onestage.data.formats.splits import role

CLASSES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor",
)  # fmt: skip
REGION, OTHERS = 0, len(CLASSES) + 1
VIDEO_COLUMNS = ("frame", "target_id")  # before the others
COLUMNS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
_LARGEST = 10**9
_FILES, _ROWS = 30, 12  # looked at to recognise a folder


@dataclass(frozen=True)
class VisDroneSet:
    """One set: its name, the folder of its txt files, and the folders to look for images in, in order.

    Of `videos` there is a txt file and a folder of frames for each sequence.
    """

    name: str
    root: Path
    annotations: Path
    folders: tuple[Path, ...]
    videos: bool = False


def visdrone_sets(root: Path) -> dict[str, VisDroneSet]:
    """The sets of a folder by name; {} where there are none.

    Tried in this order: annotations/ (images beside it in images/, those of videos in sequences/), the folder itself
    where it holds annotation files, and folders below it that hold annotations/.
    """
    if not root.is_dir():
        return {}
    if (own := _set(root)) is not None:
        return {own.name: own}
    result: dict[str, VisDroneSet] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found = _set(folder) if (folder / "annotations").is_dir() else None
        if found is not None:
            name = folder.name if found.name == "all" or found.name in result else found.name
            result[name] = replace(found, name=name)
    return result


def split_row(line: str) -> list[str]:
    """The words of a row, divided by commas or, where there is none, by spaces; a comma at the end means nothing."""
    if "," not in line:
        return line.split()
    words = [word.strip() for word in line.split(",")]
    return words[:-1] if not words[-1] else words


def is_truth(words: Sequence[str]) -> bool:
    """Whether these may be the eight columns of an annotation: a category of VisDrone's, a score of 0 or 1."""
    values = [number(word) for word in words]
    if len(values) != len(COLUMNS):
        return False
    return values[5] in range(OTHERS + 1) and values[4] in (0, 1) and values[6] in range(3) and values[7] in range(4)


def is_video_truth(words: Sequence[str]) -> bool:
    """Whether these may be the ten columns of a video's annotation: a frame from 1 on, a target, and the eight."""
    frame, target = [number(word) for word in (*words, "", "")[:2]]
    return is_truth(words[2:]) and is_place(frame, target)


def is_place(frame: float, target: float) -> bool:
    """Whether these can be the number of a frame, from 1 on, and of a target."""
    return 1 <= frame < _LARGEST and abs(target) < _LARGEST and frame.is_integer() and target.is_integer()


def looks_like(folder: Path, fits: Callable[[Sequence[str]], bool], commas: bool = True) -> bool:
    """Whether half or more of the first rows of the first txt files of a folder (with commas, if so asked) fit."""
    rows: list[str] = []
    for path in files_under(folder, {".txt"}, deep=False)[:_FILES]:
        with path.open("rb") as file:
            start = file.read(4096).decode("utf-8-sig", "replace").splitlines()
        rows += [line for line in start if line.strip()][:3]
        if len(rows) >= _ROWS:
            break
    good = [row for row in rows if ("," in row or not commas) and fits(split_row(row))]
    return bool(rows) and 2 * len(good) >= len(rows)


def numbered_rows(path: Path) -> list[tuple[int, str, list[float]]]:
    """Line (from 1), text and numbers of each row of a file; what is no number is NaN; blank lines are passed over."""
    return [
        (at, line.strip(), [number(word) for word in split_row(line.strip())])
        for at, line in enumerate(text_lines(path), 1) if line.strip()
    ]  # fmt: skip


def _set(folder: Path) -> VisDroneSet | None:
    for place in (folder / "annotations", folder):
        if not place.is_dir():
            continue
        home = place.parent if place.name == "annotations" else place
        if looks_like(place, is_truth):
            pictures = [home / "images", place] if place.name == "annotations" else [place, place / "images"]
        elif looks_like(place, is_video_truth):
            pictures = [home / "sequences"]
        else:
            continue
        there = tuple(path for path in pictures if path.is_dir())
        return VisDroneSet(_name(home), home, place, there, pictures[0].name == "sequences")
    return None


def _name(folder: Path) -> str:
    """'val' for VisDrone2019-DET-val or -VID-val, or a folder called val; 'all' for any other."""
    found = re.fullmatch(r"visdrone.*?-(?:det|vid|mot)-(.+)", folder.name, re.IGNORECASE)
    name = found[1].lower() if found else folder.name
    return name if role(name) or found else "all"
