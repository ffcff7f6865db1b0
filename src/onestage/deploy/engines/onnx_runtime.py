"""The engine `onnxruntime`: a graph on the CPU, in float32 or 8-bit integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onestage.boxes.offsets import Coding
from onestage.deploy.engines.engine import Engine, Floats
from onestage.deploy.engines.packages import package


class OnnxRuntimeEngine(Engine):
    """A graph file of `graph.graph_of` or `quantised`, with `threads` threads, by default one for each core."""

    name = "onnxruntime"

    def __init__(self, graph: Path, coding: Coding, threads: int | None = None) -> None:
        super().__init__(coding)
        runtime = package("onnxruntime", "engine=onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        # Its threads shall not go on waiting in a loop when an answer is given: others may need the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        self.session = runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def run(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Engine`."""
        offsets, scores = self.session.run(["offsets", "scores"], {"images": images})
        return offsets, scores
