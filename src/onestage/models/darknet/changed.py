"""A cfg made to fit: other classes, another input size, other anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from onestage.errors import ModelError
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import Cfg, Section
from onestage.models.darknet.layers import Head

Pairs = Sequence[Sequence[float]]


def changed(
    cfg: Cfg, classes: int | None = None, size: tuple[int, int] | None = None, anchors: Pairs | None = None,
    masks: Sequence[Sequence[int]] | None = None,
) -> Cfg:  # fmt: skip
    """The cfg with these instead of its own; the linear convolutions before the heads get as many filters as needed.

    `anchors` (width, height) are in pixels of the input, in the order that `masks`, one for each head in the cfg's
    order, speak of. Without `masks` the cfg's own stay where each anchor belongs to one head; else, as in
    yolov4-tiny's, the anchors are dealt out anew, the last to the head of the largest stride. Raises ModelError for a
    cfg that cannot be built and for anchors that cannot be dealt out.
    """
    built = architecture(cfg)
    classes = built.classes if classes is None else classes
    if classes < 1:
        raise ModelError(f"classes: expected at least 1, got {classes}")
    pairs = tuple((float(w), float(h)) for w, h in _checked(anchors, built.heads)) if anchors is not None else None
    chosen = _masks(built.heads, pairs, masks)
    layers = list(cfg.layers)
    for head, mask in zip(built.heads, chosen, strict=True):
        options: dict[str, object] = {"classes": classes}
        if pairs is not None:
            scale = head.shape.stride if head.section.kind == "region" else 1.0
            options |= {"anchors": ", ".join(f"{w / scale:.10g},{h / scale:.10g}" for w, h in pairs), "num": len(pairs)}
        if head.section.kind == "yolo" and (pairs is not None or masks is not None):
            options["mask"] = ",".join(map(str, mask))
        layers[head.index] = _with(layers[head.index], options)
        layers[head.index - 1] = _with(layers[head.index - 1], {"filters": len(mask) * (5 + classes)})
    net = cfg.net if size is None else _with(cfg.net, {"width": size[0], "height": size[1]})
    return replace(cfg, net=net, layers=tuple(layers))


def _checked(anchors: object, heads: Sequence[Head]) -> Pairs:
    listed: list[Any] = list(anchors) if isinstance(anchors, list | tuple) else [anchors]
    wrong = [pair for pair in listed if not _is_pair(pair)]
    if wrong or len(listed) < len(heads):
        raise ModelError(
            f"anchors: expected at least {len(heads)} pairs [width, height] above 0 in pixels, got "
            + (repr(wrong[0]) if wrong else f"{len(listed)}"),
            hint="[[10, 13], [16, 30], …], the smallest first",
        )
    return listed


def _is_pair(pair: object) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    return all(isinstance(side, int | float) and not isinstance(side, bool) and 0 < side < 1e6 for side in pair)


def _masks(
    heads: Sequence[Head], pairs: Pairs | None, asked: object
) -> Sequence[Sequence[int]]:  # fmt: skip
    count = len(heads[0].anchors) if pairs is None else len(pairs)
    if asked is not None:
        lists = asked if isinstance(asked, list | tuple) else ()
        if len(lists) != len(heads) or not all(_is_mask(mask, count) for mask in lists):
            raise ModelError(
                f"masks: expected {len(heads)} lists of anchors 0 to {count - 1}, one for each head, got {asked!r}",
                hint=f"{[list(head.mask) for head in heads]}, the cfg's own",
            )
        return lists
    own = [head.mask for head in heads]
    if pairs is None or sorted(at for mask in own for at in mask) == list(range(count)):
        return own
    ends = [count * i // len(heads) for i in range(len(heads) + 1)]
    shares = [tuple(range(a, b)) for a, b in pairwise(ends)]
    rank = sorted(range(len(heads)), key=lambda i: heads[i].shape.stride)
    return [shares[rank.index(i)] for i in range(len(heads))]


def _is_mask(mask: object, count: int) -> bool:
    if not isinstance(mask, list | tuple) or not mask:
        return False
    return all(isinstance(at, int) and not isinstance(at, bool) and 0 <= at < count for at in mask)


def _with(section: Section, options: dict[str, object]) -> Section:
    return replace(section, options={**section.options, **{key: str(value) for key, value in options.items()}})
