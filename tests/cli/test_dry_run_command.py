"""`onestage train --dry-run` as a process: what it says, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from command_line import TINY, Command, onestage


def test_it_says_what_a_run_would_take_and_writes_the_picture(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "first.png"
    answer = onestage(
        "train", f"data={folder}", "--dry-run", "--picture", picture, *TINY, runs=tmp_path / "runs"
    )  # fmt: skip
    assert answer.code == 0, answer.err
    for words in ("nothing was trained", "at the peak", "averaged weights", "final judgement", "states", str(picture)):
        assert words in answer.out, words
    assert cv2.imread(str(picture)).shape[1] > 1000
    assert not (tmp_path / "runs").exists()


def test_json_has_all_of_it_and_a_second_time_replaces_its_own(here: Command, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "first.png"
    for _ in range(2):
        answer = here("train", f"data={folder}", "--dry-run", "--json", "--picture", picture, *TINY)
        assert answer.code == 0, answer.err
    told = answer.json
    assert told["picture"] == str(picture)
    assert told["estimate"]["time"]["seconds"] > 0
    assert told["estimate"]["memory"]["peak"] > 10**8
    assert len(told["first_batch"]) == 4
    assert told["groups"]["all"]


def test_somebodys_file_is_never_replaced(here: Command, folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "dry-run.png"
    photo.write_bytes(b"a photo")
    answer = here("train", f"data={folder}", "--dry-run", "--picture", photo, *TINY)
    assert answer.code == 2
    assert "no dry run wrote it" in answer.err
    assert photo.read_bytes() == b"a photo"


def test_what_does_not_go_together_is_refused(here: Command, folder: Path, tmp_path: Path) -> None:
    for words, told in (
        (("--dry-run", "--picture", tmp_path / "first.jpg"), ".png"),
        (("--picture", tmp_path / "first.png"), "--dry-run"),
        (("--dry-run", "--resume", "x"), "one of them at a time"),
        (("--dry-run", "--picture", tmp_path), "expected a name that ends in .png"),
    ):
        answer = here("train", *(() if "--resume" in words else (f"data={folder}",)), *words)
        assert answer.code == 2, answer.err
        assert told in answer.err
    assert not list(tmp_path.glob("*.png"))


def test_one_process_is_enough(here: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    answer = here("train", f"data={folder}", "--dry-run", *TINY)
    assert answer.code == 2
    assert "torchrun started 2" in answer.err
