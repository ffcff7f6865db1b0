"""A detector that answers: images as bytes in, all its boxes and scores out, as numpy arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onestage.boxes.selection import PRESETS, Selection
from onestage.errors import ModelError
from onestage.models import defaults
from onestage.models.detector import Detector, Raw

# Half precisions by the recipe's names.
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Of so many pixels on, room is asked for first; a pixel takes so many bytes at least: a float32, normalised, convolved.
_MANY, _LEAST = 2**25, 32


class TorchPredictor:
    """Calls a detector without gradients: uint8 RGB (B, 3, H, W) → boxes (B, P, 4) and scores (B, P, C), float32.

    Boxes are xyxy in pixels of the input. `precision` "bf16" or "fp16" runs the network (never the decoding) in
    that type. A batch of another size than the detector's resizes the detector, which stays so; see `size_kept`.
    """

    def __init__(self, detector: Detector, precision: str = "fp32") -> None:
        self.detector = detector.eval()
        self.type = HALVES.get(precision)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self.detector.size

    def __call__(self, images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The answer for a batch; see the class."""
        return self.decoded(self.raw(images))

    def raw(self, images: NDArray[Any]) -> Raw:
        """What the heads say of a batch, in float32; ModelError where there is too little memory for it."""
        device = next(self.detector.parameters()).device
        height, width = images.shape[2:]
        if self.detector.size != (width, height):
            self.detector.resized((width, height))
        halved = torch.autocast(device.type, self.type, enabled=self.type is not None)
        with shortage_told(len(images), width, height), torch.inference_mode(), halved:
            raw = self.detector(torch.from_numpy(images).to(device))
        return Raw(raw.offsets.float(), raw.logits.float())

    def decoded(self, raw: Raw) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes and scores of a raw answer."""
        with torch.inference_mode():
            boxes, scores = self.detector.decode(raw)
        return boxes.cpu().numpy(), scores.cpu().numpy()


@contextmanager
def shortage_told(images: int, width: int, height: int) -> Iterator[None]:
    """ModelError, with what to try, where memory does not suffice for `images` of `width` x `height` pixels."""
    pixels = images * width * height
    try:
        if pixels > _MANY and (free := _free_memory()) is not None and free < pixels * _LEAST:
            raise MemoryError  # the system would promise it, and end the process later
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_shortage(error):
            raise
        raise ModelError(
            f"there is too little memory for {images} image{'s' * (images > 1)} of {width}x{height} pixels at once",
            hint="a smaller batch" if images > 1 else "a smaller scale, or fit=letterbox",
        ) from error


def _free_memory(told: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the machine has left, where it tells."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", told.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _is_shortage(error: Exception) -> bool:
    """Whether an error is torch's way to say that memory is short."""
    words = str(error)
    short = "not enough memory" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or short


@contextmanager
def size_kept(detector: Detector) -> Iterator[None]:
    """Whatever sizes the detector takes inside, afterwards it has the one it had."""
    size = detector.size
    try:
        yield
    finally:
        if detector.size != size:
            detector.resized(size)


def marks_of(detector: Detector) -> tuple[float, ...]:
    """Numbers that are others once somebody has written to the weights.

    Torch counts how often a tensor was written to, but not through its `.data`, hence the norms beside the counts.
    """
    tensors = list(detector.state_dict(keep_vars=True).values())
    with torch.no_grad():
        norms = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()])
        return (*(tensor._version for tensor in tensors), *torch.stack(norms).tolist())


def shown_selection(
    model: str, score: float | None = None, iou: float | None = None, candidates: int | None = None,
    most: int | None = None,
) -> Selection:  # fmt: skip
    """Which boxes `model` shows people: the preset "view", but where its `recipe_defaults` or the caller say else."""
    own, view = defaults(model), PRESETS["view"]
    return Selection(
        view.score if score is None else score,
        own.get("validation.iou", view.iou) if iou is None else iou,
        own.get("validation.candidates", view.per_class) if candidates is None else candidates,
        own.get("validation.most", view.per_image) if most is None else most,
    )


def refuse_one_size(detector: Detector, why: str = "fit=native") -> None:
    """ModelError for a detector that takes images of one size alone, which `why` cannot do with."""
    width, height = detector.size
    with size_kept(detector):
        try:
            detector.resized((width + 1, height + 1))
        except ModelError:
            raise ModelError(
                f"{why} shows images at sizes of their own, and {detector.name} takes {width}x{height} alone",
                hint="fit=squash or fit=letterbox, or a model of free input size, such as ssd-lite0",
            ) from None
