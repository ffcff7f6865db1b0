"""Where a PASCAL VOC folder keeps annotations, images and lists; what all its files share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from onestage.data.formats.files import IMAGE_SUFFIXES, files_under, images_under, leads_out, printable, text_lines
from onestage.data.formats.splits import in_order, role
from onestage.data.formats.voc_xml import VocFile, read_file
from onestage.errors import DataError

ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")


@dataclass
class Place:
    """One folder of annotations with the folders its images may lie in; `split` where the folder names one."""

    split: str | None
    annotations: Path
    images: tuple[Path, ...]

    @cached_property
    def files(self) -> dict[str, Path]:
        """Annotation files by id: the path within the folder without suffix."""
        found = files_under(self.annotations, {".xml"})
        return {printable(path.relative_to(self.annotations).with_suffix("").as_posix()): path for path in found}

    @cached_property
    def pictures(self) -> dict[str, list[Path]]:
        """Image files by id, by file name and by stem alone, for look-up; in order of preference."""
        found: dict[str, list[Path]] = {}
        for folder in self.images:
            for path in images_under(folder):
                relative = path.relative_to(folder)
                for key in dict.fromkeys(
                    (relative.with_suffix("").as_posix(), relative.as_posix(), path.name, path.stem)
                ):
                    here = found.setdefault(printable(key), [])
                    if path not in here:
                        here.append(path)
        return found

    @cached_property
    def parsed(self) -> dict[str, VocFile]:
        """Every annotation file, read, by id."""
        roots = (self.annotations,)
        return {
            key: VocFile(path, error=DataError("a link that leads out of the dataset's folder"))
            if leads_out(path, roots) else read_file(path)
            for key, path in self.files.items()
        }  # fmt: skip


class VocFolder:
    """A folder in VOC's manner: one place, or one per split folder (train/, valid/, test/)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        whole = _place(root, None)
        if whole is not None:
            self.places = [whole]
        else:
            folders = (
                sorted(path for path in root.iterdir() if path.is_dir() and role(path.name)) if root.is_dir() else []
            )
            found = {folder.name: _place(folder, folder.name) for folder in folders}
            self.places = [place for name in in_order(found) if (place := found[name]) is not None]

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """The lists of ImageSets/Main: name → ids in the file's order, lists of single classes passed over."""
        if len(self.places) != 1 or self.places[0].split is not None:
            return {}
        found = {}
        for folder in (self.root / "ImageSets" / "Main", self.root / "ImageSets"):
            if folder.is_dir():
                for path in sorted(folder.glob("*.txt")):
                    names = _list(path)
                    if names is not None:
                        found[path.stem] = names
            if found:
                break
        return {name: found[name] for name in in_order(found)}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes with a sound box anywhere in the folder, sorted: the same for every split."""
        objects = (item for place in self.places for file in place.parsed.values() for item in file.objects)
        return tuple(sorted({item.name for item in objects if item.sound}))

    @cached_property
    def corner_counts(self) -> tuple[int, int]:
        """How many left or upper sides in the folder are 0 and how many are 1."""
        sides = [
            side for place in self.places for file in place.parsed.values() for item in file.objects
            if item.sound and item.corners for side in item.corners[:2]
        ]  # fmt: skip
        return sides.count(0), sides.count(1)

    @property
    def zero_based(self) -> bool:
        """Whether coordinates count from 0: some side is 0, and not fewer are 0 than 1.

        Boxes touching the left or upper border are the only ones that tell. In a 1-based set they are 1; a few
        strays at 0 do not turn a set whose border boxes are at 1.
        """
        zeros, ones = self.corner_counts
        return zeros > 0 and zeros >= ones


def _place(folder: Path, split: str | None) -> Place | None:
    if not folder.is_dir():
        return None
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    homes = [path for name in ANNOTATION_FOLDERS for path in below if path.name.lower() == name]
    pictures = [path for name in IMAGE_FOLDERS for path in below if path.name.lower() == name]
    for home in homes:
        if any(home.rglob("*.xml")):
            flat = any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
            return Place(split, home, tuple(pictures) or ((folder,) if flat else (home,)))
    if any(folder.glob("*.xml")):
        return Place(split, folder, (folder,))
    if pictures and any(pictures[0].glob("*.xml")):
        return Place(split, pictures[0], (pictures[0],))
    return None


def _list(path: Path) -> list[str] | None:
    """The ids of one list; None for a list of one class, whose rows end in -1, 0 or 1."""
    lines = [line.strip() for line in text_lines(path) if line.strip()]
    if lines and all(line.split()[-1] in ("-1", "0", "1") and len(line.split()) > 1 for line in lines):
        return None
    suffixes = {*IMAGE_SUFFIXES, ".xml"}
    bare = [line.rsplit(".", 1)[0] if f".{line.rsplit('.', 1)[-1].lower()}" in suffixes else line for line in lines]
    return list(dict.fromkeys(bare))
