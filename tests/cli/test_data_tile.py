"""`onestage data tile`: what it writes, what it tells, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.opening import open_dataset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for folder in ("annotations", "images"):
        (root / folder).mkdir(parents=True)
    for number in range(5):
        image = np.random.default_rng(number).integers(0, 255, (80, 100, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), image)
        rows = "0,0,20,20,0,0,0,0\n40,30,10,10,1,4,0,0\n0,40,100,40,1,9,0,1\n"
        (root / "annotations" / f"{number}.txt").write_text(rows)
    return root


def ask(*words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["data", "tile", *words])
    return answer.exit_code, answer.output


def test_tiles_are_written_in_the_format_of_the_set_and_told(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    code, said = ask(str(photos), str(out), "size=64", "overlap=0.25")
    assert code == 0, said
    assert "train: 4 of 8 objects are a truth in no tile (the longest has 100 px)" in said
    assert f"{out} (visdrone)" in said
    opened = open_dataset(out)
    assert (opened.format, len(opened.train), len(opened.val)) == ("visdrone", 16, 4)


def test_json_and_another_format(photos: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(
        app, ["data", "tile", str(photos), str(tmp_path / "t"), "size=64", "format=coco", "split=all", "--json"]
    )
    told = json.loads(answer.stdout)
    assert told["format"] == "coco"
    assert told["sets"]["all"]["photographs"] == 5
    assert told["tiling"] == {"size": 64, "overlap": 0.2, "cut": "ignore", "visible": 0.9, "empty": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["size=big"], "size: expected a whole number, got 'big'"),
        (["size=true"], "size: expected a whole number"),
        (["cut=clip", "visible=0.5"], "visible: has no effect with cut=clip"),
        (["cut=clp", "overlap=2"], "cut: expected one of ignore, clip, drop"),
        (["format=vok"], "format: expected one of coco, visdrone, yolo, voc"),
        (["format=yolo"], "yolo has no regions to ignore"),
        (["sice=3"], "did you mean 'size'?"),
        (["split=tst"], "tst"),
    ],
)
def test_what_cannot_be_done_is_said(photos: Path, tmp_path: Path, words: list[str], said: str) -> None:
    code, told = ask(str(photos), str(tmp_path / "t"), *words)
    assert code in (2, 3)
    assert said in " ".join(told.split())
    assert not (tmp_path / "t").exists()


def test_one_photograph_is_cut_whole(photos: Path, tmp_path: Path) -> None:
    for number in range(1, 5):
        (photos / "images" / f"{number}.jpg").unlink()
        (photos / "annotations" / f"{number}.txt").unlink()
    code, said = ask(str(photos), str(tmp_path / "tiles"), "size=64")
    assert code == 3
    assert "split=all" in said
    code, said = ask(str(photos), str(tmp_path / "tiles"), "size=64", "split=all")
    assert code == 0, said
    assert "1 image with" in said


def test_both_places_are_needed(photos: Path) -> None:
    code, told = ask(str(photos))
    assert code == 2
    assert "a data set and a new folder are needed" in told
