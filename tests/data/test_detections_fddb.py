"""FDDB's detection files: rectangles, lxg2015's six columns, ellipses, and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.detections import fddb
from onestage.data.detections.rows import Rows
from onestage.errors import DataError

GOLDEN = Path(__file__).parent.parent / "golden" / "fddb"
RECTANGLES = "2002/08/11/big/img_591\n2\n188 75 154 196 0.99\n10\t20\t30.5\t40\t0.25\na/b\n0\nc/d\n1\n1 2 3 4 -1.5\n"


def put(folder: Path, text: str, name: str = "out.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def codes(rows: Rows) -> list[str]:
    return [finding.code for finding in rows.findings]


def test_rectangles(tmp_path: Path) -> None:
    path = put(tmp_path, RECTANGLES)
    assert fddb.recognise(path) == "FDDB detections: out.txt, blocks of an image's name, a count and rows of numbers"
    rows = fddb.read(path)
    assert rows.images == ("2002/08/11/big/img_591", "a/b", "c/d")
    assert rows.classes == ("face",)
    assert rows.files == ("out.txt",)
    assert rows.boxes.tolist() == [[188, 75, 342, 271], [10, 20, 40.5, 60], [1, 2, 4, 6]]
    assert rows.scores.tolist() == [0.99, 0.25, -1.5]
    assert rows.image.tolist() == [0, 0, 2]
    assert rows.line.tolist() == [3, 4, 9]
    assert (rows.relative, rows.extra, rows.findings) == (False, {}, ())


def test_the_same_whatever_the_line_ends(tmp_path: Path) -> None:
    plain = fddb.read(put(tmp_path, RECTANGLES))
    odd = fddb.read(put(tmp_path, "\ufeff" + RECTANGLES.replace("\n", " \r\n\r\n"), "odd.txt"))
    assert odd.images == plain.images
    assert odd.boxes.tolist() == plain.boxes.tolist()
    assert odd.findings == ()


def test_real_folder(shared: Path) -> None:
    rows = fddb.read(shared / "fddb" / "detections" / "MTCNN")
    assert (len(rows), len(rows.images), len(rows.files)) == (4884, 2845, 10)
    assert rows.files[9] == "fold-10-out.txt"
    assert rows.findings == ()
    assert rows.boxes[0].tolist() == [188, 75, 342, 271]
    alone = fddb.read(shared / "fddb" / "detections" / "MTCNN" / "fold-10-out.txt")
    assert alone.scores.tolist() == rows.scores[rows.file == 9].tolist()


def test_six_columns_with_a_constant_one_are_rectangles(tmp_path: Path) -> None:
    text = "".join(f"{line}\t1\n" if len(line.split()) == 5 else f"{line}\n" for line in RECTANGLES.splitlines())
    rows = fddb.read(put(tmp_path, text.replace("-1.5", "0.5")))
    assert rows.scores.tolist() == [0.99, 0.25, 0.5]
    assert codes(rows) == ["six-columns"]
    assert "the last is always 1 and is passed over" in rows.findings[0].what
    assert rows.findings[0].severity == "note"


def test_small_rectangles_with_a_constant_one_stay_rectangles(tmp_path: Path) -> None:
    rows = fddb.read(put(tmp_path, "a/b\n1\n0.1 0.2 0.3 0.4 0.9 1\n"))
    assert rows.scores.tolist() == [0.9]
    assert "ellipse" not in rows.extra


def test_ellipses(tmp_path: Path) -> None:
    rows = fddb.read(put(tmp_path, "a/b\n2\n40 30 0 100 200 0.7\n10 5 1.5707963267948966 50 60 -2\n"))
    assert rows.boxes == pytest.approx(np.array([[60, 170, 140, 230], [45, 50, 55, 70]]))
    assert rows.extra["ellipse"].tolist()[0] == [40, 30, 0, 100, 200]
    assert rows.scores.tolist() == [0.7, -2]
    assert "taken for ellipses" in rows.findings[0].what


def test_a_list_of_true_ellipses_reads_as_ellipses_of_score_one(shared: Path) -> None:
    rows = fddb.read(shared / "fddb" / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt")
    assert set(rows.scores.tolist()) == {1.0}
    assert rows.extra["ellipse"].shape == (len(rows), 5)


def test_what_the_rows_are_is_decided_over_all_files(tmp_path: Path) -> None:
    put(tmp_path, "a/b\n1\n40 30 0 100 200 0.7\n", "fold-01-out.txt")
    put(tmp_path, "c/d\n1\n40 30 99 100 200 0.7\n", "fold-02-out.txt")
    rows = fddb.read(tmp_path)
    assert rows.extra == {}
    assert rows.scores.tolist() == [200, 200]
    assert "the third of six columns goes to 99" in rows.findings[0].what


@pytest.mark.parametrize(
    ("more", "code", "said", "line"),
    [
        ("e/f\n2\n1 2 3 4 0.5\ng/h\n0\n", "count-mismatch", "the count says 2, there are 1 rows", 10),
        ("e/f\n0\n1 2 3 4 0.5\n", "count-mismatch", "the count says 0, there are 1 rows", 10),
        ("e/f\n9\n1 2 3 4 0.5\n", "count-mismatch", "where the file ends: it is cut short", 10),
        ("e/f\n", "count-mismatch", "no line with the number of rows follows", 10),
        ("c/d\n1\n1 2 3 4 0.5\n", "repeated-image", "a second time", 10),
        ("e/f\n1\n1 2 x 4 0.5\n", "bad-row", "expected x y w h score, got '1 2 x 4 0.5'", 12),
        ("e/f\n1\n1 2 3\n", "bad-row", "expected x y w h score, got '1 2 3'", 12),
        ("e/f\n1\n1\n", "bad-row", "expected x y w h score, got '1'", 12),
    ],
)
def test_oddities_are_findings_with_file_and_line(tmp_path: Path, more: str, code: str, said: str, line: int) -> None:
    rows = fddb.read(put(tmp_path, RECTANGLES + more))
    assert codes(rows) == [code]
    assert said in rows.findings[0].what
    assert (rows.findings[0].where.file, rows.findings[0].where.line) == ("out.txt", line)
    assert len(rows) == (3 if code == "bad-row" or "follows" in said else 4)


def test_scores_that_are_no_finite_numbers_are_handed_on(tmp_path: Path) -> None:
    rows = fddb.read(put(tmp_path, "a/b\n2\n1 2 3 4 nan\n1 2 inf 4 0.5\n"))
    assert np.isnan(rows.scores[0])
    assert rows.boxes[1].tolist() == [1, 2, np.inf, 6]


def test_numbers_as_names(tmp_path: Path) -> None:
    rows = fddb.read(put(tmp_path, "a/b\n1\n1 2 3 4 0.5\n000123\n1\n5 6 7 8 0.25\n000124\n0\n"))
    assert rows.images == ("a/b", "000123", "000124")
    assert rows.findings == ()


def test_nothing_found_anywhere(tmp_path: Path) -> None:
    rows = fddb.read(put(tmp_path, "a/b\n0\nc/d\n0\n"))
    assert (len(rows), rows.images, rows.boxes.shape, rows.findings) == (0, ("a/b", "c/d"), (0, 4), ())


def test_other_files_are_not_taken_for_fddb(shared: Path, tmp_path: Path) -> None:
    for text in (
        "", "a\nb\n", "0.5 1 2 3 4\n", "684,8,273,116,0,0,0,0\n", "[]", "\0\1",
        "0--Parade/0_Parade_1.jpg\n1\n1 2 3 4 0.5\n",  # WIDER FACE: one image to a file
        "a.jpg\n1\n449 330 122 149 0 0 0 0 0 0\nb.jpg\n0\n",
    ):  # fmt: skip
        assert fddb.recognise(put(tmp_path, text)) is None
    for name in ("bccd", "coco128", "visdrone", "wider_face"):
        assert fddb.recognise(shared / name) is None
    assert fddb.recognise(shared / "fddb" / "detections") is None  # the ROC files
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no FDDB detections"):
        fddb.read(empty)


def test_a_damaged_file_of_a_folder_is_read_and_a_strange_one_named(tmp_path: Path) -> None:
    put(tmp_path, "a/b\n1\n1 2 x 4 0.5\n", "fold-01-out.txt")
    put(tmp_path, "c/d\n1\n1 2 3 4 0.5\n", "fold-02-out.txt")
    put(tmp_path, "made by a program\n", "notes.txt")
    rows = fddb.read(tmp_path)
    assert rows.images == ("a/b", "c/d")
    assert [(finding.code, finding.where.file) for finding in rows.findings] == [
        ("file-passed-over", "notes.txt"), ("bad-row", "fold-01-out.txt"),
    ]  # fmt: skip


def test_a_file_is_recognised_though_some_of_its_rows_are_bad(tmp_path: Path) -> None:
    path = put(tmp_path, RECTANGLES.replace("188 75 154 196 0.99", "188 75 154"))
    assert fddb.recognise(path)
    assert codes(fddb.read(path)) == ["bad-row"]


@given(st.lists(st.lists(st.tuples(*[st.floats(-500, 500)] * 5), max_size=4), min_size=2, max_size=6))
def test_what_was_printed_is_read(
    tmp_path_factory: pytest.TempPathFactory, sets: list[list[tuple[float, ...]]]
) -> None:
    text = "".join(
        f"x/img_{k}\n{len(rows)}\n" + "".join(" ".join(map(repr, row)) + "\n" for row in rows)
        for k, rows in enumerate(sets)
    )
    rows = fddb.read(put(tmp_path_factory.mktemp("d"), text))
    flat = np.array([row for part in sets for row in part]).reshape(-1, 5)
    assert rows.scores.tolist() == flat[:, 4].tolist()
    assert rows.boxes[:, 2:] == pytest.approx(flat[:, :2] + flat[:, 2:4])
    assert rows.image.tolist() == [k for k, part in enumerate(sets) for _ in part]
    assert rows.findings == ()


@given(st.text(alphabet="ab/1 2.5\n-\tnaif", max_size=200))
def test_no_text_raises_anything_but_a_data_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = put(tmp_path_factory.mktemp("d"), text)
    try:
        rows = fddb.read(path)
    except DataError:
        return
    assert len(rows.boxes) == len(rows.scores) == len(rows.line)
