"""Rates and the time that is left, from made-up steps."""

from __future__ import annotations

import pytest

from onestage.cli.pace import Pace, clock
from onestage.training.loop.step_record import StepRecord


def step(number: int, seconds: float, waited: float = 0.0, images: int = 8) -> StepRecord:
    return StepRecord(
        step=number, epoch=0, loss=3.0, raw={"cls": 1.0, "box": 1.0}, weighted={"cls": 1.0, "box": 2.0},
        positives=4 * images, positives_per_level=[4 * images], lr={"heads": 0.1}, grad_norm=1.0, images=images,
        seconds={"data": waited, "step": seconds},
    )  # fmt: skip


def test_nothing_is_known_before_the_first_step() -> None:
    pace = Pace(steps=100, evaluations=2, val_images=10)
    assert (pace.seconds_left(), pace.images_per_second, pace.data_share, pace.losses) == (None, 0.0, 0.0, {})


def test_the_median_forgets_a_slow_step() -> None:
    pace = Pace(steps=100, evaluations=0, val_images=10)
    for number in range(1, 10):
        pace.stepped(step(number, 2.0))
    pace.stepped(step(10, 500.0))
    assert pace.seconds_left() == pytest.approx(90 * 2.0)
    assert pace.images_per_second == pytest.approx(4.0)


def test_evaluations_still_to_come_are_part_of_the_time_left() -> None:
    pace = Pace(steps=10, evaluations=3, val_images=40)
    pace.stepped(step(5, 1.0, waited=1.0))
    assert pace.data_share == 0.5
    guessed = pace.seconds_left()
    assert guessed is not None
    assert guessed > 5 * 2.0  # three unknown evaluations count for something
    pace.evaluated(7.0)
    assert pace.seconds_left() == pytest.approx(5 * 2.0 + 2 * 7.0)


def test_losses_and_positives_are_means() -> None:
    pace = Pace(steps=10, evaluations=0, val_images=1)
    pace.stepped(step(1, 1.0))
    assert pace.losses == {"loss": 3.0, "cls": 1.0, "box": 2.0}
    assert pace.positives == 4.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.4, "0:00"), (59.6, "1:00"), (725, "12:05"), (11400, "3:10:00"), (6_519_284, "75 days 10 h")],
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text
