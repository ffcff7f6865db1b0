"""SSD300 and SSD512 on VGG-16, and SSD heads on any backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onestage.boxes.coding import to_corners
from onestage.boxes.offsets import Coding, boxes_of
from onestage.errors import ModelError
from onestage.models.detector import Assignment, Detector, Loss, Raw, Truth
from onestage.models.multibox import (
    MultiboxHead,
    MultiboxOptions,
    match_batch,
    multibox_decode,
    multibox_loss,
    prior_losses,
)
from onestage.models.multibox_terms import multibox_terms
from onestage.models.prior_plans import PLANS, PriorGrid
from onestage.models.served import Served, ServedMultibox
from onestage.models.vgg import EXTRAS_300, EXTRAS_512, ReducedVGG

MEAN_RGB = (123.0, 117.0, 104.0)
# Input sizes whose priors a detector keeps beside those of its first (multi-scale training returns to ten or so), and
# how many priors in all: 64 MB.
SIZES_KEPT, PRIORS_KEPT = 12, 4_000_000


class Multibox(Detector):
    """A detector whose heads answer per prior; subclasses give `predict_maps` and the part names.

    `priors` (P, 4) are cx, cy, w, h in pixels of the input, `levels` how many each level has; both are those of the
    present `size`, see `resized`.
    """

    default_weights: Mapping[str, float] = {"cls": 1.0, "box": 1.0}

    def __init__(
        self,
        classes: int,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        priors: Tensor,
        levels: Sequence[int],
        options: MultiboxOptions,
    ) -> None:
        super().__init__(classes, size, mean, std)
        self.options = options
        self.levels = list(levels)
        # The buffer is that of the first size for good: what averages buffers (EMA) finds the same shape in every copy.
        self.register_buffer("first_priors", priors, persistent=False)
        self._resized: Tensor | None = None
        self._first = (int(size[0]), int(size[1])), self.levels
        self._known: dict[tuple[int, int], tuple[Tensor, list[int]]] = {}  # the last used at the end

    @property
    def priors(self) -> Tensor:
        """(P, 4) cx, cy, w, h in pixels of the present input size, where the weights are."""
        first = cast(Tensor, self.first_priors)
        return first if self._resized is None else self._resized.to(first.device, first.dtype)

    def resized(self, size: tuple[int, int]) -> None:
        """Take images of another `size` (width, height) from now on: other priors and levels, the same weights.

        The priors of the last sizes are kept. Batch norms, the weights and copies of the detector (EMA) are not
        touched; `resized` with the first size brings the first priors back. Raises ModelError for a size below one
        pixel and for a model of one size.
        """
        size = (int(size[0]), int(size[1]))
        if size == self._first[0]:
            self._resized, self.levels = None, self._first[1]
        else:
            known = self._known.pop(size, None)
            if known is None:
                priors, levels = self.priors_at(size)
                known = priors.to(cast(Tensor, self.first_priors).device), levels
            self._known[size] = known
            while len(self._known) > 1 and (len(self._known) > SIZES_KEPT or self._rows_kept() > PRIORS_KEPT):
                del self._known[next(iter(self._known))]
            self._resized, self.levels = known
        self.size = size

    def _rows_kept(self) -> int:
        return sum(len(priors) for priors, _ in self._known.values())

    def priors_at(self, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
        """The priors (P, 4) at another input size and how many each level has; ModelError where there is one size."""
        raise ModelError(
            f"{self.name}: has one input size, {'x'.join(map(str, self.size))}, got {'x'.join(map(str, size))}",
            hint="a model of free input size, such as ssd-lite0",
        )

    def served(self) -> Served:
        """The network for inference; see `ServedMultibox`."""
        return ServedMultibox(self).eval()

    def coding(self) -> Coding:
        """Offsets from priors cx, cy, w, h; see `boxes.offsets`."""
        size, own = self.size, self.priors.cpu().numpy()

        def priors(wanted: tuple[int, int]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = own if wanted == size else self.priors_at(wanted)[0].cpu().numpy()
            return found

        return Coding(boxes_of, priors)

    def loss(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> Loss:
        """The parts "cls" and "box"; see `multibox_loss`."""
        return multibox_loss(raw, truths, self.priors, self.levels, self.options)

    def decode(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) xyxy in pixels of the input, not clipped, and scores (B, P, C) without background."""
        return multibox_decode(raw, self.priors, self.options.class_loss)

    def assign(self, truths: Sequence[Truth]) -> Assignment:
        """Which prior answers for which truth; see `match_batch`."""
        priors = self.priors
        level = torch.repeat_interleave(torch.tensor(self.levels, device=priors.device))
        return Assignment(match_batch(truths, priors, self.options), to_corners(priors), level)

    def prior_losses(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> dict[str, Tensor]:
        """The parts "cls" and "box" of every prior (B, P)."""
        return prior_losses(raw, truths, self.priors, self.options)[0]

    def terms(
        self, raw: Raw, truths: Sequence[Truth], image: int, prior: int, whole: Tensor | None = None
    ) -> dict[str, float]:  # fmt: skip
        """What the loss of one prior is made of; see `multibox_terms`."""
        priors = self.priors
        row = int(match_batch(truths[image : image + 1], priors, self.options)[0, prior])
        return multibox_terms(
            raw.offsets[image, prior], raw.logits[image, prior], priors[prior], truths[image], row, self.options
        )


class SSD(Multibox):
    """SSD on VGG-16 reduced for one of the paper's square inputs.

    `priors` chooses the default boxes, "voc" or "coco". `loss` are fields of MultiboxOptions, the paper's unless
    given. Raises ModelError for another `size`, unknown priors or options.

    Source: Liu et al. 2016; state-dict names, mean and layers are lufficc/SSD's, whose checkpoints load strictly.
    """

    side: int
    extras: Sequence[tuple[int, int, int, int]]
    # Liu et al. 2016, section 3: SGD, 1e-3, decay 5e-4, batch 32; warm-up and falls as lufficc/SSD's VOC recipe.
    recipe_defaults = {  # noqa: RUF012
        "weights": None, "batch": 32, "augmentation.policy": "ssd", "optimiser.name": "sgd", "optimiser.lr": 1e-3,
        "optimiser.decay": 5e-4, "schedule.name": "multi-step", "validation.iou": 0.45,
    }  # fmt: skip

    def __init__(
        self,
        classes: int,
        size: tuple[int, int] | None = None,
        priors: Literal["voc", "coco"] = "voc",
        **loss: Any,
    ) -> None:
        square = (self.side, self.side)
        if size is not None and tuple(size) != square:
            raise ModelError(
                f"{self.name}: expected input size {self.side}x{self.side}, got {'x'.join(map(str, size))}",
                hint="leave size away, or take a model of free input size",
            )
        if (priors, self.side) not in PLANS:
            raise ModelError(f"{self.name}: expected priors 'voc' or 'coco', got {priors!r}")
        plan = PLANS[priors, self.side]
        options = MultiboxOptions.of(loss, ("priors",))
        super().__init__(classes, square, MEAN_RGB, (1.0, 1.0, 1.0), plan.priors(), plan.levels(), options)
        self.backbone = ReducedVGG(self.extras)
        self.box_head = nn.Module()
        self.box_head.predictor = MultiboxHead(
            self.backbone.channels, plan.per_cell(), options.columns(classes), start_bias=options.start_bias()
        )

    def forward(self, images: Tensor) -> Raw:
        """Raw predictions for RGB images (B, 3, H, W) in 0 … 255."""
        raw: Raw = self.box_head.predictor(self.backbone(self.normalise(images)))  # type: ignore[operator]
        return raw

    def parts(self) -> dict[str, nn.Module]:
        """`backbone` is VGG-16, `neck` the extra levels and the normalisation, `heads` the predictors."""
        neck = nn.ModuleList([self.backbone.l2_norm, self.backbone.extras])
        return {"backbone": self.backbone.vgg, "neck": neck, "heads": self.box_head}


class SSD300(SSD):
    """SSD at 300x300: 8,732 priors on six levels."""

    name = "ssd300"
    side = 300
    extras = EXTRAS_300


class SSD512(SSD):
    """SSD at 512x512: 24,564 priors on seven levels."""

    name = "ssd512"
    side = 512
    extras = EXTRAS_512


class Maps(Protocol):
    """A backbone or neck: its maps' channels and strides, the largest map first."""

    channels: Sequence[int]
    strides: Sequence[int]


class SSDLite(Multibox):
    """SSD heads on the maps of any backbone, for any input size.

    `backbone` takes normalised images to a list of maps, `neck`, where there is one, a list of maps to a list of
    maps; the last of them has `channels` and `strides`, one per level. `sizes` and `ratios` are the priors of each
    level as in `grid_priors`.

    Source: Liu et al. 2016 for the heads; Sandler et al. 2018 for the `separable` ones.
    """

    name = "ssdlite"

    def __init__(
        self,
        classes: int,
        size: tuple[int, int],
        backbone: nn.Module,
        neck: nn.Module | None = None,
        *,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[Sequence[float]],
        mean: Sequence[float],
        std: Sequence[float],
        options: MultiboxOptions | None = None,
        separable: bool = True,
        plain_last: bool = True,
    ) -> None:
        maps = cast(Maps, neck if neck is not None else backbone)
        options = options or MultiboxOptions()
        grid = PriorGrid(tuple(maps.strides), sizes, ratios)
        per_cell = grid.per_cell()
        super().__init__(classes, size, mean, std, *grid.at(size), options)
        self._grid = grid
        self.backbone = backbone
        self.neck = neck
        self.heads = MultiboxHead(
            maps.channels, per_cell, options.columns(classes), separable, plain_last, options.start_bias()
        )  # fmt: skip

    def forward(self, images: Tensor) -> Raw:
        """Raw predictions for RGB images (B, 3, H, W) in 0 … 255."""
        maps = self.backbone(self.normalise(images))
        raw: Raw = self.heads(maps if self.neck is None else self.neck(maps))
        return raw

    def priors_at(self, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
        """The priors (P, 4) at another input size, their sizes in pixels unchanged, and how many each level has."""
        if min(size) < 1:
            raise ModelError(f"{self.name}: expected an input of at least one pixel, got {size[0]}x{size[1]}")
        return self._grid.at(size)

    def parts(self) -> dict[str, nn.Module]:
        """`backbone`, `neck` where there is one, `heads`."""
        neck = {} if self.neck is None else {"neck": self.neck}
        return {"backbone": self.backbone, **neck, "heads": self.heads}
