"""Files behind a user's own URLs: https, with a promised hash, resumed where a download broke."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any

from onestage.errors import FetchError
from onestage.fetch.cache import NO_ROOM, cache_folder, offline, progress, sha256_of, stays_inside, storage

BLOCK = 1 << 20
MAX_ATTEMPTS = 3


def url_file(url: str, sha256: str, name: str | None = None, *, note: str = "") -> Path:
    """The file behind a user's own URL, in the cache under `name` (default: the URL's last part), hash-checked.

    https only (plain http is allowed to this machine itself). A broken download is resumed where it stopped, now or
    on the next call. `note` (size, licence) is shown beside the address. Raises FetchError and StorageError.
    """
    _check_url(url)
    name = name or PurePosixPath(urllib.parse.urlsplit(url).path).name
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise FetchError(f"cannot fetch {url}: expected a SHA-256 of 64 hex digits, got {sha256!r}")
    if not name or Path(name).name != name or not stays_inside(name):
        raise FetchError(f"cannot fetch {url}: expected a plain file name, got {name!r}")
    target = cache_folder() / "files" / sha256[:16] / name
    if target.is_file() and sha256_of(target) == sha256:
        return target
    hint = f"fetch it on a machine with network and put it at {target}"
    if offline():
        raise FetchError(f"cannot fetch {url}: ONESTAGE_OFFLINE is set", hint=hint)
    print(f"fetching {url}{f' ({note})' if note else ''}", file=sys.stderr, flush=True)
    part = target.with_name(name + ".part")
    with storage(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            resumed = part.is_file()
            problem = _download(url, part)
            if problem is None and sha256_of(part) == sha256:
                part.replace(target)
                return target
            if problem is None and not resumed:  # a whole download with the wrong hash will not get better
                got = sha256_of(part)
                part.unlink()
                raise FetchError(f"{url} is not the promised file: expected sha256 {sha256}, got {got}; it was removed")
            if problem is None:
                part.unlink()  # the file changed between the two halves: once more from the start
            elif attempt == MAX_ATTEMPTS:
                raise FetchError(f"cannot fetch {url}: {problem}", hint=f"repeat the command to resume, or {hint}")
    raise FetchError(f"cannot fetch {url}: it changes while it is read", hint=hint)


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything less."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(req.full_url).scheme == "https" and not newurl.startswith("https:"):
            raise FetchError(f"refused: {req.full_url} leads to {newurl}, which is not https")
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        if parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback):
            return
    if parts.scheme != "https" or not host:
        raise FetchError(f"cannot fetch {url}: expected an https:// address")


def _download(url: str, part: Path) -> str | None:
    """Appends to `part` what is missing of it; the problem in words, or None when the server says it is whole."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 checked
    try:
        with urllib.request.build_opener(_SameSafety).open(request, timeout=30) as answer:
            if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with part.open("ab" if have else "wb") as file, progress(part.stem, total) as show:
                while block := answer.read(BLOCK):
                    file.write(block)
                    have += len(block)
                    show(have)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond what we have: whole, or of another file; the hash will tell
            return None
        if error.code < 500:  # asking again would not help
            raise FetchError(f"cannot fetch {url}: the server answered {error.code} {error.reason}") from error
        return f"the server answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        return f"the connection failed ({getattr(error, 'reason', None) or error!r})"
    return None if total is None or have >= total else f"the connection broke after {have:,} of {total:,} bytes"
