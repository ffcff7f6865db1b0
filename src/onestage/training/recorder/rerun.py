"""The forward pass once more, watched: the first module whose output is not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onestage.models.detector import Detector
from onestage.training.loop.norms import SynchronisedNorm
from onestage.training.recorder.culprit import Cause, Scene

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Broke(NamedTuple):
    """Where a forward pass left the finite numbers: the module, the largest value that went in, the dtype out."""

    module: str
    kind: str
    largest_input: float
    dtype: str


def overflow(scene: Scene) -> Cause | None:
    """Where predictions are not finite: overflow of half precision if float32 has none, else of the activations."""
    for part, one in scene.passes():
        if bool(torch.isfinite(one.raw.offsets).all()) and bool(torch.isfinite(one.raw.logits).all()):
            continue
        if would_wait_for_others(scene.detector):
            return None
        images = torch.from_numpy(one.batch.images).to(one.raw.offsets.device)
        broke = first_not_finite(scene.detector, images, scene.precision)
        if broke is None:
            return scene.at(
                Cause(
                    "activation-overflow", "predictions were not finite, but those of the same forward pass now are",
                    "possible", remedy="onestage replay shows whether it comes again",
                ), part, 0,
            )  # fmt: skip
        if scene.precision in HALF and first_not_finite(scene.detector, images, "fp32") is None:
            return _amp(scene, broke)
        cause = Cause(
            "activation-overflow", f"the output of {broke.module} ({broke.kind}) is not finite in {broke.dtype}; "
            f"the largest value that goes in is {broke.largest_input:.3g}", "certain",
            consequence="weights and images are finite, yet activations overflow: every prediction after it is lost",
            remedy="a lower optimiser.lr, a longer schedule.warmup, or a smaller clip", names=(broke.module,),
        )  # fmt: skip
        image = _first_image(one.raw.offsets, one.raw.logits)
        return cause if image is None else scene.at(cause, part, image)
    return None


def wider_than(precision: str) -> str:
    """What helps against an overflow of half precision: bf16 has the range of fp32 nearly to its end."""
    return "precision=bf16 or precision=fp32" if precision == "fp16" else "precision=fp32, or a lower optimiser.lr"


def _amp(scene: Scene, broke: Broke) -> Cause:
    most = torch.finfo(HALF[scene.precision]).max
    return Cause(
        "amp-overflow", f"{scene.precision} overflows in {broke.module} ({broke.kind}): a value above {most:.6g}, "
        f"while the same forward pass in fp32 is finite; the largest value that goes in is {broke.largest_input:.3g}",
        "certain",
        consequence="predictions and loss are not finite, though weights and images are fine",
        remedy=wider_than(scene.precision), names=(broke.module,),
    )  # fmt: skip


def first_not_finite(detector: Detector, images: Tensor, precision: str) -> Broke | None:
    """The first module, in order of execution, whose output is not finite though what went in is.

    No gradients; buffers and random states are as before when it returns.
    """
    found: list[Broke] = []
    names = {module: name for name, module in detector.named_modules()}

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if found or _largest(output) < math.inf:
            return
        dtype = next((str(value.dtype).removeprefix("torch.") for value in _tensors(output)), "float32")
        found.append(Broke(names[module] or "the model", type(module).__name__, _largest(inputs), dtype))

    leaves = [module for module in detector.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(look) for module in [*leaves, detector]]
    try:
        with undisturbed(detector), torch.no_grad(), autocast(images.device.type, precision):
            detector(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def broken_image(detector: Detector, images: Tensor, precision: str) -> int | None:
    """The index of the image whose predictions are not finite, where it is one of several alone."""
    with undisturbed(detector), torch.no_grad(), autocast(images.device.type, precision):
        raw = detector(images)
    return _first_image(*raw)


@contextlib.contextmanager
def undisturbed(detector: nn.Module) -> Iterator[None]:
    """Put buffers (statistics of norms) and random states back at the end, bit for bit."""
    kept = [(buffer, buffer.clone()) for buffer in detector.buffers()]
    devices = {p.device for p in detector.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """What the loop's forward pass runs in."""
    if precision not in HALF:
        return contextlib.nullcontext()
    return torch.autocast(device, HALF[precision])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _largest(value: Any) -> float:
    """The largest absolute value of the tensors in `value`; inf where one is not finite."""
    found = [float(tensor.detach().abs().amax()) for tensor in _tensors(value) if tensor.numel()]
    return math.inf if any(not math.isfinite(largest) for largest in found) else max(found, default=0.0)


def _first_image(offsets: Tensor, logits: Tensor) -> int | None:
    """The image whose predictions are not finite, where it is one of several alone."""
    wrong = ~(torch.isfinite(offsets).flatten(1).all(1) & torch.isfinite(logits).flatten(1).all(1))
    return int(wrong.nonzero()[0]) if int(wrong.sum()) == 1 and len(wrong) > 1 else None


def would_wait_for_others(detector: nn.Module) -> bool:
    """Whether a forward pass would wait for other processes: synchronised norms of several ranks."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    kinds = (nn.SyncBatchNorm, SynchronisedNorm)
    return several and any(isinstance(module, kinds) and module.training for module in detector.modules())
