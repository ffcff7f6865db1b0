"""VisDrone's detection files: columns, places in the file, what is left out, and what is not taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import write

from onestage.data.detections import visdrone as module

GOOD = "1,2,10,20,0.9,4,-1,-1\n"


def test_columns_files_and_places(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "1,2,10,20,0.5,4,-1,-1,\r\n\r\n3.5,4,5.25,6,0.9,10,-1,-1\r\n")
    write(tmp_path / "a.txt", "")
    write(tmp_path / "c.txt", "7 8 9 10 1e-3 1 -1 -1")
    rows = module.read(tmp_path)
    assert rows.images == ("a", "b", "c")  # also the one in which nothing was found
    assert rows.files == ("a.txt", "b.txt", "c.txt")
    assert len(rows.classes) == 10
    assert [rows.classes[label] for label in rows.label] == ["car", "motor", "pedestrian"]
    assert rows.image.tolist() == rows.file.tolist() == [1, 1, 2]
    assert rows.line.tolist() == [1, 3, 1]
    assert rows.boxes.tolist() == [[1, 2, 11, 22], [3.5, 4, 8.75, 10], [7, 8, 16, 18]]
    assert rows.scores.tolist() == [0.5, 0.9, 0.001]
    assert rows.extra["row"].tolist() == [0, 1, 0]
    assert rows.extra["xywh"].tolist()[1] == [3.5, 4, 5.25, 6]
    assert (rows.relative, rows.findings) == (False, ())


def test_regions_and_others_are_counted_once_and_keep_their_place(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1,2,3,4,1,0,-1,-1\n" + GOOD + "1,2,3,4,1,11,-1,-1\n" + GOOD)
    write(tmp_path / "b.txt", GOOD)
    rows = module.read(tmp_path)
    assert rows.extra["row"].tolist() == [1, 3, 0]
    (finding,) = rows.findings
    assert finding.code == "no-object-category"
    assert finding.what.startswith("2 rows of category 0 or 11 in 1 of 2 files")


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("1,2,3,4,0.5", "bad-row", "5 columns"),
        ("1,2,3,4,0.5,4,-1,-1,5", "bad-row", "9 columns"),
        ("1,x,3,4,0.5,4,-1,-1", "not-a-number", "expected numbers"),
        ("1,2,3,inf,0.5,4,-1,-1", "not-a-number", "expected numbers"),
        ("1,2,3,4,0.5,car,-1,-1", "not-a-number", "expected numbers"),
        ("1,2,3,4,0.5,12,-1,-1", "unknown-class", "category 12"),
        ("1,2,3,4,0.5,-1,-1,-1", "unknown-class", "category -1"),
    ],
)
def test_rows_that_cannot_be_read_are_listed_by_file_and_line(tmp_path: Path, row: str, code: str, said: str) -> None:
    write(tmp_path / "a.txt", GOOD + row + "\n" + GOOD)
    rows = module.read(tmp_path)
    assert len(rows) == 2
    (finding,) = rows.findings
    assert (finding.code, finding.where.file, finding.where.line) == (code, "a.txt", 2)
    assert said in finding.what


def test_what_the_listing_of_all_formats_judges_is_delivered(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1,2,0,0,nan,4,-1,-1\n-9,-9,3,4,7,4,-1,-1\n1,2,3,4,0.5,4\n")
    rows = module.read(tmp_path)
    assert (len(rows), rows.findings) == (3, ())
    assert np.isnan(rows.scores[0])
    assert rows.scores[1:].tolist() == [7, 0.5]


def test_nothing_at_all(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "\n")
    rows = module.read(tmp_path)
    assert (len(rows), rows.images, rows.boxes.shape) == (0, ("a",), (0, 4))


@pytest.mark.parametrize("text", [GOOD, GOOD + "broken\n", GOOD.replace(",", " "), "1,2,10,20,1,4,0,2\n"])
def test_recognised_by_its_rows(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a.txt", "")
    write(tmp_path / "b.txt", text)
    assert "eight columns" in str(module.recognise(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 0.5 0.5 0.2 0.2 0.9\n",  # YOLO with confidence
        "0 0.1 0.1 0.2 0.1 0.2 0.2 0.9\n",  # YOLO polygon
        "a/b/c.jpg\n2\n1 2 3 4 0.9\n1 2 3 4 0.8\n",  # WIDER FACE
        "img_1 0.9 1 2 3 4\n",  # VOC
        "1,2,3,4,0.5,40,-1,-1\n",
        "1,0,593,43,174,190,0.9,4,-1,-1\n",  # video
    ],
)
def test_other_rows_are_not_taken_for_it(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a.txt", text)
    assert module.recognise(tmp_path) is None
    assert module.recognise(tmp_path / "a.txt") is None
    assert module.recognise(tmp_path / "nowhere") is None


def test_real_folders_of_txt_are_not_taken_for_it(shared: Path) -> None:
    folders = {path.parent for path in shared.glob("coco128/**/*.txt")} | {
        path.parent for path in shared.glob("road/**/*.txt")
    }
    assert folders
    assert [folder for folder in folders if module.recognise(folder)] == []


def test_one_file_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "0001.txt"
    file.write_text("1,2,3,4,0.5,4,-1,-1\nx\n")
    rows = module.read(file)
    assert (rows.images, len(rows)) == (("0001",), 1)
    assert [str(one.where) for one in rows.findings] == ["0001.txt:2"]
