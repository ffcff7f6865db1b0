"""What each level of a YOLO network tells of itself in training, as sums per image."""

from __future__ import annotations

import torch
from torch import Tensor

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.overlaps import paired_iou
from onestage.models.darknet.losses.parts import class_scores, softmax_rows, wide
from onestage.models.darknet.losses.targets import Assigned
from onestage.models.detector import Raw


@torch.no_grad()
def level_sums(raw: Raw, given: Assigned, at: Geometry) -> Tensor:
    """The sums (B, L, 8) that `detector.SCALE` names, for each image and level.

    "count" are the truths that a box of the level answers for, each as often as boxes do; "iou", "cls", "obj", "r50"
    and "r75" sum over them: the IoU of the decoded box with that truth, the score of its class, the objectness, and
    how many IoUs exceed 0.5 and 0.75. "cells" are all boxes of the level, "noobj" their objectness, positives
    included.

    Source: the line that pjreddie's darknet prints for a [yolo], whose Avg IOU, Class, Obj, .5R and .75R are these
    sums over the count, and No Obj the last over the cells.
    """
    image, prior, truth = given.claims
    images, levels = given.truths.images, len(at.levels)
    iou = paired_iou(at.decode(wide(raw.offsets[image, prior]), prior), given.truths.boxes[truth])
    said = wide(raw.logits[image, prior])
    scores = class_scores(said[:, 1:], softmax_rows(prior, at))
    right = scores.gather(1, given.truths.labels[truth][:, None])[:, 0]
    one = torch.ones_like(iou)
    rows = torch.stack([one, iou, right, torch.sigmoid(said[:, 0]), (iou > 0.5) * one, (iou > 0.75) * one], 1).float()
    sums = rows.new_zeros(images * levels, 6).index_add(0, image * levels + at.level[prior], rows)
    everywhere = torch.sigmoid(wide(raw.logits[..., 0]))
    cells = sums.new_tensor([level.count for level in at.levels]).expand(images, levels)
    noobj = torch.stack([everywhere[:, level.first : level.last].sum(1).float() for level in at.levels], 1)
    return torch.cat([sums.view(images, levels, 6), cells[..., None], noobj[..., None]], 2)
