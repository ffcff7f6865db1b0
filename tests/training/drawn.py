"""Sets of drawn pictures for runs that need some, and benchmark scripts as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np


def twelve(folder: Path, rows: Sequence[str], name: str) -> Path:
    """Twelve pictures of 80x64 with one square of 24 px and these YOLO rows, of one class of that name."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for i in range(12):
        image = rng.integers(90, 130, (64, 80, 3)).astype(np.uint8)
        image[20:44, 20:44] = (255, 220, 40)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image)
        (folder / "labels" / f"{i:03d}.txt").write_text("\n".join(rows))
    (folder / "classes.txt").write_text(f"{name}\n")
    return folder


def benchmark(name: str) -> ModuleType:
    """The module benchmarks/NAME.py."""
    place = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
