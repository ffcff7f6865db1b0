"""The command line as a process, and a tiny data set for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

import forked

SOURCE = Path(__file__).resolve().parents[2] / "src"

# A run of some seconds on one core: one epoch, no weights to fetch, nothing measured.
TINY = (
    "model=ssd-lite0", "weights=none", "size=96", "epochs=1", "batch=4", "precision=fp32", "augmentation.policy=none",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


def environment(runs: Path, **more: str) -> dict[str, str]:
    """Variables under which a command touches nothing but its own folders and no network."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ONESTAGE_")}
    own = {
        "PYTHONPATH": str(SOURCE), "ONESTAGE_RUNS": str(runs), "ONESTAGE_CACHE": str(runs / ".cache"),
        "ONESTAGE_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1",
    }  # fmt: skip
    return {**kept, **own, **more}


def onestage(
    *words: str | Path, runs: Path, before: Callable[[], None] | None = None, more: Mapping[str, str] | None = None
) -> Answer:  # fmt: skip
    """Run `onestage WORDS` as a process in an empty folder; runs go to `runs`. `before` is called in it first."""
    with TemporaryDirectory() as empty:  # what lies in the checkout, such as the runs of `make demo`, must not matter
        process = forked.onestage([*map(str, words)], environment(runs, **(more or {})), Path(empty), before)
        out, err = process.communicate(300)
    return Answer(process.returncode, out, err)


def discs(folder: Path, images: int = 12, size: int = 96, seed: int = 0) -> Path:
    """A VOC folder of noise with one or two bright discs, class `disc`, in each image."""
    rng = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        picture = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
        boxes = []
        for _ in range(rng.integers(1, 3)):
            radius = int(rng.integers(10, 18))
            x, y = (int(v) for v in rng.integers(radius, size - radius, 2))
            cv2.circle(picture, (x, y), radius, (240, 200, 60), -1)
            boxes.append((x - radius + 1, y - radius + 1, x + radius, y + radius))
        cv2.imwrite(str(folder / "JPEGImages" / f"disc{i:02d}.jpg"), picture)
        write_xml(folder, f"disc{i:02d}", boxes, size)
    return folder


def write_xml(folder: Path, stem: str, boxes: list[tuple[int, int, int, int]], size: int = 96, head: str = "") -> None:
    """The VOC annotation of one image; `head` goes before the root element."""
    objects = "\n".join(
        f"<object><name>disc</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    text = (
        f"{head}<annotation><filename>{stem}.jpg</filename><size><width>{size}</width><height>{size}</height>"
        f"<depth>3</depth></size>\n{objects}\n</annotation>\n"
    )
    (folder / "Annotations" / f"{stem}.xml").write_text(text)
