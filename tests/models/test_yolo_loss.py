"""What holds for the losses of YOLO whatever heads say: sums, cuts, orders, derivatives, borders, regions to ignore."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from truths import truth
from yolo_toys import CLASSES, built, region_cfg, said, yolo_cfg

from onestage.boxes.matching import BACKGROUND, IGNORED, pairwise_iou
from onestage.errors import ModelError
from onestage.models.darknet.losses import overlaps
from onestage.models.darknet.losses.head_weights import HeadWeights
from onestage.models.darknet.losses.overlaps import agreement, best_overlap, covered, paired_iou
from onestage.models.darknet.losses.parts import smoothed
from onestage.models.darknet.losses.yolo_loss import (
    head_weights,
    yolo_counts,
    yolo_loss,
    yolo_match,
    yolo_prior_losses,
    yolo_terms,
)
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Raw, Truth

NETWORK, AT = built(yolo_cfg(((3, 4, 5), (1, 2, 3)), more="scale_x_y=1.1\n"))
REGION, FLAT = built(region_cfg(1, 1))
WEIGHTS = (HeadWeights(0.5, 2.0, 0.25, 1.5), HeadWeights(1.0, 1.0, 3.0, 0.5, True))
EVERY = {
    "darknet": YoloOptions(ignore=0.3),
    "darknet truth": YoloOptions(ignore=0.2, truth=0.3, also=0.4),
    "darknet ciou": YoloOptions(ignore=0.3, box="ciou", label_smoothing=0.1),
    "ratio": YoloOptions(loss="ratio", label_smoothing=0.1),
    "per-scale": YoloOptions(loss="per-scale", ignore=0.3),
}
LOSSES = ("darknet", "ratio", "per-scale")
every = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
counts = st.lists(st.integers(0, 9), min_size=1, max_size=4)
seeds = st.integers(0, 10_000)


def scene(amounts, seed, regions=True):
    """What AT's heads say, and truths of which some are regions to ignore."""
    raw, truths = said(AT, amounts, seed)
    if regions:
        truths = [one._replace(ignore=torch.arange(len(one.boxes)) % 4 == 3) for one in truths]
    return raw, truths


def quiet(at=AT, images=1, logit=-2.0):
    return Raw(torch.zeros(images, at.count, 4), torch.full((images, at.count, 1 + CLASSES), logit))


def sums(loss):
    return {name: float(part.detach().sum()) for name, part in loss.parts.items()}


@every
@settings(max_examples=8)
@given(counts, seeds)
def test_losses_of_boxes_add_up_to_those_of_images_and_are_none_but_of_claimed_boxes(options, amounts, seed):
    raw, truths = scene(amounts, seed)
    loss = yolo_loss(raw, truths, AT, options, WEIGHTS)
    boxes = yolo_prior_losses(raw, truths, AT, options, WEIGHTS)
    match = yolo_match(truths, AT, options)
    assert set(boxes) == set(loss.parts)
    for name, part in boxes.items():
        assert part.shape == match.shape
        assert bool(torch.isfinite(part).all())
        torch.testing.assert_close(part.sum(1), loss.parts[name], rtol=1e-5, atol=1e-4)
    if options.truth >= 1:
        assert bool((boxes["box"][match < 0] == 0).all())
        assert bool((boxes["cls"][match < 0] == 0).all())
        levels = torch.stack([(match >= 0)[:, level.first : level.last].sum(1) for level in AT.levels], 1)
        assert torch.equal(loss.positives, levels)
    silent = boxes["obj"] + boxes.get("noobj", 0)
    assert bool((silent[match == IGNORED] == 0).all()) or options.truth < 1
    assert loss.scales.shape == (len(amounts), 2, 8)
    assert torch.equal(loss.normaliser, torch.ones(len(amounts)))
    assert all(bool(torch.isfinite(value).all()) and value.shape == (len(amounts),) for value in loss.sums.values())


@every
@settings(max_examples=8)
@given(counts, seeds, st.data())
def test_micro_batches_however_cut_add_up_to_the_whole_batch(options, amounts, seed, data):
    raw, truths = scene(amounts, seed)
    cut = data.draw(st.integers(0, len(amounts)))
    whole = yolo_counts(truths, AT, options)
    pieces = [slice(first, last) for first, last in ((0, cut), (cut, None)) if len(amounts[first:last])]
    parts = [
        yolo_loss(Raw(raw.offsets[one], raw.logits[one]), truths[one], AT, options, WEIGHTS, whole) for one in pieces
    ]
    together = sums(yolo_loss(raw, truths, AT, options, WEIGHTS))
    added = {name: sum(sums(part)[name] for part in parts) for name in together}
    assert added == pytest.approx(together, rel=1e-4, abs=1e-4)
    if whole is not None:
        assert torch.equal(whole, sum(yolo_counts(truths[one], AT, options) for one in pieces))
        assert whole[-1] == len(amounts)
        assert whole.dtype == torch.int64


@every
@settings(max_examples=8)
@given(st.integers(2, 9), seeds)
def test_the_order_of_truths_matters_only_where_two_share_a_box(options, count, seed):
    raw, truths = scene([count], seed, regions=False)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    turned = [Truth(*(column[order] for column in truths[0]))]
    shared = torch.zeros(1, AT.count, dtype=torch.long)
    for i in range(count):  # in the order of the list, one truth at a time
        shared += yolo_match([Truth(*(column[i : i + 1] for column in truths[0]))], AT, options) >= 0
    alone = shared < 2
    before, after = (yolo_prior_losses(raw, one, AT, options, WEIGHTS) for one in (truths, turned))
    for name in before:
        a, b = before[name], after[name]
        if options.loss == "darknet":
            a, b = a[alone], b[alone]
        elif not bool(alone.all()):
            continue
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("box", ["mse", "iou", "giou", "diou"])
@pytest.mark.parametrize("at", [AT, FLAT], ids=["yolo", "region"])
def test_the_gradient_of_darknet_is_the_derivative_of_its_loss(box, at):
    raw, truths = said(at, (3, 1), 4)
    options = YoloOptions(ignore=0.99, box=box, label_smoothing=0.05)
    heads = WEIGHTS if at is AT else head_weights(REGION)
    heads = tuple(HeadWeights(one.box, one.obj, one.noobj, one.cls) for one in heads)
    check_derivative(raw, truths, lambda r: sum(yolo_loss(r, truths, at, options, heads).parts.values()).sum())


@pytest.mark.parametrize(("loss", "names"), [("per-scale", ("box", "obj", "noobj", "cls")), ("ratio", ("cls",))])
def test_the_gradient_of_the_means_is_their_derivative(loss, names):
    raw, truths = said(AT, (3, 1), 4)
    options = YoloOptions(loss=loss, ignore=0.5)

    def of(one):
        parts = yolo_loss(one, truths, AT, options).parts
        return sum(parts[name].sum() for name in names)

    check_derivative(raw, truths, of)


def check_derivative(raw, truths, of):
    """Central differences in float64 at boxes that answer for a truth, and some others."""
    leaves = Raw(raw.offsets.double().requires_grad_(), raw.logits.double().requires_grad_())
    found = torch.autograd.grad(of(leaves), list(leaves), materialize_grads=True)
    step = 1e-6
    some = torch.nonzero(torch.cat(found, 2).abs().amax(2) > 1e-9)
    for image, prior in some[:: max(len(some) // 5, 1)].tolist():
        for column in range(5 + CLASSES):
            values = []
            for sign in (-1, 1):
                moved = Raw(raw.offsets.double().clone(), raw.logits.double().clone())
                part, at = (moved.offsets, column) if column < 4 else (moved.logits, column - 4)
                part[image, prior, at] += sign * step
                values.append(float(of(moved)))
            slope = found[0][image, prior, column] if column < 4 else found[1][image, prior, column - 4]
            assert (values[1] - values[0]) / (2 * step) == pytest.approx(float(slope), rel=1e-4, abs=1e-6)


@settings(max_examples=25)
@given(seeds)
def test_ciou_falls_by_its_derivative_with_the_weight_of_the_shape_held(seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(6, 2, 2, generator=generator, dtype=torch.float64) * 40
    side = torch.rand(6, 2, 2, generator=generator, dtype=torch.float64) * 30 + 5
    a, b = torch.cat([corner, corner + side], 2).unbind(1)
    leaf = a.clone().requires_grad_()
    (found,) = torch.autograd.grad(agreement(leaf, b, "ciou").sum(), leaf)

    def shape(boxes):
        w, h = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
        return 4 / math.pi**2 * (torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) - torch.atan(w / h)) ** 2

    alpha = shape(a) / (1 - paired_iou(a, b) + shape(a))
    torch.testing.assert_close(agreement(a, b, "ciou"), agreement(a, b, "diou") - alpha * shape(a))
    for column in range(4):
        moved = torch.zeros_like(a)
        moved[:, column] = 1e-6
        high, low = (agreement(x, b, "diou") - alpha * shape(x) for x in (a + moved, a - moved))
        torch.testing.assert_close((high - low) / 2e-6, found[:, column], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_an_equal_box_agrees_wholly_and_an_empty_one_is_finite(kind):
    boxes = torch.tensor([[3.0, 4, 20, 9], [3, 4, 3, 4], [0, 0, 1e6, 1e6]]).requires_grad_()
    wanted = torch.tensor([[3.0, 4, 20, 9], [3, 4, 3, 4], [5, 5, 6, 6]])
    found = agreement(boxes, wanted, kind)
    assert float(found[0].detach()) == pytest.approx(1, abs=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), boxes)
    assert bool(torch.isfinite(found).all())
    assert bool(torch.isfinite(gradient).all())


@every
@pytest.mark.parametrize("size", [100.0, -100.0, 1e4, -1e4])
def test_extreme_predictions_and_odd_truths_give_finite_losses_and_gradients(options, size):
    odd = truth(
        (90, 60, 102, 68), (96, 64, 96, 64), (-40, -30, -20, -10), (20, 20, 20, 40), (5, 5, 5, 5), (0, 0, 96, 64),
        (300, 300, 400, 400), (30, 10, 20, 5),
    )  # fmt: skip
    for sign in (1, -1):
        for at, heads in ((AT, WEIGHTS), (FLAT, head_weights(REGION))):
            offsets = torch.full((2, at.count, 4), size)
            offsets[..., 1::2] *= sign
            leaves = Raw(offsets.requires_grad_(), torch.full((2, at.count, 1 + CLASSES), size).requires_grad_())
            loss = yolo_loss(leaves, [odd, truth()], at, options, heads)
            sum(part.sum() for part in loss.parts.values()).backward()
            assert all(math.isfinite(value) for value in sums(loss).values())
            assert all(bool((part >= 0).all()) for part in loss.parts.values())
            assert bool(torch.isfinite(leaves.offsets.grad).all())
            assert bool(torch.isfinite(leaves.logits.grad).all())
            assert bool(torch.isfinite(loss.scales).all())
            assert all(bool(torch.isfinite(value).all()) for value in loss.sums.values())


@every
def test_half_precision_of_the_network_is_no_matter(options):
    raw, truths = scene((3, 2), 8)
    coarse = Raw(raw.offsets.bfloat16(), raw.logits.bfloat16())
    fine = yolo_loss(Raw(coarse.offsets.float(), coarse.logits.float()), truths, AT, options, WEIGHTS)
    assert sums(yolo_loss(coarse, truths, AT, options, WEIGHTS)) == sums(fine)


@every
def test_images_without_truths_learn_background_alone_and_means_over_nothing_are_none(options):
    raw, truths = scene((0, 0), 3)
    loss = yolo_loss(raw, truths, AT, options)
    assert loss.positives.sum() == 0
    assert sums(loss)["box"] == sums(loss)["cls"] == 0
    background = torch.nn.functional.softplus(raw.logits[..., 0])
    found = sum(sums(loss)[name] for name in ("obj", "noobj") if name in loss.parts)
    if options.loss == "darknet":
        assert found == pytest.approx(float(background.sum()), rel=1e-5)
        assert sums(loss)["obj"] == found
    else:
        means = [float(background[:, level.first : level.last].mean()) for level in AT.levels]
        assert found / 2 == pytest.approx(sum(means), rel=1e-5)
    assert all(float(value.sum()) == 0 for name, value in loss.sums.items() if name != "cost")


@pytest.mark.parametrize("loss", LOSSES)
def test_regions_to_ignore_silence_what_they_cover_and_claim_nothing(loss):
    options = YoloOptions(loss=loss, ignore=0.99)
    region, thing = (0.0, 0, 50, 64), (60.0, 10, 80, 30)
    truths = [truth(region, thing, ignore=[True, False])]
    match = yolo_match(truths, AT, options)[0]
    inside = pairwise_iou(AT.priors, torch.tensor([region])) > 0
    area = (AT.priors[:, 2:] - AT.priors[:, :2]).prod(1)
    low = torch.maximum(AT.priors[:, :2], torch.tensor(region[:2]))
    shared = (torch.minimum(AT.priors[:, 2:], torch.tensor(region[2:])) - low).clamp(min=0).prod(1)
    expected = (shared >= 0.5 * area) & inside[:, 0] & (match < 0)
    assert torch.equal(match == IGNORED, expected)
    assert bool((match == IGNORED).any())
    assert bool((match == BACKGROUND).any())
    assert set(match[match >= 0].tolist()) == {1}
    boxes = yolo_prior_losses(quiet(), truths, AT, options)
    silent = (boxes["obj"] + boxes.get("noobj", 0))[0] == 0
    assert bool(silent[expected].all())
    none = yolo_loss(quiet(), [truth(region, ignore=[True])], AT, options)
    assert none.positives.sum() == 0
    assert float(none.sums["unanswered"].sum()) == 0


def test_a_prediction_within_a_region_to_ignore_is_left_alone_by_darknet_wherever_its_anchor_is():
    truths, raw = [truth((0, 0, 20, 20), ignore=[True])], quiet()
    assert yolo_match(truths, AT, YoloOptions())[0, 0] == BACKGROUND  # the anchor 30x40 about (16, 16) juts out
    assert yolo_prior_losses(raw, truths, AT, YoloOptions())["obj"][0, 0] > 0
    raw.offsets[0, 0] = torch.tensor([0.0, 0, -9, -9])  # a dot at (16, 16)
    assert yolo_prior_losses(raw, truths, AT, YoloOptions())["obj"][0, 0] == 0
    far = int(torch.nonzero(yolo_match(truths, AT, YoloOptions())[0] == BACKGROUND)[-1])
    assert yolo_prior_losses(raw, truths, AT, YoloOptions(near=0.0))["obj"][0, far] > 0  # touches it nowhere


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("region", [(3.0, 3, 9, 10), (40.0, 20, 49, 26), (50.0, 3, 80, 18)])
def test_boxes_that_would_answer_for_a_region_were_it_an_object_are_left_alone(loss, region):
    """Small regions, and objects that a tile cuts, cover less than half of the very anchors that fit them."""
    options = YoloOptions(loss=loss)
    would = yolo_match([truth(region)], AT, options)[0] >= 0
    match = yolo_match([truth(region, ignore=[True])], AT, options)[0]
    assert bool(would.any()) or loss == "darknet"  # whose best anchor for the smaller ones no head has
    assert bool((match[would] == IGNORED).all())
    boxes = yolo_prior_losses(quiet(), [truth(region, ignore=[True])], AT, options)
    assert float((boxes["obj"] + boxes.get("noobj", 0))[0, would].abs().sum()) == 0
    beside = yolo_match([truth(region, region, ignore=[True, False])], AT, options)[0]  # the object keeps its boxes
    assert torch.equal(beside >= 0, would)


@pytest.mark.parametrize("loss", LOSSES)
def test_truths_beyond_most_are_background_and_counted(loss):
    raw, truths = scene((9, 2), 5)
    some = [Truth(*(column[torch.nonzero(_first(one, 3)).flatten()] for column in one)) for one in truths]
    options = YoloOptions(loss=loss, ignore=0.2, most=3)
    capped, plain = (yolo_loss(raw, one, AT, options) for one in (truths, some))
    assert sums(capped) == pytest.approx(sums(plain), rel=1e-6)
    counting = [int((~one.ignore).sum()) for one in truths]
    assert capped.sums["capped"].tolist() == [max(count - 3, 0) for count in counting] != [0, 0]


def _first(one, most):
    return one.ignore | ((~one.ignore).cumsum(0) <= most)


def test_a_truth_belongs_to_the_cell_of_its_centre_and_at_the_border_to_the_last():
    for box, column, row in (((80, 50, 112, 78), 2, 1), ((-10, -10, 2, 2), 0, 0), ((33, 33, 61, 61), 1, 1)):
        match = yolo_match([truth(box)], AT, YoloOptions(loss="per-scale"))[0]
        prior = int(torch.nonzero(match[: AT.levels[0].last] == 0)[0])
        assert AT.cells[prior].tolist() == [32 * column, 32 * row]
    loss = yolo_loss(quiet(), [truth((-9, -10, -1, 0), (90, 30, 98, 40))], AT, YoloOptions())
    assert float(loss.sums["unanswered"]) == 2
    assert loss.positives.sum() == 0


def test_a_centre_beyond_the_border_is_learnt_as_the_border():
    raw = quiet()
    leaves = Raw(raw.offsets.requires_grad_(), raw.logits)
    beyond = truth((-60, -50, 0, -20))
    yolo_loss(leaves, [beyond], AT, YoloOptions()).parts["box"].sum().backward()
    prior = int(torch.nonzero(yolo_match([beyond], AT, YoloOptions())[0] == 0)[0])
    weight = 2 - 60 * 30 / (96 * 64)
    assert leaves.offsets.grad[0, prior, :2].tolist() == pytest.approx([weight * (1.1 * 0.5 - 0.05)] * 2)


def test_smoothing_lifts_the_other_classes():
    wanted = torch.tensor([[0.0, 1, 0, 0], [0, 1, 0, 0]])
    soft = smoothed(wanted, 0.1, torch.tensor([False, True]))
    assert soft[0].tolist() == pytest.approx([0.05, 0.95, 0.05, 0.05])
    assert soft[1].tolist() == pytest.approx([0.025, 0.925, 0.025, 0.025])
    assert smoothed(wanted, 0.0, torch.tensor([False, True])) is wanted


def test_darknet_trains_every_head_that_has_the_best_anchor_and_no_other():
    match = yolo_match([truth((20, 20, 50, 60))], AT, YoloOptions())[0]  # the shape of anchor 3, which both heads have
    found = torch.nonzero(match == 0).flatten()
    assert AT.sides[found].tolist() == [[30, 40], [30, 40]]
    assert AT.level[found].tolist() == [0, 1]
    one = yolo_match([truth((20, 20, 80, 50))], AT, YoloOptions())[0]
    assert AT.sides[torch.nonzero(one == 0).flatten()].tolist() == [[60, 30]]


def test_the_last_truth_has_the_box_and_all_have_their_class():
    twice = truth((20, 20, 80, 50), (21, 19, 79, 51), labels=[1, 4])
    options = YoloOptions(ignore=0.99)
    match = yolo_match([twice], AT, options)[0]
    prior = int(torch.nonzero(match >= 0))
    assert match[prior] == 1
    raw = quiet()
    loss = yolo_loss(raw, [twice], AT, options)
    assert loss.sums["rewritten"].tolist() == [1]
    assert loss.scales[0, 0, 0] == 2
    wanted = torch.tensor([0.0, 1, 0, 0, 1])
    cls = torch.nn.functional.binary_cross_entropy_with_logits(raw.logits[0, prior, 1:], wanted, reduction="sum")
    assert sums(loss)["cls"] == pytest.approx(float(cls))
    last = Truth(*(column[1:] for column in twice))
    assert sums(loss)["box"] == pytest.approx(sums(yolo_loss(raw, [last], AT, options))["box"])


def test_ratio_lets_every_like_anchor_answer_and_names_truths_that_none_does():
    options = YoloOptions(loss="ratio", ratio=2.0)
    match = yolo_match([truth((20, 20, 40, 38), (0, 0, 95, 4))], AT, options)[0]
    found = torch.nonzero(match == 0).flatten()
    assert AT.sides[found].tolist() == [[12, 20], [20, 14]]  # of six anchors; 30x40 is over twice as high
    assert AT.cells[found].tolist() == [[16, 16], [16, 16]]
    loss = yolo_loss(quiet(), [truth((20, 20, 40, 38), (0, 0, 95, 4))], AT, options)
    assert float(loss.sums["unanswered"]) == 1


@pytest.mark.parametrize("loss", ["ratio", "per-scale"])
def test_means_are_taken_over_the_boxes_that_learn_and_counts_say_how_many(loss):
    options = YoloOptions(loss=loss, ignore=0.99)
    truths = [truth((0, 0, 50, 64), (60, 10, 80, 30), ignore=[True, False]), truth()]
    match = yolo_match(truths, AT, options)
    given, others, images = torch.tensor_split(yolo_counts(truths, AT, options), [2, 4])
    for i, level in enumerate(AT.levels):
        part = match[:, level.first : level.last]
        assert given[i] == (part >= 0).sum() > 0
        assert others[i] == ((part != IGNORED) if loss == "ratio" else (part == BACKGROUND)).sum()
    assert images.tolist() == [2]
    raw, name = quiet(images=2), "obj" if loss == "ratio" else "noobj"
    part = yolo_prior_losses(raw, truths, AT, options)[name]
    for i, level in enumerate(AT.levels):
        background = match[:, level.first : level.last] == BACKGROUND
        each = part[:, level.first : level.last][background]
        assert each.tolist() == pytest.approx([2 * math.log1p(math.exp(-2)) / int(others[i])] * len(each))


def test_per_scale_ignores_like_anchors_at_the_cell_of_the_truth_alone():
    options = YoloOptions(loss="per-scale", ignore=0.2)
    match = yolo_match([truth((20, 20, 52, 60))], AT, options)[0]
    for level in AT.levels:
        part = match[level.first : level.last]
        assert int((part == 0).sum()) == 1
        assert int((part == IGNORED).sum()) <= 2
    ignored = torch.nonzero(match == IGNORED).flatten()
    assert len(ignored) > 0
    assert all(AT.cells[prior].tolist() == [32, 32] for prior in ignored.tolist())


@settings(max_examples=30)
@given(seeds, st.integers(0, 40))
def test_overlaps_are_those_of_the_whole_matrix(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(300, 2, generator=generator) * 90
    boxes = torch.cat([corner, corner + torch.rand(300, 2, generator=generator) * 60], 1)
    truths = boxes.flip(0)[:count] + 1
    best, row = best_overlap(boxes, truths)
    if not count:
        assert not best.any()
        return
    whole = pairwise_iou(truths, boxes)
    torch.testing.assert_close(best, whole.max(0).values)
    torch.testing.assert_close(whole.gather(0, row[None])[0], best)
    low = torch.maximum(boxes[:, None, :2], truths[None, :, :2])
    shared = (torch.minimum(boxes[:, None, 2:], truths[None, :, 2:]) - low).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert torch.equal(covered(boxes, truths, 0.3), ((shared >= 0.3 * area[:, None]) & (shared > 0)).any(1))


def test_overlaps_in_pieces_are_those_at_once_and_of_equal_ones_the_first_counts(monkeypatch):
    boxes = AT.priors + torch.tensor([3.0, 1, -2, 4])
    truths = torch.cat([AT.priors[::3], AT.priors[::3], AT.priors[:40]])
    once, inside = best_overlap(boxes, truths), covered(boxes, truths[:5], 0.4)
    monkeypatch.setattr(overlaps, "_AT_ONCE", 2 * len(boxes))
    pieces = best_overlap(boxes, truths)
    assert torch.equal(once[0], pieces[0])
    assert torch.equal(once[1], pieces[1])
    assert torch.equal(inside, covered(boxes, truths[:5], 0.4))
    copies = len(AT.priors[::3])
    assert once[1].any()
    assert not ((once[1] >= copies) & (once[1] < 2 * copies)).any()
    quick = best_overlap(boxes, truths, rows=False)
    assert torch.equal(quick[0], once[0])
    assert not quick[1].any()


def test_the_weights_of_heads_are_read_from_the_cfg_and_weigh():
    network, at = built(yolo_cfg(more="iou_normalizer=0.07\nobj_normalizer=0.4\ncls_normalizer=2\n"))
    assert head_weights(network) == (HeadWeights(0.07, 0.4, 0.4, 2.0),) * 2
    raw, truths = said(at, (4, 3), 2)
    plain, weighed = (sums(yolo_loss(raw, truths, at, EVERY["darknet"], one)) for one in (None, head_weights(network)))
    assert weighed == pytest.approx({"box": 0.07 * plain["box"], "obj": 0.4 * plain["obj"], "cls": 2 * plain["cls"]})
    assert head_weights(REGION) == (HeadWeights(2.0, 5.0, 1.0, 1.5, True),)
    with pytest.raises(ModelError, match="iou_normalizer: expected a number, got 'much'"):
        head_weights(built(yolo_cfg(more="iou_normalizer=much\n"))[0])


@every
@settings(max_examples=5)
@given(seeds)
def test_terms_end_with_the_parts_of_the_box(options, seed):
    raw, truths = scene((4, 3), seed)
    boxes = yolo_prior_losses(raw, truths, AT, options, WEIGHTS)
    match = yolo_match(truths, AT, options)
    places = torch.nonzero(match >= 0)[:2].tolist() + torch.nonzero(match < 0)[:2].tolist()
    for image, prior in places:
        terms = yolo_terms(raw, truths, image, prior, AT, options, WEIGHTS)
        assert all(isinstance(value, float) for value in terms.values())
        found = {name: terms[name] for name in boxes}
        assert found == pytest.approx({name: float(part[image, prior]) for name, part in boxes.items()}, rel=1e-4)
        assert ("ln(w / anchor w)" in terms or "alpha v" in terms) == ("w" in terms) >= bool(match[image, prior] >= 0)


def test_terms_of_exclusive_classes_are_those_of_softmax():
    raw, thing = said(FLAT, (1,), 6)
    prior = int(torch.nonzero(yolo_match(thing, FLAT, YoloOptions())[0] == 0)[0])
    terms, label = yolo_terms(raw, thing, 0, prior, FLAT, YoloOptions(), head_weights(REGION)), int(thing[0].labels[0])
    expected = -float(torch.log_softmax(raw.logits[0, prior, 1:], 0)[label])
    assert terms[f"-ln p(class {label})"] == pytest.approx(expected, rel=1e-5)
    assert terms["cls"] == pytest.approx(1.5 * expected, rel=1e-5)


def test_terms_are_the_formulas_of_the_loss():
    raw, thing = quiet(), (20.0, 20, 80, 50)
    raw.offsets[0] = torch.tensor([0.3, -0.4, 0.2, 0.1])
    prior = int(torch.nonzero(yolo_match([truth(thing)], AT, YoloOptions())[0] == 0)[0])
    terms = yolo_terms(raw, [truth(thing)], 0, prior, AT, YoloOptions(), WEIGHTS)
    assert terms["(cx - cell x) / cell side"] == pytest.approx((50 - 32) / 32)
    assert terms["2 - w h / input"] == pytest.approx(2 - 60 * 30 / (96 * 64))
    squares = terms["(tw - ln(w / anchor w))^2 / 2"] + terms["(th - ln(h / anchor h))^2 / 2"]
    centres = sum(terms[f"-t ln p - (1 - t) ln(1 - p) of {axis}"] for axis in "xy")
    assert terms["box"] == pytest.approx(0.5 * terms["2 - w h / input"] * (squares + centres))
    assert terms["obj"] == pytest.approx(2 * terms["-t ln p - (1 - t) ln(1 - p) of objectness"])
    ratio = yolo_terms(raw, [truth(thing)], 0, prior, AT, YoloOptions(loss="ratio"))
    each = ratio["images"] / ratio["truths of the level"]
    assert ratio["box"] == pytest.approx(each * ratio["1 - CIoU"], rel=1e-5)
    entropy = ratio["-t ln p - (1 - t) ln(1 - p) of objectness"]
    assert ratio["obj"] == pytest.approx(entropy / ratio["boxes of the level"], rel=1e-5)


@pytest.mark.parametrize("loss", ["darknet", "per-scale"])
def test_terms_show_the_logarithm_of_a_side_of_nothing_which_the_loss_bounds(loss):
    flat, options = truth((30, 20, 30, 60)), YoloOptions(loss=loss)
    _, at = built(yolo_cfg())  # every anchor has a head: an empty shape is that of the first
    prior = int(torch.nonzero(yolo_match([flat], at, options)[0] == 0)[0])
    terms = yolo_terms(quiet(at), [flat], 0, prior, at, options)
    assert terms["ln(w / anchor w)"] == -math.inf
    assert math.isfinite(terms["ln(h / anchor h)"])
    assert math.isfinite(terms["box"])
    assert terms["w"] == 0
    raw = quiet(at)
    raw.offsets[0, prior, 2] = 1e4
    blown = yolo_terms(raw, [flat], 0, prior, at, YoloOptions(box="giou"))
    assert blown["exp(tw)"] == math.inf if loss == "darknet" else blown["tw"] == 1e4
