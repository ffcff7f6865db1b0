"""Finding images by file, folder and glob, and names that never collide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.deploy.sources import names, sources
from onestage.errors import DataError, UsageError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "deep/er/c.jpeg", "deep/notes.txt", ".hidden/d.jpg", "x[1].jpg", "list.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def shown(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_is_searched_below_sorted_and_without_hidden_or_other_files(photos: Path) -> None:
    assert shown(sources([photos]), photos) == ["a.PNG", "b.jpg", "deep/er/c.jpeg", "x[1].jpg"]


def test_files_globs_and_folders_keep_their_order_and_come_once(photos: Path) -> None:
    found = sources([photos / "b.jpg", f"{photos}/**/*.jpeg", photos, f"{photos}/deep/../b.jpg"])
    assert shown(found, photos) == ["b.jpg", "deep/er/c.jpeg", "a.PNG", "x[1].jpg"]
    assert shown(sources([f"{photos}/d*"]), photos) == ["deep/er/c.jpeg"]  # a folder that a glob matches
    assert shown(sources([f"{photos}/*"]), photos) == ["a.PNG", "b.jpg", "deep/er/c.jpeg", "x[1].jpg"]


def test_a_file_that_exists_by_its_literal_name_is_no_glob(photos: Path) -> None:
    assert shown(sources([f"{photos}/x[1].jpg"]), photos) == ["x[1].jpg"]


def test_every_pattern_without_an_image_is_named_with_its_reason(photos: Path) -> None:
    (photos / "none").mkdir()
    with pytest.raises(DataError, match="some of the sources") as raised:
        sources([photos / "b.jpg", photos / "b.jpeg", f"{photos}/*.gif", photos / "none", photos / "list.txt",
                 f"{photos}/*.txt"])  # fmt: skip
    told = [problem.removeprefix(f"{photos}/") for problem in raised.value.problems]
    assert told == [
        "b.jpeg: there is no such file or folder", "*.gif: matches nothing", "none: the folder holds no image",
        "list.txt: not an image by its ending '.txt'", "*.txt: matches no image, only list.txt",
    ]  # fmt: skip
    with pytest.raises(DataError, match="no images to predict on"):
        sources([photos / "none"])
    with pytest.raises(UsageError):
        sources([])


def test_results_of_an_earlier_call_are_no_input_unless_named(photos: Path) -> None:
    out = photos / "predictions"
    out.mkdir()
    (out / "b.jpg").write_bytes(b"")
    assert shown(sources([photos], leave_out=out), photos) == ["a.PNG", "b.jpg", "deep/er/c.jpeg", "x[1].jpg"]
    assert shown(sources([out / "b.jpg"], leave_out=out), photos) == ["predictions/b.jpg"]
    assert shown(sources([out], leave_out=out), photos) == ["predictions/b.jpg"]


def test_names_are_paths_below_the_common_folder_without_ending() -> None:
    assert names([]) == []
    assert names([Path("/p/q/x.jpg")]) == ["x"]
    assert names([Path("/p/a/x.jpg"), Path("/p/b/x.jpg"), Path("/p/y.png")]) == ["a/x", "b/x", "y"]
    assert names([Path("x.jpg"), Path("../x.jpg")])[1] == "x"


def test_names_that_only_the_ending_or_the_case_tells_apart() -> None:
    assert names([Path("x.jpg"), Path("x.png"), Path("y.v2.png")]) == ["x.jpg", "x.png", "y.v2"]
    found = names([Path("X.jpg"), Path("x.jpg")])
    assert len({name.casefold() for name in found}) == 2
    found = names([Path("x.jpg"), Path("x.png"), Path("x.jpg.gif")])
    assert len(set(found)) == 3


part = st.sampled_from(["a", "A", "a.jpg", "b", "a.jpg.jpg", "a.jpg-2"])


@given(st.lists(st.tuples(part, part, st.sampled_from([".jpg", ".JPG", ".png"])), unique=True, max_size=12))
def test_no_two_images_share_a_name_whatever_they_are_called(parts: list[tuple[str, str, str]]) -> None:
    found = names([Path("/r", folder, stem + ending) for folder, stem, ending in parts])
    assert len({name.casefold() for name in found}) == len(parts)
    assert not any(name.startswith(("/", "..")) for name in found)


def test_a_folder_that_may_not_be_read_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, scandir = photos / "deep", os.scandir

    def guarded(path: str | Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # chmod would not stop root, who may run the tests
    with pytest.raises(DataError, match="may not be read"):
        sources([photos])
