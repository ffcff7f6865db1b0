"""Operating points: every score tried by hand, ties kept together, thinned curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation.operating import (
    at_score,
    best_intervals,
    best_score,
    confidence_curves,
    curves,
    operating_points,
    reaching,
)
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import laid_out
from onestage.evaluation.uncertainty import multiplicities


def random_rankings(seed: int, classes: int = 3, n: int = 40) -> list[Ranking]:
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(classes):
        m = int(rng.integers(0, n))
        counted = rng.random((1, m)) < 0.9
        hit = counted & (rng.random((1, m)) < 0.5)
        image = rng.integers(0, 10, m)
        missed = rng.integers(0, 3, 10)
        truths = np.bincount(image[hit[0]], minlength=10) + missed
        score = -np.sort(-rng.random(m).round(1 + int(rng.integers(0, 3))))
        result.append(Ranking(image, score, np.zeros(m, np.int64), hit, counted, truths * int(rng.random() < 0.9)))
        if not result[-1].n_truths:
            result[-1] = Ranking(image, score, np.zeros(m, np.int64), hit & False, counted, truths * 0)
    return result


def mean_f1(rankings: list[Ranking], score: float) -> float:
    values = []
    for r in rankings:
        kept = r.counted[0] & (r.score >= score)
        hits = int((r.hit[0] & kept).sum())
        if r.n_truths:
            values.append(2 * hits / (int(kept.sum()) + r.n_truths))
    return float(np.mean(values)) if values else float("nan")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6))
def test_best_score_is_the_best_of_all(seed: int) -> None:
    rankings = random_rankings(seed)
    best = best_score(rankings)
    tried = sorted({s for r in rankings if r.n_truths for s in r.score[r.counted[0]].tolist()}, reverse=True)
    if not tried:
        assert best is None
        return
    values = [mean_f1(rankings, s) for s in tried]
    assert best in tried
    assert mean_f1(rankings, best) == pytest.approx(max(values), abs=1e-12)
    names = [f"c{k}" for k in range(len(rankings))]
    assert operating_points(rankings, names)["F1"] == pytest.approx(max(values), abs=1e-12)
    rows = at_score(rankings, names, best, "voc10", 10).values()
    assert rows["F1", None] == pytest.approx(max(values), abs=1e-12)


def test_rates_by_hand() -> None:
    hit = np.array([[True, False, True, True, False]])
    ranking = Ranking(
        np.zeros(5, np.int64),
        np.array([0.9, 0.8, 0.8, 0.6, 0.5]),
        np.arange(5),
        hit,
        np.ones((1, 5), bool),
        np.array([4]),
    )
    point = operating_points([ranking], ["c"])
    assert point["score"] == 0.6
    assert point["classes"]["c"]["precision"] == point["classes"]["c"]["recall"] == 0.75
    given_score = operating_points([ranking], ["c"], score=0.8)
    assert given_score["precision"] == pytest.approx(2 / 3)
    assert given_score["recall"] == 0.5
    assert operating_points([], [])["score"] is None
    assert operating_points([], [])["F1"] is None


def test_curves_are_thinned_and_keep_their_ends() -> None:
    n = 3000
    rng = np.random.default_rng(0)
    hit = rng.random((1, n)) < 0.5
    ranking = Ranking(
        np.zeros(n, np.int64),
        np.linspace(1, 0, n),
        np.arange(n),
        hit,
        np.ones((1, n), bool),
        np.array([int(hit.sum())]),
    )
    curve = curves([ranking], ["c"])["c"]
    assert len(curve["recall"]) == len(curve["scores"]) == 500
    assert curve["scores"][0] == 1.0
    assert curve["recall"][-1] == 1.0
    assert (np.diff(curve["recall"]) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_curves_by_score_are_the_rates_at_each_score(seed: int) -> None:
    rankings = random_rankings(seed)
    names = [f"c{k}" for k in range(len(rankings))]
    found = confidence_curves(rankings, names, points=21)
    assert found["scores"] == [round(0.05 * k, 12) for k in range(21)]
    assert set(found["classes"]) == {name for name, r in zip(names, rankings, strict=True) if r.n_truths}
    for k, at in enumerate(found["scores"]):
        point = operating_points(rankings, names, at)
        for key in ("precision", "recall", "F1"):
            if found["classes"]:
                assert found["mean"][key][k] == pytest.approx(point[key], abs=1e-5)
            for name, rates in found["classes"].items():
                assert rates[key][k] == pytest.approx(point["classes"][name][key], abs=1e-5)


def test_curves_by_score_follow_scores_beyond_one() -> None:
    hit = np.array([[True, False]])
    ranking = Ranking(np.zeros(2, np.int64), np.array([4.0, -1.0]), np.arange(2), hit, hit | True, np.array([1]))
    found = confidence_curves([ranking], ["c"], points=6)
    assert found["scores"] == [-1, 0, 1, 2, 3, 4]
    assert found["classes"]["c"]["precision"] == [0.5, 1, 1, 1, 1, 1]
    assert confidence_curves([], [])["mean"] == {}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.75, 1.0]), st.booleans())
def test_the_score_that_reaches_a_rate_is_the_best_of_all(seed: int, least: float, by_precision: bool) -> None:
    ranking = random_rankings(seed, 1)[0]
    counted, hit, score = ranking.counted[0], ranking.hit[0], ranking.score
    tried = []
    for at in np.unique(score[counted]):
        hits, n = int((hit & (score >= at)).sum()), int((counted & (score >= at)).sum())
        if ranking.n_truths:
            rates = hits / n, hits / ranking.n_truths
            tried.append((*(rates if by_precision else rates[::-1]), at))
    fit = [(free, at) for wanted, free, at in tried if wanted >= least]
    found = reaching(ranking, precision=least) if by_precision else reaching(ranking, recall=least)
    if not fit:
        assert found is None
        return
    assert found is not None
    assert (found["recall" if by_precision else "precision"], found["score"]) == pytest.approx(max(fit))


def test_reaching_asks_for_one_of_two() -> None:
    ranking = random_rankings(0, 1)[0]
    with pytest.raises(ValueError, match="either precision or recall"):
        reaching(ranking)
    with pytest.raises(ValueError, match="either precision or recall"):
        reaching(ranking, precision=0.5, recall=0.5)


def drawn_ranking(seed: int, n_images: int = 60, clear: float = 0.35) -> Ranking:
    """Hits and false detections with overlapping scores; the true best score is the same for every seed."""
    rng = np.random.default_rng(seed)
    hits, false = rng.poisson(3, n_images), rng.poisson(5, n_images)
    image = np.concatenate([np.repeat(np.arange(n_images), hits), np.repeat(np.arange(n_images), false)])
    hit = np.arange(len(image)) < hits.sum()
    score = np.clip(
        np.where(hit, rng.normal(0.5 + clear / 2, 0.18, len(hit)), rng.normal(0.5 - clear / 2, 0.18, len(hit))), 0, 1
    )
    order, counted = np.argsort(-score), hit | (rng.random(len(hit)) < 0.9)
    return Ranking(
        image[order], score[order], np.zeros(len(order), np.int64), hit[order][None], counted[order][None],
        hits + rng.poisson(1, n_images),
    )  # fmt: skip


def test_intervals_of_the_best_point_by_repeating_the_images() -> None:
    ranking = drawn_ranking(0, 9)
    weights = multiplicities(9, 40, seed=3)
    found = best_intervals(ranking, weights)
    assert best_intervals(ranking, laid_out(weights)) == found
    best, bests, fixed, optimism = best_score([ranking]), [], [], []
    for row in weights:
        kept = np.repeat(np.arange(len(ranking.image)), row[ranking.image])
        again = Ranking(
            ranking.image[kept], ranking.score[kept], ranking.rank[kept], ranking.hit[:, kept],
            ranking.counted[:, kept], ranking.truths * row,
        )  # fmt: skip
        bests.append(best_score([again]))
        fixed.append(operating_points([again], ["c"], best)["F1"])
        here = operating_points([again], ["c"], bests[-1])["F1"]
        optimism.append(here - operating_points([ranking], ["c"], bests[-1])["F1"])
    from onestage.evaluation.uncertainty import interval

    assert found["score_interval"] == pytest.approx(interval(np.array(bests, float), 9))
    assert found["F1_interval"] == pytest.approx(interval(np.array(fixed, float), 9))
    assert found["F1_optimism"] == pytest.approx(np.mean(optimism))


def test_the_optimism_is_what_new_images_would_take_away() -> None:
    gaps, said = [], []
    for seed in range(60):
        here, new = drawn_ranking(seed), drawn_ranking(10_000 + seed, 600)
        best = best_score([here])
        f1 = [operating_points([r], ["c"], best)["F1"] for r in (here, new)]
        gaps.append(f1[0] - f1[1])
        said.append(best_intervals(here, multiplicities(60, 100))["F1_optimism"])
    assert np.mean(said) > 0
    assert np.mean(said) == pytest.approx(np.mean(gaps), abs=3 * np.std(gaps) / np.sqrt(60))


def test_no_hits_have_no_best_point() -> None:
    nothing = {"score_interval": None, "F1_interval": None, "F1_optimism": None}
    empty = Ranking(*(np.zeros(0, np.int64),) * 3, np.zeros((1, 0), bool), np.zeros((1, 0), bool), np.array([2, 0]))
    assert best_intervals(empty, multiplicities(2, 10)) == nothing
    miss = Ranking(
        np.zeros(1, np.int64), np.array([0.4]), np.zeros(1, np.int64), np.array([[False]]), np.array([[True]]),
        np.array([2, 0]),
    )  # fmt: skip
    assert best_intervals(miss, multiplicities(2, 10)) == nothing
