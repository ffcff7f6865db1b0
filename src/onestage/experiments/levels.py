"""The levels of a network in words, and what each did over many steps: IoU, class, objectness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Sizes of objects by how many levels there are, from the smallest anchors to the largest.
_SIZES: Mapping[int, tuple[str, ...]] = {
    1: ("all",), 2: ("small", "large"), 3: ("small", "medium", "large"),
    4: ("small", "medium", "large", "very large"),
    5: ("very small", "small", "medium", "large", "very large"),
    6: ("very small", "small", "medium", "large", "very large", "largest"),
    7: ("smallest", "very small", "small", "medium", "large", "very large", "largest"),
}  # fmt: skip
# What a level tells, by its key in steps.jsonl and by darknet's word; `count` comes before these.
MEANS: Mapping[str, str] = {
    "iou": "Avg IOU", "cls": "Class", "obj": "Obj", "noobj": "No Obj", "r50": ".5R", "r75": ".75R",
}  # fmt: skip
COLUMNS = ("level", "share", *MEANS.values())
EXPLAINED = (
    "share: of the truths that a level's boxes learn; Class: mean probability of the true class, no accuracy; "
    "No Obj: mean objectness of all boxes; .5R and .75R: share of truths whose box has an IoU above 0.5 and 0.75, "
    "no recall of detections"
)
NOTHING = "-"


@dataclass(frozen=True)
class Level:
    """One level of a network at its recipe's input size.

    `stride`: pixels from cell to cell; `grid`: its (columns, rows); `anchors`: their (width, height) in pixels of the
    input; `size`: "small", "large", … beside the other levels; `layer`: its index in darknet's cfg, where it has one.
    """

    stride: float
    grid: tuple[int, int]
    anchors: tuple[tuple[float, float], ...]
    size: str = ""
    layer: int | None = None

    @property
    def name(self) -> str:
        """The level in a few words: "stride 32, large objects"."""
        return f"stride {self.stride:g}, {self.size} objects"

    @property
    def words(self) -> str:
        """The level in words with what its anchors reach: "stride 32, large objects (116x90 to 373x326 px)"."""
        ends = [f"{w:.4g}x{h:.4g}" for w, h in sorted(self.anchors, key=lambda side: (round(side[0] * side[1]), max(side)))]
        reach = f"{ends[0]} to {ends[-1]}" if ends and ends[0] != ends[-1] else "".join(ends[:1])
        return f"{self.name} ({reach} px)" if reach else self.name

    def as_dict(self) -> dict[str, Any]:
        """What run.json keeps."""
        return {**asdict(self), "words": self.words}


def sized(levels: Sequence[Level]) -> list[Level]:
    """The levels, told by the size of their anchors which has small and which large objects; in the order given.

    A large stride means large objects, however a network orders its levels: darknet's come largest first.
    """
    middle = [sum(math.sqrt(w * h) for w, h in level.anchors) / max(len(level.anchors), 1) for level in levels]
    rising = sorted(range(len(levels)), key=lambda place: (middle[place], levels[place].stride))
    n = len(levels)
    words = _SIZES.get(n) or tuple(f"size {rank} of {n}" for rank in range(1, n + 1))
    known = {place: word for place, word in zip(rising, words, strict=True)}
    return [Level(one.stride, one.grid, one.anchors, known[place], one.layer) for place, one in enumerate(levels)]


def levels_in(info: Mapping[str, Any]) -> list[Level]:
    """The levels that run.json names in model.levels; none for runs of earlier versions."""
    model = info.get("model")
    rows = model.get("levels") if isinstance(model, Mapping) else None
    try:
        return [
            Level(
                float(row["stride"]), (int(row["grid"][0]), int(row["grid"][1])),
                tuple((float(w), float(h)) for w, h in row["anchors"]), str(row.get("size", "")), row.get("layer"),
            )
            for row in rows or ()
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError):
        return []


@dataclass
class Did:
    """What a level did over many steps: `count` truths, `share` of those of all levels, and the MEANS.

    A mean over no truths is None; so is `share` where no level had any.
    """

    count: int
    share: float | None
    means: dict[str, float | None]

    def cells(self) -> list[str]:
        """Share and means as a table has them; NOTHING where there is none."""
        share = NOTHING if self.share is None else f"{100 * self.share:.1f} %"
        return [share, *(NOTHING if value is None else f"{value:.3f}" for value in self.means.values())]


class Tally:
    """Means of each level over rows of steps.jsonl, weighted by their counts.

    `No Obj` is a mean over all boxes of a level: it is weighted by images and their size. Rows of steps that the guard
    left out, and rows without `scales`, do not count.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.counts: list[int] = []
        self.sums: list[dict[str, float]] = []
        self.images = 0.0

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Tally:
        """The tally of some rows."""
        tally = cls()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a row: `scales`, and beside them step, images and size."""
        scales = row.get("scales")
        if not isinstance(scales, list) or row.get("skipped"):
            return
        if len(scales) != len(self.counts):
            self.counts, self.sums = [0] * len(scales), [dict.fromkeys(MEANS, 0.0) for _ in scales]
            self.images, self.first = 0.0, None
        size = row.get("size") or (1, 1)
        weight = float(row.get("images") or 1) * size[0] * size[1]
        self.images += weight
        self.last = int(row.get("step") or 0)
        self.first = self.last if self.first is None else self.first
        for place, scale in enumerate(scales):
            count = int(scale.get("count") or 0)
            self.counts[place] += count
            for key in MEANS:
                value = scale.get(key)
                if isinstance(value, int | float):
                    self.sums[place][key] += value * (weight if key == "noobj" else count)

    def rows(self) -> list[Did]:
        """What each level did; empty where no row told of any."""
        whole = sum(self.counts)
        return [
            Did(count, count / whole if whole else None, {
                key: value / over if (over := self.images if key == "noobj" else count) else None
                for key, value in sums.items()
            })
            for count, sums in zip(self.counts, self.sums, strict=True)
        ]  # fmt: skip

    def table(self, levels: Sequence[Level]) -> list[list[str]]:
        """The rows under COLUMNS; empty where nothing was tallied. Levels that are not named have a number."""
        found = self.rows()
        names = [level.name for level in levels] if len(levels) == len(found) else []
        names = names or [f"level {place} of {len(found)}" for place in range(1, len(found) + 1)]
        return [[name, *did.cells()] for name, did in zip(names, found, strict=True)]
