"""Boxes on pictures, by their pixels; pairing by hand-made cases; the choice of examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.experiments.truth import Truth
from onestage.records import Annotations, Detections, ImageInfo
from onestage.report import colours
from onestage.report.draw import class_tag, contact_sheet, draw
from onestage.report.examples import choose, detections_by_image
from onestage.report.pairing import pair

GREY = np.full((100, 120, 3), 128, np.uint8)
TRUTH = Annotations(np.array([[10, 20, 50, 60], [70, 30, 100, 80]]), np.array([0, 1]))


def says(*rows: tuple[list[float], int, float]) -> Detections:
    boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(boxes).reshape(-1, 4), np.array(labels, int), np.array(scores))


def has(image: np.ndarray, colour: str) -> int:
    return int((image == np.array(colours.rgb(colour))).all(-1).sum())


def test_right_false_and_missed_have_their_own_looks() -> None:
    drawn = draw(GREY, says(([10, 20, 50, 60], 0, 0.9)), TRUTH, ("a", "b"))
    assert has(drawn, colours.of_class(0)) > 100
    assert has(drawn, colours.MISSED) > 50
    assert has(drawn, colours.WRONG) == 0
    drawn = draw(GREY, says(([10, 20, 50, 60], 1, 0.9)), TRUTH, ("a", "b"))  # right place, wrong class
    assert has(drawn, colours.WRONG) > 100
    assert has(drawn, colours.of_class(1)) == 0
    assert tuple(drawn[20, 30]) == colours.rgb(colours.WRONG)  # the edge lies on the box's first pixel
    assert tuple(drawn[59, 30]) == colours.rgb(colours.WRONG)  # and on its last


def test_without_truth_all_have_their_class_colour() -> None:
    drawn = draw(GREY, says(([10, 20, 50, 60], 1, 0.9)))
    assert has(drawn, colours.of_class(1)) > 100
    assert has(drawn, colours.WRONG) == has(drawn, colours.MISSED) == 0
    assert (GREY == 128).all()


def test_nothing_to_draw_gives_the_picture_itself() -> None:
    drawn = draw(GREY, Detections.empty(), Annotations.empty())
    assert (drawn == GREY).all()
    assert drawn is not GREY
    assert draw(GREY, Detections.empty(), longest=60).shape == (50, 60, 3)


@given(
    st.lists(st.tuples(*[st.floats(-1e7, 1e7) | st.just(float("nan"))] * 4), max_size=4),
    st.integers(1, 60), st.integers(1, 60), st.sampled_from([None, 40, 7]),
)  # fmt: skip
def test_any_box_on_any_picture(rows: list, height: int, width: int, longest: int | None) -> None:
    said = says(*((list(row), index, 0.5) for index, row in enumerate(rows)))
    truth = Annotations(np.array(rows).reshape(-1, 4), np.zeros(len(rows), int))
    drawn = draw(np.zeros((height, width, 3), np.uint8), said, truth, ("x", "ß"), longest=longest)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) == (longest or max(height, width))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("tree", "tree"), ("Straße", "Strasse"), ("Ærø", "Aero"), ("blessé", "blesse"), ("红细胞", "#0"), ("", "#0"),
        ("🐟", "#0"), ("细胞 a", "#0"), ("<b>", "<b>"), ("a\nb", "ab"),
        ("a very long class name", "a very long clas.."),
    ],
)  # fmt: skip
def test_class_names_in_letters_that_can_be_drawn(name: str, tag: str) -> None:
    assert class_tag(0, (name,)) == tag


def test_a_label_beyond_the_names() -> None:
    assert class_tag(7, ("a",)) == "#7"
    assert colours.of_class(8) == colours.of_class(0)


@given(st.text(max_size=30))
def test_a_tag_is_always_short_ascii(name: str) -> None:
    tag = class_tag(3, ("", "", "", name))
    assert tag.isascii()
    assert tag.isprintable()
    assert 1 <= len(tag) <= 18


def test_contact_sheet_holds_every_picture() -> None:
    pictures = [np.full((10 + i, 20, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, 2, gap=3)
    assert sheet.shape == (3 + 3 * (14 + 3), 3 + 2 * 23, 3)
    for index, picture in enumerate(pictures):
        assert (sheet == 10 * index).all(-1).sum() == picture.shape[0] * 20
    with pytest.raises(ValueError, match="expected pictures"):
        contact_sheet([])


def test_pairing_takes_the_surest_first_and_each_truth_once() -> None:
    said = says(([10, 20, 50, 60], 0, 0.5), ([10, 20, 50, 58], 0, 0.9), ([70, 30, 100, 80], 0, 0.8))
    outcome = pair(said, TRUTH)
    assert outcome.right.tolist() == [
        True,
        False,
        False,
    ]  # score .9 wins, the other class's box is false, .5 is a double
    assert outcome.false.tolist() == [False, True, True]
    assert outcome.found.tolist() == [True, False]
    assert outcome.missed.tolist() == [False, True]
    assert outcome.f1 == pytest.approx(2 / 5)


def test_truths_that_do_not_count_neither_help_nor_hurt() -> None:
    truth = Annotations(TRUTH.boxes, TRUTH.labels, difficult=np.array([True, False]))
    outcome = pair(says(([10, 20, 50, 60], 0, 0.9)), truth)
    assert outcome.excused.tolist() == [True]
    assert not outcome.false.any()
    assert outcome.missed.tolist() == [False, True]
    assert pair(Detections.empty(), Annotations.empty()).f1 == 1


def test_detections_come_from_a_results_list() -> None:
    found = detections_by_image(
        [
            {"image_id": "a", "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.3},
            {"image_id": "a", "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.6},
        ]
    )
    assert found["a"].boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6]]
    assert found["a"].labels.tolist() == [0, 1]
    assert detections_by_image([]) == {}


def _set(hits: list[int]) -> tuple[Truth, dict]:
    """Images with four truths each, of which so many are found."""
    boxes = np.array([[20 * k, 0, 20 * k + 10, 10] for k in range(4)], float)
    images = tuple(ImageInfo(n, Path(f"{n}.png"), 100, 10) for n in range(len(hits)))
    truth = Truth(images, {n: Annotations(boxes, np.zeros(4, int)) for n in range(len(hits))}, ("a",))
    said = {n: says(*((boxes[k].tolist(), 0, 0.9) for k in range(count))) for n, count in enumerate(hits)}
    return truth, said


def test_examples_are_the_worst_the_typical_and_the_best() -> None:
    truth, said = _set([4, 2, 0, 3, 1] * 5)
    chosen = choose(truth, said, 0.5)
    assert [example.outcome.right.sum() for example in chosen] == [0] * 4 + [2] * 4 + [4] * 4
    assert [example.kind for example in chosen] == ["worst"] * 4 + ["typical"] * 4 + ["best"] * 4
    assert len({example.image.id for example in chosen}) == 12
    assert [example.image.id for example in choose(truth, said, 0.5)] == [example.image.id for example in chosen]
    assert [example.outcome.right.sum() for example in choose(truth, said, 0.95)] == [0] * 12  # the cut counts


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
def test_of_a_small_set_all_are_shown(count: int) -> None:
    truth, said = _set([4, 2, 0, 3, 1, 2, 2, 4, 1, 0, 3, 3][:count])
    chosen = choose(truth, said, 0.5)
    assert sorted(example.image.id for example in chosen) == list(range(count))


def test_images_with_nothing_at_all_are_left_out_while_others_are_there() -> None:
    truth, said = _set([1, 2])
    images = (*truth.images, ImageInfo(9, Path("9.png"), 10, 10))
    more = Truth(images, {**truth.annotations, 9: Annotations.empty()}, ("a",))
    assert [example.image.id for example in choose(more, said, 0.5)] == [0, 1]
    assert len(choose(Truth(images[2:], {9: Annotations.empty()}, ("a",)), {}, 0.5)) == 1


def test_lines_and_letters_grow_with_large_pictures() -> None:
    painted = []
    for side in (800, 3200):
        found = Detections(np.array([[0.25, 0.25, 0.75, 0.75]]) * side, [0], [0.9])
        drawn = draw(np.zeros((side, side, 3), np.uint8), found, classes=("cat",))
        painted.append(float((drawn.max(2) > 30).mean()))
    assert painted[1] == pytest.approx(painted[0], rel=0.35)  # the same share of the picture, not the same pixels
