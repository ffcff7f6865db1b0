"""Random PASCAL VOC sets as files: XML, a list of ImageSets, and comp4 results, for tests/golden/voc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import RandomState

CLASSES = ("bird", "cat", "traffic_light")
SIDE = 120


@dataclass(frozen=True)
class Kind:
    """What a set holds; `least` is the smallest coordinate that the truth has, `tenths` writes decimals."""

    least: int = 1
    tenths: bool = False
    tied: bool = False
    shuffled: bool = False
    halves: bool = False
    images: int = 24


KINDS = {
    "plain": Kind(), "tied": Kind(tied=True), "tied shuffled": Kind(tied=True, shuffled=True),
    "tenths": Kind(tenths=True), "from zero": Kind(least=0), "beyond": Kind(least=-4, tenths=True, shuffled=True),
    "halves": Kind(halves=True, tied=True, shuffled=True), "halves, tenths": Kind(halves=True, tenths=True),
    "halves from zero": Kind(least=0, halves=True), "one image": Kind(images=1, tied=True),
}  # fmt: skip
SEEDS = range(6)


def write_set(folder: Path, kind: Kind, seed: int) -> None:
    """Write the set of this kind and seed: the same files with every version of numpy (RandomState is frozen)."""
    random = RandomState(seed)
    for part in ("Annotations", "ImageSets/Main", "results"):
        (folder / part).mkdir(parents=True)
    names = [f"2008_{i * 37 % 1000:06d}" for i in range(1, kind.images + 1)]
    rows: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name in names:
        truths = _truths(kind, random)
        (folder / "Annotations" / f"{name}.xml").write_text(_xml(name, truths))
        for label, row in _found(kind, truths, random):
            rows[CLASSES[label]].append(f"{name} {row}\n")
    (folder / "ImageSets" / "Main" / "test.txt").write_text("".join(f"{name}\n" for name in names))
    for name, lines in rows.items():
        order = random.permutation(len(lines)) if kind.shuffled else range(len(lines))
        text = "".join(lines[i] for i in order)
        (folder / "results" / f"comp4_det_test_{name}.txt").write_text(text)


Truth = tuple[int, int, list[float]]


def _truths(kind: Kind, random: RandomState) -> list[Truth]:
    truths: list[Truth] = []
    for _ in range(random.randint(1, 6)):
        corner, size = random.randint(1, 80, 2), random.randint(4, 60, 2)
        if random.rand() < 0.3:
            corner[random.randint(2)] = kind.least
        if kind.halves:
            size = size // 2 * 2 + 1  # an even number of closed pixels
        far = corner + size if kind.least < 0 or kind.halves else np.minimum(corner + size, SIDE)
        box = [*corner.tolist(), *far.tolist()]
        if kind.tenths:
            shift = random.randint(0, 10, 2) / 10
            box = np.round(np.add(box, [*shift, *shift]), 1).tolist()
        label = random.randint(2) if random.rand() < 0.9 else 2
        truths.append((label, int(random.rand() < 0.25), box))
    return truths


def _found(kind: Kind, truths: list[Truth], random: RandomState) -> list[tuple[int, str]]:
    found = []
    for label, _, box in truths:
        for _ in range(random.randint(0, 3)):
            moved = np.array(box, np.float64)
            if kind.halves:  # exactly half of the truth: an IoU of 1/2 but for rounding
                side = random.randint(2)
                moved[2 + side] -= (moved[2 + side] - moved[side] + 1) / 2
            else:
                moved += random.randint(-60, 61, 4) / 10 if kind.tenths else random.randint(-6, 7, 4)
                moved[2:] = np.maximum(moved[2:], moved[:2])
            found.append((label, moved))
    for _ in range(random.randint(0, 4)):
        corner = random.randint(1, 90, 2)
        found.append((random.randint(3), np.array([*corner, *(corner + random.randint(0, 40, 2))], np.float64)))
    result = []
    for label, moved in found:
        score = random.randint(1, 8) / 8 if kind.tied else round(random.rand(), 6)
        result.append((label, f"{score:.6f} " + " ".join(f"{side:.1f}" for side in moved)))
    return result


def _xml(name: str, truths: list[Truth]) -> str:
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>\n"
        for label, difficult, box in truths
    )
    return (
        f"<annotation><folder>VOC</folder><filename>{name}.jpg</filename><source><database>d</database>"
        "<annotation>a</annotation><image>i</image></source>"
        f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size><segmented>0</segmented>\n"
        f"{objects}</annotation>\n"
    )
