"""Intervals: a resample judged by weights equals the set with its images copied; coverage by simulation."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from onestage.evaluation import PROTOCOLS, coco, evaluate, lay_out, voc
from onestage.evaluation.uncertainty import interval, multiplicities, score_interval
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


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    """benchmarks/coverage.py, which is a script beside the package."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


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


def test_score_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    ends = score_interval(multiplicities(400, 4000) @ values / 400, values.mean(), 400, 400)
    assert ends is not None
    assert (ends[1] - ends[0]) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_where_nothing_went_wrong_the_interval_is_that_of_a_share() -> None:
    """All resamples of a perfect score are perfect; 20 of 20 found does not prove that all will be."""
    wilson = 20 / (20 + 1.959964**2)
    assert score_interval(np.ones(100), 1.0, 12, 20) == pytest.approx((wilson, 1.0), abs=1e-6)
    assert score_interval(np.zeros(100), 0.0, 12, 20) == pytest.approx((0.0, 1 - wilson), abs=1e-6)
    assert score_interval(np.full(100, 0.5), 0.5, 12, 20) == (0.5, 0.5)
    assert score_interval(np.full(100, 31.0), 31.0, 12, 20) == (31.0, 31.0)  # no share


def test_leaning_moves_the_end_away_from_it_and_no_other() -> None:
    values = np.linspace(0.3, 0.5, 2001)
    plain, up, down = (score_interval(values, score, 10**6, 100) for score in (0.4, 0.39, 0.41))
    assert plain is not None
    assert up is not None
    assert down is not None
    assert plain == pytest.approx((0.305, 0.495), abs=1e-4)
    assert up[0] < plain[0] - 0.001
    assert up[1] == pytest.approx(plain[1], abs=1e-9)
    assert down[1] > plain[1] + 0.001
    assert down[0] == pytest.approx(plain[0], abs=1e-9)


def test_a_long_tail_draws_the_interval_to_itself() -> None:
    values = np.sort(np.random.default_rng(1).gamma(4, 0.05, 20_001))
    median = float(np.median(values))
    plain, skewed = interval(values, 10**6), score_interval(values, median, 10**6, 1000)
    assert plain is not None
    assert skewed is not None
    assert skewed[0] > plain[0]
    assert skewed[1] > plain[1] * 1.03


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_score_intervals_lie_in_0_to_1_and_hold_the_score(seed: int, images: int, middle: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(middle, rng.choice([0.0, 0.01, 0.3]), 200), 0, 1)
    values[rng.random(200) < 0.2] = np.nan
    score = float(np.clip(rng.normal(middle, 0.1), 0, 1))
    ends = score_interval(values, score, images, int(rng.integers(1, 60)))
    assert ends is not None
    assert 0 <= ends[0] <= score <= ends[1] <= 1
    assert score_interval(values, np.nan, images, 3) is None
    assert score_interval(values, score, 1, 3) is None
    assert score_interval(np.full(9, np.nan), score, images, 3) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "clustered"])
def test_nominal_95_percent_covers_the_truth(kind: str, coverage: ModuleType) -> None:
    """200 sets each of 25 and 100 images; chance alone is 3 points (95 %) either way. The long run is a benchmark."""
    rows = coverage.cover(kind, (25, 100), 200, images=4000, resamples=300)
    assert {row["sets"] for row in rows} == {200}
    for row in rows:
        assert 0.90 <= row["covered"] <= 0.995, row
    assert 0.93 <= np.mean([row["covered"] for row in rows]) <= 0.975


def test_a_drawn_set_is_judged_as_its_images_are(coverage: ModuleType) -> None:
    """The benchmark draws rankings of images already judged; judging the images anew gives the same."""
    truths, found = coverage.population(coverage.KINDS["clustered"], 300, seed=4)
    classes = ["a", "b", "c"]
    pool = lay_out(truths, found, classes)
    drawn = np.random.default_rng(0).integers(0, 300, 40)
    ones = np.ones((1, 40), np.int64)
    of_voc, of_coco = coverage.Drawer(voc.rankings(pool)), coverage.Drawer(coco.rankings(pool)["all"])
    got = coverage.scores(of_voc.draw(drawn), of_coco.draw(drawn), ones)
    again = lay_out({k: truths[i] for k, i in enumerate(drawn)}, {k: found[i] for k, i in enumerate(drawn)}, classes)
    anew = coverage.scores(voc.rankings(again), coco.rankings(again)["all"], ones)
    for key, (value, n) in anew.items():
        np.testing.assert_allclose(got[key][0], value, rtol=0, atol=1e-12, err_msg=key)
        assert got[key][1] == n
