"""WIDER FACE's detection folders: as the tool writes and reads them, and with everything that may be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import write
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.detections import widerface as module
from onestage.data.detections.rows import Rows
from onestage.data.formats import widerface as truth_format
from onestage.errors import DataError

FILE = "0--Parade/0_Parade_a.txt"
ROWS = "10 20 30.5 40 0.9\n1 2 3 4 0.25\n"


def codes(rows: Rows) -> list[str]:
    return [finding.code for finding in rows.findings]


def reading(root: Path, content: str, name: str = FILE) -> Rows:
    write(root / name, content)
    return module.read(root)


def test_boxes_scores_and_places(tmp_path: Path) -> None:
    write(tmp_path / "1--Other/b.txt", "1--Other/b.jpg\n0\n")
    rows = reading(tmp_path, f"0--Parade/0_Parade_a.jpg\n2\n{ROWS}")
    assert rows.images == ("0--Parade/0_Parade_a", "1--Other/b")
    assert rows.classes == ("face",)
    assert rows.files == (FILE, "1--Other/b.txt")
    assert rows.boxes.tolist() == [[10, 20, 40.5, 60], [1, 2, 4, 6]]
    assert rows.scores.tolist() == [0.9, 0.25]
    assert (rows.image.tolist(), rows.label.tolist(), rows.file.tolist()) == ([0, 0], [0, 0], [0, 0])
    assert rows.line.tolist() == [3, 4]
    assert not rows.findings
    assert not rows.relative


@pytest.mark.parametrize("head", ["0--Parade/0_Parade_a.jpg", "0--Parade/0_Parade_a", "0_Parade_a.jpg", "0_Parade_a"])
@pytest.mark.parametrize("change", [
    lambda t: t, lambda t: t.rstrip("\n"), lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\n\n"),
    lambda t: t.replace(" ", ","), lambda t: t.replace(" ", ", "), lambda t: t.replace(" ", "\t"),
    lambda t: t.replace("\n", " \n"), lambda t: "\ufeff" + t,
])  # fmt: skip
def test_every_spelling_gives_the_same(tmp_path: Path, head: str, change: object) -> None:
    rows = reading(tmp_path, change(f"{head}\n2\n{ROWS}"))  # type: ignore[operator]
    assert rows.images == ("0--Parade/0_Parade_a",)
    assert rows.boxes.tolist() == [[10, 20, 40.5, 60], [1, 2, 4, 6]]
    assert not rows.findings
    assert "WIDER FACE" in (module.recognise(tmp_path) or "")


@pytest.mark.parametrize(("content", "code", "n"), [
    ("", "empty-file", 0),
    ("\n \n", "empty-file", 0),
    (f"0_Parade_a.jpg\n3\n{ROWS}", "count-mismatch", 2),
    (f"0_Parade_a.jpg\n0\n{ROWS}", "count-mismatch", 2),
    (f"0_Parade_a.jpg\n{ROWS}", "count-mismatch", 2),
    ("0_Parade_a.jpg\n", "count-mismatch", 0),
    (f"2\n{ROWS}", "no-name", 2),
    (f"1--Other/0_Parade_a.jpg\n2\n{ROWS}", "other-event", 2),
    (f"0_Parade_a.jpg\n3\n{ROWS}1 2 3 4\n", "bad-row", 2),
    (f"0_Parade_a.jpg\n3\n{ROWS}1 2 3 4 x\n", "bad-row", 2),
    (f"0_Parade_a.jpg\n3\n{ROWS}1 2 3 4 1_0\n", "bad-row", 2),
    ("0_Parade_a.jpg\n2\n10 20 30.5 40 0.9 1\n1 2 3 4 0.25\n", "more-columns", 2),
])  # fmt: skip
def test_what_is_wrong_is_told_and_the_rest_kept(tmp_path: Path, content: str, code: str, n: int) -> None:
    rows = reading(tmp_path, content)
    assert codes(rows) == [code]
    assert rows.images == ("0--Parade/0_Parade_a",)
    assert rows.boxes.tolist() == [[10, 20, 40.5, 60], [1, 2, 4, 6]][:n]
    (finding,) = rows.findings
    assert finding.where.file == FILE
    assert finding.severity == ("error" if code == "bad-row" else "note" if code == "more-columns" else "warning")
    if code == "bad-row":
        assert finding.where.line == 5


def test_numbers_that_are_none_are_left_to_the_judge(tmp_path: Path) -> None:
    rows = reading(tmp_path, "0_Parade_a.jpg\n2\nnan 2 3 4 0.5\n1 2 3 4 nan\n")
    assert len(rows) == 2
    assert np.isnan(rows.scores[1])


def test_the_first_line_names_the_image_as_in_the_tool(tmp_path: Path) -> None:
    rows = reading(tmp_path, f"0--Parade/other.jpg\n2\n{ROWS}")
    assert rows.images == ("0--Parade/other",)
    assert codes(rows) == ["other-name"]


def test_a_second_file_of_an_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "0--Parade/a.txt", f"a.jpg\n2\n{ROWS}")
    rows = reading(tmp_path, f"a.jpg\n2\n{ROWS}", "0--Parade/b.txt")
    assert codes(rows) == ["other-name", "bad-row"]
    assert len(rows) == 2
    assert "0--Parade/a.txt" in rows.findings[1].what


def test_numbers_as_names(tmp_path: Path) -> None:
    rows = reading(tmp_path, f"17\n2\n{ROWS}", "e/17.txt")
    assert (rows.images, codes(rows)) == (("e/17",), [])
    assert module.recognise(tmp_path) is not None


def test_an_event_s_own_folder_a_flat_folder_and_one_file(tmp_path: Path) -> None:
    write(tmp_path / FILE, f"0_Parade_a.jpg\n2\n{ROWS}")
    assert module.read(tmp_path / "0--Parade").images == ("0--Parade/0_Parade_a",)
    assert module.read(tmp_path / FILE).images == ("0--Parade/0_Parade_a",)
    write(tmp_path / "flat/a.txt", f"9--Event/a.jpg\n2\n{ROWS}")
    write(tmp_path / "flat/b.txt", f"b\n2\n{ROWS}")
    assert module.read(tmp_path / "flat").images == ("9--Event/a", "b")


def test_an_empty_file_first_does_not_hide_the_format(tmp_path: Path) -> None:
    write(tmp_path / "0--Parade/0.txt", "")
    write(tmp_path / FILE, f"0_Parade_a.jpg\n2\n{ROWS}")
    assert module.recognise(tmp_path) == "WIDER FACE txt, 2 files in 1 folder"
    assert len(module.read(tmp_path)) == 2


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", "0 0.5 0.5 0.1 0.1 0.9\n0 0.5 0.5 0.1 0.1 0.9\n"),  # YOLO
    ("comp4_det_test_cat.txt", "000001 0.9 1 2 3 4\n000002 0.9 1 2 3 4\n"),  # VOC
    ("a.txt", "10,20,30,40,0.9,4,0,0\n10,20,30,40,0.9,4,0,0\n"),  # VisDrone
    ("fold-01-out.txt", "2002/08/11/big/img_591\n1\n177 25 169 131 0.9\n"),  # FDDB
    ("a.txt", "a.jpg\n1\n"),
    ("a.txt", ""),
])  # fmt: skip
def test_other_formats_are_not_taken_for_it(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path / name, content)
    taken = module.recognise(tmp_path)
    assert (taken is None) == (content != "a.jpg\n1\n")
    assert module.recognise(tmp_path / name) is None  # one file is not asked


def test_truth_is_not_taken_for_detections(tmp_path: Path) -> None:
    write(tmp_path / "wider_face_val_bbx_gt.txt", "e/a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n")
    assert module.recognise(tmp_path) is None


def test_a_folder_without_txt(tmp_path: Path) -> None:
    assert module.recognise(tmp_path) is None
    with pytest.raises(DataError, match=r"holds no \.txt"):
        module.read(tmp_path)


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0, 1e4)] * 2, st.floats(-9, 9)), max_size=6))
def test_every_digit_is_kept(tmp_path_factory: pytest.TempPathFactory, values: list) -> None:
    root = tmp_path_factory.mktemp("found")
    lines = [" ".join(map(repr, row)) for row in values]
    rows = reading(root, "\n".join(["0_Parade_a.jpg", str(len(values)), *lines]))
    assert rows.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h, _ in values]
    assert rows.scores.tolist() == [row[4] for row in values]
    assert not rows.findings


def test_names_are_the_ids_of_the_official_truth(shared: Path, tmp_path: Path) -> None:
    dataset = truth_format.read(shared / "wider_face" / "eval", "val", probe_images=False)
    for image in dataset.images[::100]:
        write(tmp_path / f"{image.id}.txt", f"{image.path.name}\n1\n1 2 3 4 0.5\n")
    rows = module.read(tmp_path)
    assert set(rows.images) == {image.id for image in dataset.images[::100]}
