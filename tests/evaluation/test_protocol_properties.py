"""What must hold under every protocol: order, false positives, perfection, emptiness, copies of images.

A protocol whose truth needs more than boxes adds a maker to `TRUTHS`, and one that judges other classes its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.evaluation import PROTOCOLS, evaluate, lay_out
from onestage.evaluation.judgement import Judgement
from onestage.evaluation.uncertainty import multiplicities
from onestage.records import Annotations, Detections, ImageId

Truths = dict[ImageId, Annotations]
Found = dict[ImageId, Detections]
CLASSES = ["a", "b", "c"]
SIZES = (640, 480)


def plain_truth(rng: np.random.Generator) -> Annotations:
    """Up to six boxes of all sizes, no two alike, some difficult, some crowds."""
    n = int(rng.integers(0, 7))
    corner, side = rng.uniform(0, 300, (n, 2)), np.exp(rng.uniform(2.5, 5.0, (n, 2)))
    return Annotations(
        np.c_[corner, corner + side], rng.integers(0, 3, n), difficult=rng.random(n) < 0.15, crowd=rng.random(n) < 0.1
    )


def without_crowds(rng: np.random.Generator) -> Annotations:
    """For VisDrone's rule, where a crowd is a row of score 0: it counts in recall and cannot be found."""
    truth = plain_truth(rng)
    return Annotations(truth.boxes, truth.labels, difficult=truth.difficult)


def faces_of_three_levels(rng: np.random.Generator) -> Annotations:
    """For WIDER FACE's rule: one class, and of each face the sets it belongs to."""
    boxes = plain_truth(rng).boxes
    hard = rng.random(len(boxes)) < 0.9
    medium = hard & (rng.random(len(boxes)) < 0.7)
    levels = {"hard": hard, "medium": medium, "easy": medium & (rng.random(len(boxes)) < 0.7)}
    return Annotations(boxes, np.zeros(len(boxes)), extra=levels)


def ellipses(rng: np.random.Generator) -> Annotations:
    """For FDDB's rule: one class, upright ellipses that do not touch, with the boxes around them."""
    n = int(rng.integers(0, 7))
    cells = rng.permutation(12)[:n]
    centre = np.c_[60 + 120 * (cells % 4), 60 + 120 * (cells // 4)] + rng.uniform(-8, 8, (n, 2))
    major = rng.uniform(12, 48, n)
    minor = major * rng.uniform(0.6, 0.9, n)
    boxes = np.c_[centre[:, 0] - minor, centre[:, 1] - major, centre[:, 0] + minor, centre[:, 1] + major]
    return Annotations(
        boxes, np.zeros(n), extra={"ellipse": np.c_[major, minor, np.full(n, np.pi / 2), centre].reshape(n, 5)}
    )


TRUTHS: dict[str, Callable[[np.random.Generator], Annotations]] = {
    "visdrone": without_crowds, "widerface": faces_of_three_levels, "fddb": ellipses,
}  # fmt: skip
"""Makers of one image's truth, where `plain_truth` will not do."""

FIRST_ROW_FIRST = "equal scores of one class are taken by image, then by row, and each takes the best truth left"
ROW_FIRST = ("voc07", "voc10", "voc07+1", "voc10+1", "coco", "darknet", "darknet11", "darknet101", "visdrone")
MAY_CHANGE_WITH_TIES = dict.fromkeys(ROW_FIRST, FIRST_ROW_FIRST)
"""Protocols in which rows of equal score and class may not change places, and by what rule. In all others they may."""
FIRST_ROWS_OF_A_FILE = {"visdrone": ("AR1", "AR10", "mAR1", "mAR10")}
"""Scores that look at the first rows of an image, of whatever class: there no rows may change places."""

DIFFICULT_ASIDE = ("darknet", "darknet11", "darknet101")
"""Protocols in which a detection of a difficult truth claims any other truth it overlaps, so that it may be false."""

FACES = ("widerface", "fddb")
"""Protocols of one class."""

NO_ENVELOPE = {"fddb": "disc@"}
"""Protocols without average precision, and how the names begin of what must behave like it."""

SEEDS = st.integers(0, 10**6)
every = pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
quick = settings(max_examples=12, deadline=None)


def classes_of(protocol: str) -> list[str]:
    return ["face"] if protocol in FACES else CLASSES


def random_set(protocol: str, seed: int, images: int = 8, ties: bool = False) -> tuple[Truths, Found]:
    """Truths, and detections near them, mislabelled or far off; scores with many ties, or with none."""
    rng = np.random.default_rng(seed)
    make = TRUTHS.get(protocol, plain_truth)
    truths: Truths = {3 * k: make(rng) for k in range(images)}
    found: Found = {}
    for image, truth in truths.items():
        copies = rng.integers(0, 3, len(truth))
        near, labels = np.repeat(truth.boxes, copies, 0), np.repeat(truth.labels, copies)
        labels = np.where(
            rng.random(len(labels)) < 0.8, labels, rng.integers(0, len(classes_of(protocol)), len(labels))
        )
        near = near + rng.normal(0, 5, near.shape)
        far = rng.uniform(400, 500, (3, 2))
        boxes, labels = np.r_[near, np.c_[far, far + 30]], np.r_[labels, rng.integers(0, len(classes_of(protocol)), 3)]
        scores = rng.integers(1, 4, len(boxes)) / 4 if ties else rng.random(len(boxes))
        found[image] = Detections(boxes, labels, scores)
    return truths, found


def judge(protocol: str, truths: Truths, found: Found) -> Judgement:
    pool = lay_out(truths, found, classes_of(protocol), dict.fromkeys(truths, SIZES))
    assert PROTOCOLS[protocol].unfit(pool) is None
    return PROTOCOLS[protocol](pool)


def assert_same(one: Judgement, other: Judgement, atol: float = 0.0, but: tuple[str, ...] = ()) -> None:
    a, b = one.values(), other.values()
    assert list(a) == list(b)
    for key, value in a.items():
        if key[0] in but:
            continue
        np.testing.assert_allclose(b[key], value, rtol=0, atol=atol, err_msg=str(key))


def is_average_precision(protocol: str, name: str) -> bool:
    return name.startswith(NO_ENVELOPE.get(protocol, ("mAP", "AP")))


@every
@quick
@given(SEEDS)
def test_order_of_images_changes_nothing(protocol: str, seed: int) -> None:
    truths, found = random_set(protocol, seed, ties=True)
    rng = np.random.default_rng(seed)
    shuffled = [list(truths)[k] for k in rng.permutation(len(truths))]
    again = [list(truths)[k] for k in rng.permutation(len(truths))]
    assert_same(
        judge(protocol, truths, found),
        judge(protocol, {i: truths[i] for i in shuffled}, {i: found[i] for i in again}),
    )


@every
@quick
@given(SEEDS)
def test_names_of_images_change_nothing_while_their_order_stays(protocol: str, seed: int) -> None:
    truths, found = random_set(protocol, seed, ties=True)
    for name in (lambda i: 10_000 + i * i, lambda i: f"{i:05d}.jpg"):
        assert_same(
            judge(protocol, truths, found),
            judge(protocol, {name(i): t for i, t in truths.items()}, {name(i): f for i, f in found.items()}),
        )


@every
@quick
@given(SEEDS)
def test_rows_of_equal_score_may_change_places(protocol: str, seed: int) -> None:
    """All of them, or where row order decides among equals (see MAY_CHANGE_WITH_TIES) those of different classes."""
    truths, found = random_set(protocol, seed, ties=True)
    rng = np.random.default_rng(seed)
    moved: Found = {}
    for image, f in found.items():
        order = rng.permutation(len(f))
        if protocol in MAY_CHANGE_WITH_TIES:  # rows of a class keep their order
            places = [np.sort(np.flatnonzero(f.labels[order] == label)) for label in range(len(classes_of(protocol)))]
            for label, place in enumerate(places):
                order[place] = np.flatnonzero(f.labels == label)
        moved[image] = Detections(f.boxes[order], f.labels[order], f.scores[order])
    but = FIRST_ROWS_OF_A_FILE.get(protocol, ())
    assert_same(judge(protocol, truths, found), judge(protocol, truths, moved), atol=1e-12, but=but)


@pytest.mark.parametrize("protocol", sorted(MAY_CHANGE_WITH_TIES))
def test_row_order_decides_among_equals_of_a_class(protocol: str) -> None:
    """The rule has an effect, so it is stated: a hit before a false detection of the same score, and behind it."""
    box, far = [0.0, 0.0, 50.0, 50.0], [200.0, 200.0, 250.0, 250.0]
    truths: Truths = {1: Annotations([box], [0])}
    for rows, expected in (([box, far], 1.0), ([far, box], 0.5)):
        found: Found = {1: Detections(rows, [0, 0], [0.5, 0.5])}
        values = judge(protocol, truths, found).values()
        assert values["AP50", "a"] == pytest.approx(expected, abs=1e-12)


@every
@quick
@given(SEEDS)
def test_a_false_positive_never_raises_average_precision(protocol: str, seed: int) -> None:
    truths, found = random_set(protocol, seed, ties=bool(seed % 2))
    rng = np.random.default_rng(seed)
    before = judge(protocol, truths, found).values()
    image = list(truths)[int(rng.integers(len(truths)))]
    old, side = found[image], float(np.exp(rng.uniform(2, 5.5)))
    scores = np.concatenate([f.scores for f in found.values()])
    label = rng.integers(0, len(classes_of(protocol)))
    more = Detections(
        np.r_[old.boxes, [[5000.0, 5000.0, 5000.0 + side, 5000.0 + side]]], np.r_[old.labels, label],
        np.r_[old.scores, rng.choice(scores)],
    )  # fmt: skip
    after = judge(protocol, truths, found | {image: more}).values()
    for key, value in before.items():
        if is_average_precision(protocol, key[0]):
            assert math.isnan(value) == math.isnan(after[key]), key
            assert math.isnan(value) or after[key] <= value + 1e-12, key


@every
@quick
@given(SEEDS)
def test_perfect_detections_give_one(protocol: str, seed: int) -> None:
    truths, _ = random_set(protocol, seed)
    rng = np.random.default_rng(seed)
    sought = truths
    if protocol in DIFFICULT_ASIDE:
        sought = {i: t.take(np.flatnonzero(~(t.difficult | t.crowd))) for i, t in truths.items()}
    found: Found = {i: Detections(t.boxes, t.labels, rng.uniform(0.1, 1, len(t))) for i, t in sought.items()}
    judged = judge(protocol, truths, found)
    there = {label for t in truths.values() for label in t.labels[~(t.difficult | t.ignore | t.crowd)].tolist()}
    if judged.absent_as_zero and len(there) < len(CLASSES):
        return  # a class without truths lowers the mean
    values = judged.values()
    defined = {
        key: value for key, value in values.items() if is_average_precision(protocol, key[0]) and not math.isnan(value)
    }
    assert defined == pytest.approx(dict.fromkeys(defined, 1.0), abs=1e-12)
    if there:
        assert (PROTOCOLS[protocol].headline, None) in defined


@every
@pytest.mark.parametrize("what", ["no images", "no truths", "no detections", "neither", "no classes"])
def test_emptiness_is_defined(protocol: str, what: str) -> None:
    """Undefined (NaN) without truths, 0 without detections; never a crash or a warning, nor from resamples."""
    truths, found = random_set(protocol, 1) if what != "no images" else ({}, {})
    if what in ("no truths", "neither", "no classes"):
        truths = dict.fromkeys(truths, Annotations.empty())
    if what in ("no detections", "neither", "no classes"):
        found = {}
    classes = [] if what == "no classes" else classes_of(protocol)
    pool = lay_out(truths, found, classes, dict.fromkeys(truths, SIZES))
    if (why := PROTOCOLS[protocol].unfit(pool)) is not None:
        assert (protocol, what) == ("widerface", "no classes"), why
        return
    judged = PROTOCOLS[protocol](pool)
    expected = 0.0 if what == "no detections" else np.nan
    for key, value in judged.values().items():
        if is_average_precision(protocol, key[0]) and (what != "no detections" or judged.count(key)):
            if judged.absent_as_zero and value == 0:  # by that rule what is not there has AP 0
                continue
            np.testing.assert_equal(value, expected, err_msg=str(key))
    for draws in (3, 200):
        for value in judged.scores(multiplicities(len(truths), draws)).values():
            assert value.shape == (draws,)
    evaluate(truths, found, classes, (protocol,), sizes=dict.fromkeys(truths, SIZES))


@every
@quick
@given(SEEDS)
def test_weights_of_two_are_doubled_images(protocol: str, seed: int) -> None:
    """Without equal scores within an image, whose rows would else stand in another order than those of two images."""
    truths, found = random_set(protocol, seed)
    judged = judge(protocol, truths, found)
    doubled = judge(
        protocol, {i + k: t for i, t in truths.items() for k in (0, 1)},
        {i + k: f for i, f in found.items() for k in (0, 1)},
    ).values()  # fmt: skip
    few = judged.scores(np.full((1, len(truths)), 2))
    many = judged.scores(np.full((200, len(truths)), 2))
    for key, value in doubled.items():
        np.testing.assert_allclose(few[key], value, rtol=0, atol=1e-12, err_msg=str(key))
        np.testing.assert_allclose(many[key], np.full(200, value), rtol=0, atol=1e-12, err_msg=str(key))
