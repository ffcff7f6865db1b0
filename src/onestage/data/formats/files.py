"""Files of a dataset: images in a folder, text as written anywhere, and no way out of the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from onestage.errors import DataError, StorageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm", ".pgm", ".avif"}
)


def printable(text: str) -> str:
    """`text` with bytes of a file name that are no UTF-8 written as \\xNN, so that it can be printed and hashed."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(path: Path, root: Path) -> str:
    """`path` as a message shows it: relative to `root` where it lies inside, with forward slashes."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return printable(relative.as_posix())


def files_under(folder: Path, suffixes: Iterable[str], deep: bool = True) -> list[Path]:
    """All files of these suffixes (lower case) in `folder`, if `deep` below it too, sorted; hidden ones passed over.

    Raises PermissionError for a folder that may not be read: it is not the same as an empty one.
    """
    wanted = frozenset(suffixes)
    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refused):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if not deep:
            folders.clear()
        found += [
            Path(place, name) for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted  # noqa: PTH122 (speed)
        ]  # fmt: skip
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _refused(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def images_under(folder: Path, deep: bool = True) -> list[Path]:
    """All image files in `folder`, if `deep` below it too, sorted."""
    return files_under(folder, IMAGE_SUFFIXES, deep)


def inside(path: Path, roots: Iterable[Path]) -> bool:
    """Whether `path`, with every link followed, lies in one of `roots`."""
    real = path.resolve()
    return any(real.is_relative_to(root.resolve()) for root in roots)


def leads_out(path: Path, roots: Iterable[Path]) -> bool:
    """Whether a file found in a folder is a link to a place outside `roots`; cheap for plain files."""
    return path.is_symlink() and not inside(path, roots)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that is too long for any, or holds a NUL, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def safe_relative(name: str) -> Path | None:
    """A file name found in an annotation as a relative path, or None where it is absolute or climbs out by '..'."""
    text = name.strip().replace("\\", "/")
    parts = PurePosixPath(text).parts
    if not parts or text.startswith("/") or PureWindowsPath(text).drive or ".." in parts or "\0" in text:
        return None
    return Path(*parts)


def text_lines(path: Path) -> list[str]:
    """The lines of a text file, whatever its line ends, with or without a byte order mark; bad bytes are replaced."""
    return decoded(path.read_bytes()).splitlines()


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8 or, where a byte order mark says so, UTF-16; bad bytes are replaced."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if wide else "utf-8-sig", "replace")


def read_json(path: Path, name: str) -> Any:
    """What a JSON file holds; DataError that calls the file `name`, with the line, for what is no JSON in UTF-8."""
    try:
        data = path.read_bytes()
        if not data.strip():
            raise DataError(f"{name} is empty")
        if data.startswith(b"\x1f\x8b"):
            raise DataError(f"{name} is compressed", hint="unpack it first (gunzip)")
        return json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{name} cannot be opened: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise DataError(f"{name}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{name}: nested too deeply to be an annotation file") from error


def put_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file with its folders; StorageError says why where that does not go."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"cannot write {printable(str(path))}: {error.strerror}") from error


def put_image(source: Path, target: Path, how: str | None) -> None:
    """Places an image in a written dataset: a copy, a hard link (a copy on another disk), or nothing for None."""
    if how is None or (target.exists() and target.samefile(source)):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if how == "link":
            try:
                target.hardlink_to(source.resolve())
                return
            except OSError:
                pass  # another disk, or a file system without hard links: copy
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot write {printable(str(target))}: {error.strerror}") from error


def file_stem(image_id: int | str) -> str:
    """An image id as a relative file name without suffix; an id that would climb out of the folder is flattened."""
    text = str(image_id)
    return text if safe_relative(text) is not None else text.replace("/", "_").replace("\\", "_").replace("..", "_")
