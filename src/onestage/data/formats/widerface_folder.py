"""Which files of a folder are WIDER FACE's, which set each holds, where images and lists lie."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from onestage.data.formats.files import IMAGE_SUFFIXES
from onestage.data.formats.rows import number
from onestage.data.formats.widerface_mat import holds_faces

LEVELS = ("easy", "medium", "hard")
_HEAD = 4096
_BELOW = ("", "wider_face_split", "eval_tools/ground_truth", "ground_truth", "eval")
_SET = re.compile(r"wider_(?:face|easy|medium|hard)_([a-z]+)", re.IGNORECASE)


@dataclass(frozen=True)
class FaceFile:
    """One annotation file, txt or mat: its set, the dataset's folder, folders to look for images in, level lists.

    `levels` are the files wider_easy_SET.mat and so on, `faces` the wider_face_SET.mat that their row numbers count in.
    """

    path: Path
    split: str
    root: Path
    folders: tuple[Path, ...]
    levels: dict[str, Path]
    faces: Path | None


def face_files(root: Path) -> dict[str, FaceFile]:
    """The annotation files of a folder, or the one file, by set; {} where there are none.

    A file by another name is judged by its first lines. In a folder wider_face_SET_bbx_gt.txt goes before
    wider_face_SET.mat; they are looked for in the folder itself, in
    wider_face_split, ground_truth and eval below it, and for a folder WIDER_SET also beside it.
    """
    if root.is_file():
        if not _is_truth(root):
            return {}
        home = root.parent.parent if root.parent.name.lower() in ("wider_face_split", "ground_truth", "eval") else None
        return {_set_name(root): _face_file(root, home or root.parent)}
    if not root.is_dir():
        return {}
    only = root.name[6:].lower() if root.name.upper().startswith("WIDER_") and (root / "images").is_dir() else None
    homes = [root] if only is None else [root, root.parent]
    result: dict[str, FaceFile] = {}
    for pattern in ("wider_face_*_bbx_gt.txt", "wider_face_*.mat"):
        for home in homes:
            for path in (path for below in _BELOW for path in sorted((home / below).glob(pattern))):
                split = _set_name(path)
                if split not in result and only in (None, split) and _is_truth(path):
                    result[split] = _face_file(path, home)
    return result


def _set_name(path: Path) -> str:
    found = _SET.match(path.name)
    return found[1].lower() if found else path.stem


def _is_truth(path: Path) -> bool:
    if path.suffix.lower() == ".mat":
        return holds_faces(path)
    return path.suffix.lower() == ".txt" and (path.name.lower().endswith("_bbx_gt.txt") or _starts_as_truth(path))


def _starts_as_truth(path: Path) -> bool:
    """Whether the first lines are an image's name, a count, and rows of 4 or of 10 and more numbers (or no row)."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.decode("utf-8-sig", "replace").splitlines()
    lines = [line.strip() for line in (text[:-1] if len(head) == _HEAD else text) if line.strip()]
    if len(lines) < 2 or not _names_image(lines[0]) or not lines[1].isdecimal():
        return False
    if len(lines) == 2 or _names_image(lines[2]):
        return True
    words = lines[2].replace(",", " ").split()
    return (len(words) == 4 or len(words) >= 10) and all(math.isfinite(number(word)) for word in words)


def _names_image(line: str) -> bool:
    return Path(line).suffix.lower() in IMAGE_SUFFIXES


def _face_file(path: Path, root: Path) -> FaceFile:
    split = _set_name(path)
    homes = list(dict.fromkeys([root, path.parent, path.parent.parent, path.parent.parent.parent]))
    folders = [home / name for home in homes for name in (f"WIDER_{split}/images", f"WIDER_{split}")]
    folders += [home / name for home in homes[:2] for name in (f"{split}/images", f"images/{split}", "images", split)]
    there = tuple(folder for folder in dict.fromkeys([*folders, path.parent, root]) if folder.is_dir())
    for place in dict.fromkeys(home / below for home in homes[:3] for below in _BELOW):
        levels = {level: place / f"wider_{level}_{split}.mat" for level in LEVELS}
        levels = {level: file for level, file in levels.items() if file.is_file()}
        if levels:
            faces = place / f"wider_face_{split}.mat"
            return FaceFile(path, split, root, there, levels, faces if faces.is_file() else None)
    return FaceFile(path, split, root, there, {}, None)
