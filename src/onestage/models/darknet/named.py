"""The detectors of darknet known by name: YOLOv3, its SPP form, v3-tiny, v4-tiny and v2-tiny."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from onestage.models.darknet.detector import Darknet, drawn_with
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.names import options_in
from onestage.models.darknet.plans import plan

COCO = 80
# The anchors of yolov4-tiny-custom.cfg's heads, those of stride 32 first.
CUSTOM = ((3, 4, 5), (0, 1, 2))


class Named(Darknet):
    """A network of `plans.PLANS`; its options are Darknet's without `cfg`."""

    def __init__(
        self, classes: int, size: tuple[int, int] | None = None, anchors: Sequence[Sequence[float]] | None = None,
        masks: Sequence[Sequence[int]] | None = None, start: float = 0.01, **loss: Any,
    ) -> None:  # fmt: skip
        self._build(plan(self.name, classes, size), classes, size, anchors, masks, start, loss)

    @classmethod
    def drawn(cls, options: Mapping[str, Any]) -> Architecture:
        """The network of these options for COCO's 80 classes."""
        return drawn_with(plan(cls.name, 80), options)

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The anchors and masks that a state of PyTorch-YOLOv3 was trained with, where they are not the usual ones."""
        return options_in(state, cls.drawn({}))


class YOLOv3(Named):
    """YOLOv3 of Redmon and Farhadi 2018: Darknet-53, heads at strides 32, 16 and 8; 61,949,149 parameters at COCO."""

    name = "yolov3"


class YOLOv3SPP(Named):
    """YOLOv3 with pools over 5, 9 and 13 cells before its first head; at 608x608."""

    name = "yolov3-spp"


class YOLOv3Tiny(Named):
    """YOLOv3-tiny: thirteen convolutions, heads at strides 32 and 16; 8,852,366 parameters at COCO."""

    name = "yolov3-tiny"
    recipe_defaults: Mapping[str, Any] = {**Darknet.recipe_defaults, "weights": "yolov3-tiny-coco"}


class YOLOv4Tiny(Named):
    """YOLOv4-tiny of Bochkovskiy et al. 2020: CSP blocks, heads at strides 32 and 16, boxes learnt by CIoU.

    With COCO's 80 classes it is the released network, none of whose heads answers with the first anchor (10x14):
    objects that fit it best are not learnt. With any other number the head of stride 16 has anchors 0, 1 and 2, not 1,
    2 and 3, as in AlexeyAB's yolov4-tiny-custom.cfg; weights trained with other masks want their cfg, or `masks`.
    """

    name = "yolov4-tiny"
    default_fit = "squash"
    recipe_defaults: Mapping[str, Any] = {"weights": "yolov4-tiny-coco", "validation.iou": 0.45}

    def __init__(
        self, classes: int, size: tuple[int, int] | None = None, anchors: Sequence[Sequence[float]] | None = None,
        masks: Sequence[Sequence[int]] | None = None, start: float = 0.01, **loss: Any,
    ) -> None:  # fmt: skip
        if classes != COCO and anchors is None and masks is None:
            masks = CUSTOM
        super().__init__(classes, size, anchors, masks, start, **loss)


class YOLOv2Tiny(Named):
    """YOLOv2-tiny of Redmon and Farhadi 2017: one head at stride 32 with five anchors, classes by softmax."""

    name = "yolov2-tiny"
