"""Finds the images that files, folders and globs name, and gives each a name of its own."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from onestage.data.formats.files import IMAGE_SUFFIXES, images_under, printable
from onestage.data.images import Pixels
from onestage.errors import DataError, UsageError

Images = str | Path | Pixels | Sequence[str | Path | Pixels]
_MAGIC = frozenset("*?[")


def sources(patterns: Iterable[str | Path], leave_out: Path | None = None) -> list[Path]:
    """The image files that `patterns` name, in the order given, each once.

    A pattern is an image file, a folder (searched with all folders below it, sorted, hidden ones passed over) or a
    glob such as `photos/*.jpg` or `**/*.png` (sorted; folders it matches are searched too). What exists by its literal
    name is no glob. Files below `leave_out`, where results are written, are passed over unless named by themselves.

    Raises UsageError without patterns; DataError naming every pattern that gives no image and why, files that are no
    images among them. A file is taken for an image by its ending; whether it can be read shows later.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    given = [str(pattern) for pattern in patterns]
    if not given:
        raise UsageError("no images were named", hint="give image files, folders or globs such as 'photos/*.jpg'")
    for pattern in given:
        try:
            images, why = _named(pattern, leave_out)
        except PermissionError as error:
            images, why = [], f"the folder {printable(str(error.filename))} may not be read"
        for path in images:
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100 (links are kept, '..' is not)
        if not images:
            problems.append(f"{printable(pattern)}: {why}")
    if problems:
        raise DataError(
            "no images to predict on" if not found else "some of the sources hold no image", problems=problems,
            hint="image files, folders or globs; images end in " + ", ".join(sorted(IMAGE_SUFFIXES)),
        )  # fmt: skip
    return list(found.values())


def images_of(images: Images) -> list[Path | Pixels]:
    """The files that files, folders and globs name, and the RGB arrays among them, in order; raises as `sources`."""
    several = images if isinstance(images, Sequence) and not isinstance(images, str) else [images]
    found: list[Path | Pixels] = []
    for image in several:
        found += sources([image]) if isinstance(image, str | Path) else [image]
    return found


def names(paths: Sequence[Path]) -> list[str]:
    """A name for each of `paths` (no two the same file) that no other has: its path without ending, from the folder
    that holds them all, with forward slashes.

    Images of one folder that differ in their ending alone keep it ("a.jpg", "a.png"), so that a file written under
    the name and an ending of its own never overwrites another, also where the disk ignores case.
    """
    whole = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (links are kept, '..' is not)
    common = _common_folder(whole)
    relative = [Path(os.path.relpath(path, common)) if common else _without_root(path) for path in whole]
    plain = [path.with_suffix("").as_posix() for path in relative]
    often = Counter(name.casefold() for name in plain)
    chosen, taken = [], set()
    for path, name in zip(relative, plain, strict=True):
        unique = wanted = name if often[name.casefold()] == 1 else path.as_posix()
        count = 1
        while unique.casefold() in taken or (unique != name and unique.casefold() in often):
            count += 1
            unique = f"{wanted}-{count}"
        taken.add(unique.casefold())
        chosen.append(printable(unique))
    return chosen


def _named(pattern: str, leave_out: Path | None) -> tuple[list[Path], str]:
    """The images one pattern names, or why there are none."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        images = _below(path, leave_out)
        return images, "the folder holds no image"
    if path.exists():
        wrong = f"not an image by its ending {path.suffix!r}" if path.suffix else "not an image: it has no ending"
        return ([path], "") if _is_image(path) else ([], wrong)
    if not _MAGIC & set(pattern):
        return [], "there is no such file or folder"
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute ones too)
    images = []
    for match in matches:
        images += _below(match, leave_out) if match.is_dir() else [match] * _is_image(match)
    others = [printable(match.name) for match in matches if not match.is_dir()]
    why = f"matches no image, only {', '.join(others[:5])}{' …' * (len(others) > 5)}" if others else "matches nothing"
    return images, why


def _below(folder: Path, leave_out: Path | None) -> list[Path]:
    images = images_under(folder)
    if leave_out is None or not leave_out.is_dir() or folder.resolve().is_relative_to(leave_out.resolve()):
        return images
    results = leave_out.resolve()
    return [path for path in images if not path.resolve().is_relative_to(results)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _common_folder(paths: Sequence[str]) -> str | None:
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 (of many)
    except ValueError:  # none, or on several drives
        return None


def _without_root(path: str) -> Path:
    drive, rest = os.path.splitdrive(path)
    return Path(drive.strip(":\\/").replace("\\", "-"), rest.lstrip("\\/"))
