"""Files written whole or not at all, and JSON that never holds NaN."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from onestage.errors import OnestageError, StorageError, UsageError

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DISK_FULL = re.compile(r"no space left on device|os error 28|disk quota exceeded", re.IGNORECASE)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays become lists, paths text, and non-finite floats "nan", "inf", "-inf"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return str(value) if isinstance(value, Path) else value


def lively(value: Any) -> Any:
    """The inverse of `plain` for floats: "nan", "inf" and "-inf" become numbers again."""
    if isinstance(value, dict):
        return {key: lively(item) for key, item in value.items()}
    if isinstance(value, list):
        return [lively(item) for item in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def as_json(value: Any) -> str:
    """JSON text of `value`; a list gets one line per element, a mapping is indented."""
    value = plain(value)
    if isinstance(value, list):
        rows = (json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value)
        return "[\n" + ",\n".join(rows) + "\n]\n"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def as_yaml(value: Any) -> str:
    """YAML text of `value`, mappings in their order; a text of several lines, such as a cfg, line by line."""
    return yaml.dump(plain(value), Dumper=_Lines, sort_keys=False, allow_unicode=True)


class _Lines(yaml.SafeDumper):
    """Texts of several lines as literal blocks, where YAML can hold them so."""


def _block_or_line(dumper: _Lines, text: str) -> yaml.Node:
    lines = text.split("\n")
    style = "|" if len(lines) > 1 and lines[0].strip() else None
    if not all(line.isprintable() for line in lines):  # PyYAML writes some bare, and reads them as breaks of the line
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Lines.add_representer(str, _block_or_line)


def read_json(path: Path) -> Any:
    """What `path` holds, as it stands there; OSError or ValueError say why it cannot be read."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh path beside `path` to write to; when the block ends well it takes the place of `path`, at once.

    Whatever goes wrong (a full disk, an exception, a power cut) leaves `path` as it was. A full disk or a read-only
    folder raises StorageError, also when the writing library wraps the system's error in one of its own.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OnestageError):
            raise
        if isinstance(error, OSError) or _DISK_FULL.search(str(error)):
            raise storage_error(path, error, kept=path.exists()) from error
        raise


def make_folder(path: Path) -> None:
    """Make the folder `path` and those above it, where they are not there; raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` in the place of what `path` holds, whole or not at all; raises StorageError."""
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0))
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)


def make_room(path: Path, key: str) -> None:
    """Make the folder of a file that a command will write where `key` says, before any work is done for it.

    Raises UsageError for a folder of that name, StorageError where the folder cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(f"{key} {path} is a folder", hint=f"{key} {path / 'NAME'} names a file in it")
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{key} {path}: the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{key} {path}: the folder {folder} is read-only or belongs to someone else")


def append_line(path: Path, line: str) -> None:
    """Add one line to `path`, handed to the system at once, so that a killed process loses none; raises StorageError.

    Where an earlier process died within a line, its cut line is ended first, so that the new one stays readable.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            cut = b""
            if size:
                os.lseek(descriptor, size - 1, os.SEEK_SET)
                cut = b"" if os.read(descriptor, 1) == b"\n" else b"\n"
            _write_all(descriptor, cut + line.encode("utf-8") + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error, kept=True) from error


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of `path`, one per line, non-finite numbers restored; and how many lines could not be read."""
    rows, damaged = [], 0
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(lively(row))
        else:
            damaged += 1
    return rows, damaged


def storage_error(path: Path, error: Exception, kept: bool = False) -> StorageError:
    """The system's refusal to write `path` as a sentence a user can act on."""
    number = getattr(error, "errno", None)
    rest = " The file saved before is untouched." if kept else ""
    if number in (errno.ENOSPC, errno.EDQUOT) or _DISK_FULL.search(str(error)):
        return StorageError(
            f"the disk is full: {path} could not be written.{rest}",
            hint="free some space, or send runs elsewhere with ONESTAGE_RUNS=/path; then go on with --resume",
        )
    if number == errno.EFBIG:
        return StorageError(
            f"{path} could not be written: it would be larger than a file may be here.{rest}",
            hint="raise the limit (ulimit -f), or send runs elsewhere with ONESTAGE_RUNS=/path; then --resume",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageError(
            f"{path} could not be written: the folder is read-only or belongs to someone else.{rest}",
            hint="choose a folder you may write to with ONESTAGE_RUNS=/path",
        )
    return StorageError(
        f"{path} could not be written: {getattr(error, 'strerror', None) or error}.{rest}",
        hint="choose another folder with ONESTAGE_RUNS=/path",
    )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; some systems refuse to open a folder, and then there is nothing to do."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
