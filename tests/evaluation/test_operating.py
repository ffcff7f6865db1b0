"""Operating points: every score tried by hand, ties kept together, thinned curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation.average_precision import Ranking
from onestage.evaluation.operating import at_score, best_score, curves, operating_points


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
