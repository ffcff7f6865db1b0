"""The engine `openvino`: a graph on the CPU, in float32, bfloat16 or 8-bit integers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.offsets import Coding
from onestage.deploy.engines.engine import Engine, Floats
from onestage.deploy.engines.packages import package
from onestage.errors import UsageError

# A program for one input size runs faster than one for all, and takes a while to make: it pays for sizes that stay.
OFTEN, SIZES_KEPT = 4, 4


class OpenVinoEngine(Engine):
    """A graph file of `graph.graph_of` or `quantised`, with `threads` threads, by default one for each core.

    `precision` "fp32" and "int8" leave all else in float32; "bf16" lets every layer be in bfloat16. Raises UsageError
    for "bf16" where the processor has none. Sizes that come more than OFTEN times get a program of their own.
    """

    name = "openvino"

    def __init__(self, graph: Path, coding: Coding, precision: str = "fp32", threads: int | None = None) -> None:
        super().__init__(coding)
        openvino = package("openvino", "engine=openvino")
        self.core = openvino.Core()
        if precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("this processor has no bfloat16", hint="precision=fp32 or precision=int8")
        self.graph = graph
        # It would choose bfloat16 by itself; it would bind its threads to cores that others may be using.
        self.options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        if threads is not None:
            self.options["INFERENCE_NUM_THREADS"] = threads
        self.for_all = self._program(None)
        self.seen: Counter[tuple[int, ...]] = Counter()
        self.for_one: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def run(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Engine`."""
        request = self._request(images.shape)
        request.infer({0: images}, share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data.copy(), request.get_output_tensor(1).data.copy()

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape in self.for_one:
            self.for_one.move_to_end(shape)
            return self.for_one[shape]
        self.seen[shape] += 1
        if self.seen[shape] <= OFTEN:
            return self.for_all
        self.for_one[shape] = self._program(shape)
        if len(self.for_one) > SIZES_KEPT:
            gone, _ = self.for_one.popitem(last=False)
            del self.seen[gone]
        return self.for_one[shape]

    def _program(self, shape: tuple[int, ...] | None) -> Any:
        model = self.core.read_model(self.graph)
        if shape is not None:
            model.reshape({"images": list(shape)})
        return self.core.compile_model(model, "CPU", self.options).create_infer_request()
