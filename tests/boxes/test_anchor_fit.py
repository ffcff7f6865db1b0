"""How anchors fit boxes, against loops; the interval against a bootstrap; what each verdict needs."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.boxes.anchor_fit import Heads, _gain, anchor_fit, refit
from onestage.boxes.clusters import shape_iou
from onestage.errors import DataError

COCO = (
    (10.0, 13.0), (16.0, 30.0), (33.0, 23.0), (30.0, 61.0), (62.0, 45.0), (59.0, 119.0), (116.0, 90.0),
    (156.0, 198.0), (373.0, 326.0),
)  # fmt: skip
YOLOV3 = Heads(COCO, ((6, 7, 8), (3, 4, 5), (0, 1, 2)), (32.0, 16.0, 8.0))
# Anchors of diary 004's cfg, in the order it has them.
RUBBISH = (
    (39.0, 30.0), (74.0, 69.0), (91.0, 199.0), (151.0, 354.0), (154.0, 107.0), (219.0, 223.0), (310.0, 381.0),
    (328.0, 146.0), (398.0, 272.0),
)  # fmt: skip
FOUR_TINY = Heads(
    ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
    ((3, 4, 5), (1, 2, 3)), (32.0, 16.0),
)  # fmt: skip


def boxes(count: int, middle: float, seed: int = 0, spread: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Sides about `middle` pixels and their images, ten to each, whose objects are alike in size."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(count // 10), 10)
    own = rng.normal(0, spread / 2, count // 10)[image, None]
    return np.exp(np.log(middle) + own + rng.normal(0, spread / 2, (count, 2))), image


def test_the_numbers_of_a_fit_by_hand() -> None:
    sides, _ = boxes(300, 25)
    ious, loads, fits, small = [], [0, 0, 0], 0, 0
    for w, h in sides:
        each = [min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in COCO]
        ious.append(max(each))
        loads[2 - each.index(max(each)) // 3] += 1
        fits += any(max(w / a, a / w, h / b, b / h) < 4 for a, b in COCO)
        small += w * h < 130
    found = anchor_fit(sides, YOLOV3)
    assert found.mean_iou == pytest.approx(np.mean(ious))
    assert found.recall == pytest.approx(np.mean(np.array(ious) >= 0.5))
    assert found.within == pytest.approx(fits / 300)
    assert found.below == pytest.approx(small / 300)
    assert found.load == pytest.approx([count / 300 for count in loads])
    assert found.unowned == 0
    assert anchor_fit(np.zeros((0, 2)), YOLOV3).load == (0.0, 0.0, 0.0)


def test_an_anchor_without_a_head_takes_boxes_and_answers_for_none() -> None:
    """yolov4-tiny's 10x14 is in no mask; 81x82 is in both."""
    assert FOUR_TINY.owner.tolist() == [-1, 1, 1, 0, 0, 0]
    found = anchor_fit(np.array([[10.0, 14.0], [23.0, 27.0], [80.0, 80.0], [300.0, 300.0]]), FOUR_TINY)
    assert (found.unowned, found.load) == (0.25, (0.5, 0.25))
    assert found.mean_iou < 0.9  # the first box by its best anchor of a head, 23x27
    assert found.below == 0.25


def test_which_heads_are_out_of_order() -> None:
    assert YOLOV3.unsorted == []
    assert FOUR_TINY.unsorted == []  # the shared anchor is no disorder
    assert Heads(RUBBISH, YOLOV3.masks, YOLOV3.strides).unsorted == [(2, 1), (1, 0)]
    assert Heads(COCO, ((0, 1, 2), (3, 4, 5), (6, 7, 8)), (32.0, 16.0, 8.0)).unsorted == [(2, 1), (1, 0)]


def test_made_anchors_are_sorted_over_the_heads_and_never_fit_worse() -> None:
    sides, image = boxes(2000, 60)
    found = refit(sides, image, Heads(RUBBISH, YOLOV3.masks, YOLOV3.strides))
    assert found.new.masks == YOLOV3.masks
    assert found.new.unsorted == []
    assert found.new_fit.mean_iou >= found.old_fit.mean_iou - 0.002  # they are rounded to a tenth
    assert found.gain.held_out
    assert found.as_dict()["new"]["anchors"] == [list(pair) for pair in found.new.anchors]


def test_a_count_of_its_own_is_dealt_out_anew() -> None:
    sides, image = boxes(500, 60)
    found = refit(sides, image, YOLOV3, "kmedians", count=10)
    assert found.new.counts == (3, 3, 4)
    assert found.new.masks == ((7, 8, 9), (4, 5, 6), (0, 1, 2, 3))
    assert refit(sides, image, FOUR_TINY).new.masks == ((3, 4, 5), (0, 1, 2))


def test_the_interval_is_that_of_a_bootstrap_over_images() -> None:
    """Images of 1 to 60 boxes, whose objects are alike: a plain mean over images would be another."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(200), rng.integers(1, 60, 200))
    sides = np.exp(4 + rng.normal(0, 0.6, 200)[image, None] + rng.normal(0, 0.3, (len(image), 2)))
    new = Heads(RUBBISH, YOLOV3.masks, YOLOV3.strides)
    difference = shape_iou(sides, new.sides).max(1) - shape_iou(sides, YOLOV3.sides).max(1) + 0.3
    found = _gain(difference, image, False)
    each = [difference[image == i] for i in range(200)]
    drawn = [np.concatenate([each[i] for i in rng.integers(0, 200, 200)]).mean() for _ in range(2000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert found.value == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_what_is_made_of_noise_gains_nothing_on_other_images() -> None:
    """Forty boxes: nine anchors fit them better than any others, but not the next forty."""
    sides, image = boxes(40, 60, seed=1)
    found = refit(sides, image, YOLOV3)
    assert found.new_fit.mean_iou - found.old_fit.mean_iou > 0.05
    assert found.gain.value < found.new_fit.mean_iou - found.old_fit.mean_iou - 0.03
    few = refit(sides[:12], image[:12], YOLOV3)
    assert not few.gain.held_out  # two images, of which one has too few boxes
    one = refit(sides[:10], image[:10], YOLOV3)
    assert (one.gain.low, one.gain.high, one.advice) == (-1.0, 1.0, "keep")
    with pytest.raises(DataError, match="9 anchors need"):
        refit(sides[:5], image[:5], YOLOV3)


def test_the_four_verdicts() -> None:
    again = refit(*boxes(3000, 70, spread=1.3), YOLOV3)
    assert again.advice == "keep"
    assert "no margin that matters" in again.verdict
    narrow = refit(*boxes(3000, 110, spread=0.35), YOLOV3)  # all of one size, which the usual anchors reach well
    assert (narrow.advice, narrow.cramped) == ("doubtful", [])
    assert "already reach 100.0 %" in narrow.verdict
    tiny = refit(*boxes(3000, 6), YOLOV3)  # as VisDrone's in an input of 416
    assert tiny.advice == "doubtful"
    assert 32.0 in [tiny.old.strides[head] for head in tiny.cramped]
    assert "larger size or tiles" in tiny.verdict
    rng = np.random.default_rng(0)
    long = np.stack([np.exp(rng.normal(5.3, 0.3, 3000)), np.exp(rng.normal(2.9, 0.3, 3000))], 1)  # ships, poles
    wide = refit(long, np.arange(3000) // 10, YOLOV3)
    assert wide.advice == "try"
    assert "worth a run beside" in wide.verdict
    kinds = FOUR_TINY.sides[rng.choice(6, 3000, p=[0.05, *[0.19] * 5])]  # one box in twenty fits what no head has
    orphans = refit(kinds * np.exp(rng.normal(0, 0.02, (3000, 2))), np.arange(3000) // 10, FOUR_TINY)
    assert orphans.new_fit.recall - orphans.old_fit.recall < 0.1
    assert orphans.advice == "try"
    assert "fit an anchor best that no head has" in orphans.verdict
    assert again.as_dict()["warning"] is None
    assert "no proof" in wide.as_dict()["warning"]
