"""`onestage data anchors`: tables, JSON and the picture, and every word that is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
from command_line import Command, onestage

TINY = ("model=faceboxes", "size=96")


def test_a_set_as_a_process_with_a_picture(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "priors.png"
    answer = onestage("data", "anchors", folder, *TINY, "--draw", picture, "--json", runs=tmp_path / "runs")
    assert answer.code == 0, answer.err
    told = answer.json
    assert told["priors"] == 9 * 21 + 4 + 1
    assert told["answers"]["truths"] > 5
    assert sum(row["positives"] for row in told["answers"]["by_group"]) == told["answers"]["positives"]
    assert told["picture"] == str(picture)
    assert cv2.imread(str(picture)).shape[1] > 1500
    assert "2x2 densified, spacing 16 px in both directions, no duplicates" in answer.err


def test_tables_for_people(here: Command, folder: Path) -> None:
    answer = here("data", "anchors", folder, *TINY, "options.layout=symmetric", "split=all")
    assert answer.code == 0, answer.err
    for words in (
        "faceboxes at 96x96, layout symmetric", "1,007,330 with 1 class", "194 on 3 levels", "density", "first centre",
        "32 px: 4x4 densified", "all: 12 images", "without a prior", "forced", "side of truth px", "median best IoU",
    ):  # fmt: skip
        assert words in answer.out, words


def test_without_data_and_with_bare_images_there_is_the_lattice_alone(
    here: Command, folder: Path, tmp_path: Path
) -> None:
    plain = here("data", "anchors", *TINY, "--json").json
    assert "answers" not in plain
    photo, picture = folder / "JPEGImages" / "disc00.jpg", tmp_path / "bare.png"
    for _ in range(2):  # the second replaces its own
        answer = here("data", "anchors", photo, "model=faceboxes", "fit=native", "--draw", picture)
        assert answer.code == 0, answer.err
        assert "no annotations" in answer.out
    assert picture.is_file()


def test_named_images_alone_are_counted(here: Command, folder: Path) -> None:
    words = ("data", "anchors", folder, *TINY, "split=all", "--json")
    both = here(*words, "image=disc00,disc03.jpg").json["answers"]
    each = [here(*words, f"image={name}").json["answers"] for name in ("disc00", "disc03")]
    assert both["images"] == 2
    assert both["positives"] == sum(one["positives"] for one in each)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("model=facebox",), 4, "did you mean 'faceboxes'"),
        (("model=faceboxes", "options.layout=symetric"), 4, "did you mean 'symmetric'"),
        (("model=ssd300", "size=512"), 4, "expected input size 300x300"),
        (("model=faceboxes", "options.size=64"), 2, "options.size: no option of a model"),
        (("model=faceboxes", "options={classes: 2}"), 2, "options.classes: no option of a model"),
        (("size=0",), 2, "size: expected"),
        (("size=10,20,30",), 2, "size: expected"),
        (("siez=10",), 2, "did you mean 'size'"),
        (("fit=native",), 2, "no image is named"),
        (("fit=native", "size=96"), 2, "size: has no effect"),
        (("scale=2",), 2, "scale: has no effect"),
        (("fit=stretch",), 2, "squash, letterbox, native"),
        (("image=a",), 2, "image= names images of a data set"),
        (("nowhere/",), 3, "no such folder"),
        (("nothing.jpg",), 3, "there is no such file"),
        (("--draw", "a.jpg"), 2, "ends in .png"),
    ],
)
def test_what_cannot_be_is_refused(here: Command, words: tuple[str, ...], code: int, told: str) -> None:
    answer = here("data", "anchors", *words)
    assert answer.code == code, answer.err
    assert told in answer.err


def test_what_the_set_does_not_hold_is_refused(here: Command, folder: Path, tmp_path: Path) -> None:
    answer = here("data", "anchors", folder, *TINY, "image=disc99")
    assert answer.code == 2
    assert "no image 'disc99'" in answer.err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert here("data", "anchors", empty).code == 3
    assert here("data", "show", folder, "--draw", "a.png").code == 2


def test_pictures_that_cannot_be_written_are_refused_first(here: Command, folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"a photo")
    answer = here("data", "anchors", folder, *TINY, "--draw", photo)
    assert answer.code == 2
    assert photo.read_bytes() == b"a photo"
    if os.geteuid():
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        assert here("data", "anchors", folder, *TINY, "--draw", closed / "a.png").code == 1
    (tmp_path / "file").write_text("")
    answer = here("data", "anchors", folder, *TINY, "--draw", tmp_path / "file" / "a.png")
    assert answer.code == 1
    assert "cannot be made" in answer.err
