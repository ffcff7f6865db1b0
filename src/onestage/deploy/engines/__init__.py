"""Engines that a detector can run in, by name: what each can do, and the door to them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from onestage.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from onestage.data.images import Pixels
    from onestage.deploy.engines.engine import Engine
    from onestage.models.detector import Detector

# Name → "module:function", called with (detector, precision, threads, device, calibration), and the precisions it has.
ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("onestage.deploy.engines.torch_eager:torch_engine", ("fp32", "bf16")),
    "onnxruntime": ("onestage.deploy.engines.graph:onnxruntime_engine", ("fp32", "int8")),
    "openvino": ("onestage.deploy.engines.graph:openvino_engine", ("fp32", "bf16", "int8")),
}


def check_engine(name: str, precision: str = "fp32", threads: int | None = None, device: str | None = None) -> None:
    """UsageError for an unknown engine, and for a precision, number of threads or device that it does not take."""
    if not isinstance(name, str) or name not in ENGINES:
        raise UsageError(
            f"unknown engine {name!r}{did_you_mean(str(name), ENGINES)}", hint="one of: " + ", ".join(ENGINES)
        )
    able = ENGINES[name][1]
    if not isinstance(precision, str) or precision not in able:
        others = [other for other, (_, precisions) in ENGINES.items() if precision in precisions]
        raise UsageError(
            f"engine={name} has precision {', '.join(able)}, not {precision!r}{did_you_mean(str(precision), able)}",
            hint=f"engine={others[0]} precision={precision}" if others else f"precision={able[0]}",
        )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"threads: expected a whole number from 1 on, got {threads!r}")
    if name != "torch" and device not in (None, "auto", "cpu"):
        raise UsageError(f"engine={name} runs on the CPU, not on {device}", hint="engine=torch, or without device=")


def start_engine(
    name: str, detector: Detector, precision: str = "fp32", threads: int | None = None, *,
    device: str | None = None, calibration: Sequence[Pixels] = (),
) -> Engine:  # fmt: skip
    """The detector as it is now, running in the engine of that name: a Predictor of `deploy.predict`.

    `precision` is "fp32", or "bf16" or "int8" where the engine has it; `threads` by default all the engine finds.
    `device` is for torch alone. `calibration` are RGB images uint8 (H, W, 3) at the network's size, from which int8
    learns the range of each layer; it needs some, and the more like those to come the better. The graph that
    onnxruntime and openvino run is kept in the cache.

    Raises UsageError for what the engine does not take, ModelError where its package is missing or the model cannot be
    served, ExportError where the graph does not answer like the detector.
    """
    check_engine(name, precision, threads, device)
    module, _, attribute = ENGINES[name][0].partition(":")
    make: Any = getattr(import_module(module), attribute)
    made: Engine = make(detector, precision, threads, device, calibration)
    return made
