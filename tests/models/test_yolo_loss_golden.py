"""The losses of YOLO against numbers that darknet's own C code and the two PyTorch programs gave for the same boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from yolo_toys import built, checksums, region_cfg, said, yolo_cfg

from onestage.models.darknet.losses.overlaps import paired_iou
from onestage.models.darknet.losses.yolo_loss import head_weights, yolo_loss, yolo_match
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import SCALE, Loss, Raw

# pjreddie/darknet f6afaabcdf85 (src/yolo_layer.c, src/region_layer.c), compiled for the CPU: what `forward_yolo_layer`
# gives, heads added. First the cost over the number of heads, then `checksums` of the deltas: tx, ty, tw, th,
# objectness, five classes.
PJREDDIE = {
    "each anchor in one head": (
        112.501, -5.43585, -0.0048883, -4.16971, 9.2387, -2.59308, -1.51356, 1.79098, 0.342746, 0.233819, -0.416171,
    ),
    "one anchor in two heads, one in none": (
        103.468, 0.700822, 0.477861, -5.4372, -3.16064, -1.5869, -0.774253, 2.19578, 3.42841, 0.0614404, 0.632199,
    ),
}  # fmt: skip
# The same with truth_thresh=.35, without tx and ty.
BEYOND_TRUTH = (-3.86489, 10.007, -1.14546, -1.83435, 0.699612, -0.368619, -0.826956, -0.784954)
# The lines it prints for the first case: Avg IOU, Class, Obj, No Obj, .5R, .75R, count.
PRINTED = [
    (0.367360, 0.545954, 0.557797, 0.456250, 0.285714, 0.000000, 7),
    (0.202487, 0.569949, 0.498001, 0.482825, 0.033333, 0.000000, 30),
]
# `forward_region_layer` with bias_match=1, softmax and rescore as in the key.
REGION = {
    (0, 0): (
        634.76, 0.537726, 2.69798, -8.85793, 4.68056, -1.67853, -0.0276211, 3.18839, 0.903931, 1.66643, -2.04784,
    ),
    (0, 1): (
        612.777, 0.537726, 2.69798, -8.85793, 4.68056, 0.173193, -0.0276211, 3.18839, 0.903931, 1.66643, -2.04784,
    ),
    (1, 0): (
        622.329, 0.537726, 2.69798, -8.85793, 4.68056, -1.67853, -1.66505, 2.13995, 0.911209, 0.38572, -1.77184,
    ),
    (1, 1): (
        600.345, 0.537726, 2.69798, -8.85793, 4.68056, 0.173193, -1.66505, 2.13995, 0.911209, 0.38572, -1.77184,
    ),
}  # fmt: skip
# AlexeyAB/darknet 59596d7880f6: iou_loss=mse, scale_x_y=1.05, iou_normalizer=.07, obj_normalizer=.4; the keys are
# iou_thresh and label_smooth_eps. Truths that share no box, all of whose classes are above 0.25 somewhere.
ALEXEYAB = {
    (1.0, 0.0): (
        18.8344, 0.102422, -0.0102706, 0.123928, -0.0757293, -0.497132, -0.0778535, 0.249269, 0.502385, 0.499448,
        -1.62264,
    ),
    (0.4, 0.0): (
        29.4575, 0.115753, -0.0013141, 0.183816, 0.239785, -0.30016, -0.468612, 0.00531096, -0.325482, -0.143617,
        -1.32656,
    ),
    (1.0, 0.1): (
        17.54, 0.102422, -0.0102706, 0.123928, -0.0757293, -0.497132, -0.0726465, 0.228599, 0.442281, 0.436279,
        -1.46828,
    ),
}  # fmt: skip
# The same with iou_loss=iou and giou, iou_thresh=1, obj_normalizer=1: checksums of tx, ty, tw, th where boxes overlap.
ALEXEYAB_IOU = {
    "iou": (0.511412, -0.00407799, 0.105834, 0.0146466),
    "giou": (0.794537, 0.0603261, 0.0825581, -0.0746409),
}
# eriklindernoren/PyTorch-YOLOv3 5d604b70b1ed (2019-08-03): the sum of its YOLOLayers' losses, and checksums of the
# gradient.
PER_SCALE = (
    163.003, -0.0180005, -0.0116248, -0.111558, -0.280484, 7.99677, -0.0241907, 0.00729342, -0.0233553, 0.0108526,
    -0.00257552,
)  # fmt: skip
# 2damin/yolov3-pytorch 9547ac586bb6: YoloLoss.compute_loss (.5 box, 1 obj, .05 cls), of which obj, cls and box, and
# checksums of the gradient; for five classes and for one.
RATIO = {
    5: (
        2.61657, 1.69236, 0.0805349, 0.843676, -0.00689211, 0.011215, 0.0133634, 0.00728709, 0.0306474, -5.50225e-05,
        9.92049e-05, 0.000413656, 0.000229057, 0.000680738,
    ),
    1: (
        2.41913, 1.44907, 0.0830517, 0.887008, 0.00599866, 0.00858589, 0.0153509, 0.0114012, -0.00835668, 0.00296705,
    ),
}  # fmt: skip


def gradients(raw, truths, at, options, heads=None, weights=None, mean=False) -> tuple[Tensor, Loss]:
    """The derivative of the loss (B, P, 5 + C), summed over images or their mean."""
    leaves = Raw(raw.offsets.clone().requires_grad_(), raw.logits.clone().requires_grad_())
    loss = yolo_loss(leaves, truths, at, options, heads)
    loss.total(weights or {}, None if mean else 1).backward()
    return torch.cat([leaves.offsets.grad, leaves.logits.grad], 2), loss


def close(values):
    """As near as six printed digits."""
    return pytest.approx(values, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(
    ("case", "masks", "ignore"),
    [
        ("each anchor in one head", ((3, 4, 5), (0, 1, 2)), 0.4),
        ("one anchor in two heads, one in none", ((3, 4, 5), (1, 2, 3)), 0.25),
    ],
)
def test_gradients_are_darknets_deltas_and_the_cost_is_what_it_reports(case, masks, ignore):
    _, at = built(yolo_cfg(masks))
    raw, truths = said(at, (7, 0, 30), 3)
    gradient, loss = gradients(raw, truths, at, YoloOptions(ignore=ignore))
    cost, *deltas = PJREDDIE[case]
    assert float(loss.sums["cost"].sum()) == close(cost)
    assert checksums(-gradient) == close(deltas)
    assert loss.sums["rewritten"].tolist() == ([1, 0, 5] if masks[1][0] == 0 else [1, 0, 4])
    assert loss.sums["unanswered"].tolist() == ([0, 0, 0] if masks[1][0] == 0 else [2, 0, 10])
    assert loss.sums["capped"].tolist() == [0, 0, 0]


def test_predictions_beyond_truth_are_learnt_as_by_darknet_but_for_centres_in_another_cell():
    _, at = built(yolo_cfg())
    raw, truths = said(at, (7, 0, 30), 3)
    gradient, loss = gradients(raw, truths, at, YoloOptions(ignore=0.2, truth=0.35))
    assert checksums(-gradient)[2:] == close(BEYOND_TRUTH)
    few = yolo_loss(raw, truths, at, YoloOptions(ignore=0.2))
    assert loss.positives.sum() > few.positives.sum()
    assert gradient[..., :2].abs().max() < 2  # of weight at most 2: theirs has no bound


def test_levels_tell_what_darknet_prints():
    _, at = built(yolo_cfg())
    raw, truths = said(at, (7, 0, 30), 3)
    sums = yolo_loss(raw, truths, at, YoloOptions(ignore=0.4)).scales.sum(0)
    assert sums.shape == (2, len(SCALE))
    for printed, found in zip(PRINTED, sums, strict=True):
        level = dict(zip(SCALE, found.tolist(), strict=True))
        means = [level[name] / level["count"] for name in ("iou", "cls", "obj")]
        recalls = [level[name] / level["count"] for name in ("r50", "r75")]
        assert [*means, level["noobj"] / level["cells"], *recalls, level["count"]] == close(list(printed))


@pytest.mark.parametrize(("softmax", "rescore"), sorted(REGION))
def test_region_gives_the_deltas_and_cost_of_yolo_v2(softmax, rescore):
    network, at = built(region_cfg(softmax, rescore))
    raw, truths = said(at, (7, 0, 20), 5)
    gradient, loss = gradients(raw, truths, at, YoloOptions(ignore=0.3), head_weights(network))
    cost, *deltas = REGION[softmax, rescore]
    assert float(loss.sums["cost"].sum()) == close(cost)
    assert checksums(-gradient) == close(deltas)
    if softmax:  # printed: Avg IOU: 0.087621, Class: 0.242635, Obj: 0.526803, No Obj: 0.537584, count: 27
        level = dict(zip(SCALE, loss.scales.sum(0)[0].tolist(), strict=True))
        told = [level[name] / level["count"] for name in ("iou", "cls", "obj")]
        assert [*told, level["noobj"] / level["cells"], level["count"]] == close(
            [0.087621, 0.242635, 0.526803, 0.537584, 27]
        )


@pytest.mark.parametrize(("also", "smoothing"), sorted(ALEXEYAB))
def test_scaled_centres_weights_of_the_cfg_and_further_anchors_are_alexeyabs(also, smoothing):
    network, at = built(yolo_cfg(more="scale_x_y=1.05\niou_normalizer=0.07\nobj_normalizer=0.4\n"))
    raw, truths = said(at, (4, 0, 3), 52)
    raw = Raw(raw.offsets, raw.logits + torch.tensor([0] + [3.0] * 5))
    options = YoloOptions(ignore=0.4, also=also, label_smoothing=smoothing)
    gradient, loss = gradients(raw, truths, at, options, head_weights(network))
    cost, *deltas = ALEXEYAB[also, smoothing]
    assert float(loss.sums["cost"].sum()) == close(cost)
    assert checksums(-gradient) == close(deltas)


@pytest.mark.parametrize("box", sorted(ALEXEYAB_IOU))
def test_gradients_of_overlaps_are_alexeyabs_deltas_times_the_slopes_that_these_leave_out(box):
    network, at = built(yolo_cfg(more="scale_x_y=1.05\niou_normalizer=0.07\n"))
    raw, truths = said(at, (4, 0, 3), 52)
    options = YoloOptions(ignore=0.4, box=box)
    gradient, _ = gradients(raw, truths, at, options, head_weights(network))
    match, decoded, size = yolo_match(truths, at, options), at.decode(raw.offsets), torch.tensor(at.size)
    overlap = torch.zeros_like(match, dtype=torch.float64)
    for image, prior in torch.nonzero(match >= 0).tolist():
        row = truths[image].boxes[match[image, prior], None]
        overlap[image, prior] = float(paired_iou(decoded[image, prior, None], row)) > 0
    assert overlap.sum() == 6
    sigmoid = torch.sigmoid(raw.offsets[..., :2].double())
    slope = at.scale_xy[:, None] * sigmoid * (1 - sigmoid) * at.stride[:, None] / size
    slopes = torch.cat([slope, (at.sides / size / 2).expand(3, -1, -1)], 2)
    assert checksums(-gradient[..., :4] / slopes * overlap[..., None]) == close(ALEXEYAB_IOU[box])


def test_per_scale_is_pytorch_yolov3s():
    _, at = built(yolo_cfg(size=(96, 96)))
    raw, truths = said(at, (7, 2, 20), 11)
    options = YoloOptions(loss="per-scale", ignore=0.5)
    gradient, loss = gradients(raw, truths, at, options, weights={"noobj": 100.0}, mean=True)
    total, *sums = PER_SCALE
    assert float(loss.total({"noobj": 100.0}).detach()) == close(total)
    assert checksums(gradient) == close(sums)
    assert set(loss.parts) == {"box", "obj", "noobj", "cls"}


@pytest.mark.parametrize("classes", sorted(RATIO))
def test_ratio_is_2damins(classes):
    _, at = built(yolo_cfg(classes=classes))
    raw, truths = said(at, (7, 2, 20), 13, classes)
    weights = {"box": 0.5, "obj": 1.0, "cls": 0.05}
    gradient, loss = gradients(raw, truths, at, YoloOptions(loss="ratio"), weights=weights, mean=True)
    total, obj, cls, box, *sums = RATIO[classes]
    assert float(loss.total(weights).detach()) == close(total)
    parts = {name: float(part.sum().detach()) / 3 * weights[name] for name, part in loss.parts.items()}
    assert parts == close({"box": box, "obj": obj, "cls": cls})
    assert checksums(gradient) == pytest.approx(sums, rel=2e-5, abs=2e-8)
