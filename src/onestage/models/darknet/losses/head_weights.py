"""What a cfg says of the loss of each head: weights of its parts, and what objectness learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.models.darknet.geometry import Geometry
from onestage.models.darknet.layers import Head


@dataclass(frozen=True)
class HeadWeights:
    """The weights of one head's parts in the "darknet" loss; 1 changes nothing.

    `box` multiplies the boxes, `obj` the objectness of boxes that answer for a truth, `noobj` that of background,
    `cls` the classes. With `rescore` objectness learns the IoU of the box with its truth in place of 1.
    """

    box: float = 1.0
    obj: float = 1.0
    noobj: float = 1.0
    cls: float = 1.0
    rescore: bool = False

    @classmethod
    def of(cls, head: Head) -> HeadWeights:
        """Those that a [yolo] or [region] writes down, 1 where it says nothing.

        [yolo]: iou_normalizer, obj_normalizer, cls_normalizer; [region]: coord_scale, object_scale, noobject_scale,
        class_scale, rescore. Source: pjreddie's darknet, whose [yolo] has none, and AlexeyAB's. The latter takes 0.75
        where a [yolo] has no iou_normalizer, and heeds cls_normalizer only beside counters_per_class.
        """
        said = head.section
        obj = said.real("obj_normalizer", 1.0, 0.0)
        return cls(
            said.real("iou_normalizer", 1.0, 0.0) * said.real("coord_scale", 1.0, 0.0),
            obj * said.real("object_scale", 1.0, 0.0),
            obj * said.real("noobject_scale", 1.0, 0.0),
            said.real("cls_normalizer", 1.0, 0.0) * said.real("class_scale", 1.0, 0.0),
            said.number("rescore", 0) != 0,
        )


class BoxWeights:
    """The weights of any boxes: `BoxWeights(heads, at).box(rows)` are those of boxes `rows` of the network.

    `heads` are the weights of every head, in the cfg's order; None: 1 throughout.
    """

    def __init__(self, heads: Sequence[HeadWeights] | None, at: Geometry) -> None:
        self._level = at.level
        self._heads = (HeadWeights(),) * len(at.levels) if heads is None else heads

    def _picked(self, get: Callable[[HeadWeights], float], rows: Tensor | slice) -> Tensor:
        values = torch.tensor([get(head) for head in self._heads], dtype=torch.float32, device=self._level.device)
        return values[self._level[rows]]

    def box(self, rows: Tensor | slice) -> Tensor:
        """What multiplies the box part of these boxes."""
        return self._picked(lambda head: head.box, rows)

    def obj(self, rows: Tensor | slice) -> Tensor:
        """What multiplies the objectness of these boxes where they answer for a truth."""
        return self._picked(lambda head: head.obj, rows)

    def noobj(self, rows: Tensor | slice) -> Tensor:
        """What multiplies the objectness of these boxes where they are background."""
        return self._picked(lambda head: head.noobj, rows)

    def cls(self, rows: Tensor | slice) -> Tensor:
        """What multiplies the class part of these boxes."""
        return self._picked(lambda head: head.cls, rows)

    def rescored(self, rows: Tensor | slice) -> Tensor:
        """Whether objectness of these boxes learns their IoU."""
        return self._picked(lambda head: float(head.rescore), rows) > 0
