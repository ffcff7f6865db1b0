"""The checks every format shares: which boxes stay, which go, and what is said of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.formats.listing import CODES, Listing, in_words
from onestage.data.formats.rows import Row, checked_boxes, is_number, label_map, number
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

IMAGE = ImageInfo("a", Path("/set/a.jpg"), 60, 40)


def check(*rows: Row, classes: tuple[str, ...] = ("cat", "dog")) -> tuple[Annotations, Listing]:
    listing = Listing(Path("/set"))
    return checked_boxes(rows, IMAGE, label_map(classes), listing, Path("/set/a.txt")), listing


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((5, 5, 5, 9), "zero-area-box"),
        ((5, 9, 8, 9), "zero-area-box"),
        ((8, 5, 5, 9), "inverted-box"),
        ((5, 9, 8, 5), "inverted-box"),
        ((60, 5, 80, 9), "box-outside"),
        ((-9, 5, 0, 9), "box-outside"),
        ((5, 40, 8, 50), "box-outside"),
        ((math.nan, 5, 8, 9), "not-a-number"),
        ((5, 5, math.inf, 9), "not-a-number"),
    ],
)
def test_a_bad_row_goes_and_the_good_one_stays(box: tuple[float, float, float, float], code: str) -> None:
    truth, listing = check(Row("dog", box, "raw", 7), Row("cat", (1, 2, 3, 4), "raw", 8))
    assert truth.boxes.tolist() == [[1, 2, 3, 4]]
    assert truth.labels.tolist() == [0]
    (finding,) = listing.findings
    assert (finding.code, finding.where.file, finding.where.line, finding.where.image) == (code, "a.txt", 7, "a")
    assert "a.txt:7" in in_words(finding)


def test_a_box_partly_outside_is_cut_with_a_note() -> None:
    truth, listing = check(Row("cat", (-5, 3, 70, 41), "raw"))
    assert truth.boxes.tolist() == [[0, 3, 60, 40]]
    assert [(found.code, found.severity) for found in listing.findings] == [("box-clipped", "note")]
    assert "10 px" in listing.findings[0].what


def test_rounding_is_cut_without_a_word() -> None:
    truth, listing = check(Row("cat", (-0.001, 0, 60.005, 40), "raw"))
    assert truth.boxes.tolist() == [[0, 0, 60, 40]]
    assert not listing.findings


def test_an_unknown_class_names_the_nearest() -> None:
    truth, listing = check(Row("dgo", (1, 2, 3, 4), "raw"))
    assert len(truth) == 0
    assert "did you mean 'dog'?" in listing.findings[0].what


def test_a_repeated_box_is_kept_once_but_other_class_and_flags_are_other_boxes() -> None:
    box = (1.0, 2.0, 3.0, 4.0)
    truth, listing = check(
        Row("cat", box, ""), Row("dog", box, ""), Row("cat", box, "", 9), Row("cat", box, "", crowd=True)
    )
    assert truth.labels.tolist() == [0, 1, 0]
    assert truth.crowd.tolist() == [False, False, True]
    assert [(found.code, found.where.line) for found in listing.findings] == [("duplicate-box", 9)]


def test_no_rows() -> None:
    truth, listing = check()
    assert len(truth) == 0
    assert not listing.findings


def test_a_class_list_with_a_repetition_is_refused() -> None:
    with pytest.raises(DataError, match="'cat' more than once"):
        label_map(["cat", "dog", "cat"])


@pytest.mark.parametrize("word", ["", "abc", None, [1], {}, True, "1e999999", "0x10", "1_000", 10**400])
def test_what_is_no_finite_number_never_raises(word: object) -> None:
    assert not math.isfinite(number(word))


@pytest.mark.parametrize(("text", "expected"), [
    ("1", True), ("-2.5e3", True), ("nan", True), ("inf", True), ("", False), ("a", False), ("1_000", False),
])  # fmt: skip
def test_what_is_written_as_a_number(text: str, expected: bool) -> None:
    assert is_number(text) is expected


coordinate = st.floats(-100, 200) | st.sampled_from([0.0, 60.0, 40.0, math.nan, math.inf])


@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=12))
def test_whatever_comes_out_has_area_inside_the_image_and_the_rest_is_listed(boxes: list) -> None:
    truth, listing = check(*(Row("cat", box, "raw") for box in boxes))
    assert (truth.boxes[:, :2] < truth.boxes[:, 2:]).all()
    assert (truth.boxes >= 0).all()
    assert (truth.boxes <= np.array([60, 40, 60, 40])).all()
    dropped = [found for found in listing.findings if found.code != "box-clipped"]
    assert len(truth) + len(dropped) == len(boxes)


def test_every_code_has_its_words() -> None:
    for code, (severity, _, _) in CODES.items():
        assert code == code.lower()
        assert severity in ("error", "warning", "note")
