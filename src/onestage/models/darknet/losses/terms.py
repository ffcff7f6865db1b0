"""The numbers behind one box's YOLO loss, each by its formula, for the flight recorder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.losses.darknet_loss import with_predictions
from onestage.models.darknet.losses.head_weights import HeadWeights
from onestage.models.darknet.losses.means import Counts
from onestage.models.darknet.losses.overlaps import agreement, aspect_term, paired_iou
from onestage.models.darknet.losses.parts import centre_of
from onestage.models.darknet.losses.targets import Assigned, assigned
from onestage.models.darknet.options import BoxLoss, YoloOptions
from onestage.models.detector import Raw, Truth
from onestage.models.multibox_terms import ln

_NAMES = {"iou": "IoU", "giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"}


class _Box(NamedTuple):
    """One box: what it says in float64, where it stands, the truths (K, 4) that claim it and their labels, in order."""

    offsets: Tensor
    logits: Tensor
    prior: Tensor
    truths: Tensor
    labels: list[int]
    at: Geometry

    @property
    def cell(self) -> tuple[float, float, float]:
        """Left and top of its cell, and the cell's side."""
        x, y = self.at.cells[self.prior[0]].tolist()
        return x, y, float(self.at.stride[self.prior[0]])

    @property
    def anchor(self) -> tuple[float, float]:
        """Width and height of its anchor."""
        w, h = self.at.sides[self.prior[0]].tolist()
        return w, h

    @property
    def decoded(self) -> Tensor:
        """The box it predicts (1, 4)."""
        return self.at.decode(self.offsets[None], self.prior).double()


def box_terms(
    raw: Raw, truth: Sequence[Truth], prior: int, at: Geometry, options: YoloOptions,
    heads: Sequence[HeadWeights] | None, counts: Counts | None,
) -> dict[str, float]:  # fmt: skip
    """The terms of the loss of box `prior` of one image, in the order they are computed.

    `raw` are that image's predictions in float64, (1, P, ...), `truth` its truths, `counts` what means are taken over.
    Logarithms take the true sides of the truth: one of 0 shows as -inf, though the loss itself takes at least MIN_SIDE
    pixels; exp is that of float32, though the loss bounds it.
    """
    given = assigned(truth, at, options)
    if options.loss == "darknet":
        given = Assigned(given.truths, *with_predictions(raw, given, at, options))
    box, level = _box(raw, given, prior, at), int(at.level[prior])
    head = HeadWeights() if heads is None else heads[level]
    x, y, stride = box.cell
    terms = {"cell x": x, "cell y": y, "cell side": stride, "anchor w": box.anchor[0], "anchor h": box.anchor[1]}
    terms |= dict(zip(("tx", "ty", "tw", "th"), box.offsets.tolist(), strict=True))
    if len(box.truths):
        terms |= _box_terms(box, options, head)
    terms["logit of objectness"] = float(box.logits[0])
    if not bool(given.aside[0, prior]):
        terms |= _objectness(box, options, head)
    if len(box.truths):
        terms |= _classes(box, at.levels[level].softmax)
    return terms | ({} if counts is None else _means(counts, level, options))


def _box(said: Raw, given: Assigned, prior: int, at: Geometry) -> _Box:
    claimed = given.claims.truth[given.claims.prior == prior]
    rows = torch.tensor([prior], device=said.offsets.device)
    boxes, labels = given.truths.boxes[claimed].double(), given.truths.labels[claimed].tolist()
    return _Box(said.offsets[0, prior], said.logits[0, prior], rows, boxes, labels, at)


def _box_terms(box: _Box, options: YoloOptions, head: HeadWeights) -> dict[str, float]:
    """The last truth that claims the box, and how the box is compared with it."""
    x1, y1, x2, y2 = box.truths[-1].tolist()
    terms = {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1}
    if len(box.truths) > 1:
        terms["truths on this box"] = float(len(box.truths))
    if options.loss == "ratio":
        return terms | _overlap(box, "ciou")
    if options.loss == "darknet" and options.box != "mse":
        return terms | _overlap(box, options.box)
    return terms | _differences(box, terms, options, head)


def _differences(box: _Box, truth: dict[str, float], options: YoloOptions, head: HeadWeights) -> dict[str, float]:
    x, y, stride = box.cell
    share = {"x": (truth["cx"] - x) / stride, "y": (truth["cy"] - y) / stride}
    centre = centre_of(box.offsets[None], box.prior, box.at)[0].tolist()
    reach = float(box.at.scale_xy[box.prior[0]])
    name = "sigmoid(t{})" if reach == 1 else f"{reach:g} sigmoid(t{{}}) - {(reach - 1) / 2:g}"
    terms = {f"(c{axis} - cell {axis}) / cell side": value for axis, value in share.items()}
    terms |= {name.format(axis): value for axis, value in zip(share, centre, strict=True)}
    growth = {side: ln(truth[side] / anchor) for side, anchor in zip("wh", box.anchor, strict=True)}
    terms |= {f"ln({side} / anchor {side})": value for side, value in growth.items()}
    if options.loss == "per-scale":
        for (axis, wanted), found in zip(share.items(), centre, strict=True):
            terms[f"square of the difference of {axis}"] = (found - wanted) ** 2
        squares = {side: (float(box.offsets[2 + i]) - value) ** 2 for i, (side, value) in enumerate(growth.items())}
        return terms | {f"(t{side} - ln({side} / anchor {side}))^2": value for side, value in squares.items()}
    width, height = box.at.size
    terms["2 - w h / input"] = 2 - max(truth["w"], 0.0) * max(truth["h"], 0.0) / (width * height)
    if head.box != 1:
        terms["weight of the boxes of this head"] = head.box
    for i, (axis, value) in enumerate(share.items()):
        inner = (min(max(value, 0), 1) - 0.5) / reach + 0.5
        terms[f"-t ln p - (1 - t) ln(1 - p) of {axis}"] = reach * _entropy(float(box.offsets[i]), inner)
    for i, (side, value) in enumerate(growth.items()):
        terms[f"(t{side} - ln({side} / anchor {side}))^2 / 2"] = (float(box.offsets[2 + i]) - value) ** 2 / 2
    return terms


def _overlap(box: _Box, kind: BoxLoss) -> dict[str, float]:
    """The decoded box, its overlap with the last truth, and the loss of it; `exp` as float32 has it, not bounded."""
    found, truth = box.decoded, box.truths[-1:]
    growth = torch.exp(box.offsets[2:].float()).tolist()
    terms = {
        "exp(tw)": growth[0], "exp(th)": growth[1],
        "decoded w": float(found[0, 2] - found[0, 0]), "decoded h": float(found[0, 3] - found[0, 1]),
        "IoU": float(paired_iou(found, truth)),
    }  # fmt: skip
    if kind == "ciou":
        terms["alpha v"] = float(aspect_term(found, truth))
    return terms | {f"1 - {_NAMES[kind]}": 1 - float(agreement(found, truth, kind))}


def _objectness(box: _Box, options: YoloOptions, head: HeadWeights) -> dict[str, float]:
    terms, wanted = {}, float(len(box.truths) > 0)
    if len(box.truths) and options.loss == "ratio":
        wanted = max(float(agreement(box.decoded, box.truths[-1:], "ciou")), 0.0)
    if len(box.truths) and options.loss == "darknet" and head.rescore:
        wanted = float(paired_iou(box.decoded, box.truths[-1:]))
    weight = head.obj if len(box.truths) else head.noobj
    if options.loss == "darknet" and weight != 1:
        terms["weight of objectness here"] = weight
    entropy = _entropy(float(box.logits[0]), wanted)
    return terms | {"objectness wanted": wanted, "-t ln p - (1 - t) ln(1 - p) of objectness": entropy}


def _classes(box: _Box, softmax: bool) -> dict[str, float]:
    """What each class of the truths on this box costs, and the largest of the others."""
    logits, terms = box.logits[1:], {}
    own = box.labels[-1:] if softmax else sorted(set(box.labels))
    for label in own:
        known = 0 <= label < len(logits)
        logit = float(logits[label]) if known else math.nan
        terms[f"logit of class {label}"] = logit
        whole = float(torch.logsumexp(logits, 0)) - logit if softmax else _entropy(logit, 1)
        terms[f"-ln p(class {label})"] = whole
    others = [float(logits[i]) for i in range(len(logits)) if i not in own]
    if others:
        terms["largest logit of another class"] = max(others)
    return terms


def _means(counts: Counts, level: int, options: YoloOptions) -> dict[str, float]:
    others = "boxes of the level" if options.loss == "ratio" else "background of the level"
    return {
        "images": float(counts.images), "truths of the level": float(counts.matches[level]),
        others: float(counts.others[level]),
    }  # fmt: skip


def _entropy(logit: float, wanted: float) -> float:
    """Cross-entropy of a sigmoid with what it should be."""
    value = torch.tensor(logit, dtype=torch.float64)
    return float(F.binary_cross_entropy_with_logits(value, value.new_tensor(wanted)))
