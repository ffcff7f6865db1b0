"""WIDER FACE sets made from a seed, the same on every machine, and written as the official tool reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.io import savemat

from onestage.records import Annotations, Detections

LEVELS = ("easy", "medium", "hard")


class Dice:
    """Uniform numbers by SplitMix64, which no version of numpy can change."""

    def __init__(self, seed: int) -> None:
        self.state = np.uint64(seed)

    def unit(self, *shape: int) -> np.ndarray:
        n = int(np.prod(shape, dtype=int))
        with np.errstate(over="ignore"):
            z = self.state + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            self.state = z[-1] if n else self.state
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        return ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def below(self, n: int) -> int:
        return int(self.unit(1)[0] * n)


@dataclass(frozen=True)
class FaceSet:
    """Faces (N, 4) as x, y, width, height by image "event/name", the rows (from 0) of each level, detections (D, 5)."""

    faces: Mapping[str, np.ndarray]
    levels: Mapping[str, Mapping[str, np.ndarray]]
    found: Mapping[str, np.ndarray]

    def records(self) -> tuple[dict[str, Annotations], dict[str, Detections]]:
        """The set as records, without any file between."""
        truths, found = {}, {}
        for name, faces in self.faces.items():
            n = len(faces)
            extra = {level: np.isin(np.arange(n), rows[name]) for level, rows in self.levels.items()}
            ignore = (faces[:, 2:] <= 0).any(1)
            truths[name] = Annotations(corners(faces), np.zeros(n, np.int64), ignore=ignore, extra=extra)
        for name, rows in self.found.items():
            found[name] = Detections(corners(rows[:, :4]), np.zeros(len(rows), np.int64), rows[:, 4])
        return truths, found

    def turned(self) -> FaceSet:
        """The set with every second image's rows of detections from the other end."""
        found = {name: rows[::-1] if k % 2 else rows for k, (name, rows) in enumerate(self.found.items())}
        return replace(self, found=found)

    def write(self, root: Path) -> None:
        """ground_truth/*.mat and found/EVENT/NAME.txt."""
        self._write_mats(root / "ground_truth")
        write_found(root / "found", self.found)

    def _write_mats(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        events: dict[str, list[str]] = {}
        for name in self.faces:
            events.setdefault(name.split("/")[0], []).append(name)
        common = {
            "event_list": _cells(list(events)),
            "file_list": _cells([_cells([name.split("/")[1] for name in names]) for names in events.values()]),
            "face_bbx_list": _cells([_cells([self.faces[n] for n in names]) for names in events.values()]),
        }
        savemat(folder / "wider_face_val.mat", common)
        for level, rows in self.levels.items():
            lists = [_cells([(rows[n] + 1).astype(np.uint16)[:, None] for n in names]) for names in events.values()]
            savemat(folder / f"wider_{level}_val.mat", {"gt_list": _cells(lists)} | common)


def corners(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:4]], axis=1)


def write_found(root: Path, found: Mapping[str, np.ndarray]) -> None:
    """Detections in the official form, a file per image."""
    for name, rows in found.items():
        path = root / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(f"{value:.10g}" for value in row) for row in rows.tolist()]
        path.write_text("\n".join([f"{name}.jpg", str(len(rows)), *lines]) + "\n")


def _cells(items: list) -> np.ndarray:
    cells = np.empty((len(items), 1), object)
    for row, item in zip(cells, items, strict=True):
        row[0] = item
    return cells


def small_set(seed: int) -> FaceSet:
    """A few images with few faces, many of them odd; overlaps near 0.5, ties, scores of any range."""
    dice = Dice(1000 + seed)
    faces, found = {}, {}
    levels: dict[str, dict[str, np.ndarray]] = {level: {} for level in LEVELS}
    low, high = ((0, 1), (-2, 3), (2, 5), (-3, -1), (0.05, 0.6))[seed % 5]
    for event in ("0--Parade", "12--Group"):
        for number in range(2 + dice.below(4)):
            name = f"{event}/{event[:2]}_{number}"
            n = dice.below(7)
            boxes = np.floor(dice.unit(n, 4) * [40, 40, 14, 14]) + np.array([-3, -3, 3, 3])
            odd = dice.unit(n) < 0.15
            boxes[odd, 2] = np.floor(dice.unit(int(odd.sum())) * 4) - 3  # width 0 and less
            faces[name] = boxes
            hard = dice.unit(n) < 0.8
            for level, share in (("easy", 0.4), ("medium", 0.7), ("hard", 1.0)):
                rows = np.flatnonzero(hard & (dice.unit(n) < share))
                levels[level][name] = rows[:0] if seed % 8 == 7 and level == "easy" else rows
            found[name] = _found_in(boxes, dice, low, high, seed)
    return FaceSet(faces, levels, found)


def _found_in(boxes: np.ndarray, dice: Dice, low: float, high: float, seed: int) -> np.ndarray:
    m = 0 if dice.below(6) == 0 else dice.below(16)
    rows = np.zeros((m, 5))
    for row in rows:
        if len(boxes) and dice.below(5):
            row[:4] = boxes[dice.below(len(boxes))] + np.floor(dice.unit(4) * [7, 7, 5, 5]) - [3, 3, 2, 2]
        else:
            row[:4] = np.floor(dice.unit(4) * [40, 40, 14, 14])
    score = np.round(low + dice.unit(m) * (high - low), 1 + seed % 3)
    rows[:, 4] = 0.5 if seed == 11 else score
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def made_detections(faces: Mapping[str, np.ndarray], seed: int, low: float, high: float) -> dict[str, np.ndarray]:
    """Detections for given faces (N, 4) by image: most found, some twice, false ones, one image in twelve without any.

    Coordinates have one digit and scores, from `low` to `high`, three, so that many are equal and text holds them.
    """
    dice = Dice(seed)
    found = {}
    for name in sorted(faces):
        boxes = np.asarray(faces[name], np.float64)
        twice = np.concatenate([boxes[dice.unit(len(boxes)) < 0.8], boxes[dice.unit(len(boxes)) < 0.2]])
        moved = twice + (dice.unit(len(twice), 4) - 0.5) * 0.5 * np.maximum(twice[:, [2, 3, 2, 3]], 1)
        false = dice.unit(dice.below(10), 4) * [900, 700, 80, 80] + [0, 0, 2, 2]
        rows = np.concatenate([moved, false])
        score = np.concatenate([0.1 + 0.9 * dice.unit(len(moved)), dice.unit(len(false)) ** 2])
        rows[:, 2:] = np.maximum(rows[:, 2:], 1)
        rows = np.concatenate([np.round(rows, 1), np.round(low + score * (high - low), 3)[:, None]], axis=1)
        found[name] = rows[np.argsort(-rows[:, 4], kind="stable")] if dice.below(12) else rows[:0]
    return found
