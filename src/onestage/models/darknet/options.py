"""What may be asked of a YOLO network in training, checked: which loss, its thresholds and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from onestage.errors import ModelError, did_you_mean
from onestage.models.darknet.layers import Architecture

LossName = Literal["darknet", "ratio", "per-scale"]
BoxLoss = Literal["mse", "iou", "giou", "diou", "ciou"]
_RANGES = {
    "ignore": (0.0, 1.0), "truth": (0.0, 10.0), "also": (0.0, 1.0), "ratio": (1.0, 100.0), "most": (0, 1_000_000),
    "near": (0.0, 1.0), "label_smoothing": (0.0, 0.999),
}  # fmt: skip

# The options that speak of some losses alone.
_OF: Mapping[str, tuple[LossName, ...]] = {
    "ignore": ("darknet", "per-scale"), "truth": ("darknet",), "also": ("darknet",), "box": ("darknet",),
    "ratio": ("ratio",),
}  # fmt: skip


@dataclass(frozen=True)
class YoloOptions:
    """Which predictions answer for which truth, and what is summed into the loss.

    `loss` is "darknet", "ratio" or "per-scale". `ignore` is the IoU with some truth from which a box of background is
    left alone ("darknet": of the predicted box; "per-scale": of the anchor's shape at the truth's cell); `truth` that
    from which a prediction is positive besides ("darknet"; 1 is never); `also` the IoU of shapes from which further
    anchors are positive ("darknet"; 1 is never). `box` is how boxes are compared: "mse" of centre and log sides, or an
    IoU ("darknet"). `ratio` is the largest ratio of sides of an anchor and the truth it answers for ("ratio").
    `most` is the largest number of truths of an image that count, 0 for all of them, as in darknet's `max`. `near` is
    the share of a box of background covered by a region to ignore from which it is left alone. `label_smoothing`
    softens the classes' targets.
    """

    loss: LossName = "darknet"
    ignore: float = 0.7
    truth: float = 1.0
    also: float = 1.0
    box: BoxLoss = "mse"
    ratio: float = 4.0
    most: int = 0
    near: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        choices = {"loss": get_args(LossName), "box": get_args(BoxLoss)}
        problems = [
            f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
            f"{did_you_mean(str(getattr(self, name)), allowed)}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        for name, (least, highest) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if name == "most" else int | float):
                problems.append(f"{name}: expected a {'whole ' * (name == 'most')}number, got {value!r}")
            elif not least <= value <= highest:
                problems.append(f"{name}: expected {least:g} to {highest:g}, got {value!r}")
        if problems:
            raise ModelError("the loss cannot be built", problems=problems)

    def idle(self, asked: Mapping[str, Any]) -> list[str]:
        """A sentence for each option that is asked for and speaks of other losses than this."""
        return [
            f"options.{name}: has no effect with loss={self.loss}, only with {' or '.join(_OF[name])}: leave it away, "
            f"or set it to null" for name, value in asked.items()
            if value is not None and self.loss not in _OF.get(name, (self.loss,))
        ]  # fmt: skip

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """The names of the options."""
        return tuple(cls.__dataclass_fields__)


def options_of(network: Architecture, asked: Mapping[str, Any]) -> YoloOptions:
    """The options of a network: what is `asked` for, if not None, else what its first head says, else darknet's own.

    Of the cfg count `ignore_thresh`, `truth_thresh`, `iou_thresh` and `iou_loss` of [yolo], `thresh` of [region].
    `max` does not: darknet's limit of truths is no part of the network, and off here unless `most` asks for one.
    """
    section = network.heads[0].section
    told: dict[str, Any] = {}
    if section.kind == "yolo":
        # darknet's own default of 0.5 where the cfg says nothing, see parse_yolo
        told = {
            "ignore": section.real("ignore_thresh", 0.5), "truth": section.real("truth_thresh", 1.0),
            "also": section.real("iou_thresh", 1.0), "box": section.word("iou_loss", "mse", get_args(BoxLoss)),
        }  # fmt: skip
    elif section.kind == "region":
        told = {"ignore": section.real("thresh", 0.5)}
    return YoloOptions(**(told | {name: value for name, value in asked.items() if value is not None}))


def refuse_unknown(asked: Mapping[str, Any]) -> None:
    """ModelError for options that no YOLO network has, each with the nearest right word."""
    known = ["anchors", "masks", "start", *YoloOptions.known()]
    unknown = [f"{key!r}{did_you_mean(key, known)}" for key in asked if key not in known]
    if unknown:
        raise ModelError("unknown model options", problems=unknown, hint=f"one of: {', '.join(known)}")
