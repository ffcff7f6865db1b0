"""Which files of a folder are FDDB's folds, where its images lie, and how large they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from onestage.data.formats.fddb_blocks import looks_like
from onestage.data.formats.files import IMAGE_SUFFIXES, safe_relative
from onestage.data.formats.rows import is_number

COLUMNS = (5, 6)
TURN = 6.2832  # radians; an angle is no more, the width of a box nearly always
_FOLD = re.compile(r"FDDB-fold-(\d+)-ellipseList\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class Fold:
    """One fold: its name ("fold-01"), number, file of ellipses, and file of image names where there is one."""

    name: str
    number: int
    ellipses: Path
    names: Path | None


def folds(root: Path) -> dict[str, Fold]:
    """The folds of a folder (its own, or in a folder below, such as FDDB-folds), or of one file; {} where none is."""
    if root.is_file():
        match = _FOLD.fullmatch(root.name)
        return _named([root]) if match or _holds_ellipses(root) else {}
    if not root.is_dir():
        return {}
    for pattern in ("*.txt", "FDDB-folds/*.txt", "*/*.txt"):
        lists = sorted(path for path in root.glob(pattern) if "ellipselist" in path.name.lower())
        numbered = [path for path in lists if _FOLD.fullmatch(path.name)]
        found = numbered or [path for path in lists if _holds_ellipses(path)]
        if found:
            return _named(found)
    return {}


def _named(paths: list[Path]) -> dict[str, Fold]:
    result: dict[str, Fold] = {}
    for place, path in enumerate(paths, 1):
        match = _FOLD.fullmatch(path.name)
        number = int(match[1]) if match else place
        name = f"fold-{match[1]}" if match else path.stem
        names = path.with_name(re.sub("-ellipseList", "", path.name, flags=re.IGNORECASE))
        result[name] = Fold(name, number, path, names if match and names.is_file() else None)
    return result


def _holds_ellipses(path: Path) -> bool:
    rows = [words for block in looks_like(path, COLUMNS) for _, words in block.rows if len(words) > 2]
    return 2 * sum(is_number(words[2]) and abs(float(words[2])) <= TURN for words in rows) > len(rows)


class Pictures:
    """Finds the images of a set by their names, which have no suffix, in the folders where FDDB's are kept."""

    def __init__(self, root: Path, ellipses: Path) -> None:
        home = ellipses.parent
        places = [root if root.is_dir() else home, home, home.parent]
        below = ("", "originalPics", "images", "JPEGImages", "img")
        self.folders = [
            folder for folder in dict.fromkeys(place / name for place in places for name in below) if folder.is_dir()
        ]

    def find(self, name: str) -> Path | None:
        """The image of that name, or None."""
        relative = safe_relative(name)
        if relative is None:
            return None
        whole = relative.suffix.lower() in IMAGE_SUFFIXES
        for suffix in ("",) if whole else (".jpg", ".JPG", ".jpeg", ".png", ".ppm", ".bmp"):
            for place, folder in enumerate(self.folders):
                path = folder / f"{relative.as_posix()}{suffix}"
                if path.is_file():
                    self.folders.insert(0, self.folders.pop(place))  # the others most likely lie there too
                    return path
        return None


@cache
def known_sizes() -> Mapping[str, tuple[int, int]]:
    """Width and height of FDDB's own 2,845 images by name, for sets read without them."""
    text = (files("onestage.data.formats") / "fddb_sizes.txt").read_text(encoding="utf-8")
    result: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        folder, *images = line.split()
        for image in images:
            number, size = image.split(":")
            width, height = size.split("x")
            result[f"{folder}/img_{number}"] = (int(width), int(height))
    return result
