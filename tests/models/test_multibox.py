"""The multibox loss against a slow reference in plain Python, its extremes, and the head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from truths import truth

from onestage.boxes.coding import encode, to_corners
from onestage.boxes.matching import BACKGROUND, IGNORED, match_ssd
from onestage.errors import ModelError
from onestage.models.detector import Raw
from onestage.models.multibox import (
    MultiboxHead,
    MultiboxOptions,
    focal,
    generalised_iou,
    hardest_negatives,
    match_batch,
    multibox_decode,
    multibox_loss,
    softmax_ohem,
)

CLASSES = 4
PRIORS = torch.tensor([[x, y, s, s] for s in (16, 32) for y in range(8, 64, 8) for x in range(8, 64, 8)]).float()
LEVELS = [49, 49]
SOFTMAX = MultiboxOptions()
EVERY = [
    SOFTMAX,
    MultiboxOptions(class_loss="focal", box_loss="giou"),
    MultiboxOptions(box_loss="diou", bipartite="last"),
]


def raw_of(batch, options=SOFTMAX, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(batch, len(PRIORS), 4, generator=generator) * scale
    logits = torch.randn(batch, len(PRIORS), options.columns(CLASSES), generator=generator) * scale
    return Raw(offsets.requires_grad_(), logits.requires_grad_())


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(v - top) for v in row))
    return [v - total for v in row]


def slow_ohem(logits, match, labels, ratio=3, least=3):
    """One image, prior by prior: the words of the paper in plain Python."""
    log_p = [log_softmax(row) for row in logits.tolist()]
    positives = [p for p, t in enumerate(match) if t >= 0]
    negatives = sorted((p for p, t in enumerate(match) if t == BACKGROUND), key=lambda p: log_p[p][0])
    mined = negatives[: max(ratio * len(positives), least)]
    return -sum(log_p[p][labels[match[p]] + 1] for p in positives) - sum(log_p[p][0] for p in mined)


def slow_smooth_l1(offsets, match, boxes):
    total = 0.0
    for p, t in enumerate(match):
        if t >= 0:
            for a, b in zip(offsets[p].tolist(), encode(boxes[t], PRIORS[p]).tolist(), strict=True):
                d = abs(a - b)
                total += 0.5 * d * d if d < 1 else d - 0.5
    return total


side = st.integers(4, 40)
some_box = st.tuples(st.integers(0, 50), st.integers(0, 50), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
some_truth = st.lists(st.tuples(some_box, st.integers(0, CLASSES - 1), st.booleans()), max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(some_truth, min_size=1, max_size=3), st.integers(0, 1000))
def test_softmax_ohem_and_smooth_l1_equal_the_slow_reference(images, seed):
    truths = [
        truth(*[row[0] for row in rows], labels=[row[1] for row in rows], ignore=[row[2] for row in rows])
        for rows in images
    ]
    raw = raw_of(len(truths), seed=seed, scale=3.0)
    loss = multibox_loss(raw, truths, PRIORS, LEVELS, SOFTMAX)
    for image, one in enumerate(truths):
        match = match_ssd(one.boxes, to_corners(PRIORS), ignore=one.ignore).tolist()
        cls = slow_ohem(raw.logits[image].detach(), match, one.labels.tolist())
        box = slow_smooth_l1(raw.offsets[image].detach(), match, one.boxes)
        assert loss.parts["cls"][image].item() == pytest.approx(cls, rel=1e-4)
        assert loss.parts["box"][image].item() == pytest.approx(box, rel=1e-4, abs=1e-4)
        positives = [sum(t >= 0 for t in match[:49]), sum(t >= 0 for t in match[49:])]
        assert loss.positives[image].tolist() == positives
        assert loss.normaliser[image].item() == max(sum(positives), 1)


def test_chance_level_of_21_classes():
    # by hand: a uniform start gives (1 + 3) ln 21 = 12.18
    raw = Raw(torch.zeros(2, len(PRIORS), 4), torch.zeros(2, len(PRIORS), 21))
    truths = [truth((0, 0, 16, 16)), truth((8, 8, 40, 40), (30, 30, 60, 60))]
    loss = multibox_loss(raw, truths, PRIORS, LEVELS, SOFTMAX)
    assert (loss.parts["cls"].sum() / loss.normaliser.sum()).item() == pytest.approx(12.178, abs=1e-3)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_log_sum_exp_is_per_row(size):
    # One huge logit anywhere must neither give infinities nor flatten the other rows (a global maximum would).
    logits = torch.zeros(1, len(PRIORS), 5)
    logits[0, 0, 2] = size
    logits[0, 1] = -size
    logits = logits.requires_grad_()
    loss = multibox_loss(Raw(torch.zeros(1, len(PRIORS), 4), logits), [truth()], PRIORS, LEVELS, SOFTMAX)
    loss.total({}).backward()
    assert torch.isfinite(loss.parts["cls"]).all()
    assert torch.isfinite(logits.grad).all()
    hardest = max(size, 0) or math.log(5)
    assert loss.parts["cls"].item() == pytest.approx(hardest + 2 * math.log(5), rel=1e-5)


def test_mining_takes_the_hardest_of_each_image_alone():
    match = torch.tensor([[0, -1, -1, -1, -1, -1], [-1, -1, -1, -1, -1, -1], [0, 0, 0, -1, -2, -2]])
    hardness = torch.tensor([[9.0, 1, 2, 3, 4, 5], [1, 5, 3, 3, 0, 0], [1, 1, 1, 0, 9, 9]])
    mined = hardest_negatives(hardness, match, ratio=2, least=2)
    # positives and ignored are never mined; equal ones by index; never more than there are
    assert [row.nonzero().flatten().tolist() for row in mined] == [[4, 5], [1, 2], [3]]


def test_the_negatives_that_were_mined_are_counted_also_where_there_were_too_few():
    full = [(8.0 * x, 8.0 * y, 8.0 * x + 16, 8.0 * y + 16) for x in range(7) for y in range(7)]
    truths = [truth((0, 0, 16, 16)), truth(*full), truth(), truth((0, 0, 64, 64), ignore=[True])]
    options = MultiboxOptions(negatives=7)
    raw, match = raw_of(4, options), match_batch(truths, PRIORS, options)
    loss = multibox_loss(raw, truths, PRIORS, LEVELS, options)
    positives = loss.positives.sum(1)
    chosen = hardest_negatives(-torch.log_softmax(raw.logits, -1)[..., 0], match, 7, 3)
    assert loss.negatives.tolist() == chosen.sum(1).tolist()
    assert loss.negatives[0] == 7 * positives[0]
    assert loss.negatives[1] == (match[1] == BACKGROUND).sum() < 7 * positives[1]
    assert loss.negatives[2] == 3  # min_negatives
    focal_loss = multibox_loss(raw_of(4, EVERY[1]), truths, PRIORS, LEVELS, EVERY[1])
    assert focal_loss.negatives is None


@pytest.mark.parametrize("options", EVERY, ids=lambda o: f"{o.class_loss}-{o.box_loss}")
def test_no_positives_in_the_whole_batch(options):
    raw = raw_of(2, options)
    loss = multibox_loss(raw, [truth(), truth((100, 100, 120, 120))], PRIORS, LEVELS, options)
    assert loss.parts["box"].tolist() == [0, 0]
    assert loss.positives.sum() == 0
    total = loss.total({})
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(raw.logits.grad).all()
    assert (raw.logits.grad.flatten(1).abs().sum(1) > 0).all()
    assert raw.offsets.grad.abs().sum() == 0
    if options.class_loss == "softmax-ohem":
        # as on the scale of one positive: three negatives each, over one
        assert loss.normaliser.tolist() == [1, 1]
        assert (raw.logits.grad.abs().sum(-1) > 0).sum(1).tolist() == [3, 3]
        assert (raw.logits.grad[..., 0] <= 0).all()  # towards background


def test_a_wholly_ignored_image_gives_zero():
    raw = raw_of(1)
    loss = multibox_loss(raw, [truth((-100, -100, 200, 200), ignore=[True])], PRIORS, LEVELS, SOFTMAX)
    loss.total({}).backward()
    assert loss.parts["cls"].item() == 0
    assert raw.logits.grad.abs().sum() == 0


@pytest.mark.parametrize("options", EVERY, ids=lambda o: f"{o.class_loss}-{o.box_loss}")
def test_ignored_priors_have_no_gradient_and_descent_lowers_every_part(options):
    truths = [truth((0, 0, 16, 16), (40, 40, 64, 64), ignore=[False, True])]
    raw = raw_of(1, options)
    before = multibox_loss(raw, truths, PRIORS, LEVELS, options)
    before.total({}).backward()
    match = match_ssd(truths[0].boxes, to_corners(PRIORS), ignore=truths[0].ignore)
    assert (match == IGNORED).any()
    assert raw.logits.grad[0, match == IGNORED].abs().sum() == 0
    step = Raw(raw.offsets - 0.01 * raw.offsets.grad, raw.logits - 0.01 * raw.logits.grad)
    after = multibox_loss(step, truths, PRIORS, LEVELS, options)
    for name in ("cls", "box"):
        assert after.parts[name].sum() < before.parts[name].sum()


def test_focal_by_hand():
    options = MultiboxOptions(class_loss="focal", gamma=2.0, alpha=0.25)
    logits = torch.tensor([[[0.3, -1.2], [2.0, 0.0], [9.0, 9.0]]])
    labels, match = torch.tensor([[0, -1, -1]]), torch.tensor([[0, BACKGROUND, IGNORED]])
    p = torch.sigmoid(logits[0]).tolist()
    expected = -0.25 * (1 - p[0][0]) ** 2 * math.log(p[0][0])
    for wrong in (p[0][1], p[1][0], p[1][1]):
        expected -= 0.75 * wrong**2 * math.log(1 - wrong)
    assert focal(logits, labels, match, options).sum().item() == pytest.approx(expected, rel=1e-5)
    for gamma in (0.0, 0.5, 2.0):  # below 1 the slope of 0**gamma is infinite
        extreme = torch.tensor([[[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]]], requires_grad=True)
        focal(extreme, labels, match, replace(options, gamma=gamma)).sum().backward()
        assert torch.isfinite(extreme.grad).all()


def batch_and_truths(options, seed):
    return raw_of(2, options, seed, scale=3.0), [truth((0, 0, 16, 16), (20, 20, 52, 52)), truth((30, 8, 46, 24))]


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.5, 0.9])
def test_smoothing_is_that_of_torchs_cross_entropy(smoothing):
    options = MultiboxOptions(label_smoothing=smoothing)
    raw, truths = batch_and_truths(options, seed=3)
    match = match_batch(truths, PRIORS, options)
    for image, one in enumerate(truths):
        log_p = torch.log_softmax(raw.logits[image], -1)
        mined = hardest_negatives(-log_p[None, :, 0], match[image : image + 1], 3, 3)[0]  # ranked without smoothing
        positive = match[image] >= 0
        column = torch.where(positive, one.labels[match[image].clamp(min=0)] + 1, 0)
        theirs = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="sum")
        expected = theirs(raw.logits[image][positive | mined], column[positive | mined])
        loss = multibox_loss(raw, truths, PRIORS, LEVELS, options)
        torch.testing.assert_close(loss.parts["cls"][image], expected, rtol=1e-5, atol=1e-5)


def test_smoothing_changes_what_is_learnt_not_what_is_mined():
    plain, smooth = MultiboxOptions(), MultiboxOptions(label_smoothing=0.3)
    raw, truths = batch_and_truths(plain, seed=5)
    reached = []
    for options in (plain, smooth):
        raw.logits.grad = None
        multibox_loss(raw, truths, PRIORS, LEVELS, options).parts["cls"].sum().backward()
        reached.append(raw.logits.grad.abs().sum(-1) > 0)
    assert torch.equal(*reached)


@pytest.mark.parametrize("kind", ["softmax-ohem", "focal"])
def test_no_smoothing_is_bit_for_bit_the_loss_without(kind):
    options = MultiboxOptions(class_loss=kind)
    raw, truths = batch_and_truths(options, seed=7)
    match = match_batch(truths, PRIORS, options)
    labels = torch.where(
        match >= 0, torch.stack([t.labels[m.clamp(min=0)] for t, m in zip(truths, match, strict=True)]), -1
    )
    logits = raw.logits
    if kind == "focal":
        target = torch.nn.functional.one_hot(labels + 1, CLASSES + 1)[..., 1:].float()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        p = torch.sigmoid(logits)
        weight = (0.25 * target + 0.75 * (1 - target)) * (p + target - 2 * p * target) ** 2.0
        expected = torch.where(match != IGNORED, (weight * entropy).sum(-1), 0).sum(1)
    else:
        log_p = torch.log_softmax(logits, -1)
        chosen = (match >= 0) | hardest_negatives(-log_p[..., 0], match, 3, 3)
        expected = torch.where(chosen, -log_p.gather(-1, (labels + 1)[..., None]).squeeze(-1), 0).sum(1)
    loss = multibox_loss(raw, truths, PRIORS, LEVELS, MultiboxOptions(class_loss=kind, label_smoothing=0))
    assert torch.equal(loss.parts["cls"], expected)


def test_focal_with_smoothing_by_hand():
    options = MultiboxOptions(class_loss="focal", label_smoothing=0.2)
    logits = torch.tensor([[[0.3, -1.2], [2.0, 0.0], [9.0, 9.0]]])
    labels, match = torch.tensor([[0, -1, -1]]), torch.tensor([[0, BACKGROUND, IGNORED]])
    expected = 0.0
    for value, t in ((0.3, 0.9), (-1.2, 0.1), (2.0, 0.1), (0.0, 0.1)):  # (1 - e) t + e / 2
        p = 1 / (1 + math.exp(-value))
        entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
        weight = (0.25 * t + 0.75 * (1 - t)) * (1 - p * t - (1 - p) * (1 - t)) ** 2
        expected += weight * entropy
    assert focal(logits, labels, match, options).sum().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["softmax-ohem", "focal"])
def test_smoothing_keeps_scores_off_the_ends(kind):
    """Descent on the logits of two priors ends where the soft labels are, and not at 0 or 1."""
    options = MultiboxOptions(class_loss=kind, label_smoothing=0.2)
    logits = torch.zeros(1, 2, options.columns(2), requires_grad=True)
    labels, match = torch.tensor([[1, -1]]), torch.tensor([[0, BACKGROUND]])
    loss_of = focal if kind == "focal" else softmax_ohem
    for _ in range(1500):
        (gradient,) = torch.autograd.grad(loss_of(logits, labels, match, options).sum(), logits)
        logits = (logits - 2.0 * gradient).detach().requires_grad_()
    _, scores = multibox_decode(Raw(torch.zeros(1, 2, 4), logits.detach()), torch.ones(2, 4), kind)
    if kind == "softmax-ohem":  # e / 3 for each of the three columns, 0.8 more for the right one
        torch.testing.assert_close(
            scores[0], torch.tensor([[0.2 / 3, 0.8 + 0.2 / 3], [0.2 / 3, 0.2 / 3]]), atol=1e-3, rtol=0
        )
    else:
        # the least of (p + t - 2 p t)^2 BCE(p, t) at t = 0.1, on a grid: 0.01375; for objects 1 - 0.01375
        assert 0.0137 < scores[0, 1].min() <= scores[0, 1].max() < 0.02
        assert 0.97 < scores[0, 0, 1] < 0.9863


def test_generalised_iou_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]], requires_grad=True)
    b = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2], [1, 1, 1, 1]])
    giou = generalised_iou(a, b)
    # same; half shifted: 1/3 and hull full; apart by one width: 0 - 4/12; two points: finite
    torch.testing.assert_close(giou[:3].detach(), torch.tensor([1.0, 1 / 3, -1 / 3]), rtol=0, atol=1e-5)
    diou = generalised_iou(a, b, "diou")
    torch.testing.assert_close(diou[:3].detach(), torch.tensor([1.0, 1 / 3 - 1 / 13, -16 / 40]), rtol=0, atol=1e-5)
    (giou.sum() + diou.sum()).backward()
    assert torch.isfinite(a.grad).all()


def test_bfloat16_raw_is_summed_in_float32():
    raw = raw_of(1)
    half = Raw(raw.offsets.bfloat16(), raw.logits.bfloat16())
    truths = [truth((0, 0, 16, 16))]
    with torch.autocast("cpu", torch.bfloat16):
        loss = multibox_loss(half, truths, PRIORS, LEVELS, SOFTMAX)
        _, scores = multibox_decode(half, PRIORS, "softmax-ohem")
    assert {part.dtype for part in loss.parts.values()} == {torch.float32}
    assert scores.dtype == torch.float32
    exact = multibox_loss(Raw(half.offsets.float(), half.logits.float()), truths, PRIORS, LEVELS, SOFTMAX)
    torch.testing.assert_close(loss.parts["cls"], exact.parts["cls"])


def test_scores_leave_background_out():
    raw = raw_of(2)
    boxes, scores = multibox_decode(raw, PRIORS, "softmax-ohem")
    assert boxes.shape == (2, 98, 4)
    assert scores.shape == (2, 98, CLASSES)
    torch.testing.assert_close(scores.sum(-1), 1 - torch.softmax(raw.logits, -1)[..., 0])


def test_head_answers_in_the_order_of_the_priors():
    head = MultiboxHead([1, 1], [2, 1], columns=3)
    with torch.no_grad():
        for conv in [*head.cls_headers, *head.reg_headers]:
            conv.weight.zero_()
        # only the centre tap passes: the answer of a cell is its own value times 1 + the output channel
        for conv in head.cls_headers:
            conv.weight[:, 0, 1, 1] = torch.arange(conv.out_channels) + 1.0
        maps = [torch.arange(6.0).view(1, 1, 2, 3), torch.tensor([[[[10.0]]]])]
        logits = head(maps).logits
    expected = [[cell * (a * 3 + k + 1) for k in range(3)] for cell in range(6) for a in range(2)]
    expected.append([10.0 * (k + 1) for k in range(3)])
    torch.testing.assert_close(logits[0], torch.tensor(expected))


def test_head_starts_with_bias_zero_or_under_focal_at_a_score_of_one_percent():
    head = MultiboxHead([8, 8], [2, 2], columns=3)
    assert all(conv.bias.abs().sum() == 0 for conv in [*head.cls_headers, *head.reg_headers])
    bound = math.sqrt(6 / (9 * 8 + 9 * 6))  # Glorot & Bengio 2010
    assert 0.9 * bound < head.cls_headers[0].weight.abs().max() <= bound
    assert SOFTMAX.start_bias() is None
    bias = MultiboxOptions(class_loss="focal").start_bias()
    head = MultiboxHead([8, 8], [2, 2], columns=3, separable=True, start_bias=bias)
    assert isinstance(head.cls_headers[0], nn.Sequential)
    assert isinstance(head.cls_headers[1], nn.Conv2d)
    for conv in (head.cls_headers[0][-1], head.cls_headers[1]):
        torch.testing.assert_close(torch.sigmoid(conv.bias), torch.full((6,), 0.01))
    assert all(isinstance(h, nn.Sequential) for h in MultiboxHead([8], [2], 3, True, plain_last=False).cls_headers)


def test_options_name_the_nearest_word():
    assert MultiboxOptions.of({"threshold": 0.4}).threshold == 0.4
    with pytest.raises(ModelError, match=r"treshold.*did you mean 'threshold'"):
        MultiboxOptions.of({"treshold": 0.4, "gama": 1})
    with pytest.raises(ModelError, match="class_loss: expected one of softmax-ohem, focal, got 'softmax'") as caught:
        MultiboxOptions(class_loss="softmax", box_loss="l2")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"threshold": "abc"}, "threshold: expected a number"), ({"threshold": 7}, "threshold: expected 0 to 1"),
        ({"negatives": 2.5}, "negatives: expected a whole number"), ({"min_negatives": -1}, "min_negatives"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected less than 1"),
        ({"label_smoothing": -0.1}, "label_smoothing: expected 0 to 1"),
        ({"gamma": float("nan")}, "gamma"), ({"alpha": True}, "alpha: expected a number"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(values, said):
    with pytest.raises(ModelError, match="cannot be built") as caught:
        MultiboxOptions.of(values)
    assert said in str(caught.value)
