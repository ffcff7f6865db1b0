"""Graphs in 8-bit integers: ranges of the layers learnt from images, convolutions quantised."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.images import Fit, Pixels, Size, decode, fit
from onestage.deploy.engines.packages import package
from onestage.deploy.sources import Images, images_of
from onestage.errors import DataError, UsageError

MOST_IMAGES = 64


def quantised(graph: Path, images: Sequence[Pixels], target: Path, exact: Sequence[str] = ()) -> None:
    """Write `graph` to `target` with its convolutions in int8: weights per channel, activations by their range.

    The range of each layer is the widest seen on `images`, RGB uint8 (H, W, 3). All else stays in float32. The form
    (QuantizeLinear and DequantizeLinear around each convolution) is one that onnxruntime and OpenVINO both run in
    integers; more of it, around pools and concatenations, gained nothing and made OpenVINO 2026.4 crash. Convolutions
    whose weights are called as in `exact` stay in float32 too.
    """
    if not images:
        raise UsageError("precision=int8 needs images to learn the range of each layer from", hint="calibration=IMAGES")
    quantization = package("onnxruntime.quantization", "precision=int8")
    shape_inference = package("onnxruntime.quantization.shape_inference", "precision=int8")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]  # known only at run time
        def __init__(self) -> None:
            self.left: Iterator[Pixels] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"images": np.ascontiguousarray(image[None])}

    nodes = package("onnx", "precision=int8").load(graph).graph.node
    left = [node.name for node in nodes if node.op_type == "Conv" and node.input[1] in exact]
    silent = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises what was done
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            shape_inference.quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared), str(target), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                op_types_to_quantize=["Conv"], activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8, nodes_to_exclude=left,
            )  # fmt: skip
    finally:
        logging.getLogger().setLevel(silent)


def shown_for_int8(images: Images, size: Size, how: Fit, scale: float = 1.0) -> list[Pixels]:
    """Up to MOST_IMAGES of `images`, evenly from the first to the last, as the network sees them.

    They come to `size` (width, height) as in `data.images.fit`. Images that cannot be read are passed over.
    """
    shown = []
    for image in some_of(images_of(images)):
        with contextlib.suppress(DataError):
            pixels = decode(image) if isinstance(image, Path) else image
            shown.append(fit(pixels, size, how, scale=scale)[0])
    return shown


def some_of(images: Sequence[Any], most: int = MOST_IMAGES) -> list[Any]:
    """At most so many of `images`, evenly from the first to the last."""
    if len(images) <= most:
        return list(images)
    return [images[round(i * (len(images) - 1) / (most - 1))] for i in range(most)]


def fingerprint(images: Sequence[Pixels]) -> str:
    """SHA-256 of the images' pixels and sizes."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
