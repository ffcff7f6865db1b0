"""Intervals: a resample judged by weights equals the set with its images copied; coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from onestage.evaluation import PROTOCOLS, evaluate, lay_out
from onestage.evaluation.uncertainty import interval, multiplicities
from onestage.records import Annotations, Detections


def random_set(rng: np.random.Generator, images: int, classes: int = 2) -> tuple[dict, dict]:
    """A detector of known kind: each truth is found with probability 0.7, with false alarms of lower scores."""
    truths, found = {}, {}
    for image in range(images):
        n = int(rng.poisson(3))
        corner = np.arange(n)[:, None] * 200.0 + rng.uniform(0, 50, (n, 2))
        boxes = np.c_[corner, corner + np.exp(rng.uniform(2.7, 4.9, (n, 2)))]
        labels = rng.integers(0, classes, n)
        truths[image] = Annotations(boxes, labels, crowd=rng.random(n) < 0.05, difficult=rng.random(n) < 0.05)
        seen = rng.random(n) < 0.7
        false = int(rng.poisson(2))
        moved = boxes[seen] + rng.normal(0, 0.06, (seen.sum(), 4)) * np.tile(boxes[seen, 2:] - boxes[seen, :2], 2)
        wrong = rng.uniform(0, 400, (false, 2)) - 900
        scores = np.r_[rng.beta(4, 2, seen.sum()), rng.beta(2, 4, false)]
        found[image] = Detections(
            np.r_[moved, np.c_[wrong, wrong + 40]], np.r_[labels[seen], rng.integers(0, classes, false)], scores
        )
    return truths, found


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(PROTOCOLS)))
def test_weights_are_copies_of_images(seed: int, protocol: str) -> None:
    truths, found = random_set(np.random.default_rng(seed), 9)
    weights = multiplicities(9, resamples=4, seed=seed)
    judged = PROTOCOLS[protocol](lay_out(truths, found, ["a", "b"])).scores(weights)
    for b, row in enumerate(weights):
        copies = [(i, k) for i, n in enumerate(row) for k in range(n)]
        again = PROTOCOLS[protocol](lay_out(
            {100 * i + k: truths[i] for i, k in copies}, {100 * i + k: found[i] for i, k in copies}, ["a", "b"]
        )).values()  # fmt: skip
        for key, value in again.items():
            # copies share their scores: a hit and its copy stand side by side in both
            np.testing.assert_allclose(
                judged[key][b], value, rtol=0, atol=0.2 if np.isnan(value) else 1e-12, err_msg=str(key)
            )


def test_multiplicities_are_draws_with_replacement() -> None:
    weights = multiplicities(50, resamples=2000, seed=3)
    assert (weights.sum(1) == 50).all()
    assert np.array_equal(weights, multiplicities(50, resamples=2000, seed=3))
    assert not np.array_equal(weights, multiplicities(50, resamples=2000, seed=4))
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.03)
    assert multiplicities(0, 7).shape == (7, 0)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = interval(multiplicities(400, 4000) @ values / 400, 400)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.06)


def test_interval_widens_for_small_sets_as_students_t() -> None:
    values = np.linspace(0, 100, 100001)
    for n in (5, 10, 25, 100, 10**6):
        low, high = interval(values, n)
        assert low == pytest.approx(100 * norm.cdf(-t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))), abs=0.02)
        assert low + high == pytest.approx(100)


def test_interval_of_undefined_values() -> None:
    assert interval(np.full(10, np.nan), 9) is None
    assert interval(np.zeros(0), 9) is None
    assert interval(np.r_[np.full(6, np.nan), np.ones(4)], 9) is None
    assert interval(np.r_[np.full(4, np.nan), np.ones(6)], 9) == (1.0, 1.0)
    assert interval(np.ones(10), 1) is None


def test_intervals_are_reproducible_and_hold_the_score() -> None:
    truths, found = random_set(np.random.default_rng(1), 60)
    first, second = (evaluate(truths, found, ["a", "b"], resamples=200, seed=5).metrics for _ in range(2))
    assert first.as_list() == second.as_list()
    row = first.row("mAP50", "voc10")
    assert row.interval is not None
    assert row.interval[0] < row.value < row.interval[1]
    assert 0.02 < row.interval[1] - row.interval[0] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["voc10", "coco"])
def test_nominal_95_percent_covers_the_truth(protocol: str) -> None:
    """120 sets of 100 images from a known detector; the truth is its score on 8,000 images."""
    rng = np.random.default_rng(11)
    classes = ["a", "b"]
    truth = PROTOCOLS[protocol](lay_out(*random_set(rng, 8000), classes)).values()["mAP50", None]
    weights = multiplicities(100, 300)
    inside = 0
    for _ in range(120):
        judged = PROTOCOLS[protocol](lay_out(*random_set(rng, 100), classes))
        ends = interval(judged.scores(weights)["mAP50", None], 100)
        assert ends is not None
        inside += ends[0] <= truth <= ends[1]
    assert 0.89 <= inside / 120 <= 0.99
