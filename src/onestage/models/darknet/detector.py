"""The detector of any darknet cfg."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from onestage.boxes.anchor_fit import Heads
from onestage.boxes.cells import boxes_of_cells
from onestage.boxes.offsets import Coding
from onestage.errors import ModelError
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import Cfg, read
from onestage.models.darknet.changed import changed
from onestage.models.darknet.files import classes_in, classes_of, held_in
from onestage.models.darknet.geometry import Geometry, geometry
from onestage.models.darknet.header import is_weights
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.losses.yolo_loss import (
    head_weights,
    yolo_counts,
    yolo_loss,
    yolo_match,
    yolo_prior_losses,
    yolo_terms,
)
from onestage.models.darknet.names import ours
from onestage.models.darknet.network import DarknetNorm, answers, units
from onestage.models.darknet.options import options_of, refuse_unknown
from onestage.models.darknet.served import ServedDarknet, cells_of
from onestage.models.darknet.settings import fit_of
from onestage.models.detector import Assignment, Detector, Held, Loss, Raw, Truth
from onestage.models.served import Served
from onestage.models.weights_files import read_state

# Input sizes whose boxes are kept: multi-scale training returns to ten or so.
SIZES_KEPT = 12
# The weights of the parts of each loss: darknet's own; those of recipes/yolov3-tiny-signs.yaml; PyTorch-YOLOv3's.
WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "darknet": {"box": 1.0, "obj": 1.0, "cls": 1.0},
    "ratio": {"box": 0.5, "obj": 1.0, "cls": 0.05},
    "per-scale": {"box": 1.0, "obj": 1.0, "noobj": 100.0, "cls": 1.0},
}


class Darknet(Detector):
    """The network of a darknet `cfg` (a file, or its text), its heads made for `classes` classes.

    `size` is by default the cfg's; sides are multiples of its coarsest stride. `anchors` and `masks` replace the cfg's,
    see `changed`. `start` is the objectness that new heads begin with; darknet's is 0.5. `loss` are fields of
    YoloOptions; what they leave open is the cfg's (`options_of`). RGB is divided by 255, nothing is taken off.

    Raises ModelError for a cfg that cannot be built, a size it does not take and unknown options.

    Source: pjreddie's and AlexeyAB's darknet. What they compute is computed here: leaky ReLU of 0.1, norms that divide
    by sqrt(variance) + 1e-6, pools padded with minus infinity. Names of tensors are ours: `layers.{index}.conv` and
    `.bn`, the index being darknet's.
    """

    name = "darknet"
    default_weights: Mapping[str, float] = WEIGHTS["darknet"]
    default_fit = "letterbox"
    # Suppression and the fit are those of darknet's detector test and valid.
    recipe_defaults: Mapping[str, Any] = {"weights": None, "fit": "letterbox", "validation.iou": 0.45}

    def __init__(
        self, classes: int, size: tuple[int, int] | None = None, cfg: str | None = None,
        anchors: Sequence[Sequence[float]] | None = None, masks: Sequence[Sequence[int]] | None = None,
        start: float = 0.01, **loss: Any,
    ) -> None:  # fmt: skip
        if cfg is None:
            raise ModelError("darknet: the network's cfg is needed", hint="model=my.cfg, or options.cfg=my.cfg")
        self._build(read(cfg), classes, size, anchors, masks, start, loss)

    def _build(
        self, cfg: Cfg, classes: int, size: tuple[int, int] | None, anchors: Sequence[Sequence[float]] | None,
        masks: Sequence[Sequence[int]] | None, start: float, loss: Mapping[str, Any],
    ) -> None:  # fmt: skip
        refuse_unknown(loss)
        if isinstance(start, bool) or not isinstance(start, float | int) or not 0 < start < 1:
            raise ModelError(f"start: expected a number between 0 and 1, got {start!r}")
        built = architecture(changed(cfg, classes, size, anchors, masks))
        self._grids = built.grids(built.size)  # before any weight is made: a size it does not take is told first
        Detector.__init__(self, classes, built.size, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        self.options = options_of(built, loss)
        self.default_weights = WEIGHTS[self.options.loss]
        self.head_weights = head_weights(built)
        self.architecture, self.layers = built, units(built)
        self.begin_at(start)
        self._known: dict[tuple[tuple[int, int], torch.device], Geometry] = {}

    @property
    def level_layers(self) -> Sequence[int]:
        """The layer of the cfg that each level is."""
        return tuple(head.index for head in self.architecture.heads)

    @property
    def boxes(self) -> Geometry:
        """Where the boxes stand at the present input size, on the device of the weights."""
        device = next(self.parameters()).device
        key = (self.size, device)
        if key not in self._known:
            while len(self._known) >= SIZES_KEPT:
                del self._known[next(iter(self._known))]
            with torch.inference_mode(False):  # else what judging makes first no gradient could be taken with
                grids = self.architecture.grids(self.size)
                self._known[key] = geometry(self.architecture.heads, self.size, grids, device).filled()
        return self._known[key]

    def anchor_heads(self) -> Heads:
        """The cfg's anchors in pixels of the input, which head has which, and the heads' strides."""
        heads = self.architecture.heads
        strides = tuple(head.shape.stride for head in heads)
        unit = strides[0] if heads[0].section.kind == "region" else 1.0
        return Heads(heads[0].anchors, tuple(head.mask for head in heads), strides, unit)

    def resized(self, size: tuple[int, int]) -> None:
        """Take images of another `size` from now on; ModelError where its sides are no multiples of the stride."""
        size = (int(size[0]), int(size[1]))
        self.architecture.grids(size)
        self.size = size

    def hasten(self, steps: int) -> None:
        """Let norms forget within a tenth of a run of `steps` steps, where darknet's hundred steps are longer.

        At its 0.01 a short run would be judged by statistics of weights long gone: after 170 steps from COCO's weights
        on 155 photographs of helmets AP50 was 0.29, and 0.32 by the same weights' own statistics.
        """
        for norm in self.modules():
            if isinstance(norm, DarknetNorm):
                norm.momentum = max(norm.momentum or 0.0, min(10 / max(steps, 1), 0.1))

    def begin_at(self, objectness: float) -> None:
        """Let the heads begin with this objectness everywhere, and with classes at one half."""
        for head in self.architecture.heads:
            bias = cast(Tensor, self.layers[str(head.index - 1)].conv.bias)  # type: ignore[union-attr]
            with torch.no_grad():
                bias.view(len(head.mask), -1)[:, 4] = math.log(objectness / (1 - objectness))

    def normalise(self, images: Tensor) -> Tensor:
        """RGB in 0 … 255 as shares of 255; under autocast in its type at once, which rounds to the same numbers."""
        kind = images.device.type
        halved = images.dtype == torch.uint8 and torch.is_autocast_enabled(kind)
        return images.to(torch.get_autocast_dtype(kind) if halved else self.mean.dtype) / 255  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Raw:
        """Raw predictions for RGB images (B, 3, H, W) in 0 … 255: tx, ty, tw, th, and logits of objectness, classes."""
        said = []
        for answer in answers(self.architecture, self.layers, self.normalise(images)):
            batch, _, rows, columns = answer.shape
            boxes = answer.shape[1] // (5 + self.classes)
            said.append(answer.permute(0, 2, 3, 1).reshape(batch, rows * columns * boxes, 5 + self.classes))
        whole = said[0] if len(said) == 1 else torch.cat(said, 1)
        return Raw(whole[..., :4], whole[..., 4:])

    def loss(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> Loss:
        """The parts of the loss that `options.loss` names; see `losses.yolo_loss`."""
        return yolo_loss(raw, truths, self.boxes, self.options, self.head_weights, whole)

    def idle(self, options: Mapping[str, Any]) -> list[str]:
        """Those of the loss's options that speak of another loss."""
        return self.options.idle(options)

    def counts(self, truths: Sequence[Truth]) -> Tensor | None:
        """What the means of the losses "ratio" and "per-scale" are taken over."""
        return yolo_counts(truths, self.boxes, self.options)

    def decode(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) xyxy in pixels of the input, not clipped, and scores (B, P, C): objectness times class."""
        logits = raw.logits.float()
        softmax = self.boxes.levels[0].softmax
        classes = torch.softmax(logits[..., 1:], -1) if softmax else torch.sigmoid(logits[..., 1:])
        return self.boxes.decode(raw.offsets.float()), torch.sigmoid(logits[..., :1]) * classes

    def served(self) -> Served:
        """The network for inference; see `ServedDarknet`."""
        return ServedDarknet(self).eval()

    def coding(self) -> Coding:
        """Offsets from cells; see `boxes.cells`."""
        heads, grids = self.architecture.heads, self.architecture.grids
        return Coding(boxes_of_cells, lambda size: cells_of(geometry(heads, size, grids(size))))

    def assign(self, truths: Sequence[Truth]) -> Assignment:
        """Which box answers for which truth, before any is predicted."""
        at = self.boxes
        return Assignment(yolo_match(truths, at, self.options), at.priors, at.level)

    def prior_losses(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> dict[str, Tensor]:
        """The parts of the loss of every box (B, P)."""
        return yolo_prior_losses(raw, truths, self.boxes, self.options, self.head_weights, whole)

    def terms(
        self, raw: Raw, truths: Sequence[Truth], image: int, prior: int, whole: Tensor | None = None
    ) -> dict[str, float]:  # fmt: skip
        """What the loss of one box is made of."""
        return yolo_terms(raw, truths, image, prior, self.boxes, self.options, self.head_weights, whole)

    def parts(self) -> dict[str, nn.Module]:
        """`backbone` up to `Architecture.trunk`, `heads` the linear convolutions, `neck` what lies between."""
        trunk, heads = self.architecture.trunk, {one.index for one in self.architecture.convolutions if one.head}
        of = {int(index): unit for index, unit in self.layers.items()}
        return {
            "backbone": nn.ModuleList(unit for index, unit in of.items() if index < trunk),
            "neck": nn.ModuleList(unit for index, unit in of.items() if index >= trunk and index not in heads),
            "heads": nn.ModuleList(unit for index, unit in of.items() if index in heads),
        }

    @classmethod
    def fit_for(cls, options: Mapping[str, Any]) -> str:
        """As the cfg among the options has it; see `settings.fit_of`."""
        return fit_of(read(options["cfg"])) if isinstance(options.get("cfg"), str) else cls.default_fit

    @classmethod
    def resolved(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with the text of the cfg in place of its path."""
        kept = dict(options)
        if isinstance(kept.get("cfg"), str):
            kept["cfg"] = read(kept["cfg"]).text()
        return kept

    @classmethod
    def drawn(cls, options: Mapping[str, Any]) -> Architecture:
        """The network of these options for as many classes as its cfg has."""
        cfg = options.get("cfg")
        if not isinstance(cfg, str):
            raise ModelError("darknet: the network's cfg is needed", hint="model=my.cfg, or options.cfg=my.cfg")
        return drawn_with(read(cfg), options)

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether a file is a .weights, or begins as one and is nothing else."""
        return is_weights(path)

    def read(self, path: Path) -> Held:
        """A .weights file; see `binary.read_weights`."""
        return held_in(path, self.architecture)

    @classmethod
    def classes_in(cls, path: Path, options: Mapping[str, Any]) -> int | None:
        """How many classes a .weights file, or a state of a PyTorch port, tells apart."""
        network = cls.drawn(options)
        return classes_in(path, network) if is_weights(path) else classes_of(read_state(path), network)

    def adapt(self, state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """A state of a PyTorch port of darknet under our names; see `names.ours`."""
        return ours(state, self.architecture) if options is None else dict(state)


def drawn_with(cfg: Cfg, options: Mapping[str, Any]) -> Architecture:
    """The network of a cfg with the anchors and masks among the options."""
    return architecture(changed(cfg, None, None, options.get("anchors"), options.get("masks")))
