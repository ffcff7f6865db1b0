"""The sentences word by word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onestage.analysis.verdicts import points, rounded, said, said_smallest
from onestage.evaluation.comparison import Difference
from onestage.evaluation.spread import Spread

SPREAD = Spread(5e-5, 0.0, 0.0, 0.0, (1, 1), 548, 548)
ROW = Difference(
    "mAP", None, 0.50, 0.518, 900, 548, 0.007, 547, interval=(0.004, 0.032), p=0.01, smallest=0.0196, spread=SPREAD
)


def sentence(row: Difference = ROW, outcome: str = "better", **more: object) -> str:
    told = {
        "a": "A", "b": "B", "p": row.p, "n_images": 548, "seeds": (1, 1), "several": False, "level": 0.95,
        "see": abs(row.value), "images_needed": None, "seeds_needed": None,
    }  # fmt: skip
    return said(row=row, outcome=outcome, **{**told, **more})  # type: ignore[arg-type]


def test_better_and_worse() -> None:
    assert sentence() == "B is better by 1.8 mAP (95 % 0.4 to 3.2) on 548 images"
    assert sentence(several=True) == "B is better than A by 1.8 mAP (95 % 0.4 to 3.2) on 548 images"
    worse = replace(ROW, a=0.518, b=0.50, interval=(-0.032, -0.004))
    assert sentence(worse, "worse") == "B is worse by 1.8 mAP (95 % 0.4 to 3.2) on 548 images"
    assert sentence(level=0.9, seeds=(3, 5)) == "B is better by 1.8 mAP (90 % 0.4 to 3.2) on 548 images, 3 and 5 seeds"


def test_not_distinguishable_says_what_it_would_take() -> None:
    row = replace(ROW, b=0.506, interval=(-0.008, 0.02), p=0.4)
    start = "not distinguishable: B minus A is +0.6 mAP (95 % −0.8 to 2.0) on 548 images"
    assert sentence(row, "not distinguishable", images_needed=2271) == (
        f"{start}; to see 0.6 you need about 2,300 images"
    )
    seeds = {"seeds": (3, 3), "seeds_needed": 9}
    assert sentence(row, "not distinguishable", **seeds) == (
        f"{start}, 3 and 3 seeds; no number of images would show 0.6: you need about 9 seeds per arm"
    )
    assert sentence(row, "not distinguishable", images_needed=2271, **seeds).endswith(
        "to see 0.6 you need about 2,300 images, or about 9 seeds per arm"
    )
    assert sentence(row, "not distinguishable", seeds=(2, 2)).endswith("you need more images and more seeds")
    assert sentence(row, "not distinguishable", see=0.0) == start
    assert sentence(ROW, "not distinguishable", p=0.06, several=True).startswith(
        "not distinguishable after Holm's correction for the number of arms: "
    )


def test_nothing_to_tell() -> None:
    few = replace(ROW, images=7, p=None, interval=None, smallest=None, spread=None, too_few="in 7 images")
    assert sentence(few, "too few to tell") == (
        "too few to tell B from A: the score rests on 7 images, and at least 10 are needed"
    )
    assert said_smallest(few, 0.95) == ""
    none = replace(few, too_few="no truth")
    assert sentence(none, "too few to tell") == "B cannot be told from A: there is no truth that counts"
    assert sentence(ROW, "identical") == "no difference: the detections of B are those of A on all 548 images"


def test_the_smallest_difference() -> None:
    assert said_smallest(ROW, 0.95) == (
        "the smallest difference this set could have shown: 2.0 mAP (found in 80 of 100 such sets, at p below 0.05)"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.018, "+1.8"),
        (-0.018, "−1.8"),
        (0.0004, "+0.04"),
        (-1e-17, "0.0"),
        (0.0, "0.0"),
        (float("nan"), "–"),
        (1.0, "+100.0"),
    ],
)
def test_points(value: float, text: str) -> None:
    assert points(value) == text


@pytest.mark.parametrize(("n", "text"), [(7, "7"), (99, "99"), (101, "110"), (2271, "2,300"), (123_456, "130,000")])
def test_numbers_of_images_are_rounded_upwards(n: int, text: str) -> None:
    assert rounded(n) == text
