"""The SSD head, its loss, and hard-negative mining; shared by SSD and FaceBoxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.boxes.coding import decode, encode
from onestage.boxes.coding import to_corners as corners_of
from onestage.boxes.matching import BACKGROUND, Bipartite, match_ssd
from onestage.errors import ModelError, did_you_mean
from onestage.models.depthwise import DepthwiseConv2d
from onestage.models.detector import Loss, Raw, Truth

ClassLoss = Literal["softmax-ohem", "focal"]
BoxLoss = Literal["smooth-l1", "giou", "diou"]
# Least and greatest value of each number in `MultiboxOptions`.
_RANGES = {
    "threshold": (0.0, 1.0), "negatives": (0, 1_000_000), "min_negatives": (0, 1_000_000), "gamma": (0.0, 100.0),
    "alpha": (0.0, 1.0), "label_smoothing": (0.0, 1.0), "floor": (0.0, 1.0), "near": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class MultiboxOptions:
    """How priors are matched and what is summed into the loss.

    `threshold` is the IoU from which a prior is positive, `floor` the least IoU of a pair that is forced, `near` how
    priors near ignored objects are told, both as in `match_ssd`. "softmax-ohem": cross-entropy over background (0) and
    classes, over positives and `negatives` hardest negatives per positive, at least `min_negatives` per image.
    "focal": sigmoid focal loss over all priors with `gamma` and `alpha`, no background column. `label_smoothing` e,
    0 to below 1, softens what is learnt towards: by e spread evenly over the columns (softmax), or to (1 - e) t + e / 2
    in each column (focal). Mining ranks by the loss without it.
    """

    threshold: float = 0.5
    bipartite: Bipartite = "greedy"
    class_loss: ClassLoss = "softmax-ohem"
    negatives: int = 3
    min_negatives: int = 3
    gamma: float = 2.0
    alpha: float = 0.25
    box_loss: BoxLoss = "smooth-l1"
    label_smoothing: float = 0.0
    floor: float = 0.0
    near: float = 0.0

    def __post_init__(self) -> None:
        choices = {"class_loss": get_args(ClassLoss), "box_loss": get_args(BoxLoss), "bipartite": get_args(Bipartite)}
        problems = [
            f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            whole = name.endswith("negatives")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                problems.append(f"{name}: expected a {'whole ' * whole}number, got {value!r}")
            elif not least <= value <= most:
                problems.append(f"{name}: expected {least:g} to {most:g}, got {value!r}")
        if self.label_smoothing == 1:
            problems.append("label_smoothing: expected less than 1, got 1, which leaves nothing of the labels")
        if problems:
            raise ModelError("the loss cannot be built", problems=problems)

    @classmethod
    def of(cls, values: Mapping[str, Any], others: Sequence[str] = ()) -> MultiboxOptions:
        """The options with these fields changed; ModelError names each unknown word and the nearest right one.

        `others` are options that the model has besides, which an unknown word may mean.
        """
        known = [*others, *(field.name for field in fields(cls))]
        unknown = [f"{key!r}{did_you_mean(key, known)}" for key in values if key not in known]
        if unknown:
            raise ModelError("unknown model options", problems=unknown, hint=f"one of: {', '.join(known)}")
        return cls(**values)

    def start_bias(self) -> float | None:
        """The class bias to start from, where the loss needs one: of score 0.01 under focal, as Lin et al. 2017."""
        return math.log(0.01 / 0.99) if self.class_loss == "focal" else None

    def columns(self, classes: int) -> int:
        """How many logits a prior has."""
        return classes + (self.class_loss == "softmax-ohem")


class MultiboxHead(nn.Module):
    """One convolution for classes and one for offsets on every map: maps (B, C_l, H_l, W_l) → Raw.

    `priors_per_cell` and `channels` have one entry per level, `columns` is the logits of a prior. Full 3x3
    convolutions as in SSD, or `separable` ones as in SSDLite (3x3 per channel, norm, ReLU6, 1x1), whose last level
    is a plain 1x1 where `plain_last`. Xavier-uniform weights and bias 0, or `start_bias` for classes.

    Source: Liu et al. 2016; Sandler et al. 2018 for SSDLite. Attribute names are lufficc/SSD's.
    """

    def __init__(
        self,
        channels: Sequence[int],
        priors_per_cell: Sequence[int],
        columns: int,
        separable: bool = False,
        plain_last: bool = True,
        start_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.cls_headers = nn.ModuleList()
        self.reg_headers = nn.ModuleList()
        for level, (width, priors) in enumerate(zip(channels, priors_per_cell, strict=True)):
            plain = separable and plain_last and level == len(channels) - 1
            for headers, out in ((self.cls_headers, priors * columns), (self.reg_headers, priors * 4)):
                headers.append(_header(width, out, separable, plain))
        xavier(self)
        if start_bias is not None:
            for header in self.cls_headers:
                last = header[-1] if isinstance(header, nn.Sequential) else header
                nn.init.constant_(last.bias, start_bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Raw:
        """Raw of all levels, in the order of the priors: level, row, column, prior of the cell."""
        return Raw(said_of(self.reg_headers, maps, 4), said_of(self.cls_headers, maps, self.columns))


def _header(width: int, out: int, separable: bool, plain: bool) -> nn.Module:
    if plain:
        return nn.Conv2d(width, out, 1)
    if not separable:
        return nn.Conv2d(width, out, 3, padding=1)
    depthwise = DepthwiseConv2d(width, 3, padding=1)
    return nn.Sequential(depthwise, nn.BatchNorm2d(width), nn.ReLU6(inplace=True), nn.Conv2d(width, out, 1))


def said_of(heads: Iterable[nn.Module], maps: Sequence[Tensor], columns: int) -> Tensor:
    """What each level's head says of its map, (B, P, columns): by level, row, column, prior of the cell."""
    said = [head(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, columns) for head, x in zip(heads, maps, strict=True)]
    return torch.cat(said, 1)


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and bias 0 for every convolution of `module`."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def multibox_loss(
    raw: Raw, truths: Sequence[Truth], priors: Tensor, levels: Sequence[int], options: MultiboxOptions
) -> Loss:
    """The parts "cls" and "box" of each image, in float32 whatever the precision of `raw`.

    `priors` (P, 4) are cx, cy, w, h in pixels of the input, `levels` how many of them each level has. The box part
    sums over positives; the class part over positives and mined negatives (or all priors, focal). An image's
    normaliser is its positives, 1 where it has none: such an image counts as if it had one positive, so that its
    `min_negatives` hardest negatives teach on the usual scale and a batch without any truth stays finite.

    Source: Liu et al. 2016, as in lufficc/SSD, to which images with positives are equal. Ours differs in the
    images without positives (theirs add nothing, and divide by zero when a whole batch has none), in encoding
    targets only for positives, and in regions to ignore.
    """
    per_prior, match = prior_losses(raw, truths, priors, options)
    counts = torch.stack([part.sum(1) for part in torch.split(match >= 0, list(levels), 1)], 1)
    parts = {name: part.sum(1) for name, part in per_prior.items()}
    mined = options.class_loss == "softmax-ohem"
    negatives = mined_negatives(match, options.negatives, options.min_negatives) if mined else None
    return Loss(parts, counts, counts.sum(1).clamp(min=1).to(parts["cls"].dtype), negatives)


def prior_losses(
    raw: Raw, truths: Sequence[Truth], priors: Tensor, options: MultiboxOptions
) -> tuple[dict[str, Tensor], Tensor]:
    """The parts of `multibox_loss` before they are summed: {part: (B, P)}, and `match_batch` they rest on."""
    match = match_batch(truths, priors, options)
    positive = match >= 0
    labels, boxes = _targets(match, positive, truths)
    class_loss = softmax_ohem if options.class_loss == "softmax-ohem" else focal
    cls = class_loss(raw.logits.float(), labels, match, options)
    image, prior = torch.nonzero(positive, as_tuple=True)
    per_box = _box_loss(raw.offsets[image, prior].float(), boxes, priors[prior], options.box_loss)
    return {"cls": cls, "box": torch.zeros_like(positive, dtype=per_box.dtype).masked_scatter(positive, per_box)}, match


@torch.no_grad()
def match_batch(truths: Sequence[Truth], priors: Tensor, options: MultiboxOptions) -> Tensor:
    """For each image and prior (B, P) the row of its truth, or BACKGROUND, or IGNORED; see `match_ssd`."""
    corners = corners_of(priors)
    rows = [
        match_ssd(
            truth.boxes,
            corners,
            options.threshold,
            ignore=truth.ignore,
            bipartite=options.bipartite,
            floor=options.floor,
            near=options.near,
        )
        for truth in truths
    ]
    return torch.stack(rows)


def _targets(match: Tensor, positive: Tensor, truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
    """The class of every prior (B, P), -1 where it has none, and the boxes (M, 4) of the positives, row-major."""
    first = torch.tensor([0] + [len(truth.boxes) for truth in truths], device=match.device).cumsum(0)[:-1]
    row = (match + first[:, None])[positive]
    labels = torch.full_like(match, -1).masked_scatter(positive, torch.cat([truth.labels for truth in truths])[row])
    return labels, torch.cat([truth.boxes for truth in truths])[row]


def softmax_ohem(logits: Tensor, labels: Tensor, match: Tensor, options: MultiboxOptions) -> Tensor:
    """Cross-entropy (B, P) of positives and the hardest negatives, else 0; column 0 of `logits` is background.

    `labels` (B, P) are 0 … C-1, -1 without truth. Negatives are ranked by -log p(background), ties by index, in
    each image alone; the log-sum-exp is each row's own, so that one large logit cannot flatten all others. Smoothing
    is that of Szegedy et al. 2016, section 7, as in torch's CrossEntropyLoss.
    """
    log_p = F.log_softmax(logits, -1)
    entropy = -log_p.gather(-1, (labels + 1)[..., None]).squeeze(-1)
    if options.label_smoothing:
        entropy = (1 - options.label_smoothing) * entropy - options.label_smoothing * log_p.mean(-1)
    chosen = (labels >= 0) | hardest_negatives(-log_p[..., 0], match, options.negatives, options.min_negatives)
    return torch.where(chosen, entropy, 0)


def mined_negatives(match: Tensor, ratio: int, least: int) -> Tensor:
    """How many background priors of each image (B,) are picked: fewer than asked for where there are no more."""
    return ((match >= 0).sum(1) * ratio).clamp(min=least).minimum((match == BACKGROUND).sum(1))


@torch.no_grad()
def hardest_negatives(hardness: Tensor, match: Tensor, ratio: int, least: int) -> Tensor:
    """Mask (B, P) of the hardest background priors: `ratio` per positive of the image, `least` at least."""
    negative, wanted = match == BACKGROUND, mined_negatives(match, ratio, least)
    order = hardness.masked_fill(~negative, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    ranks = torch.arange(hardness.shape[1], device=hardness.device)
    return torch.zeros_like(negative).scatter(1, order, ranks < wanted[:, None])


def focal(logits: Tensor, labels: Tensor, match: Tensor, options: MultiboxOptions) -> Tensor:
    """Sigmoid focal loss (B, P) of all priors that are not ignored, else 0; `labels` as in `softmax_ohem`.

    Source: Lin et al. 2017. With smoothing the weights, too, are those of the soft target, as in ultralytics/yolov5:
    weighted by the hard one, the loss of background would be least at score 0 whatever the smoothing.
    """
    target = F.one_hot(labels + 1, logits.shape[-1] + 1)[..., 1:].to(logits.dtype)
    if options.label_smoothing:
        target = (1 - options.label_smoothing) * target + options.label_smoothing / 2
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = torch.sigmoid(logits)
    wrong = (p + target - 2 * p * target).clamp(min=torch.finfo(p.dtype).tiny)  # 0**gamma has no slope below gamma 1
    alpha = options.alpha * target + (1 - options.alpha) * (1 - target)
    per_prior = (alpha * wrong**options.gamma * entropy).sum(-1)
    return torch.where((labels >= 0) | (match == BACKGROUND), per_prior, 0)


def _box_loss(offsets: Tensor, boxes: Tensor, priors: Tensor, kind: BoxLoss) -> Tensor:
    """Loss (M,) of each positive: smooth-L1 summed over its four offsets, or 1 - GIoU or DIoU of the decoded box."""
    if kind == "smooth-l1":
        return F.smooth_l1_loss(offsets, encode(boxes, priors), reduction="none").sum(-1)
    return 1 - generalised_iou(decode(offsets, priors), boxes, kind)


def generalised_iou(a: Tensor, b: Tensor, kind: Literal["giou", "diou"] = "giou") -> Tensor:
    """GIoU or DIoU (M,) of boxes (M, 4) xyxy in pixels, row by row, in [-1, 1]; finite for empty boxes.

    Source: Rezatofighi et al. 2019; Zheng et al. 2020.
    """
    tiny = 1e-6
    shared = _rectangle(torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2]))
    union = _rectangle(a[:, 2:] - a[:, :2]) + _rectangle(b[:, 2:] - b[:, :2]) - shared
    iou = shared / (union + tiny)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    if kind == "giou":
        around = _rectangle(hull)
        return iou - (around - union) / (around + tiny)
    apart = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).square().sum(-1) / 4
    return iou - apart / (hull.square().sum(-1) + tiny)


def _rectangle(sides: Tensor) -> Tensor:
    """Area (M,) of rectangles of width and height (M, 2); 0 where a side is negative."""
    sides = sides.clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def multibox_decode(raw: Raw, priors: Tensor, class_loss: ClassLoss) -> tuple[Tensor, Tensor]:
    """Boxes (B, P, 4) xyxy in pixels of the input and scores (B, P, C) without background; plain tensor operations."""
    logits = raw.logits.float()
    scores = F.softmax(logits, -1)[..., 1:] if class_loss == "softmax-ohem" else torch.sigmoid(logits)
    return decode(raw.offsets, priors), scores
