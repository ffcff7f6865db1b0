"""Calibration: tables by hand, chance by simulation, intervals that cover, ties and nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation.calibration import by_chance, calibration, share_interval
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import sums_by_cell
from onestage.evaluation.uncertainty import multiplicities


def ranking(score: Any, hit: Any, image: Any = None, n_images: int = 0, counted: Any = None) -> Ranking:
    score, hit = np.asarray(score, np.float64), np.asarray(hit, np.bool_)
    image = np.arange(len(score)) if image is None else np.asarray(image, np.int64)
    n_images = n_images or int(image.max(initial=-1)) + 1
    order = np.argsort(-score, kind="stable")
    known = np.ones(len(score), np.bool_) if counted is None else np.asarray(counted, np.bool_)
    truths = np.bincount(image[hit], minlength=n_images)
    return Ranking(
        image[order], score[order], np.zeros(len(score), np.int64), hit[order][None], known[order][None], truths
    )


def calibrated(seed: int, n_images: int = 80, per_image: int = 10, together: float = 0.0) -> Ranking:
    """Scores that are true chances; with `together` > 0 the detections of an image tend to hit alike."""
    rng = np.random.default_rng(seed)
    score = rng.random((n_images, per_image))
    draw = np.where(rng.random((n_images, 1)) < together, rng.random((n_images, 1)), rng.random(score.shape))
    return ranking(score.ravel(), (draw < score).ravel(), np.repeat(np.arange(n_images), per_image))


def test_the_table_by_hand() -> None:
    found = calibration(
        [ranking([0.3, 0.35, 0.95, 1.0], [0, 1, 1, 1]), ranking([0.05, 0.3], [0, 0], [0, 1], 4)], ["a", "b"]
    )
    rows = found["bins"]["equal_width"]
    assert [row["n"] for row in rows] == [1, 0, 0, 3, 0, 0, 0, 0, 0, 2]  # 0.3 opens the fourth bin, 1 is in the last
    assert rows[3]["mean_score"] == pytest.approx(0.95 / 3)
    assert rows[3]["hit_share"] == pytest.approx(1 / 3)
    assert rows[3]["gap"] == pytest.approx(0.05 / 3)
    assert rows[3]["n_images"] == 2
    assert rows[1]["hit_share"] is rows[1]["interval"] is rows[1]["gap"] is None
    assert found["n"] == 6
    assert found["ECE"] == pytest.approx((0.05 + 0.05 + 0.05) / 6)
    assert found["classes"]["a"]["ECE"] == pytest.approx((0.35 + 0.05) / 4)
    assert found["classes"]["b"]["ECE"] == pytest.approx(0.35 / 2)
    assert found["max_error"] is None
    assert sum(row["n"] for row in found["bins"]["equal_mass"]) == 6


def test_what_does_not_count_is_left_out_and_kept_starts_at_the_score() -> None:
    found = calibration([ranking([0.9, 0.8, 0.2], [1, 0, 0], counted=[1, 0, 1])], ["a"], at=0.5)
    assert found["n"] == 2
    assert found["kept"]["n"] == 1
    assert found["kept"]["ECE"] == pytest.approx(0.1)
    assert found["kept"]["mean_score"] == pytest.approx(0.9)


def test_scores_that_are_no_shares_have_no_calibration() -> None:
    found = calibration([ranking([-0.1, 3.5], [0, 1])], ["a"])
    assert found == {"reason": "scores run from -0.1 to 3.5; only scores in [0, 1] can be read as shares"}


@pytest.mark.parametrize("rankings", [[], [ranking([], [], n_images=3)], [ranking([], [])]])
def test_nothing_found_is_defined(rankings: list[Ranking]) -> None:
    names = ["a"] * len(rankings)
    weights = multiplicities(len(rankings[0].truths) if rankings else 0, 20)
    found = json.loads(json.dumps(calibration(rankings, names, weights, at=0.5), allow_nan=False))
    assert found["n"] == 0
    assert found["ECE"] is found["by_chance"] is found["kept"]["ECE"] is None
    assert [row["n"] for row in found["bins"]["equal_width"]] == [0] * 10
    assert found["bins"]["equal_mass"] == []


def test_equal_mass_keeps_equal_scores_together() -> None:
    score = np.concatenate([np.full(500, 1.0), np.linspace(0.1, 0.9, 500)])
    rows = calibration([ranking(score, np.ones(1000))], ["a"])["bins"]["equal_mass"]
    assert sum(row["n"] for row in rows) == 1000
    assert rows[-1]["low"] == rows[-1]["high"] == 1.0
    assert rows[-1]["n"] == 500
    assert {row["n"] for row in rows[:-1]} == {100}
    assert [row["n"] for row in calibration([ranking(np.full(9, 0.5), np.ones(9))], ["a"])["bins"]["equal_mass"]] == [9]


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (1, 0.03), (7, 0.3), (40, 0.95), (500, 0.123), (10, 1.0), (10, 0.0)])
def test_chance_is_the_mean_deviation_of_the_binomial(n: int, p: float) -> None:
    from scipy.stats import binom

    k = np.arange(n + 1)
    exact = float((np.abs(k - n * p) * binom.pmf(k, n, p)).sum())
    assert by_chance(np.array([float(n)]), np.array([p]))[0] == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert by_chance(np.array([0.0]), np.array([0.0]))[0] == 0


def test_a_calibrated_detector_shows_what_chance_says() -> None:
    found = [calibration([calibrated(seed, 30, 5)], ["a"]) for seed in range(200)]
    shown, said = np.mean([f["ECE"] for f in found]), np.mean([f["by_chance"] for f in found])
    assert shown > 0.06  # far from 0 with 150 detections, though nothing is wrong
    assert said == pytest.approx(shown, rel=0.05)


def test_an_overconfident_detector_stands_far_above_chance() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    found = calibration([ranking(score, rng.random(3000) < score**2)], ["a"], multiplicities(3000, 100))
    assert found["ECE"] == pytest.approx(1 / 6, abs=0.02)  # the mean of s - s² on [0, 1]
    assert found["interval"][0] < found["ECE"] < found["interval"][1]
    assert found["interval"][0] > 5 * found["by_chance"]
    assert all(row["gap"] < 0 for row in found["bins"]["equal_width"][1:9])
    assert found["max_error"] == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("together", [0.0, 0.6])
def test_the_interval_of_a_share_covers(together: float) -> None:
    inside = total = 0
    for seed in range(150):
        for row in calibration([calibrated(seed, 60, 12, together)], ["a"])["bins"]["equal_width"]:
            low, high = row["interval"]
            inside += low <= row["mean_score"] <= high
            total += 1
    assert 0.93 <= inside / total <= 0.985


def test_the_interval_of_a_share_where_all_hit_is_not_a_point() -> None:
    low, high = share_interval(np.array([3.0, 5.0, 2.0]), np.array([3.0, 5.0, 2.0])) or (0, 0)
    assert high == 1.0
    assert low < 0.3
    assert share_interval(np.array([3.0]), np.array([4.0])) is None


@pytest.mark.parametrize("power", [1.0, 1.6])
def test_the_interval_of_ece_covers_its_mean_at_this_size(power: float) -> None:
    def one(seed: int, weights: Any = None) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        score = rng.random(800)
        return calibration(
            [ranking(score, rng.random(800) < score**power, np.repeat(np.arange(100), 8))], ["a"], weights
        )

    mean = np.mean([one(1000 + seed)["ECE"] for seed in range(300)])
    weights = multiplicities(100, 200)
    ends = [one(seed, weights)["interval"] for seed in range(120)]
    covered = np.mean([low <= mean <= high for low, high in ends])
    assert covered >= 0.9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_images_and_rows_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    score, hit, image = rng.random(n).round(2), rng.random(n) < 0.5, rng.integers(0, 7, n)
    renamed, shuffled = rng.permutation(7), rng.permutation(n)
    one = calibration([ranking(score, hit, image, 7)], ["a"])
    other = calibration([ranking(score[shuffled], hit[shuffled], renamed[image[shuffled]], 7)], ["a"])
    assert other["ECE"] == pytest.approx(one["ECE"], abs=1e-12)
    for kind, rows in one["bins"].items():
        for row, again in zip(rows, other["bins"][kind], strict=True):
            assert row["n"] == again["n"]
            assert row["hit_share"] == pytest.approx(again["hit_share"], abs=1e-12)
            if row["interval"]:
                assert row["interval"] == pytest.approx(again["interval"], abs=1e-9)


def test_a_whole_weight_is_a_repeated_image() -> None:
    one = calibrated(3, 12, 6)
    twice = ranking(
        np.concatenate([one.score, one.score[one.image == 4]]),
        np.concatenate([one.hit[0], one.hit[0][one.image == 4]]),
        np.concatenate([one.image, np.full(6, 12)]),
    )
    weights = np.ones((1, 12), np.int64)
    weights[0, 4] = 2
    cell = np.minimum((one.score * 10).astype(np.int64), 9)
    sums = sums_by_cell(weights, one.image, cell, 10, one.hit[0] - one.score)[:, 0]
    count = sums_by_cell(weights, one.image, cell, 10).sum()
    assert np.abs(sums).sum() / count == pytest.approx(calibration([twice], ["a"])["ECE"], abs=1e-12)
