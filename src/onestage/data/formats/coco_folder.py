"""Which JSON files of a folder are COCO's, which split each holds, and where its images may lie."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage.data.formats.files import read_json, shown
from onestage.errors import DataError


@dataclass(frozen=True)
class CocoFile:
    """One annotation file: its set's name, the dataset's folder, and the folders to look for images in, in order."""

    path: Path
    split: str
    root: Path
    folders: tuple[Path, ...]


def coco_files(root: Path) -> dict[str, CocoFile]:
    """The annotation files of a folder, or the one file, by split; {} where there are none.

    Tried in this order: annotations/*.json, *.json, */*.json (one folder per split). Where files are named
    instances_*.json the others beside them (captions, keypoints) are passed over.
    """
    if root.is_file():
        if root.suffix.lower() != ".json" or not _is_coco(root):
            return {}
        home = root.parent.parent if root.parent.name.lower() in ("annotations", "annotation") else root.parent
        return {_split(root): _file(root, home)}
    if not root.is_dir():
        return {}
    for pattern in ("annotations/*.json", "Annotations/*.json", "*.json", "*/_annotations.coco.json", "*/*.json"):
        paths = sorted(path for path in root.glob(pattern) if not path.name.startswith("."))
        instances = [path for path in paths if path.name.startswith("instances_")]
        found = [path for path in instances or paths if _is_coco(path)]
        if found:
            result: dict[str, CocoFile] = {}
            for path in found:
                entry = _file(path, root)
                result.setdefault(path.stem if entry.split in result else entry.split, entry)
            return result
    return {}


def _is_coco(path: Path) -> bool:
    # The words are looked for without reading the document: COCO's own file has 450 MB
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(data.find(word) >= 0 for word in (b'"images"', b'"annotations"', b'"categories"'))
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _split(path: Path) -> str:
    stem = path.stem.removesuffix(".coco").removeprefix("instances_")
    return path.parent.name if stem in ("_annotations", "annotations") and path.parent.name != "annotations" else stem


def _file(path: Path, root: Path) -> CocoFile:
    split = _split(path)
    plain = split.rstrip("0123456789")
    folders = [
        root / "images" / split, root / split, root / "images" / plain, root / plain, root / split / "images",
        path.parent, path.parent / "images", root / "images", root / "JPEGImages", root / "data", root,
    ]  # fmt: skip
    there = tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    return CocoFile(path, split, root, there or (root,))


def load(path: Path) -> dict[str, Any]:
    """The document of one file with images, annotations and categories checked to be there and sane.

    Raises DataError with the line for what is no JSON, and for a document that is not COCO's. Missing categories
    become the ids in use, as names.
    """
    name = shown(path, path.parent.parent)
    document = read_json(path, name)
    if not isinstance(document, dict):
        raise DataError(
            f"{name}: expected an object with images, annotations, categories, got a {type(document).__name__}"
        )
    problems = [
        f"{key!r}: expected a list, got {type(document[key]).__name__ if key in document else 'nothing'}"
        for key in ("images", "annotations", "categories") if not isinstance(document.get(key), list)
    ]  # fmt: skip
    for index, category in enumerate(document["categories"] if isinstance(document.get("categories"), list) else []):
        sane = isinstance(category, dict) and isinstance(category.get("name"), str)
        if not sane or not isinstance(category.get("id"), int):
            problems.append(f"categories[{index}]: expected a whole number 'id' and a 'name', got {str(category)[:60]}")
    if problems:
        raise DataError(f"{name} is not a COCO detection file", problems=problems)
    return document
