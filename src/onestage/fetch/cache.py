"""Where fetched files are kept, and what both ways of fetching share: hashes, offline, progress."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from onestage.errors import FetchError, StorageError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
ELSEWHERE = "free some space, or let ONESTAGE_CACHE name a folder elsewhere"


def cache_folder() -> Path:
    """Where fetched files are kept: $ONESTAGE_CACHE, else the user's cache folder of this system."""
    if named := os.environ.get("ONESTAGE_CACHE"):
        return Path(named).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "onestage"
    if local := os.environ.get("LOCALAPPDATA"):
        return Path(local) / "onestage" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onestage"
    return Path.home() / ".cache" / "onestage"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(file: Path, title: str, sha256: str, ending: str) -> None:
    """FetchError naming the expected and the found SHA-256 where `file` is not what was promised."""
    if (got := sha256_of(file)) != sha256:
        raise FetchError(f"{file.name} is not the promised {title}: expected sha256 {sha256}, got {got}; {ending}")


def stays_inside(name: str) -> bool:
    """True for a relative name with forward slashes that cannot climb out of the folder it is joined to."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not re.search(r"[\\:\0]", name)


def offline() -> bool:
    """True where ONESTAGE_OFFLINE forbids the network."""
    return os.environ.get("ONESTAGE_OFFLINE", "").lower() not in {"", "0", "false", "no"}


@contextlib.contextmanager
def storage(place: Path) -> Iterator[None]:
    """Turns "no room" and "no right to write" into a StorageError that names `place`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageError(f"cannot write below {place}: {error.strerror}", hint=ELSEWHERE) from error


@contextlib.contextmanager
def progress(title: str, total: float | None) -> Iterator[Any]:
    """A bar on a terminal's stderr, nothing elsewhere; yields a function that takes the bytes done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console  # costs 0.1 s, so only where a bar is drawn
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=min(done, total) if total else done)
