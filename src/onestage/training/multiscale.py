"""Input sizes that change while a model trains: a pure function of seed and step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from onestage.data.loader import augmentation_seed, generator
from onestage.errors import ModelError
from onestage.models.detector import Detector
from onestage.training.recipe import MultiScale, Recipe

Size = tuple[int, int]
SMALLEST, LARGEST = 32, 4096
"""Pixels a side of an input must have: below, a light model's maps are single cells; above, no recipe's size is."""


@dataclass(frozen=True)
class Sizes:
    """The input sizes of a run: `base` (width, height), or any in [low, high] times it, anew every `every` steps.

    A size has sides of whole multiples of `step` pixels, the longer side any in the range, the shorter the nearest to
    the proportions of `base`; all are equally likely. With low = high = 1 it is `base` throughout.

    Source: Redmon and Farhadi 2017 (YOLO9000), section 2: every 10 batches a multiple of 32 from 320 to 608. Darknet
    takes those same ten sizes whatever the cfg says (`random=1`), keeps its largest for the last 200 batches, and
    AlexeyAB's takes the base's 1/1.4 to 1.4. Theirs draw from the process' chance, so that a resumed run differs; ours
    from (seed, step), so that any step can be made again, and no stretch is kept for the end.
    """

    base: Size
    low: float = 1.0
    high: float = 1.0
    step: int = 32
    every: int = 10
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe, base: Size) -> Sizes:
        """The sizes that a recipe asks for, around the input size of its model."""
        asked = recipe.multiscale
        return cls((int(base[0]), int(base[1])), asked.low, asked.high, asked.step, asked.every, recipe.seed)

    @property
    def changing(self) -> bool:
        """Whether there is more than `base`."""
        return (self.low, self.high) != (1.0, 1.0)

    @cached_property
    def possible(self) -> tuple[Size, ...]:
        """Every size that may come, smallest first; none where no multiple of `step` lies in the range."""
        if not self.changing:
            return (self.base,)
        longer = 0 if self.base[0] >= self.base[1] else 1
        found = []
        for multiple in range(1, int(self.base[longer] * self.high / self.step + 1e-9) + 1):
            sides = [_nearest(multiple * self.step * side / self.base[longer], self.step) for side in self.base]
            if all(
                self.low - 1e-9 <= side / base <= self.high + 1e-9 for side, base in zip(sides, self.base, strict=True)
            ):
                found.append((sides[0], sides[1]))
        return tuple(found)

    def at(self, step: int) -> Size:
        """(width, height) of the step that follows `step` others; the same for every process and after every resume."""
        if not self.changing:
            return self.base
        draw = generator(augmentation_seed(self.seed, step // self.every, "input size"))
        return self.possible[int(draw.integers(len(self.possible)))]


def problems(multiscale: MultiScale, detector: Detector, base: Size | None = None) -> list[str]:
    """Why a run cannot train `detector` at changing sizes, a sentence per key; nothing where it can or need not."""
    base = base or detector.size
    sizes = Sizes(base, multiscale.low, multiscale.high, multiscale.step, multiscale.every)
    if not sizes.changing:
        return []
    if max(base) * multiscale.high > LARGEST:
        return [
            f"multiscale.high: {multiscale.high:g} of {max(base)} gives sides above {LARGEST} pixels; "
            f"expected {LARGEST / max(base):.4g} or less"
        ]
    around, asked = f"{base[0]}x{base[1]}", f"low={multiscale.low:g}, high={multiscale.high:g}"
    refused = _refused(detector, base)
    if refused:
        return [f"multiscale: {asked} asks {detector.name} for other input sizes, but it {refused}"]
    found = []
    if min(base) * multiscale.low < SMALLEST and (not sizes.possible or min(map(min, sizes.possible)) < SMALLEST):
        least = -(-SMALLEST * 100 // min(base)) / 100
        found.append(
            f"multiscale.low: {multiscale.low:g} of {around} gives sides below {SMALLEST} pixels; "
            f"expected {min(1.0, least):g} or more"
        )
    if len(sizes.possible) < 2:
        only = f"one size, {sizes.possible[0][0]}x{sizes.possible[0][1]}" if sizes.possible else "no size"
        found.append(
            f"multiscale: {asked} of {around} in multiples of {multiscale.step} pixels leave {only}; "
            "widen low … high, or make multiscale.step smaller"
        )
    return found


def _nearest(length: float, step: int) -> int:
    """The multiple of `step` nearest to a length; halves go up."""
    return int(length / step + 0.5) * step


def _refused(detector: Detector, base: Size) -> str | None:
    """Why a detector does not take another size; it is left at `base`."""
    try:
        detector.resized((base[0] + SMALLEST, base[1] + SMALLEST))
    except ModelError as error:
        return error.message.removeprefix(f"{detector.name}: ").partition(", got ")[0]
    detector.resized(base)
    return None
