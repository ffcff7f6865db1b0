"""The networks known by name, as cfgs for any number of classes: yolov3, its kin, the tiny ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onestage.models.darknet.cfg import Cfg, parse

Rows = Mapping[str, object]
Pairs = Sequence[tuple[float, float]]
COCO_NINE = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
COCO_SIX = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
# In cells of 32 pixels, as [region] counts them.
COCO_FIVE = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))


class Plan:
    """A cfg as it grows, layer by layer; `len` is the index of the next layer."""

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        self.classes = classes
        self.blocks = [_block("net", {"width": size[0], "height": size[1], "channels": 3})]

    def __len__(self) -> int:
        return len(self.blocks) - 1

    def add(self, kind: str, **options: object) -> None:
        """Any layer."""
        self.blocks.append(_block(kind, options))

    def conv(self, filters: int, size: int, stride: int = 1) -> None:
        """A convolution with norm and leaky ReLU, padded so that stride 1 keeps the size."""
        self.add("convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1,
                 activation="leaky")  # fmt: skip

    def convs(self, *filters: int) -> None:
        """Convolutions of 1x1 and 3x3 in turn."""
        for i, one in enumerate(filters):
            self.conv(one, 3 if i % 2 else 1)

    def route(self, *layers: int, **more: object) -> None:
        """Layers side by side; numbers below 0 count backwards."""
        self.add("route", layers=",".join(map(str, layers)), **more)

    def yolo(self, anchors: Pairs, mask: Sequence[int], **more: object) -> None:
        """The linear convolution and the [yolo] layer that answers with `mask` of the anchors."""
        self.linear(len(mask) * (5 + self.classes))
        self.add("yolo", mask=",".join(map(str, mask)), anchors=_pairs(anchors), classes=self.classes,
                 num=len(anchors), **more)  # fmt: skip

    def linear(self, filters: int) -> None:
        """A convolution of 1x1 with biases alone."""
        self.add("convolutional", size=1, stride=1, pad=1, filters=filters, activation="linear")

    def cfg(self, name: str) -> Cfg:
        """The finished cfg."""
        return parse("\n".join(self.blocks), name)


def _block(kind: str, options: Rows) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items())]) + "\n"


def _pairs(anchors: Pairs) -> str:
    return ", ".join(f"{width:g},{height:g}" for width, height in anchors)


def _darknet53(plan: Plan) -> None:
    """The 75 layers 0 to 74; 36 ends stride 8, 61 stride 16."""
    plan.conv(32, 3)
    for width, times in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        plan.conv(width, 3, 2)
        for _ in range(times):
            plan.convs(width // 2, width)
            plan.add("shortcut", **{"from": -3, "activation": "linear"})


def _yolov3(plan: Plan, pyramid: bool) -> None:
    """Three heads at strides 32, 16 and 8; `pyramid` pools over 5, 9 and 13 cells before the first (SPP)."""
    _darknet53(plan)
    for width, mask, lateral in ((512, (6, 7, 8), None), (256, (3, 4, 5), 61), (128, (0, 1, 2), 36)):
        if lateral is not None:
            plan.route(-4)
            plan.conv(width, 1)
            plan.add("upsample", stride=2)
            plan.route(-1, lateral)
        if lateral is None and pyramid:
            plan.convs(width, 2 * width, width)
            for size, back in ((5, -2), (9, -4), (13, None)):
                plan.add("maxpool", stride=1, size=size)
                if back is not None:
                    plan.route(back)
            plan.route(-1, -3, -5, -6)
            plan.convs(width, 2 * width, width, 2 * width)
        else:
            plan.convs(*(width, 2 * width) * 3)
        plan.yolo(COCO_NINE, mask, jitter=0.3, ignore_thresh=0.7, truth_thresh=1, random=1)


def _tiny_trunk(plan: Plan) -> None:
    """Layers 0 to 12: six convolutions each before a pool, the last pool of stride 1, and one of 1024 filters."""
    for width in (16, 32, 64, 128, 256, 512):
        plan.conv(width, 3)
        plan.add("maxpool", size=2, stride=1 if width == 512 else 2)
    plan.conv(1024, 3)


def _two_heads(plan: Plan, lateral: int, mask: Sequence[int], more: Mapping[str, object]) -> None:
    """The heads of the tiny networks: at stride 32, and at stride 16 beside layer `lateral`, with anchors `mask`."""
    plan.convs(256, 512)
    plan.yolo(COCO_SIX, (3, 4, 5), **more)
    plan.route(-4)
    plan.conv(128, 1)
    plan.add("upsample", stride=2)
    plan.route(-1, lateral)
    plan.conv(256, 3)
    plan.yolo(COCO_SIX, mask, **more)


def _yolov3_tiny(plan: Plan) -> None:
    more = {"jitter": 0.3, "ignore_thresh": 0.7, "truth_thresh": 1, "random": 1}
    _tiny_trunk(plan)
    _two_heads(plan, 8, (0, 1, 2), more)


def _yolov4_tiny(plan: Plan) -> None:
    """CSP blocks that split the channels in two; the second head has anchors 1, 2, 3: none answers with the first."""
    more = {
        "scale_x_y": 1.05, "iou_loss": "ciou", "iou_normalizer": 0.07, "cls_normalizer": 1.0, "jitter": 0.3,
        "ignore_thresh": 0.7, "truth_thresh": 1, "random": 0, "resize": 1.5,
    }  # fmt: skip
    plan.conv(32, 3, 2)
    plan.conv(64, 3, 2)
    for width in (64, 128, 256):
        plan.conv(width, 3)
        plan.route(-1, groups=2, group_id=1)
        plan.conv(width // 2, 3)
        plan.conv(width // 2, 3)
        plan.route(-1, -2)
        plan.conv(width, 1)
        plan.route(-6, -1)
        plan.add("maxpool", size=2, stride=2)
    plan.conv(512, 3)
    _two_heads(plan, 23, (1, 2, 3), more)


def _yolov2_tiny(plan: Plan) -> None:
    _tiny_trunk(plan)
    plan.conv(512, 3)
    plan.linear(len(COCO_FIVE) * (5 + plan.classes))
    plan.add("region", anchors=_pairs(COCO_FIVE), bias_match=1, classes=plan.classes, coords=4, num=len(COCO_FIVE),
             softmax=1, jitter=0.2, rescore=0, object_scale=5, noobject_scale=1, class_scale=1, coord_scale=1,
             absolute=1, thresh=0.6, random=1)  # fmt: skip


# Name → what draws it, and its usual input size.
PLANS: Mapping[str, tuple[Callable[[Plan], None], int]] = {
    "yolov3": (lambda plan: _yolov3(plan, pyramid=False), 416),
    "yolov3-spp": (lambda plan: _yolov3(plan, pyramid=True), 608),
    "yolov3-tiny": (_yolov3_tiny, 416),
    "yolov4-tiny": (_yolov4_tiny, 416),
    "yolov2-tiny": (_yolov2_tiny, 416),
}


def plan(name: str, classes: int, size: tuple[int, int] | None = None) -> Cfg:
    """The cfg of a network of PLANS for `classes` classes at `size` (width, height), its usual one by default.

    Layers, anchors and masks are those of the released cfgs of the same names (yolov2-tiny: that for COCO), so that
    their weights fit.

    Source: Redmon and Farhadi 2017 and 2018; Bochkovskiy et al. 2020; the cfgs of pjreddie's and AlexeyAB's darknet.
    """
    draw, usual = PLANS[name]
    made = Plan(classes, size or (usual, usual))
    draw(made)
    return made.cfg(f"{name}.cfg")
