"""Where a difference's variance comes from, images and seeds, and how many of them would shrink it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onestage.evaluation.significance import POWER, detectable
from onestage.records import FloatArray

_MOST_SEEDS = 200


@dataclass(frozen=True)
class Spread:
    """The parts of the variance of B minus A, in squared scores.

    `images` is the part of the `n_images` drawn, `luck` what each single seed meets anew on each image; both fall
    with the number of images. `seeds` is what a single seed makes on all images alike; it falls only with the number
    `kept` of seeds per arm. `scatter` is the sample variance of the seeds' scores, in which both show. `speaking` is
    the number of images that say something of the difference.
    """

    images: float
    luck: float
    seeds: float
    scatter: float
    kept: tuple[int, int]
    n_images: int
    speaking: int

    def variance(self, times: float = 1.0, kept: tuple[int, int] | None = None) -> float:
        """The variance with `times` as many images and `kept` seeds per arm."""
        return sum(self._parts(times, kept or self.kept))

    def freedom(self, times: float = 1.0, kept: tuple[int, int] | None = None) -> float:
        """Satterthwaite's degrees of freedom of that variance."""
        count = kept or self.kept
        images, seeds = self._parts(times, count)
        if images + seeds == 0:
            return max(self.speaking * times - 1, 1.0)
        blur = images**2 / max(self.speaking * times - 1, 1.0)
        if sum(count) > 2:
            scatter = self.seeds + (self.scatter - self.seeds) / times
            blur += (scatter * _shares(count)) ** 2 / (sum(count) - 2)
        return (images + seeds) ** 2 / blur

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

    def _parts(self, times: float, kept: tuple[int, int]) -> tuple[float, float]:
        return (self.images + self.luck * _shares(kept)) / times, self.seeds * _shares(kept)


def measured(
    a: FloatArray, drawn_a: FloatArray, b: FloatArray, drawn_b: FloatArray, n_images: int, speaking: int
) -> Spread:  # fmt: skip
    """The spread of mean(b) - mean(a), from the scores of an arm's seeds (K,) and their resamples (K, B).

    The two-stage resample (seeds, then images) with its first stage taken exactly: the mean over seeds drawn with
    replacement has a variance known in closed form, which drawing would only blur. A bootstrap over n things has
    (n - 1) / n of the variance it should have, 2/3 for three seeds; each part is corrected for its own n. What seeds
    meet anew on each image is part of their sample variance and of that of the images: it is counted once.

    Seeds are taken to spread alike in both arms, also where one has a single seed: with three seeds each that leaves
    4 degrees of freedom, where Welch's test, which takes nothing so, would leave 2 to 4. Where both have one, nothing
    is known of seeds, and the difference is that of these two detectors, not of the ways they were made.
    """
    whole = n_images / (n_images - 1)
    images = float((drawn_b.mean(0) - drawn_a.mean(0)).var(ddof=1)) * whole
    kept = (len(a), len(b))
    if sum(kept) == 2:
        return Spread(images, 0.0, 0.0, 0.0, kept, n_images, speaking)
    spare = sum(kept) - 2
    total = sum(float(np.square(scores - scores.mean()).sum()) for scores in (a, b)) / spare
    own = [drawn - drawn.mean(0) for drawn in (drawn_a, drawn_b)]  # what is not shared with the arm's other seeds
    luck = sum(float(part.var(1, ddof=1).sum()) for part in own) / spare * whole
    seeds = max(total - luck, 0.0)
    return Spread(max(images - luck * _shares(kept), 0.0), luck, seeds, total, kept, n_images, speaking)


def _shares(kept: tuple[int, int]) -> float:
    """What is left of a seed's variance in the difference of two means over so many seeds."""
    return 1 / kept[0] + 1 / kept[1]
