"""Detectors as ONNX graphs for other engines: made once, checked against the detector, kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.jit._trace import TracerWarning

from onestage.data.images import Pixels
from onestage.deploy.engines.engine import Engine
from onestage.deploy.engines.kept import Kept
from onestage.deploy.engines.onnx_runtime import OnnxRuntimeEngine
from onestage.deploy.engines.open_vino import OpenVinoEngine
from onestage.deploy.engines.packages import package
from onestage.deploy.engines.parity import Difference, difference, refuse_apart
from onestage.deploy.engines.quantised import fingerprint, quantised, some_of
from onestage.errors import ExportError
from onestage.models.detector import Detector

OPSET = 17
# Raised whenever graphs of the same detector come out differently, so that older ones are made anew.
FORM = 3
# Input sizes of the example that a graph is traced with, and of the picture it is checked on, where a model takes any:
# no side is a multiple of the other's, none of the coarsest map's is 1, the second size is odd.
TRACED, CHECKED = (352, 288), (299, 413)


def onnxruntime_engine(
    detector: Detector, precision: str, threads: int | None, device: str | None, calibration: Sequence[Pixels]
) -> Engine:
    """The detector in onnxruntime."""
    package("onnxruntime", "engine=onnxruntime")
    kept = _kept_graph(detector, precision, calibration)
    engine = OnnxRuntimeEngine(kept.file, detector.coding(), threads)
    return _checked(engine, detector, precision, kept)


def openvino_engine(
    detector: Detector, precision: str, threads: int | None, device: str | None, calibration: Sequence[Pixels]
) -> Engine:
    """The detector in OpenVINO."""
    package("openvino", "engine=openvino")
    kept = _kept_graph(detector, precision, calibration)
    engine = OpenVinoEngine(kept.file, detector.coding(), precision, threads)
    return _checked(engine, detector, precision, kept)


def graph_of(detector: Detector) -> Kept:
    """The detector as an ONNX graph in float32, from the cache or made now.

    Input `images` uint8 (B, H, W, 3), RGB; outputs `offsets` (B, P, 4) and `scores` (B, P, C), float32. B is free, H
    and W are where `Served.any_size`. Raises ModelError for a model that cannot be served or without the package onnx,
    ExportError where torch's exporter fails.
    """
    package("onnx", "an engine other than torch")
    kept = Kept(_key(detector))
    kept.get(lambda target: export(detector, target))
    return kept


def _kept_graph(detector: Detector, precision: str, calibration: Sequence[Pixels]) -> Kept:
    graph = graph_of(detector)
    if precision != "int8":
        return graph
    images = some_of(calibration)
    version = package("onnxruntime", "precision=int8").__version__
    kept = Kept(_hash(graph.key, version, fingerprint(images)))
    kept.get(lambda target: quantised(graph.file, images, target, detector.served().exact))
    return kept


def _checked(engine: Engine, detector: Detector, precision: str, kept: Kept) -> Engine:
    """The engine, once it was compared with the detector: now, or by this version of the runtime before."""
    network = detector.served()
    engine.size = None if network.any_size else detector.size
    what = f"{engine.name} {package(engine.name, 'the engine').__version__} {precision}"
    known = kept.facts().get("differences", {})
    if what not in known:
        size = _near(CHECKED, network.step) if engine.size is None else detector.size
        found = difference(engine, detector, size)
        refuse_apart(found, f"engine={engine.name}", precision)
        known |= {what: found.as_dict()}
        kept.note(differences=known)
    engine.difference = str(Difference(**known[what]))
    return engine


def export(detector: Detector, target: Path) -> None:
    """Write the detector to `target` as an ONNX graph; see `graph_of`.

    Of torch's two exporters this takes the older: a second against ten, and no further package. It would silently keep
    a size that the code computes with, hence `Served.any_size` and the check at another size than the traced one.
    """
    network = detector.served().cpu()
    width, height = _near(TRACED, network.step) if network.any_size else detector.size
    images = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    said = {0: "batch", 1: "priors"}
    free = {0: "batch", 1: "height", 2: "width"} if network.any_size else {0: "batch"}
    try:
        with _silence():
            torch.onnx.export(
                network, (images,), str(target), dynamo=False, opset_version=OPSET, input_names=["images"],
                output_names=["offsets", "scores"], dynamic_axes={"images": free, "offsets": said, "scores": said},
            )  # fmt: skip
    except Exception as error:  # the exporter has no class of its own for what it cannot do
        raise ExportError(
            f"{detector.name} could not be made into an ONNX graph: {type(error).__name__}: {error}".splitlines()[0],
            hint="engine=torch",
        ) from error


def _near(size: tuple[int, int], step: int) -> tuple[int, int]:
    """The size, its sides rounded down to multiples of `step`."""
    return max(size[0] // step, 1) * step, max(size[1] // step, 1) * step


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter's remarks on itself and its age, none of which a user can act on."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\..*")
        warnings.filterwarnings("ignore", category=TracerWarning)  # what it warns of is checked
        yield


def _key(detector: Detector) -> str:
    """What names a graph: the detector's kind, options, size and weights, and the versions that made it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(detector.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy().data if values.ndim else repr(values.item()).encode())
    options = {
        name: repr(getattr(detector, name, None))
        for name in ("name", "size", "classes", "options", "variant", "layout", "architecture")
    }
    made = [FORM, OPSET, torch.__version__, package("onnx", "an engine other than torch").__version__]
    return _hash(json.dumps(options, sort_keys=True), digest.hexdigest(), *map(str, made))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
