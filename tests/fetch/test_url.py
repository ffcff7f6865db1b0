from __future__ import annotations

import errno
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onestage.errors import FetchError, StorageError
from onestage.fetch import cache_folder, url_file

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    content = CONTENT
    break_after: int | None = None  # bytes of an answer after which the connection breaks, once
    ranges = True
    redirect: str | None = None
    asked: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        if self.path == "/absent":
            self.send_error(404, "not here")
            return
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.server.content) - start))
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.end_headers()
        cut, self.server.break_after = self.server.break_after, None
        body = self.server.content[start:]
        self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONESTAGE_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as here:
        here.asked = []
        thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield here
        here.shutdown()
        thread.join()


def address(server: Server, path: str = "/net.bin") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_file_comes_once_and_is_then_cached(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    path = url_file(address(server), SHA256, note="1 MB, MIT")
    assert path.name == "net.bin"
    assert path.read_bytes() == CONTENT
    assert "net.bin (1 MB, MIT)" in capsys.readouterr().err
    assert url_file(address(server), SHA256) == path
    assert server.asked == [None]
    assert [file.name for file in cache_folder().rglob("*") if file.is_file()] == ["net.bin"]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "server-cannot-resume"])
def test_a_broken_download_goes_on_where_it_stopped(server: Server, ranges: bool) -> None:
    server.break_after, server.ranges = 300_000, ranges
    assert url_file(address(server), SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_part_left_by_an_earlier_call_is_resumed(server: Server) -> None:
    part = cache_folder() / "files" / SHA256[:16] / "net.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    assert url_file(address(server), SHA256).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("left", [b"x" * 1000, CONTENT + b"too long", CONTENT], ids=["foreign", "too-long", "whole"])
def test_a_part_of_another_file_does_not_spoil_the_download(server: Server, left: bytes) -> None:
    part = cache_folder() / "files" / SHA256[:16] / "net.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert url_file(address(server), SHA256).read_bytes() == CONTENT
    assert not part.exists()


def test_a_wrong_hash_is_refused_and_removed(server: Server) -> None:
    server.content = b"something else"
    got = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(FetchError, match=f"expected sha256 {SHA256}, got {got}"):
        url_file(address(server), SHA256)
    assert [file for file in cache_folder().rglob("*") if file.is_file()] == []
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/a", "https"), ("ftp://example.org/a", "https"), ("file:///etc/passwd", "https"),
        ("a.bin", "https"), ("https:///a", "https"), ("http://127.0.0.1.example.org/a", "https"),
        ("https://example.org/", "plain file name"),
    ],
)  # fmt: skip
def test_other_addresses_are_refused_before_any_request(server: Server, url: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        url_file(url, SHA256)
    assert server.asked == []


@pytest.mark.parametrize("name", ["../a", "a/b", ".."])
def test_a_name_cannot_leave_the_cache(server: Server, name: str) -> None:
    with pytest.raises(FetchError, match="plain file name"):
        url_file(address(server), SHA256, name)


def test_a_hash_is_required(server: Server) -> None:
    with pytest.raises(FetchError, match="64 hex digits"):
        url_file(address(server), "abc")


@pytest.mark.parametrize("target", ["http://example.org/a", "file:///etc/passwd"])
def test_a_redirect_to_something_less_safe_is_refused(server: Server, target: str) -> None:
    server.redirect = target
    with pytest.raises(FetchError):
        url_file(address(server), SHA256)
    assert [file for file in cache_folder().rglob("*") if file.is_file()] == []


def test_what_is_not_there_is_asked_for_once(server: Server) -> None:
    with pytest.raises(FetchError, match="404 not here"):
        url_file(address(server, "/absent"), SHA256)
    assert len(server.asked) == 1


def test_offline_names_the_place_to_put_the_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")
    with pytest.raises(FetchError) as caught:
        url_file(address(server), SHA256)
    place = cache_folder() / "files" / SHA256[:16] / "net.bin"
    assert str(place) in str(caught.value)
    assert server.asked == []
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert url_file(address(server), SHA256) == place


def test_no_answer_keeps_the_part_and_says_how_to_go_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onestage.fetch.url.MAX_ATTEMPTS", 1)
    server.break_after = 5000
    with pytest.raises(FetchError, match="5,000 of 1,048,576 bytes") as caught:
        url_file(address(server), SHA256)
    assert "repeat" in (caught.value.hint or "")
    assert (cache_folder() / "files" / SHA256[:16] / "net.bin.part").stat().st_size == 5000
    assert url_file(address(server), SHA256).read_bytes() == CONTENT


def test_nobody_listening_is_a_fetch_error(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match="connection failed"):
        url_file(address(server), SHA256)


def test_a_full_disk_is_a_storage_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        url_file(address(server), SHA256)
