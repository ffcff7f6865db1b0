"""Truths over many images: counts by hand, joined as one, forced and unanswered, empty cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.boxes.answers import Answers
from onestage.boxes.assigned import Assigned

PRIORS = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [20, 20, 40, 40], [60, 60, 80, 80]], float)
GROUP = np.array([0, 0, 1, 2])


def answers(match: list[int], truths: list[list[float]], ignore: list[bool] | None = None, lost: int = 0) -> Answers:
    boxes = np.array(truths, float).reshape(-1, 4)
    rows = np.array(ignore if ignore is not None else [False] * len(boxes), bool)
    return Answers.of(Assigned(np.array(match), PRIORS, GROUP, 3, boxes, rows), GROUP, 3, 0.5, lost)


def test_counts_by_hand() -> None:
    found = answers(
        [0, 0, 1, -2], [[0, 0, 12, 10], [20, 20, 30, 30], [100, 100, 104, 104], [60, 60, 80, 80]],
        [False, False, False, True], lost=2,
    )  # fmt: skip
    assert found.priors.tolist() == [2, 1, 0, 0]
    assert found.group.tolist() == [0, 1, -1, -1]
    assert found.own.tolist() == [1.0, 0.25, 0.0, 0.0]
    assert found.forced.tolist() == [False, True, False, False]  # .25 is below the threshold
    assert found.unanswered.tolist() == [False, False, True, False]
    told = found.as_dict()
    assert (told["truths"], told["ignored"], told["lost"], told["positives"], told["ignored_priors"]) == (3, 1, 2, 3, 1)
    assert (told["forced"], told["unanswered"]) == (1, 1)
    assert sum(told["histogram"]) == 3
    assert [(row["from"], row["truths"], row["unanswered"], row["forced"]) for row in told["by_side"]] == [
        (4, 1, 1, 0), (8, 2, 0, 1),
    ]  # fmt: skip
    assert [(row["positives"], row["truths"], row["forced"]) for row in found.by_group()] == [
        (2, 1, 0), (1, 1, 1), (0, 0, 0),
    ]  # fmt: skip


def test_a_model_without_a_threshold_forces_nothing() -> None:
    mine = Assigned(np.array([0, -1, -1, -1]), PRIORS, GROUP, 3, np.array([[0.0, 0, 3, 3]]), np.zeros(1, bool))
    found = Answers.of(mine, GROUP, 3, None)
    assert found.as_dict()["forced"] is None
    assert not found.forced.any()


def test_without_truths_there_are_no_quantiles() -> None:
    told = answers([-1] * 4, []).as_dict()
    assert told["best_iou"] is None
    assert told["by_side"] == []
    assert sum(told["histogram"]) == 0


def test_nothing_to_join_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Answers.joined([])


match = st.lists(st.integers(-2, 1), min_size=4, max_size=4)


@given(st.lists(match, min_size=1, max_size=5), st.integers(0, 99))
def test_joined_counts_are_the_sums_and_coarser_groups_lose_none(matches: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for one in matches:
        corner, side = rng.uniform(0, 60, (2, 2)), rng.uniform(1, 40, (2, 2))
        parts.append(answers(one, np.hstack([corner, corner + side]).tolist(), rng.random(2) < 0.3, lost=1))
    whole = Answers.joined(parts)
    told, each = whole.as_dict(), [one.as_dict() for one in parts]
    for key in ("images", "truths", "ignored", "lost", "positives", "ignored_priors", "unanswered", "forced"):
        assert told[key] == sum(one[key] for one in each), key
    assert sum(row["truths"] for row in told["by_side"]) == told["truths"]
    coarse = whole.regrouped(np.array([0, 0, 1]), 2).by_group()
    assert sum(row["positives"] for row in coarse) == told["positives"]
    assert sum(row["truths"] for row in coarse) == told["truths"] - told["unanswered"]
