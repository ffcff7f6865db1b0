"""Where YOLO's and darknet's label files lie for an image, and which belong to none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from onestage.data.formats.files import files_under
from onestage.data.formats.yolo_folder import NOT_LABELS


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: 'labels' in place of the last 'images' folder of its path, else beside it.

    Where neither is there, darknet's own rule: 'labels' for 'images', 'JPEGImages' or 'raw' anywhere in a folder's
    name. Darknet takes the first of the whole path, ours the last that leads to a file, for what lies above the dataset
    is nobody's business.
    """
    parts = list(image.parts)
    folders = range(len(parts) - 2, -1, -1)
    beside, first = image.with_suffix(".txt"), None
    for index in folders:
        if parts[index].lower() in ("images", "jpegimages"):
            other = _swapped(parts, index, "labels")
            if other.is_file():
                return other
            first = first or other
    if beside.is_file():
        return beside
    for word in ("images", "JPEGImages", "raw"):
        for index in folders:
            if word in parts[index]:
                other = _swapped(parts, index, parts[index].replace(word, "labels", 1))
                if other.is_file():
                    return other
    return first or beside


def _swapped(parts: Sequence[str], index: int, folder: str) -> Path:
    return Path(*parts[:index], folder, *parts[index + 1 :]).with_suffix(".txt")


def orphans(sources: Iterable[Path], used: set[Path], paths: Iterable[Path]) -> list[Path]:
    """Label files that lie where those of the `sources` do and belong to none of the `paths`."""
    folders = {label_path(source / "x.jpg").parent for source in sources if source.is_dir()}
    folders |= {source / "labels" for source in sources if (source / "labels").is_dir()}
    images = {path.with_suffix("") for path in paths}
    return [
        path for folder in sorted(folders) if folder.is_dir() for path in files_under(folder, {".txt"})
        if path not in used and path.name.lower() not in NOT_LABELS and path.with_suffix("") not in images
    ]  # fmt: skip
