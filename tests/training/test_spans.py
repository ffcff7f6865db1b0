"""Spans of time: what is read, what is refused, and how many steps each is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.training.recipe.spans import as_written, in_steps, rising, spelled


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        (500, 500), (0, 0), (1, 1), (500.0, 500), ("500 steps", 500), ("1 step", 1), ("3 epochs", 150), ("1 epoch", 50),
        ("0.5 epochs", 25), ("10 %", 100), ("12.5%", 125), ("33.39 %", 334), ("100 %", 1000), (0.1, 100), (2 / 3, 667),
        (" 7 steps ", 7),
    ],
)  # fmt: skip
def test_a_span_in_steps(written: object, steps: int) -> None:
    assert in_steps(as_written(written), 1000, 50) == steps


@pytest.mark.parametrize(
    "written", [-1, 1.5, 1.0, True, None, "3 weeks", "500", "", "-3 epochs", "1.5 steps", "120 %", [3], float("nan")]
)
def test_what_is_no_span_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="3 epochs"):
        as_written(written)


def test_epochs_need_to_be_known() -> None:
    with pytest.raises(ValueError, match="how many steps an epoch has"):
        in_steps("3 epochs", 1000)


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_what_is_spelled_is_read_back(steps: int, whole: int) -> None:
    assert in_steps(as_written(spelled(steps)), whole) == steps


@pytest.mark.parametrize(
    ("spans", "fine"),
    [((), True), ((3, "6 steps", 0.5, "60 %", "2 epochs"), True), ((5, 3), False), ((5, 5), True),
     (("2 epochs", 7, "1 epoch"), False), ((0.5, "40 %"), False), ((100, "1 epoch"), True)],
)  # fmt: skip
def test_milestones_rise_within_a_unit(spans: tuple[int | float | str, ...], fine: bool) -> None:
    assert rising(spans) == fine
