"""Which files are face lists, which set each belongs to, and where the images lie that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PureWindowsPath

from onestage.data.formats.facelist_lines import Layout, Line, layout_of, lines_of, whole_lines
from onestage.data.formats.files import IMAGE_SUFFIXES, decoded, is_file
from onestage.data.formats.rows import is_number
from onestage.data.formats.splits import role

_HEAD = 1 << 18
_LINES = 400
_MANY = 40  # a folder with more texts holds one per image, and no lists
_PLACES = ("", "label", "labels", "lists", "annotations", "splits")
_ENDS = (".txt", ".lst", ".list")
_BELOW = ("images", "Images", "JPEGImages", "img", "WIDER_train/images", "WIDER_val/images", "originalPics")
_SAMPLE = 64

Parts = tuple[str, ...]


def face_lists(root: Path) -> dict[str, list[Path]]:
    """The lists of a folder, or the one file, by set; {} where there are none.

    A list belongs to the set that its name tells ("wider_train.txt": train), else it is a set by its own name. Those of
    a folder are looked for in it, and in label, labels, lists, annotations and splits below it.
    """
    if root.is_file():
        return {_set_name(root): [root]} if head_layout(root)[1] else {}
    if not root.is_dir():
        return {}
    result: dict[str, list[Path]] = {}
    for place in _PLACES:
        texts = (path for path in (root / place).glob("*") if path.suffix.lower() in _ENDS and path.is_file())
        few = list(islice(texts, _MANY + 1))
        for path in sorted(few) if len(few) <= _MANY else ():
            if head_layout(path)[0] is not None:
                result.setdefault(_set_name(path), []).append(path)
    return result


def _set_name(path: Path) -> str:
    words = [word for word in re.split(r"[^a-z]+", path.stem.lower()) if role(word)]
    return str(role(words[0])) if len(words) == 1 else path.stem


def head_layout(path: Path) -> tuple[Layout | None, bool]:
    """The layout of a file's first lines, and whether they are lines of a list at all, in whatever layout.

    They are where most are a path (with an image ending, or with a folder) and then numbers alone, in one line four
    and more.
    """
    with path.open("rb") as file:  # not line by line: a file of another kind may be one line of a gigabyte
        head = file.read(_HEAD)
    if len(head) == _HEAD:  # the last line may be cut
        head = head[: head.rfind(b"\n") + 1]
    lines = whole_lines(lines_of(decoded(head))[:_LINES])
    named = [line for line in lines if _is_path(line.name) and all(map(is_number, line.words))]
    if 2 * len(named) <= len(lines) or not any(len(line.words) >= 4 for line in named):
        return None, False
    return layout_of(named)[0], True


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or Path(name).suffix.lower() in IMAGE_SUFFIXES


def parts_of(name: str) -> Parts | None:
    """The parts of a path as written anywhere, a root or a drive before them left out; None where it climbs by '..'.

    '..' at its beginning is left out too: lists lie beside the folder of the images, or in one next to it.
    """
    text = name.replace("\\", "/")
    text = text[len(PureWindowsPath(text).drive) :]
    parts = [part for part in text.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts.pop(0)
    return None if not parts or ".." in parts or "\0" in text else tuple(parts)


class Pictures:
    """Finds the images of one list; `dropped` folders at the beginning of their paths are not there.

    They are looked for beside the list and in the usual folders below, one folder higher likewise, and in the folders
    beside the list. Paths as another machine had them are shortened from their beginning, all alike, until most
    images are found, as long as no two paths become the same.
    """

    def __init__(self, path: Path, split: str, lines: Sequence[Line]) -> None:
        homes = [path.parent, path.absolute().parent.parent]
        names = dict.fromkeys((path.stem, split))
        own = [place for name in names for place in (f"images/{name}", f"{name}/images", name)]
        below = sorted(folder for folder in path.parent.iterdir() if folder.is_dir())[:_MANY]
        folders = [home / name for home in homes for name in (*own, "", *_BELOW)] + below
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        self.roots = homes
        self.home = path.parent
        self.dropped = 0
        self.dropped = self._shortened({parts for line in lines if (parts := parts_of(line.name))})

    def _shortened(self, names: set[Parts]) -> int:
        there = sorted(names)
        sample = there[:: max(len(there) // _SAMPLE, 1)]
        best, most = 0, 0
        for dropped in range(max((len(parts) for parts in sample), default=0)):
            if dropped and len({parts[dropped:] or parts[-1:] for parts in names}) < len(names):
                break
            self.dropped = dropped
            found = sum(self.find(parts) is not None for parts in sample)
            if found > most:
                best, most = dropped, found
            if found == len(sample):
                break
        return best

    def find(self, parts: Parts) -> Path | None:
        """The image of that path, or None."""
        name = "/".join(self.short(parts))
        endings = ("",) if Path(name).suffix.lower() in IMAGE_SUFFIXES else (".jpg", ".JPG", ".jpeg", ".png")
        for place, folder in enumerate(self.folders):
            for ending in endings:
                path = folder / f"{name}{ending}"
                if is_file(path):
                    self.folders.insert(0, self.folders.pop(place))  # the others most likely lie there too
                    return path
        return None

    def short(self, parts: Parts) -> Parts:
        """The parts of a path without those that are not there."""
        return parts[self.dropped :] or parts[-1:]
