"""One process at a time trains a run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onestage.errors import UsageError
from onestage.experiments.storage import storage_error
from onestage.experiments.tables import time_now

try:
    import fcntl
except ImportError:  # Windows: there a run is not guarded
    fcntl = None  # type: ignore[assignment]

_HELD: set[Path] = set()  # the system's locks do not keep two threads of one process apart
_GUARD = threading.Lock()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; UsageError names the process that already does.

    The system itself lets go of the lock when its process ends, however it ends (also of another container on the same
    folder), so that a lock left behind by a crash is no lock. Child processes do not inherit it. The file says who
    holds it: pid, host, since when.
    """
    place = path.resolve()
    with _GUARD:
        if place in _HELD:
            raise _refusal(path, {"pid": os.getpid(), "host": socket.gethostname()})
        _HELD.add(place)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            _take(descriptor, path)
            yield
        finally:
            os.close(descriptor)
    finally:
        _HELD.discard(place)


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock file `path` just now, as the file says ({} where it does not say), or None."""
    if path.resolve() in _HELD:  # reading the file here would let go of the lock
        return {"pid": os.getpid(), "host": socket.gethostname()}
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _read(path)
    finally:
        os.close(descriptor)
    return None


def abandoned(path: Path) -> bool:
    """Whether a process of this machine held the lock file `path`, and none does now."""
    return fcntl is not None and _read(path).get("host") == socket.gethostname() and holder(path) is None


def _take(descriptor: int, path: Path) -> None:
    if fcntl is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(path, _read(path)) from None
        except OSError:  # a file system without locks: the run is not guarded there
            return
    said = {"pid": os.getpid(), "host": socket.gethostname(), "since": time_now()}
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same; it only does not say whose it is
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(said).encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(path: Path, said: dict[str, Any]) -> UsageError:
    run = path.parent.parent.resolve().name
    who = f"process {said['pid']} on {said.get('host', 'this machine')}" if "pid" in said else "another process"
    since = f" since {said['since']}" if "since" in said else ""
    stop = f"kill {said['pid']}" if "pid" in said else "Ctrl-C there"
    return UsageError(
        f"run {run} is being trained by {who}{since}; two would mix their steps",
        hint=f"wait for it, or stop it ({stop}; it saves its state first), then: onestage train --resume {run}",
    )
