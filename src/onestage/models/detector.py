"""The contract of all detectors: forward → raw, loss → named parts per image, decode → boxes, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from onestage.boxes.anchor_fit import Heads
from onestage.boxes.offsets import Coding
from onestage.errors import ModelError
from onestage.records import Annotations

if TYPE_CHECKING:
    from onestage.models.served import Served


class Raw(NamedTuple):
    """What the heads say before decoding: `offsets` (B, P, 4) and `logits` (B, P, K), float, P boxes per image."""

    offsets: Tensor
    logits: Tensor


class Held(NamedTuple):
    """What a file that only one model can read holds for it.

    `tensors` are those that fit, by our names; `skipped` says of others why they do not, `absent` why some of the
    model's are not in the file at all, both by name; `notes` are what the user should know of the file.
    """

    tensors: dict[str, Tensor]
    skipped: Mapping[str, str] = {}
    absent: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


class Truth(NamedTuple):
    """The annotations of one image on the device: `boxes` (N, 4) in input pixels, `labels` (N,), `ignore` (N,)."""

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    @classmethod
    def of(cls, annotations: Annotations, device: torch.device | str) -> Truth:
        """The record as tensors; crowds count as regions to ignore."""
        return cls(
            torch.as_tensor(annotations.boxes, dtype=torch.float32).to(device),
            torch.as_tensor(annotations.labels).to(device),
            torch.as_tensor(annotations.ignore | annotations.crowd).to(device),
        )


class Assignment(NamedTuple):
    """Which prior answers for which truth.

    `match` (B, P): the row of the truth, BACKGROUND (-1) or IGNORED (-2) of `boxes.matching`; a prior that answers for
    several truths (as in some YOLO losses) names the one whose box it learns. `boxes` (P, 4): the priors, xyxy in
    pixels of the input; `level` (P,): which level of the network each belongs to, as in `Loss.positives`.
    """

    match: Tensor
    boxes: Tensor
    level: Tensor


# What a level tells of itself, as sums: the positives; of these the IoU with the truth, the score of its class, the
# objectness, IoU above 0.5, above 0.75; the boxes of the level, and their objectness, positives included.
SCALE = ("count", "iou", "cls", "obj", "r50", "r75", "cells", "noobj")


@dataclass
class Loss:
    """What each image of a batch did to the loss.

    `parts[name]` (B,) is the raw sum of that part over the boxes of each image; `positives` (B, L) counts matched
    boxes per level; `normaliser` (B,) is what each image adds to the denominator; `negatives` (B,) counts the boxes of
    background that were picked for the class part, where they are picked. The loss of a whole batch, however
    it is cut into micro-batches or ranks, is the sum of parts over the sum of normalisers (at least 1).

    What else a step tells: `scales` (B, L, len(SCALE)) are the sums of `SCALE` for each image and level, `sums[name]`
    (B,) whatever adds up over images, such as how many truths no prior answers for.
    """

    parts: dict[str, Tensor]
    positives: Tensor
    normaliser: Tensor
    negatives: Tensor | None = None
    scales: Tensor | None = None
    sums: dict[str, Tensor] = field(default_factory=dict)

    def total(self, weights: Mapping[str, float], denominator: Tensor | float | None = None) -> Tensor:
        """The weighted scalar to differentiate; `denominator` replaces the batch's own (accumulation, many ranks)."""
        if denominator is None:
            denominator = self.normaliser.sum().clamp(min=1)
        return sum(weights.get(name, 1.0) * part.sum() for name, part in self.parts.items()) / denominator  # type: ignore[return-value]


class Detector(nn.Module, ABC):
    """A one-stage detector for `classes` classes at input `size` (width, height).

    `forward` takes RGB images (B, 3, H, W), uint8 or float in 0 … 255, and normalises them itself, so that training,
    export and prediction cannot disagree. Subclasses set `mean` and `std` (per channel, in 0 … 255) and name their
    parts in `parts()` for freezing and learning rates. `default_weights` scale the parts of the loss, and
    `recipe_defaults` are recipe keys the model trains well with, where the user names no other, `tuning_defaults` those
    that differ where it starts from trained weights. `default_classes` and
    `default_fit` are those of weights of other programs, which do not say.
    """

    name: str
    default_weights: Mapping[str, float] = {}
    recipe_defaults: Mapping[str, Any] = {}
    tuning_defaults: Mapping[str, Any] = {}
    default_classes: Sequence[str] = ()
    default_fit: str = "squash"

    def __init__(self, classes: int, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.classes = classes
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """RGB in 0 … 255 as the backbone wants it."""
        mean: Tensor = self.mean  # type: ignore[assignment]
        std: Tensor = self.std  # type: ignore[assignment]
        return (images.to(mean.dtype) - mean) / std

    @abstractmethod
    def forward(self, images: Tensor) -> Raw:
        """Raw predictions for RGB images (B, 3, H, W) in 0 … 255."""

    @abstractmethod
    def loss(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> Loss:
        """The parts of the loss per image; finite whatever the truths, N = 0 included.

        `whole` are the `counts` of the whole batch where these images are only some of it.
        """

    def idle(self, options: Mapping[str, Any]) -> list[str]:
        """A sentence for each of the `options` it was built with that changes nothing beside the others."""
        return []

    def counts(self, truths: Sequence[Truth]) -> Tensor | None:
        """Numbers (N,) of these images that a loss of several means is divided by; they add up over a whole batch.

        None, as by default, for a loss that is one sum over one normaliser.
        """
        return None

    @abstractmethod
    def decode(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) xyxy in pixels of the input and scores (B, P, C) in [0, 1]; plain tensor ops, exportable."""

    @property
    def level_layers(self) -> Sequence[int]:
        """The layer of its cfg that each level is, in the order of `Loss.positives`; none, as by default, without."""
        return ()

    @abstractmethod
    def assign(self, truths: Sequence[Truth]) -> Assignment:
        """Which prior answers for which truth; what drawings and the flight recorder show."""

    @abstractmethod
    def prior_losses(self, raw: Raw, truths: Sequence[Truth], whole: Tensor | None = None) -> dict[str, Tensor]:
        """The parts of the loss before they are summed over priors: {part: (B, P)}; their sums are `Loss.parts`."""

    @abstractmethod
    def terms(
        self, raw: Raw, truths: Sequence[Truth], image: int, prior: int, whole: Tensor | None = None
    ) -> dict[str, float]:  # fmt: skip
        """The terms of one prior's loss by formula: {"ln(w / prior w) / 0.2": -inf, …}; what is not finite blew up."""

    def anchor_heads(self) -> Heads | None:
        """The anchors of its heads, where their number is fixed and their sides free; None, as by default, else."""
        return None

    def resized(self, size: tuple[int, int]) -> None:
        """Take images of another `size` (width, height) from now on, weights unchanged; ModelError where it cannot."""
        raise ModelError(f"{self.name}: has one input size, got {size[0]}x{size[1]}")

    def served(self) -> Served:
        """A copy for inference in any engine: RGB uint8 (B, H, W, 3) → offsets (B, P, 4), scores (B, P, C).

        It is in evaluation mode. Raises ModelError for a model that has none.
        """
        raise ModelError(f"{self.name}: runs in training's own form alone", hint="leave engine= out")

    def coding(self) -> Coding:
        """How its offsets become boxes in numpy, as `decode` does in torch; engines decode with it.

        It keeps the present input size as it is at this moment; its `priors` raise ModelError for a size that the
        detector does not take. Raises ModelError for a model that has none.
        """
        raise ModelError(f"{self.name}: runs in training's own form alone", hint="leave engine= out")

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The model's options that a file of another program was made with, told by its tensors; {} by default."""
        return {}

    def hasten(self, steps: int) -> None:
        """Let what has a pace of its own, such as norms' statistics, keep up with a run of so many steps."""

    @classmethod
    def fit_for(cls, options: Mapping[str, Any]) -> str:
        """How images come to a network of these options whose weights do not say."""
        return cls.default_fit

    @classmethod
    def resolved(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as a run and its weights keep them: whole, so that no other file is needed; as they are here."""
        return dict(options)

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether a file is of a kind that this model alone can `read`; False by default."""
        return False

    def read(self, path: Path) -> Held:
        """What a file that the model `reads` holds; ModelError for one that does not fit, or is no such file."""
        raise ModelError(f"{self.name}: reads no files of its own kind")

    @classmethod
    def classes_in(cls, path: Path, options: Mapping[str, Any]) -> int | None:
        """How many classes a file of another program tells apart; None, as by default, where it does not say.

        `options` are those the model is built with.
        """
        return None

    def adapt(self, state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """A file's tensors as this detector has them: renamed, reordered. `options` are those of a file of ours.

        By default the tensors as they are. Raises ModelError for a file that means another network.
        """
        return dict(state)

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The named parts: at least `backbone` and `heads`, and `neck` where there is one."""
