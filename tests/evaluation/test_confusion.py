"""The confusion matrix: by hand, its sums, its diagonal, and that order changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation import lay_out, voc
from onestage.evaluation.confusion import Confusion, confusion
from onestage.records import Annotations, Detections, ImageId

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
NAMES = ["cat", "dog", "owl"]
Set = tuple[dict[ImageId, Annotations], dict[ImageId, Detections]]


def judged(truth: Annotations, found: Detections, score: float | None = 0.0, names: list[str] = NAMES) -> Confusion:
    return confusion(lay_out({1: truth}, {1: found}, names), score)


def random_set(seed: int, images: int = 6, classes: int = 3) -> Set:
    """Boxes on a coarse grid, so that overlaps, ties and twins abound; some truths count neither way."""
    rng = np.random.default_rng(seed)
    truths: dict[ImageId, Annotations] = {}
    found: dict[ImageId, Detections] = {}
    for i in range(images):
        n, m = int(rng.integers(0, 7)), int(rng.integers(0, 12))
        xy, at = rng.integers(0, 4, (n, 2)) * 5.0, rng.integers(0, 4, (m, 2)) * 5.0
        flags = rng.random((3, n)) < 0.12
        region = (rng.random(n) < 0.3) & flags[1]
        truths[i] = Annotations(
            np.hstack([xy, xy + rng.integers(2, 4, (n, 2)) * 5.0]), rng.integers(0, classes, n), *flags,
            {"region": region},
        )  # fmt: skip
        boxes = np.hstack([at, at + rng.integers(2, 4, (m, 2)) * 5.0 + rng.integers(0, 2, (m, 2))])
        found[i] = Detections(boxes, rng.integers(0, classes, m), rng.random(m).round(1))
    return truths, found


def test_each_kind_by_hand() -> None:
    truth = Annotations([A, B, C, [60, 0, 70, 10]], [0, 1, 0, 2], difficult=[0, 0, 0, 1])
    found = Detections(
        [A, A, B, [80, 0, 90, 10], [60, 0, 70, 10], C], [0, 0, 2, 1, 2, 1], [0.9, 0.8, 0.7, 0.6, 0.5, 0.1]
    )
    result = judged(truth, found, 0.3)
    assert result.counts.tolist() == [
        [1, 0, 0, 1],  # cats: one found, one missed, for the dog on it lies below the score
        [0, 0, 1, 0],  # the dog is taken for an owl
        [0, 0, 0, 0],  # the owl is difficult: in no row, and who found it in no column
        [1, 1, 0, 0],  # on background: the second cat on the first truth, the dog on nothing
    ]
    assert result.twice.tolist() == [1, 0, 0]
    assert result.shares()[0].tolist() == [0.5, 0, 0, 0.5]
    assert result.most_confused() == [{"truth": "dog", "said": "owl", "n": 1, "share": 1.0}]
    assert judged(truth, found, 0.1).counts[0, 1] == 1


def test_the_own_class_goes_first_then_the_higher_score() -> None:
    truth = Annotations([A], [0])
    result = judged(truth, Detections([A, [0, 0, 10, 9]], [1, 0], [0.9, 0.3]))
    assert result.counts[0].tolist() == [1, 0, 0, 0]
    assert result.counts[3].tolist() == [0, 1, 0, 0]
    result = judged(truth, Detections([[0, 0, 10, 8], A], [1, 2], [0.9, 0.8]))
    assert result.counts[0].tolist() == [0, 1, 0, 0]
    assert result.counts[3].tolist() == [0, 0, 1, 0]


def test_the_other_class_takes_the_truth_it_overlaps_most_that_is_free() -> None:
    near = [0, 0, 10, 8]
    result = judged(Annotations([A, near], [0, 0]), Detections([A, near], [1, 2], [0.5, 0.9]))
    assert result.counts[0].tolist() == [0, 1, 1, 0]


def test_a_second_box_that_takes_another_class_is_no_second_box() -> None:
    truth = Annotations([A, [0, 0, 10, 8]], [0, 1])
    result = judged(truth, Detections([A, [0, 0, 10, 9], [0, 0, 10, 9]], [0, 0, 0], [0.9, 0.8, 0.7]))
    assert result.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert result.twice.tolist() == [1, 0, 0]


def test_regions_and_crowds_excuse_every_class_or_their_own() -> None:
    region = Annotations([A], [0], ignore=[True], extra={"region": np.array([True])})
    assert judged(region, Detections([A], [2], [0.9])).counts.sum() == 0
    crowd = Annotations([A], [0], crowd=[True])
    assert judged(crowd, Detections([A], [0], [0.9])).counts.sum() == 0
    assert judged(crowd, Detections([A], [2], [0.9])).counts[3].tolist() == [0, 0, 1, 0]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_sums_and_diagonal_are_those_of_the_protocol(seed: int, score: float) -> None:
    pool = lay_out(*random_set(seed), NAMES)
    counts = confusion(pool, score).counts
    for k, ranked in enumerate(voc.rankings(pool)):
        kept = ranked.score >= score
        assert counts[k].sum() == ranked.n_truths
        assert counts[:, k].sum() == (ranked.counted[0] & kept).sum()
        assert counts[k, k] == (ranked.hit[0] & kept).sum()
    assert counts[3, 3] == 0
    assert (counts >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_images_and_classes_in_another_order_change_nothing(seed: int) -> None:
    truths, found = random_set(seed)
    rng = np.random.default_rng(seed)
    names = {i: int(k) for i, k in zip(truths, rng.permutation(len(truths)), strict=True)}
    there = confusion(lay_out(truths, found, NAMES), 0.2)
    renamed = lay_out({names[i]: t for i, t in truths.items()}, {names[i]: d for i, d in found.items()}, NAMES)
    assert (confusion(renamed, 0.2).counts == there.counts).all()
    assert (confusion(renamed, 0.2).twice == there.twice).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_detections_fill_the_diagonal(seed: int) -> None:
    truths, _ = random_set(seed)
    whole = {i: Annotations(t.boxes, t.labels) for i, t in truths.items()}
    # Twins of one class would compete for the first of them, as in VOC; distinct ones cannot.
    whole = {i: t.take(np.unique(np.column_stack([t.boxes, t.labels]), axis=0, return_index=True)[1])
             for i, t in whole.items()}  # fmt: skip
    found = {i: Detections(t.boxes, t.labels, np.full(len(t), 0.9)) for i, t in whole.items()}
    counts = confusion(lay_out(whole, found, NAMES), 0.5).counts
    assert counts.trace() == counts.sum() == sum(map(len, whole.values()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_each_truth_and_detection_counts_once_for_a_slow_reader_too(seed: int) -> None:
    """The second step beside a plain loop over detections and truths."""
    truths, found = random_set(seed)
    pool = lay_out(truths, found, NAMES)
    images = len(pool.images)
    counted = ~(pool.truth_difficult | pool.truth_ignore | pool.truth_crowd)
    expected = np.zeros((4, 4), np.int64)

    def overlap(d: int, t: int) -> float:
        a, b = pool.box[d], pool.truth_box[t]
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(w, 0.0) * max(h, 0.0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    order = sorted(range(len(pool.score)), key=lambda d: (-pool.score[d], pool.group[d] % images, pool.rank[d]))
    taken, waiting = set(), []
    for d in order:
        own = [t for t in range(len(pool.truth_group)) if pool.truth_group[t] == pool.group[d]]
        best = max(own, key=lambda t: (overlap(d, t), -t), default=None)
        if best is not None and overlap(d, best) >= 0.5:
            if not counted[best]:
                continue
            if best not in taken:
                taken.add(best)
                expected[pool.group[d] // images, pool.group[d] // images] += 1
                continue
        waiting.append(d)
    for d in sorted(waiting, key=lambda d: (-pool.score[d], pool.group[d], pool.rank[d])):
        free = [t for t in np.flatnonzero(counted).tolist() if t not in taken
                and pool.truth_group[t] % images == pool.group[d] % images
                and pool.truth_group[t] // images != pool.group[d] // images and overlap(d, t) >= 0.5]  # fmt: skip
        best = max(free, key=lambda t: (overlap(d, t), -t), default=None)
        row = 3 if best is None else pool.truth_group[best] // images
        expected[row, pool.group[d] // images] += 1
        taken |= set() if best is None else {best}
    for t in np.flatnonzero(counted).tolist():
        expected[pool.truth_group[t] // images, 3] += t not in taken
    assert confusion(pool, 0.0).counts.tolist() == expected.tolist()


def test_a_thousand_classes_stay_small_and_come_back() -> None:
    names = [f"class {k}" for k in range(1000)]
    boxes = np.tile(A, (1000, 1)) + 20.0 * np.arange(1000)[:, None] * [1, 0, 1, 0]
    truth = Annotations(boxes, np.arange(1000))
    result = judged(truth, Detections(boxes, (np.arange(1000) // 2) * 2, np.full(1000, 0.7)), 0.5, names)
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert len(text) < 250_000
    again = Confusion.from_dict(json.loads(text))
    assert (again.counts == result.counts).all()
    assert again.counts.trace() == 500
    assert len(result.most_confused()) == 500


@pytest.mark.parametrize("score", [None, 0.5])
def test_nothing_is_defined(score: float | None) -> None:
    empty = confusion(lay_out({}, {}, []), score)
    assert empty.counts.tolist() == [[0]]
    none = judged(Annotations([A], [1]), Detections.empty(), score)
    assert none.counts[1].tolist() == [0, 0, 0, 1]
    only = judged(Annotations.empty(), Detections([A], [1], [0.9]), score)
    assert only.counts[3].tolist() == ([0, 0, 0, 0] if score is None else [0, 1, 0, 0])
    for result in (empty, none, only):
        assert (Confusion.from_dict(json.loads(json.dumps(result.as_dict()))).counts == result.counts).all()
