"""The sets behind official.json, and the command that has VisDrone's own toolkit judge them in Octave.

    python tests/golden/visdrone/make.py TOOLKIT [VISDRONE2019-DET-VAL]

TOOLKIT is a checkout of github.com/VisDrone/VisDrone2018-DET-toolkit. Detections are drawn with Python's own random(),
whose stream is the same in every version, so that nothing but the numbers needs to be kept.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
Row = tuple[float, ...]


@dataclass
class Set:
    """Truth and detection rows of each image as VisDrone's files have them, and the images' width and height."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    truth: dict[str, list[Row]] = field(default_factory=dict)
    found: dict[str, list[Row]] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        """The files the toolkit reads, and sizes.txt in place of the images."""
        for folder, rows in (("annotations", self.truth), ("detections", self.found)):
            (root / folder).mkdir(parents=True)
            for image, of_image in rows.items():
                text = "".join(",".join(f"{v:.15g}" for v in row) + "\n" for row in of_image)
                (root / folder / f"{image}.txt").write_text(text)
        (root / "sizes.txt").write_text("".join(f"{i} {w} {h}\n" for i, (w, h) in self.sizes.items()))
        return root


class Dice:
    """Draws from one stream."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def real(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()

    def whole(self, low: int, high: int) -> int:
        return low + int(self.random.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        return self.random.random() < share


def crowded(seed: int, decimals: int, images: int = 7, classes: int = 10, rows: int = 30) -> Set:
    """Small images with every oddity: regions over the border, rows of score 0, ties, unsorted files, empty ones."""
    dice, made = Dice(seed), Set()
    for k in range(images):
        name = f"{'ab'[k % 2]}_{k:02d}"
        width, height = dice.whole(60, 110), dice.whole(40, 90)
        made.sizes[name] = width, height
        truth: list[Row] = []
        for _ in range(dice.whole(0, 4)):
            box = (dice.whole(-3, width), dice.whole(-3, height), dice.whole(0, width // 2), dice.whole(0, height // 2))
            truth.append((*box, 0, 0, 0, 0))
        for _ in range(dice.whole(0, rows)):
            size = (dice.whole(0, 30) or 0, dice.whole(1, 30))
            box = (dice.whole(-4, width - 4), dice.whole(-4, height - 4), *size)
            category = dice.whole(1, classes) if dice.chance(0.9) else 11
            truth.append((*box, float(category != 11 and dice.chance(0.85)), category, 0, dice.whole(0, 2)))
        truth += truth[-1:] if dice.chance(0.3) else []
        made.truth[name] = truth
        made.found[name] = around(truth, dice, decimals, classes, (width, height))
    return made


def around(truth: list[Row], dice: Dice, decimals: int, classes: int, size: tuple[int, int]) -> list[Row]:
    """Detections near truths and anywhere, in no order, with few different scores."""
    found: list[Row] = []
    for left, top, width, height, _, category, *_ in truth:
        while dice.chance(0.6):
            move = [round(dice.real(-2, 2), decimals) * dice.whole(0, 1) for _ in range(4)]
            box = (left + move[0], top + move[1], max(0, width + move[2]), max(0, height + move[3]))
            label = min(max(category, 1), 10) if dice.chance(0.8) else dice.whole(1, classes)
            found.append((*box, round(dice.real(0, 1), 1 if dice.chance(0.5) else 4), label, -1, -1))
    for _ in range(dice.whole(0, 25)):
        near = [round(dice.real(-8, side), decimals) for side in size]
        far = [round(dice.real(0, 50), decimals) for _ in range(2)]
        found.append((*near, *far, round(dice.real(0, 1), 2), dice.whole(1, classes), -1, -1))
    return found


def at_thresholds() -> Set:
    """Overlaps of exactly 0.50, 0.55 … 1: a truth of 100 x 20, a detection of 5 columns less each time."""
    made = Set({"t": (400, 400)}, {"t": []}, {"t": []})
    for k in range(11):
        made.truth["t"].append((10, 1 + 30 * k, 100, 20, 1, 1, 0, 0))
        made.found["t"].append((10, 1 + 30 * k, 50 + 5 * k, 20, 0.5 + 0.01 * k, 1, -1, -1))
    return made


def equal_overlaps() -> Set:
    """A detection midway between two truths, and one on either of them: it matters which the first one takes."""
    made = Set({"e": (400, 400)}, {"e": []}, {"e": []})
    for k in range(4):
        top = 20 + 60 * k
        made.truth["e"] += [(10, top, 20, 20, 1, 3, 0, 0), (14, top, 20, 20, 1, 3, 0, 0)]
        made.found["e"] += [(12, top, 20, 20, 0.9, 3, -1, -1), (10 + 4 * (k % 2), top, 20, 20, 0.8, 3, -1, -1)]
    return made


def over_the_limit(seed: int) -> Set:
    """More rows than 500, unsorted, some in a region, some of a category that is none of the ten but takes a place."""
    dice, made = Dice(seed), Set()
    for name in ("x", "x-1", "y"):  # the toolkit goes by file names: x-1.txt comes before x.txt
        made.sizes[name] = 300, 200
        truth: list[Row] = [(0, 0, 60, 60, 0, 0, 0, 0), (250, 150, 80, 80, 0, 0, 0, 0)]
        truth += [(dice.whole(1, 280), dice.whole(1, 180), dice.whole(8, 30), dice.whole(8, 30), 1, 1 + k % 3, 0, 0)
                  for k in range(25)]  # fmt: skip
        found: list[Row] = []
        while len(found) < (620 if name != "y" else 40):
            left, top, width, height, _, category, *_ = truth[dice.whole(2, len(truth) - 1)]
            box = (left + dice.whole(-4, 4), top + dice.whole(-4, 4), width, height)
            label = 11 if dice.chance(0.05) and left > 70 and left < 200 else category
            found.append((*box, round(dice.real(0, 1), 2), label, -1, -1))
        made.truth[name], made.found[name] = truth, found
    return made


def nothing_found() -> Set:
    """Empty detection files."""
    made = crowded(5, 0, 3)
    made.found = {name: [] for name in made.found}
    return made


def of_val(folder: Path, images: int = 30, seed: int = 2019) -> Set:
    """Real annotations (the first 100 rows of an image and all its regions), made detections and sizes."""
    dice, made = Dice(seed), Set()
    paths = sorted((folder / "annotations").glob("*.txt"))
    for path in paths[:: len(paths) // images][:images]:
        rows = [tuple(map(float, line.rstrip(",").split(","))) for line in path.read_text().split()]
        rows = rows[:100] + [row for row in rows[100:] if row[5] == 0]
        width, height = (int(max(row[k] + row[k + 2] for row in rows)) - dice.whole(-40, 40) for k in (0, 1))
        made.sizes[path.stem] = width, height
        made.truth[path.stem] = rows
        decimals = dice.whole(0, 2)
        made.found[path.stem] = around(rows, dice, decimals, 10, (width, height))
        while len(made.truth) == 3 and len(made.found[path.stem]) < 560:
            made.found[path.stem] += around(rows, dice, decimals, 10, (width, height))
        if dice.chance(0.7):
            made.found[path.stem].sort(key=lambda row: -row[4])
    return made


def sets(folder: Path | None) -> Iterator[tuple[str, Set]]:
    """All sets by name; the one of real annotations only where these are there."""
    for seed in range(6):
        yield f"crowded-{seed}", crowded(seed, 0 if seed % 2 else 3)
    yield "few-classes", crowded(20, 1, classes=3)
    yield "at-thresholds", at_thresholds()
    yield "equal-overlaps", equal_overlaps()
    yield "over-the-limit", over_the_limit(1)
    yield "nothing-found", nothing_found()
    if folder is not None:
        yield "val", of_val(folder)


def official(toolkit: Path, made: Set) -> dict[str, list[float]]:
    """What the toolkit says, in percent."""
    with tempfile.TemporaryDirectory() as place:
        root = made.write(Path(place) / "set")
        command = ["octave-cli", "--quiet", "--no-history", str(HERE / "octave" / "judge_set.m")]
        done = subprocess.run([*command, str(toolkit), str(root)], capture_output=True, text=True, check=False)
    if "official" not in done.stdout:
        raise SystemExit(done.stderr)
    rows = (line.split() for line in done.stdout.splitlines())
    return {name: [float(value) for value in values] for name, *values in rows}


if __name__ == "__main__":
    val = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    numbers = {name: official(Path(sys.argv[1]), made) for name, made in sets(val)}
    lines = (f"{json.dumps(name)}: {json.dumps(found)}" for name, found in numbers.items())
    (HERE / "official.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
