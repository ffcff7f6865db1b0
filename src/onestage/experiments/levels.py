"""The levels of a network in words, and what each did over many steps: IoU, class, objectness."""

from __future__ import annotations

import math
from collections import Counter
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
    "Avg IOU: of a truth with the box that learns it. Class: mean probability of the true class, no accuracy.\n"
    "No Obj: mean objectness of all boxes. .5R, .75R: truths whose box has an IoU above that, no recall."
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
    def reach(self) -> str:
        """Its smallest and its largest anchor: "116x90 to 373x326 px"; empty without anchors."""
        ends = [
            f"{w:.4g}x{h:.4g}" for w, h in sorted(self.anchors, key=lambda side: (round(side[0] * side[1]), max(side)))
        ]
        return "" if not ends else f"{ends[0]} px" if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]} px"

    @property
    def words(self) -> str:
        """The level in words with what its anchors reach: "stride 32, large objects (116x90 to 373x326 px)"."""
        return f"{self.name} ({self.reach})" if self.anchors else self.name

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
    known = dict(zip(rising, words, strict=True))
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
    """Means of each level over rows of steps.jsonl, weighted by counts: of truths, each with a box that learns it.

    `No Obj` is a mean over all boxes of a level: it is weighted by images and their size. Rows of steps that the guard
    left out, and rows without `scales`, do not count.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.counts: list[int] = []
        self.sums: list[dict[str, float]] = []
        self.weight = 0.0
        self.truths = 0

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Tally:
        """The tally of some rows."""
        tally = cls()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a row: `scales`, and beside them step, images, truths and size."""
        scales = row.get("scales")
        if not isinstance(scales, list) or row.get("skipped"):
            return
        if len(scales) != len(self.counts):
            self.counts, self.sums = [0] * len(scales), [dict.fromkeys(MEANS, 0.0) for _ in scales]
            self.weight, self.truths, self.first = 0.0, 0, None
        size = row.get("size") or (1, 1)
        weight = float(row.get("images") or 1) * size[0] * size[1]
        self.weight += weight
        self.truths += int(row.get("truths") or 0)
        self.last = int(row.get("step") or 0)
        self.first = self.last if self.first is None else self.first
        for place, scale in enumerate(scales):
            count = int(scale.get("count") or 0)
            self.counts[place] += count
            for key in MEANS:
                value = scale.get(key)
                if isinstance(value, int | float):
                    self.sums[place][key] += value * (weight if key == "noobj" else count)

    @property
    def when(self) -> str:
        """Which steps these are: "steps 401 to 500"."""
        first = self.first or 0
        return f"steps {first:,} to {self.last:,}" if self.last > first else f"step {first:,}"

    @property
    def counted(self) -> str:
        """What was counted: "5,339 truths", or matches where a truth may have several boxes that learn it."""
        whole = sum(self.counts)
        if whole <= self.truths:
            return f"{whole:,} truth{'s' * (whole != 1)}"
        return f"{whole:,} matches of {self.truths:,} truth{'s' * (self.truths != 1)}"

    def rows(self) -> list[Did]:
        """What each level did; empty where no row told of any."""
        whole = sum(self.counts)
        return [
            Did(count, count / whole if whole else None, {
                key: value / over if (over := self.weight if key == "noobj" else count) else None
                for key, value in sums.items()
            })
            for count, sums in zip(self.counts, self.sums, strict=True)
        ]  # fmt: skip

    def names(self, levels: Sequence[Level]) -> list[str]:
        """What the levels are called; a number where `levels` are not these."""
        n = len(self.counts)
        return [level.name for level in levels] if len(levels) == n else [f"level {i} of {n}" for i in range(1, n + 1)]

    def table(self, levels: Sequence[Level]) -> list[list[str]]:
        """The rows under COLUMNS; empty where nothing was tallied."""
        return [[name, *did.cells()] for name, did in zip(self.names(levels), self.rows(), strict=True)]


def last_epoch(steps: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """As many of the last steps that tell of levels as an epoch has of them; empty where none does."""
    told = [row for row in steps if isinstance(row.get("scales"), list) and not row.get("skipped")]
    usual = max(Counter(row.get("epoch") for row in told).values(), default=0)
    return told[len(told) - usual :]
