"""Differences with their intervals: known answers, cases without an answer, and what simulated detectors say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_detectors import Scene, World
from scipy import stats

from onestage.evaluation import PROTOCOLS, lay_out
from onestage.evaluation.comparison import (
    Difference,
    Drawn,
    counts,
    differences,
    differing_images,
    draw,
    fewest_images,
    fingerprints,
)
from onestage.evaluation.judgement import Judgement
from onestage.evaluation.uncertainty import multiplicities
from onestage.records import Annotations, Detections, FloatArray, IntArray

KEY = ("mean", None)


def mean_of(values: FloatArray) -> Judgement:
    """A judgement whose one score is the mean of a number per image: every answer is known from textbooks."""

    def scores(weights: IntArray) -> dict:
        return {KEY: weights @ values / weights.sum(1)}

    return Judgement("test", scores, lambda key: len(values), len(values), {})


def compared(a: FloatArray, b: FloatArray, resamples: int = 4000, **more: object) -> Difference:
    """The difference of means over images; a and b are (I,), or (K, I) for K seeds."""
    arms = [
        draw([mean_of(row) for row in np.atleast_2d(arm)], multiplicities(a.shape[-1], resamples)) for arm in (a, b)
    ]
    n = a.shape[-1]
    return differences(arms[0], arms[1], n, {KEY: (n, n)}, **more)[0]  # type: ignore[arg-type]


def test_one_seed_gives_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.2, 40)
    a, b = 0.5 + hard + rng.normal(0, 0.02, 40), 0.51 + hard + rng.normal(0, 0.02, 40)
    row = compared(a, b, 20_000)
    wanted = stats.ttest_rel(b, a)
    assert row.value == pytest.approx((b - a).mean())
    assert row.freedom == pytest.approx(39)
    assert row.error == pytest.approx(stats.sem(b - a), rel=0.02)
    assert row.p == pytest.approx(wanted.pvalue, rel=0.15)
    assert row.interval == pytest.approx(wanted.confidence_interval(0.95), abs=3e-4)
    # Had the arms not been paired, the error were ten times as large
    assert stats.ttest_ind(b, a).pvalue > 0.5


def test_several_seeds_give_the_t_test_where_images_play_no_part() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 0.03, 3), rng.normal(0.6, 0.03, 4)
    row = compared(np.repeat(a[:, None], 30, 1), np.repeat(b[:, None], 30, 1), 200)
    wanted = stats.ttest_ind(b, a)
    assert row.p == pytest.approx(wanted.pvalue, rel=1e-6)
    assert row.freedom == pytest.approx(wanted.df, rel=1e-6)
    assert row.interval == pytest.approx(wanted.confidence_interval(0.95), abs=1e-6)


def test_an_arm_of_one_seed_is_taken_to_spread_like_the_other() -> None:
    b = np.array([0.6, 0.62, 0.67])
    row = compared(np.full((1, 20), 0.5), np.repeat(b[:, None], 20, 1), 200)
    assert row.error == pytest.approx(math.sqrt(b.var(ddof=1) * (1 + 1 / 3)))
    assert row.freedom == pytest.approx(2)


def test_what_a_seed_meets_on_images_is_counted_once() -> None:
    """Seeds that differ by independent luck on each image only: the error is that of all their images."""
    rng = np.random.default_rng(2)
    found = [compared(*rng.normal(0.5, 0.1, (2, 4, 60)), 300) for _ in range(150)]  # type: ignore[misc]
    true = 0.1 * math.sqrt(2 / 4 / 60)
    error = math.sqrt(np.mean([row.error**2 for row in found]))
    assert 1.0 <= error / true < 1.25  # never below; seeds that seem to differ by chance add some
    assert np.mean([row.p < 0.05 for row in found]) < 0.05  # type: ignore[operator]


@settings(max_examples=60)
@given(
    st.integers(0, 10**6), st.integers(10, 40), st.integers(1, 3), st.floats(-0.2, 0.2), st.sampled_from([0.9, 0.95])
)
def test_interval_and_p_say_the_same(seed: int, images: int, seeds: int, gain: float, level: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.5, 0.2, (seeds, images)), rng.normal(0.5 + gain, 0.2, (seeds, images))
    row = compared(a, b, 200, level=level)
    assert row.interval is not None
    assert row.p is not None
    assert (row.p < 1 - level) == (not row.interval[0] <= 0 <= row.interval[1])
    back = compared(b, a, 200, level=level)
    assert (back.value, back.p) == (pytest.approx(-row.value), pytest.approx(row.p))
    assert row.smallest is not None
    assert row.smallest > (row.interval[1] - row.interval[0]) / 2 - 1e-9


def test_one_and_the_same_detections() -> None:
    a = np.random.default_rng(3).random(30)
    row = compared(a, a, differing=0)
    assert (row.value, row.p, row.interval, row.spread) == (0.0, 1.0, (0.0, 0.0), None)


def test_a_difference_without_any_spread_has_the_p_of_the_sign_test() -> None:
    row = compared(np.zeros(12), np.ones(12))
    assert (row.error, row.interval) == (0.0, (1.0, 1.0))
    assert row.p == 2.0**-11


def test_too_few_images_tell_nothing() -> None:
    rng = np.random.default_rng(4)
    row = compared(rng.random(9), rng.random(9) + 5)
    assert (row.p, row.interval, row.smallest) == (None, None, None)
    assert row.too_few == "in 9 images"
    assert compared(rng.random(50), rng.random(50), differing=4).too_few == "the detections differ in 4 images"
    assert fewest_images(0.95) == 10
    assert 2.0 ** (1 - fewest_images(0.9999)) < 1e-4 < 2.0 ** (2 - fewest_images(0.9999))


def test_undefined_scores_stay_undefined() -> None:
    nothing = Drawn({KEY: np.array([np.nan])}, {KEY: np.full((1, 100), np.nan)})
    row = differences(nothing, nothing, 50, {KEY: (0, 0)})[0]
    assert row.too_few == "no truth"
    assert row.as_dict()["difference"] is None
    rare = replace(
        nothing, scores={KEY: np.array([0.5])}, resampled={KEY: np.r_[np.full(5, np.nan), np.ones(95)][None]}
    )
    assert differences(rare, rare, 50, {KEY: (20, 20)})[0].p is None


def test_corrections_are_made_over_the_classes_of_a_score() -> None:
    rng = np.random.default_rng(5)
    keys = [("AP50", c) for c in "abc"] + [("mAP50", None)]
    scores = {key: np.array([0.5]) for key in keys}
    arms = [
        Drawn(scores, {key: rng.normal(0.5, 0.02, (1, 400)) for key in keys}),
        Drawn(
            {key: np.array([0.5 + shift]) for key, shift in zip(keys, (0.06, 0.07, 0.08, 0.07), strict=True)},
            {key: rng.normal(0.5, 0.02, (1, 400)) for key in keys},
        ),
    ]
    rows = differences(*arms, 100, dict.fromkeys(keys, (50, 50)))
    p = {row.class_name: row.p for row in rows}
    holm = {row.class_name: row.holm for row in rows}
    assert holm["c"] == pytest.approx(3 * p["c"])  # type: ignore[operator]
    assert holm["b"] == pytest.approx(2 * p["b"])  # type: ignore[operator]
    assert holm["a"] == pytest.approx(max(p["a"], 2 * p["b"]))  # type: ignore[operator, type-var]
    assert holm[None] is None


def test_images_needed_shrink_the_error_to_what_is_asked() -> None:
    rng = np.random.default_rng(6)
    row = compared(rng.normal(0.5, 0.2, 100), rng.normal(0.52, 0.2, 100))
    spread = row.spread
    assert spread is not None
    assert row.smallest is not None
    assert spread.images_needed(row.smallest) == pytest.approx(100, abs=1)
    assert spread.images_needed(row.smallest / 2) == pytest.approx(400, rel=0.02)
    assert spread.seeds_needed(row.smallest) is None
    assert spread.images_needed(0.0) is None


def test_seeds_do_not_shrink_with_images() -> None:
    rng = np.random.default_rng(7)
    base = rng.normal(0.5, 0.2, 200)
    a, b = (base + rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.01, (3, 200)) for _ in range(2))
    spread = compared(a, b).spread
    assert spread is not None
    assert spread.images_needed(0.01) is None
    needed = spread.seeds_needed(0.05)
    assert needed is not None
    assert spread.smallest(kept=(needed, needed)) <= 0.05 < spread.smallest(kept=(needed - 1, needed - 1))
    assert spread.variance(1e9) == pytest.approx(2 * spread.seeds / 3)


def test_counts_are_truths_and_the_images_that_hold_them() -> None:
    box = [[0.0, 0.0, 10.0, 10.0]]
    truths = {0: Annotations(box * 2, [0, 0]), 1: Annotations(box, [1], crowd=[True]), 2: Annotations(box, [0])}
    for protocol in (PROTOCOLS["voc07"], PROTOCOLS["voc10"], PROTOCOLS["coco"]):
        pool = lay_out(truths, {}, ["a", "b"])  # type: ignore[arg-type]
        found = counts(protocol(pool), pool)
        assert found[protocol.headline, None] == (3, 2)
        of_a = next(value for key, value in found.items() if key[1] == "a")
        assert (of_a, next(value for key, value in found.items() if key[1] == "b")) == ((3, 2), (0, 0))


def test_images_whose_detections_differ() -> None:
    scene = Scene.drawn(np.random.default_rng(8), 12)
    found = scene.detections(np.random.default_rng(9), 0.7)
    image = next(image for image, one in found.items() if len(one) > 1)
    swapped = dict(found)
    one = found[image]
    swapped[image] = Detections(one.boxes[::-1], one.labels[::-1], one.scores)  # the same numbers, otherwise paired
    fewer = {**swapped, (image + 1) % 12: Detections.empty()}
    prints = [
        fingerprints(lay_out(scene.truths, each, ["a", "b"]))
        for each in (found, dict(reversed(found.items())), swapped, fewer)
    ]
    gone = len(found[(image + 1) % 12]) > 0
    assert differing_images([prints[0], prints[1]]) == 0
    assert differing_images([prints[0], prints[2]]) == 1
    assert differing_images(prints) == 1 + gone


def test_resamples_keep_multiplicities() -> None:
    """The error of a resample without repeats would be 0.76 of this one."""
    rng = np.random.default_rng(10)
    world = World(60)
    rows = [world.compared(rng)[0] for _ in range(40)]
    error = math.sqrt(np.mean([row.error**2 for row in rows]))
    assert np.std([row.value for row in rows]) / error == pytest.approx(1.0, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [World(60), World(60, gain=0.3), World(40, 3, seed=0.3)], ids=["one seed", "true difference", "3 seeds"]
)
def test_nominal_95_percent_holds_the_true_difference(world: World) -> None:
    """docs/compare.md has the figures of many more (python tests/evaluation/paired_detectors.py)."""
    truth = world.truth(4000) if world.gain else 0.0
    got = world.shares(150, truth)
    assert 0.90 <= got.covered <= 0.99


@pytest.mark.slow
def test_holm_finds_nothing_where_nothing_is() -> None:
    assert World(80, classes=8).shares(120, class_name=None).found_by_holm <= 0.10


@pytest.mark.slow
def test_the_smallest_difference_is_found_in_80_of_100() -> None:
    world = World(60, gain=0.37)
    truth, got = world.truth(8000), world.shares(150)
    assert got.smallest == pytest.approx(truth, rel=0.2)
    assert 0.66 <= got.found <= 0.92
