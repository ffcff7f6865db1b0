"""The loss of PyTorch-YOLOv3's first years: every level answers for every truth, means over positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.means import Counts
from onestage.models.darknet.losses.parts import (
    centre_of,
    class_means,
    classes_wanted,
    smoothed,
    softmax_rows,
    spread,
    targets,
    wide,
)
from onestage.models.darknet.losses.targets import Assigned
from onestage.models.darknet.options import YoloOptions
from onestage.models.detector import Raw


def per_scale_parts(
    raw: Raw, given: Assigned, at: Geometry, options: YoloOptions, counts: Counts
) -> dict[str, Tensor]:  # fmt: skip
    """The parts "box", "obj", "noobj" and "cls" of every box (B, P), times the images of the whole batch.

    Of every level: box, the mean over its positives of the squared differences of centre (as share of the cell) and
    of log sides, all four added; obj, the mean cross-entropy of objectness over positives, noobj that over
    background; cls, the mean over positives and classes. The loss is the sum over the levels.

    Source: eriklindernoren/PyTorch-YOLOv3 with `build_targets` (2019 to 2020), which weighs noobj 100. Means over
    nothing are 0 here, nan there.
    """
    image, prior = torch.nonzero(given.owner >= 0, as_tuple=True)
    truth = given.claims.truth[given.owner[image, prior]]
    offsets, logits = wide(raw.offsets[image, prior]), wide(raw.logits[image, prior])
    share, growth = targets(given.truths.boxes[truth].to(offsets.dtype), prior, at)
    apart = torch.cat([centre_of(offsets, prior, at) - share, offsets[:, 2:] - growth], 1)
    one = counts.share(counts.matches, prior, at, offsets)
    said, negative = wide(raw.logits[..., 0]), (given.owner < 0) & ~given.aside
    each = torch.where(negative, counts.share(counts.others, slice(None), at, said), 0)
    softmax, shape = softmax_rows(prior, at), given.owner.shape
    slot = torch.full_like(given.owner, -1)
    slot[image, prior] = torch.arange(len(prior), device=prior.device)
    claimed = slot[given.claims.image, given.claims.prior]
    wanted = classes_wanted(given.truths.labels[given.claims.truth], claimed, len(prior), logits[:, 1:])
    wanted = smoothed(wanted, options.label_smoothing, softmax)
    return {
        "box": spread(one * apart.square().sum(1), image, prior, shape),
        "obj": spread(one * F.softplus(-logits[:, 0]), image, prior, shape),
        "noobj": each * F.softplus(said),
        "cls": spread(one * class_means(logits[:, 1:], wanted, softmax), image, prior, shape),
    }
