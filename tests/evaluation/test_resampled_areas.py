"""Hundreds of weightings at once give what each gives alone, whatever the ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation import PROTOCOLS, lay_out, resampled_areas, resampling
from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    HUNDRED_AND_ONE_POINTS,
    area_under_envelope,
    average_precisions,
    recalls,
)
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.uncertainty import multiplicities
from onestage.records import Annotations, Detections

RULES = (ELEVEN_POINTS, HUNDRED_AND_ONE_POINTS, area_under_envelope)


def random_ranking(rng: np.random.Generator, images: int, rows: int, thresholds: int, odd: float) -> Ranking:
    """Hits that thin out with the threshold (with gaps and late comers), and rows that count at some thresholds."""
    image = rng.integers(0, images, rows)
    hit = rng.random((thresholds, rows)) < rng.random((1, rows)) * rng.random()
    counted = (rng.random(rows) < 0.9)[None] ^ (rng.random((thresholds, rows)) < odd)
    most = np.zeros(images, np.int64)
    for row in hit:
        most = np.maximum(most, np.bincount(image[row], minlength=images))
    truths = most + rng.integers(0, 3, images)
    rank = np.array([int((image[:k] == image[k]).sum()) for k in range(rows)], np.int64)
    return Ranking(image, np.sort(rng.random(rows))[::-1], rank, hit, counted | hit, truths)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 60), st.sampled_from([1, 3, 10]),
    st.sampled_from([0.0, 0.02, 0.5]),
)  # fmt: skip
def test_many_weightings_equal_each_alone(seed: int, images: int, rows: int, thresholds: int, odd: float) -> None:
    rng = np.random.default_rng(seed)
    some = [random_ranking(rng, images, rows, thresholds, odd) for _ in range(2)]
    weights = multiplicities(images, 152, seed)
    weights[0] = 0
    weights[1] = 1
    for rule in RULES:
        many = average_precisions(some, rule, weights)
        alone = np.concatenate([average_precisions(some, rule, row[None]) for row in weights[:30]], axis=2)
        np.testing.assert_allclose(many[..., :30], alone, rtol=0, atol=1e-12)
        assert many.shape == (2, thresholds, 152)
    for limit in (1, 3, 100):
        alone = np.concatenate([recalls(some, limit, row[None]) for row in weights[:30]], axis=2)
        np.testing.assert_array_equal(recalls(some, limit, weights)[..., :30], alone)


def test_blocks_and_tables_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    ranking = random_ranking(rng, 20, 300, 4, 0.1)
    weights = multiplicities(20, 400, 1)
    whole = average_precisions([ranking], HUNDRED_AND_ONE_POINTS, weights)
    monkeypatch.setattr(resampled_areas, "_TABLE", 0)
    np.testing.assert_array_equal(average_precisions([ranking], HUNDRED_AND_ONE_POINTS, weights), whole)
    monkeypatch.setattr(resampled_areas, "_CELLS", 1000)
    np.testing.assert_array_equal(average_precisions([ranking], HUNDRED_AND_ONE_POINTS, weights), whole)
    monkeypatch.setattr(resampled_areas, "FEWEST", 7)
    monkeypatch.setattr(resampling, "_FEWEST", 7)
    monkeypatch.setattr(resampling, "_LAID_OUT", 20 * 31)
    assert [part.stop - part.start for part, _ in resampling.parts(weights)] == [31] * 12 + [28]
    np.testing.assert_array_equal(average_precisions([ranking], HUNDRED_AND_ONE_POINTS, weights), whole)


def test_a_rule_of_ones_own_is_taken_row_by_row() -> None:
    """A rule that the quick path does not know still gets precision and recall."""
    ranking = random_ranking(np.random.default_rng(0), 5, 30, 2, 0.1)
    weights = multiplicities(5, 200)
    by_hand = average_precisions([ranking], lambda p, r: area_under_envelope(p, r), weights)
    np.testing.assert_allclose(by_hand, average_precisions([ranking], area_under_envelope, weights), atol=1e-12)


@pytest.mark.parametrize("protocol", ["voc07", "voc10", "coco"])
def test_chosen_scores_are_those_of_all(protocol: str) -> None:
    rng = np.random.default_rng(2)
    truths, found = {}, {}
    for image in range(12):
        corner, side = rng.uniform(0, 300, (4, 2)), np.exp(rng.uniform(2.5, 5, (4, 2)))
        boxes, labels = np.c_[corner, corner + side], rng.integers(0, 2, 4)
        truths[image] = Annotations(boxes, labels)
        found[image] = Detections(boxes + rng.normal(0, 4, (4, 4)), labels, rng.random(4))
    judged = PROTOCOLS[protocol](lay_out(truths, found, ["a", "b"]))
    weights = multiplicities(12, 160)
    every = judged.scores(weights)
    for key in every:
        got = judged.chosen(weights, [key])
        assert list(got) == [key]
        np.testing.assert_array_equal(got[key], every[key], err_msg=str(key))
