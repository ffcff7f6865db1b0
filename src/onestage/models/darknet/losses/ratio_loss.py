"""The loss of YOLOv5's kind: every anchor of about a truth's shape answers, objectness learns the IoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.means import Counts
from onestage.models.darknet.losses.overlaps import agreement
from onestage.models.darknet.losses.parts import class_means, one_hot, smoothed, softmax_rows, spread, wide
from onestage.models.darknet.losses.targets import Assigned
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Raw


def ratio_parts(
    raw: Raw, given: Assigned, at: Geometry, options: YoloOptions, counts: Counts
) -> dict[str, Tensor]:  # fmt: skip
    """The parts "box", "obj" and "cls" of every box (B, P), times the images of the whole batch.

    Of every level: box, the mean of 1 - CIoU over all pairs of a box and a truth; obj, the mean cross-entropy of all
    its boxes, towards the CIoU, at least 0, of the last truth that claimed the box, else 0; cls, the mean over pairs
    and classes. The loss is the sum over the levels.

    Source: 2damin/yolov3-pytorch (`get_targets_v2`), after ultralytics/yolov5 without its neighbouring cells. One
    class alone is learnt, too, as by the former and not by the latter: a score is objectness times class. Ours leaves
    boxes near regions to ignore out of the mean of obj.
    """
    image, prior, truth = given.claims
    offsets, logits = wide(raw.offsets[image, prior]), wide(raw.logits[image, prior])
    boxes = given.truths.boxes[truth].to(offsets.dtype)
    overlap = agreement(at.decode(offsets, prior), boxes, "ciou")
    one = counts.share(counts.matches, prior, at, offsets)
    said = wide(raw.logits[..., 0])
    target = torch.cat([overlap.detach().clamp(min=0), overlap.new_zeros(1)])[given.owner].to(said.dtype)
    each = torch.where(given.aside, 0, counts.share(counts.others, slice(None), at, said))
    obj = each * F.binary_cross_entropy_with_logits(said, target, reduction="none")
    softmax = softmax_rows(prior, at)
    wanted = smoothed(one_hot(given.truths.labels[truth], logits[:, 1:]), options.label_smoothing, softmax)
    cls = class_means(logits[:, 1:], wanted, softmax)
    shape = given.owner.shape
    return {
        "box": spread(one * (1 - overlap), image, prior, shape), "obj": obj,
        "cls": spread(one * cls, image, prior, shape),
    }  # fmt: skip
