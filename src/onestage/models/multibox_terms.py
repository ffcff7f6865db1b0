"""The numbers behind one prior's multibox loss, each by its formula, for the flight recorder."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.boxes.coding import decode, encode
from onestage.boxes.matching import IGNORED
from onestage.boxes.offsets import MAX_GROWTH, VARIANCES
from onestage.models.detector import Truth
from onestage.models.multibox import MultiboxOptions, generalised_iou


def multibox_terms(
    offsets: Tensor, logits: Tensor, prior: Tensor, truth: Truth, row: int, options: MultiboxOptions
) -> dict[str, float]:
    """The terms of one prior's loss by formula, in the order they are computed.

    `offsets` (4,) and `logits` (K,) are what the prior predicts, `prior` (4,) is cx, cy, w, h, `row` the truth it
    answers for or BACKGROUND or IGNORED. Logarithms take the true sides of the truth: one of 0 shows as -inf and a
    negative one as nan, though the loss itself takes at least MIN_SIDE pixels (`boxes.coding`).
    """
    offsets, logits, prior = (value.detach().double().cpu() for value in (offsets, logits, prior))
    terms = {f"prior {name}": float(value) for name, value in zip(("cx", "cy", "w", "h"), prior, strict=True)}
    label = int(truth.labels[row]) if row >= 0 else None
    if row >= 0:
        terms |= _box_terms(offsets, prior, truth.boxes[row].detach().double().cpu(), options)
    if row != IGNORED:
        terms |= (
            _softmax(logits, label, options) if options.class_loss == "softmax-ohem" else _focal(logits, label, options)
        )
    return terms


def _box_terms(offsets: Tensor, prior: Tensor, box: Tensor, options: MultiboxOptions) -> dict[str, float]:
    x1, y1, x2, y2 = box.tolist()
    truth = {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1}
    predicted = {f"offset {name}": value for name, value in zip(truth, offsets.tolist(), strict=True)}
    if options.box_loss == "smooth-l1":
        return {**truth, **_targets(truth, prior.tolist()), **predicted, **_smooth_l1(offsets, box, prior)}
    return {**truth, **predicted, **_overlap(offsets, box, prior, options)}


def _targets(truth: dict[str, float], prior: list[float]) -> dict[str, float]:
    """What the offsets should be, with the true sides."""
    cx, cy, w, h = prior
    near, size = VARIANCES
    return {
        f"(cx - prior cx) / prior w / {near:g}": (truth["cx"] - cx) / w / near,
        f"(cy - prior cy) / prior h / {near:g}": (truth["cy"] - cy) / h / near,
        f"ln(w / prior w) / {size:g}": ln(truth["w"] / w) / size,
        f"ln(h / prior h) / {size:g}": ln(truth["h"] / h) / size,
    }


def _smooth_l1(offsets: Tensor, box: Tensor, prior: Tensor) -> dict[str, float]:
    return {"smooth-l1 of offsets - targets": float(F.smooth_l1_loss(offsets, encode(box, prior), reduction="sum"))}


def _overlap(offsets: Tensor, box: Tensor, prior: Tensor, options: MultiboxOptions) -> dict[str, float]:
    """The decoded box, its overlap, and 1 - GIoU or DIoU; `exp` as float32 has it, before it is bounded."""
    size = VARIANCES[1]
    found = decode(offsets, prior)
    shared = (torch.minimum(found[2:], box[2:]) - torch.maximum(found[:2], box[:2])).clamp(min=0).prod()
    union = (found[2:] - found[:2]).clamp(min=0).prod() + (box[2:] - box[:2]).clamp(min=0).prod() - shared
    loss = 1 - generalised_iou(found[None].float(), box[None].float(), options.box_loss)  # type: ignore[arg-type]
    growth = torch.exp(offsets[2:].float() * size).tolist()
    return {
        f"exp({size:g} offset w)": growth[0], f"exp({size:g} offset h)": growth[1],
        f"decoded w (at most {MAX_GROWTH:g} prior w)": float(found[2] - found[0]),
        f"decoded h (at most {MAX_GROWTH:g} prior h)": float(found[3] - found[1]),
        "intersection": float(shared), "union": float(union), "IoU": float(shared) / max(float(union), 1e-6),
        f"1 - {'GIoU' if options.box_loss == 'giou' else 'DIoU'}": float(loss),
    }  # fmt: skip


def _softmax(logits: Tensor, label: int | None, options: MultiboxOptions) -> dict[str, float]:
    log_p = F.log_softmax(logits, -1)
    terms = {"logit of background": float(logits[0]), "ln sum exp(logits)": float(torch.logsumexp(logits, -1))}
    column, name = (0, "background") if label is None else (label + 1, f"class {label}")
    if not 0 <= column < len(logits):
        return {**terms, f"-ln p({name})": math.nan}
    if label is not None:
        terms[f"logit of {name}"] = float(logits[column])
    terms[f"-ln p({name})"] = -float(log_p[column])
    if smoothing := options.label_smoothing:
        terms["mean of -ln p"] = -float(log_p.mean())
        terms[f"{1 - smoothing:g} -ln p({name}) + {smoothing:g} mean of -ln p"] = (1 - smoothing) * terms[
            f"-ln p({name})"
        ] + smoothing * terms["mean of -ln p"]
    return terms


def _focal(logits: Tensor, label: int | None, options: MultiboxOptions) -> dict[str, float]:
    """The term of the truth's class and the sum over the others, which should all be low."""
    soft = options.label_smoothing / 2
    terms = {}
    if label is not None:
        known = 0 <= label < len(logits)
        logit = logits[label] if known else torch.tensor(math.nan)
        terms = {
            f"logit of class {label}": float(logit), f"-ln p(class {label})": float(F.softplus(-logit)),
            f"focal term of class {label}": float(_focal_term(logit, 1 - soft, options)),
        }  # fmt: skip
    others = torch.arange(len(logits)) != (-1 if label is None else label)
    if others.any():
        rest = logits[others]
        terms["largest logit of another class" if label is not None else "largest logit"] = float(rest.max())
        terms["sum of the other focal terms" if label is not None else "sum of the focal terms"] = float(
            _focal_term(rest, soft, options).sum()
        )
    return terms


def _focal_term(logits: Tensor, target: float, options: MultiboxOptions) -> Tensor:
    """alpha |t - p|^gamma of the cross-entropy, with alpha of the target t; see `multibox.focal`."""
    p = torch.sigmoid(logits)
    entropy = target * F.softplus(-logits) + (1 - target) * F.softplus(logits)
    wrong = p + target - 2 * p * target
    return (options.alpha * target + (1 - options.alpha) * (1 - target)) * wrong**options.gamma * entropy


def ln(value: float) -> float:
    """The natural logarithm as float arithmetic has it: -inf of 0, nan of a negative number."""
    if math.isnan(value) or value < 0:
        return math.nan
    return math.log(value) if value else -math.inf
