"""Anchors made from the training set, and what is wrong with a network's anchors before a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from onestage import models
from onestage.boxes.anchor_fit import RATIO, WARNING, AnchorFit, Heads, Refit, anchor_fit, refit
from onestage.boxes.clusters import HOW, shape_iou
from onestage.data.dataset import Dataset
from onestage.data.images import fit_transform
from onestage.data.sides import Sides, sides_at_input
from onestage.data.views import moved
from onestage.errors import DataError, RecipeError, did_you_mean
from onestage.models.detector import Detector, Truth
from onestage.records import BoolArray, Finding, Severity, Where
from onestage.training.recipe import Recipe

# At most so many images are asked of the model itself, evenly over the set, so many at a time.
LOOKED_AT, AT_ONCE = 400, 8
# Shares of truths from which a finding is told, and from which it is a warning.
CAPPED, UNANSWERED, SMALL = (0.0, 0.01), (0.0, 0.02), (0.1, 0.5)
IDLE = 0.02  # share of truths below which a head has next to nothing to learn
FEWEST = 100  # truths that a share is told of
NAMED = 3


def options_made(recipe: Recipe, classes: int, train: Dataset) -> tuple[dict[str, Any], Refit | None]:
    """The model's options with anchors as numbers where the recipe asks for `kmeans` or `kmedians` of the training set.

    They are made at the input size, with the recipe's fit, by its `split_seed`, so that seeds of a study share them;
    each head gets as many as it has, by size. Raises RecipeError for another word and for a model without anchors.
    """
    options = dict(recipe.options)
    asked = options.get("anchors")
    if not isinstance(asked, str):
        return options, None
    if asked not in HOW:
        raise RecipeError(
            f"options.anchors: expected kmeans, kmedians or pairs [[10, 13], …], got {asked!r}"
            + did_you_mean(asked, HOW)
        )
    if options.get("masks") is not None:
        raise RecipeError(
            f"options.masks: has no effect beside anchors={asked}, where each head gets its share by size"
        )
    others = {key: value for key, value in options.items() if key not in ("anchors", "masks")}
    detector = models.build(recipe.model, classes, recipe.input_size, **others)
    heads = detector.anchor_heads()
    if heads is None:
        raise RecipeError(f"options.anchors={asked}: {recipe.model} has no anchors that can be made from boxes")
    held = sides_at_input(train, detector.size, recipe.fit)
    try:
        made = refit(held.sides, held.image, heads, asked, seed=recipe.split_seed)
    except DataError as error:
        raise DataError(f"options.anchors={asked}: {error.message}", hint=error.hint) from None
    return {**options, **as_options(made.new)}, made


def as_options(heads: Heads) -> dict[str, list[list[Any]]]:
    """Anchors and masks as the options of a model, plain lists."""
    return {"anchors": [list(pair) for pair in heads.anchors], "masks": [list(mask) for mask in heads.masks]}


def fit_findings(detector: Detector, recipe: Recipe, train: Dataset, made: Refit | None = None) -> list[Finding]:
    """What should be known of the anchors of `detector` and the truths of the set before the run; no image is read.

    Nothing for models whose anchors are not free. Truths are those of training without augmentation; `made` are the
    anchors of `options_made`.
    """
    heads = detector.anchor_heads()
    if heads is None or not len(train):
        return []
    held = sides_at_input(train, detector.size, recipe.fit)
    loss = str(_option(detector, "loss", "darknet"))
    fit = anchor_fit(held.sides, heads)
    found = [] if made is None else [_made(made)]
    found += [*_capped(held, int(_option(detector, "most", 0)))]
    found += _unanswered(detector, heads, loss, recipe, train)
    found += _too_large(heads, fit, detector.size)
    found += _unsorted(heads)
    if loss != "per-scale":  # there each head learns from every object
        found += _idle(heads, fit)
    return found


def loads(heads: Heads, fit: AnchorFit) -> str:
    """The share of each head in words: "stride 8, small objects: 93.5 % of the truths; stride 32, …: 0.5 %"."""
    words = []
    order = heads.finest_first
    sizes = ("small", "medium", "large") if len(order) == 3 else ("small", "large")
    for place, head in enumerate(order):
        size = f", {sizes[place]} objects" if len(order) in (2, 3) else ""
        share = f"{100 * fit.load[head]:.1f} %" + " of the truths" * (place == 0)
        words.append(f"stride {heads.strides[head]:g}{size}: {share}")
    return "; ".join(words)


def _finding(code: str, severity: Severity, what: str, consequence: str, remedy: str, **evidence: Any) -> Finding:
    return Finding(code, severity, Where(), what, consequence, remedy, evidence)


def _severity(share: float, limits: tuple[float, float]) -> Severity:
    return "warning" if share >= limits[1] else "note"


def _made(made: Refit) -> Finding:
    pairs = ", ".join(_pair(pair) for pair in made.new.anchors)
    return _finding(
        "anchors-made", "note",
        f"anchors={made.how} made these of {made.new_fit.boxes:,} truths: {pairs}; {made.verdict}",
        WARNING, "the same run with the model's own anchors, and compare", **made.as_dict(),
    )  # fmt: skip


def _capped(held: Sides, most: int) -> Iterator[Finding]:
    """Truths beyond `most` in an image, which darknet calls `max` and leaves out without a word."""
    beyond = np.maximum(held.per_image - most, 0)
    if not most or not beyond.any():
        return
    count, images = int(beyond.sum()), int((beyond > 0).sum())
    share = count / len(held.sides)
    yield _finding(
        "truths-capped", _severity(share, CAPPED),
        f"most={most}: {count:,} of {len(held.sides):,} truths ({_percent(share)}) are beyond it, in {images:,} of "
        f"{held.images:,} images; the fullest has {int(held.per_image.max()):,}",
        "they are not learnt, and taught as background", "options.most=0, which counts them all",
        count=count, truths=len(held.sides), share=share, images=images, most=most,
    )  # fmt: skip


def _unanswered(
    detector: Detector, heads: Heads, loss: str, recipe: Recipe, train: Dataset
) -> Iterator[Finding]:  # fmt: skip
    """Truths that no box of the network learns, as the model itself assigns them."""
    rows = np.unique(np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(int)).tolist()
    most = int(_option(detector, "most", 0))
    per_class: Counter[str] = Counter()
    images: list[str] = []
    misfits = alone = truths = 0
    for start in range(0, len(rows), AT_ONCE):
        some = [train.images[row] for row in rows[start : start + AT_ONCE]]
        given = [
            moved(train.annotations[image.id],
                  fit_transform((image.width, image.height), detector.size, recipe.fit), detector.size, visible=0.0)
            for image in some
        ]  # fmt: skip
        device = next(detector.parameters()).device
        match = detector.assign([Truth.of(one, device) for one in given]).match.cpu().numpy()
        for image, one, mine in zip(some, given, match, strict=True):
            counts = ~(one.ignore | one.crowd)
            if most:
                counts &= np.cumsum(counts) <= most
            truths += int(counts.sum())
            answered = np.zeros(len(one), np.bool_)
            answered[mine[mine >= 0]] = True
            missed = counts & ~answered
            if not missed.any():
                continue
            shapeless = missed & ~_has_shape(heads, one.boxes[:, 2:] - one.boxes[:, :2], loss, detector)
            misfits += int(shapeless.sum())
            alone += int((missed & ~shapeless).sum())
            per_class.update(train.classes[label] for label in one.labels[missed])
            images.append(image.path.name)
    count = misfits + alone
    if not count:
        return
    share = count / truths
    among = f" of {len(rows):,} of {len(train):,} images, evenly taken" if len(rows) < len(train) else ""
    why = [f"{misfits:,} have no anchor of their shape"] * bool(misfits)
    why += [f"{alone:,} lost theirs to another object in the same cell"] * bool(alone)
    named = ", ".join(f"{name} {number:,}" for name, number in per_class.most_common(NAMED))
    more = f" and {len(per_class) - NAMED} more" if len(per_class) > NAMED else ""
    yield _finding(
        "truths-unanswered", _severity(share, UNANSWERED),
        f"no box answers for {count:,} of {truths:,} truths{among} under loss={loss} at {detector.size[0]}x"
        f"{detector.size[1]} ({_percent(share)}): {' and '.join(why)}; {named}{more}; first in "
        + ", ".join(images[:NAMED]),
        "the network does not learn them: it is taught the other object there, or that there is none",
        "anchors that fit (data anchors --cluster kmedians)" if misfits > alone else "a larger size, or tiles: finer "
        "cells hold fewer objects each",
        count=count, truths=truths, share=share, without_anchor=misfits, taken=alone, classes=dict(per_class),
        images=images[:100], looked_at=len(rows),
    )  # fmt: skip


def _has_shape(heads: Heads, sides: Any, loss: str, detector: Detector) -> BoolArray:
    """Which boxes (N, 4) have an anchor of some head that answers for their shape under the loss."""
    if loss == "per-scale":
        return np.ones(len(sides), np.bool_)
    owned = heads.owner >= 0
    if loss == "ratio":
        limit = float(_option(detector, "ratio", RATIO))
        ratio = sides[:, None] / heads.sides[owned][None]
        return np.asarray((np.maximum(ratio, 1 / ratio).max(2) < limit).any(1), np.bool_)
    return np.asarray(owned[shape_iou(sides, heads.sides).argmax(1)], np.bool_)


def _too_large(heads: Heads, fit: AnchorFit, size: tuple[int, int]) -> Iterator[Finding]:
    if fit.boxes < FEWEST or fit.below < SMALL[0]:
        return
    owned = heads.sides[heads.owner >= 0]
    width, height = owned[owned.prod(1).argmin()]
    yield _finding(
        "anchors-too-large", _severity(fit.below, SMALL),
        f"{_percent(fit.below)} of {fit.boxes:,} truths are smaller than the smallest anchor, {width:g}x{height:g}, at "
        f"{size[0]}x{size[1]}; the mean IoU with the best anchor is {fit.mean_iou:.2f}",
        "their boxes are learnt from anchors that hardly look like them, and many share a cell",
        "a larger size, tiles, or anchors made for them (data anchors --cluster kmedians)",
        share=fit.below, smallest=[float(width), float(height)], **fit.as_dict(),
    )  # fmt: skip


def _unsorted(heads: Heads) -> Iterator[Finding]:
    if not heads.unsorted:
        return
    listed = "; ".join(
        f"stride {heads.strides[head]:g} has " + ", ".join(_pair(heads.anchors[at]) for at in heads.masks[head])
        for head in heads.finest_first
    )
    yield _finding(
        "anchors-unsorted", "warning",
        f"anchors are not sorted by area over the heads: {listed}",
        "objects of one size go to heads of different cells, some to a head that sees them too closely or too coarsely",
        "the anchors sorted by area, the smallest to the head of the smallest stride",
        anchors=[list(pair) for pair in heads.anchors], masks=[list(mask) for mask in heads.masks],
    )  # fmt: skip


def _idle(heads: Heads, fit: AnchorFit) -> Iterator[Finding]:
    if fit.boxes < FEWEST or len(heads.masks) < 2 or min(fit.load) >= IDLE:
        return
    yield _finding(
        "heads-idle", "note", loads(heads, fit),
        "a head whose anchors fit next to no object learns only to say no",
        "nothing, where objects of its sizes are rare by nature; else another size, or anchors made for the set",
        load=list(fit.load), strides=list(heads.strides),
    )  # fmt: skip


def _pair(sides: Sequence[float]) -> str:
    return f"{sides[0]:g}x{sides[1]:g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"


def _option(detector: Detector, name: str, default: Any) -> Any:
    """An option of the model's loss, where it has one of that name."""
    return getattr(getattr(detector, "options", None), name, default)
