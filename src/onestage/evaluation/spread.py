"""Where the variance of a difference comes from, images and seeds, and how much more of either would shrink it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onestage.evaluation.significance import POWER, detectable
from onestage.records import FloatArray

_MOST_SEEDS = 200


@dataclass(frozen=True)
class Spread:
    """The parts of the variance of B minus A, in squared scores.

    `images` is the part of the `n_images` drawn, `luck` what each seed of A and of B meets anew on each image; both
    fall with the number of images. `seeds` is what a seed of A and of B makes on all images alike; it falls only with
    the `kept` seeds. `speaking` is the number of images that say something of the difference.
    """

    images: float
    luck: tuple[float, float]
    seeds: tuple[float, float]
    kept: tuple[int, int]
    n_images: int
    speaking: int

    def variance(self, times: float = 1.0, kept: tuple[int, int] | None = None) -> float:
        """The variance with `times` as many images and `kept` seeds per arm."""
        images, seeds = self._parts(times, kept or self.kept)
        return images + sum(seeds)

    def freedom(self, times: float = 1.0, kept: tuple[int, int] | None = None) -> float:
        """Welch's and Satterthwaite's degrees of freedom of that variance."""
        count = kept or self.kept
        images, seeds = self._parts(times, count)
        total = images + sum(seeds)
        if total == 0:
            return max(self.speaking * times - 1, 1.0)
        blur = images**2 / max(self.speaking * times - 1, 1.0)
        if max(count) > 1:
            # the seeds' part is what is left of their sample variance once luck is taken off: both blur it
            seen = [part + luck / times / k for part, luck, k in zip(seeds, self.luck, count, strict=True)]
            if min(count) > 1:
                blur += sum(part**2 / (k - 1) for part, k in zip(seen, count, strict=True))
            else:
                blur += sum(seen) ** 2 / (max(count) - 1)  # both are one arm's, so they err together
        return total**2 / blur

    def smallest(self, level: float = 0.95, power: float = POWER, *, times: float = 1.0,
                 kept: tuple[int, int] | None = None) -> float:  # fmt: skip
        """The true difference that would be found in a share `power` of such sets, at `level`."""
        freedom = round(self.freedom(times, kept), 1)
        return math.sqrt(self.variance(times, kept)) * detectable(max(freedom, 1.0), level, power)

    def images_needed(self, difference: float, level: float = 0.95, power: float = POWER) -> int | None:
        """How many images would show a true `difference` so often; None where no number would, for the seeds' part."""
        if difference == 0 or self.smallest(level, power, times=1e9) > abs(difference):
            return None
        low, high = 1e-3, 1e9
        while high / low > 1.0005:
            middle = math.sqrt(low * high)
            if self.smallest(level, power, times=middle) > abs(difference):
                low = middle
            else:
                high = middle
        return math.ceil(high * self.n_images)

    def seeds_needed(self, difference: float, level: float = 0.95, power: float = POWER) -> int | None:
        """How many seeds per arm would show it on the same images; None where none would, or seeds play no part."""
        if max(self.kept) < 2 or difference == 0:
            return None
        for k in range(2, _MOST_SEEDS + 1):
            if self.smallest(level, power, kept=(k, k)) <= abs(difference):
                return k
        return None

    def _parts(self, times: float, kept: tuple[int, int]) -> tuple[float, tuple[float, float]]:
        luck = self.luck[0] / kept[0] + self.luck[1] / kept[1]
        return (self.images + luck) / times, (self.seeds[0] / kept[0], self.seeds[1] / kept[1])


def measured(
    a: FloatArray, drawn_a: FloatArray, b: FloatArray, drawn_b: FloatArray, n_images: int, speaking: int
) -> Spread:  # fmt: skip
    """The spread of mean(b) - mean(a), from the scores of an arm's seeds (K,) and their resamples (K, B).

    The two-stage resample (seeds, then images) with its first stage taken exactly: the mean over seeds drawn with
    replacement has a variance known in closed form, which drawing would only blur. A bootstrap over n things has
    (n - 1) / n of the variance it should have, 2/3 for three seeds; each part is corrected for its own n. What seeds
    meet anew on each image is part of their sample variance and of that of the images: it is counted once.

    An arm of one seed is taken to spread like the other arm. Where both have one, nothing is known of seeds, and the
    difference is that of these two detectors, not of the ways they were made.
    """
    whole = n_images / (n_images - 1)
    images = float((drawn_b.mean(0) - drawn_a.mean(0)).var(ddof=1)) * whole
    luck = tuple(_luck(drawn) * whole for drawn in (drawn_a, drawn_b))
    seeds = [
        max(float(scores.var(ddof=1)) - own, 0.0) if len(scores) > 1 else None
        for scores, own in zip((a, b), luck, strict=True)
    ]
    known = [part for part in seeds if part is not None]
    first, second = (part if part is not None else (known[0] if known else 0.0) for part in seeds)
    images -= luck[0] / len(a) + luck[1] / len(b)
    return Spread(max(images, 0.0), (luck[0], luck[1]), (first, second), (len(a), len(b)), n_images, speaking)


def _luck(drawn: FloatArray) -> float:
    """The variance that a seed's own luck on the images gives its score; 0, not known apart, for one seed."""
    k = len(drawn)
    return float((drawn - drawn.mean(0)).var(1, ddof=1).mean()) * k / (k - 1) if k > 1 else 0.0
