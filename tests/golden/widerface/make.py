"""Runs the port of WIDER FACE's tool on made sets and writes scores.json; see README.md."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "evaluation"))

import widerface_sets  # noqa: E402

REAL = {"plain": (1, 0.0, 1.0), "stretched": (2, -0.5, 1.7)}  # name: seed, lowest and highest score


def bbox_overlaps(boxes: np.ndarray, query_boxes: np.ndarray) -> np.ndarray:
    """What the port's compiled module computes, a box at a time in numpy."""
    result = np.zeros((len(boxes), len(query_boxes)))
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    for k, (x1, y1, x2, y2) in enumerate(query_boxes):
        width = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1) + 1
        height = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1) + 1
        both = np.flatnonzero((width > 0) & (height > 0))
        shared = width[both] * height[both]
        result[both, k] = shared / (areas[both] + (x2 - x1 + 1) * (y2 - y1 + 1) - shared)
    return result


class Silent(list):
    """A progress bar that shows nothing."""

    def set_description(self, text: str) -> None:
        pass


def load_port(folder: Path) -> types.ModuleType:
    """The port's evaluation.py with stand-ins for what it imports and does not need here."""
    tqdm = types.ModuleType("tqdm")
    tqdm.tqdm = Silent  # type: ignore[attr-defined]
    ipython, bbox = types.ModuleType("IPython"), types.ModuleType("bbox")
    ipython.embed, bbox.bbox_overlaps = None, bbox_overlaps  # type: ignore[attr-defined]
    sys.modules.update(tqdm=tqdm, IPython=ipython, bbox=bbox)
    spec = importlib.util.spec_from_file_location("port", folder / "evaluation.py")
    assert spec is not None
    assert spec.loader is not None
    port = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(port)
    return port


def scores(port: types.ModuleType, found: Path, truth: Path) -> list[float | None]:
    """The three numbers that the port prints; null for nan."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), np.errstate(all="ignore"):
        port.evaluation(str(found), str(truth))
    values = [float(value) for value in re.findall(r"Val AP: (\S+)", told.getvalue())]
    return [None if np.isnan(value) else value for value in values]


def main(port_folder: str, truth: str, small: int = 40) -> None:
    """`truth` is the official eval_tools/ground_truth."""
    from onestage.data.formats import widerface

    port = load_port(Path(port_folder))
    result: dict[str, dict[str, list[float | None]]] = {"small": {}, "unsorted": {}, "official": {}}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(small):
            root = Path(folder) / str(seed)
            widerface_sets.small_set(seed).write(root)
            result["small"][str(seed)] = scores(port, root / "found", root / "ground_truth")
            widerface_sets.small_set(seed).turned().write(root / "turned")
            result["unsorted"][str(seed)] = scores(port, root / "turned" / "found", root / "ground_truth")
        whole = widerface.read(Path(truth), "val", probe_images=False)
        faces = {str(name): as_written(truth.boxes) for name, truth in whole.annotations.items()}
        for name, (seed, low, high) in REAL.items():
            root = Path(folder) / name
            widerface_sets.write_found(root, widerface_sets.made_detections(faces, seed, low, high))
            result["official"][name] = scores(port, root, Path(truth))
            print(name, result["official"][name])
    (HERE / "scores.json").write_text(json.dumps(result, indent=1) + "\n")


def as_written(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
