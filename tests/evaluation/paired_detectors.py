"""Detectors whose true difference is known, on the same images: their hits are correlated, their seeds differ."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from onestage.evaluation import PROTOCOLS, lay_out
from onestage.evaluation.comparison import Difference, counts, differences, draw
from onestage.evaluation.judgement import Judgement
from onestage.evaluation.pool import Pool
from onestage.evaluation.uncertainty import multiplicities
from onestage.records import Annotations, Detections

Found = dict[int, Detections]


@dataclass
class Scene:
    """A set of images: objects of some difficulty, in images of some difficulty; the last classes are rarer."""

    truths: dict[int, Annotations]
    difficulty: dict[int, np.ndarray]

    @classmethod
    def drawn(cls, rng: np.random.Generator, images: int, classes: int = 2, objects: float = 3.0) -> Scene:
        share = 1.0 / np.arange(1, classes + 1)
        truths, difficulty = {}, {}
        for image in range(images):
            n = int(rng.poisson(objects))
            corner = np.arange(n)[:, None] * 200.0 + rng.uniform(0, 50, (n, 2))
            boxes = np.c_[corner, corner + np.exp(rng.uniform(2.7, 4.9, (n, 2)))]
            truths[image] = Annotations(boxes, rng.choice(classes, n, p=share / share.sum()))
            difficulty[image] = 0.6 * rng.normal() + 0.6 * rng.normal(size=n)
        return cls(truths, difficulty)

    def detections(self, rng: np.random.Generator, quality: float, classes: int = 2, own: float = 0.5) -> Found:
        """What a detector of that `quality` finds; `own` is how much of each hit is its own luck."""
        found = {}
        for image, truth in self.truths.items():
            n = len(truth)
            seen = self.difficulty[image] + own * rng.normal(size=n) < quality
            boxes, labels = truth.boxes[seen], truth.labels[seen]
            moved = boxes + rng.normal(0, 0.06, (len(boxes), 4)) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            false = int(rng.poisson(2))
            wrong = rng.uniform(0, 400, (false, 2)) - 900
            scores = np.r_[rng.beta(4, 2, len(boxes)), rng.beta(2, 4, false)]
            found[image] = Detections(
                np.r_[moved, np.c_[wrong, wrong + 40]], np.r_[labels, rng.integers(0, classes, false)], scores
            )
        return found


@dataclass(frozen=True)
class World:
    """What a simulated comparison is like: `gain` is what B's recipe is better by, `seed` how much a seed moves it."""

    images: int = 100
    seeds: int = 1
    gain: float = 0.0
    seed: float = 0.0
    classes: int = 2
    protocol: str = "voc10"
    name: str = "mAP50"
    own: float = 0.5
    quality: float = 0.7
    resamples: int = 500

    @property
    def names(self) -> list[str]:
        return [chr(97 + c) for c in range(self.classes)]

    def judged(self, rng: np.random.Generator, scene: Scene, gain: float) -> tuple[Judgement, Pool]:
        """A detector of the recipe that is better by `gain`, with a seed of its own."""
        quality = self.quality + gain + self.seed * rng.normal()
        pool = lay_out(scene.truths, scene.detections(rng, quality, self.classes, self.own), self.names)
        return PROTOCOLS[self.protocol](pool), pool

    def compared(self, rng: np.random.Generator) -> tuple[Difference, ...]:
        """One comparison of the two recipes on a set drawn anew."""
        scene = Scene.drawn(rng, self.images, self.classes)
        weights = multiplicities(self.images, self.resamples, int(rng.integers(1 << 30)))
        arms = [[self.judged(rng, scene, gain) for _ in range(self.seeds)] for gain in (0.0, self.gain)]
        a, b = (draw([judgement for judgement, _ in arm], weights) for arm in arms)
        return differences(a, b, self.images, counts(*arms[0][0]))

    def truth(self, images: int = 20_000, seeds: int = 1) -> float:
        """The true difference: on a set so large that nothing is left to chance."""
        rng = np.random.default_rng(99)
        scene = Scene.drawn(rng, images, self.classes)
        ends = [
            np.mean([self.judged(rng, scene, gain)[0].values()[self.name, None] for _ in range(seeds)])
            for gain in (0.0, self.gain)
        ]
        return float(ends[1] - ends[0])

    def shares(self, comparisons: int, truth: float = 0.0, class_name: str | None = None, seed: int = 0) -> Shares:
        """How often, of so many comparisons: the interval held the truth, a difference was found, Holm found any."""
        rng = np.random.default_rng(seed)
        held, found, any_found, smallest = [], [], [], []
        for _ in range(comparisons):
            rows = self.compared(rng)
            row = next(row for row in rows if (row.name, row.class_name) == (self.name, class_name))
            if row.interval is not None and row.p is not None:
                held.append(row.interval[0] <= truth <= row.interval[1])
                found.append(row.p < 0.05)
                smallest.append(row.smallest)
                assert (row.p < 0.05) == (not row.interval[0] <= 0 <= row.interval[1]), row
            family = [r for r in rows if r.class_name and r.name == self.name.removeprefix("m")]
            any_found.append(any(r.holm is not None and r.holm < 0.05 for r in family))
        return Shares(
            len(held), float(np.mean(held)), float(np.mean(found)), float(np.mean(any_found)),
            float(np.sqrt(np.mean(np.square(np.array(smallest, float))))),
        )  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """What came out of simulated comparisons; `smallest` what they said they could show (root mean square)."""

    comparisons: int
    covered: float
    found: float
    found_by_holm: float
    smallest: float


def main() -> None:
    """Print the figures of docs/compare.md: `paired_detectors.py [share of the comparisons] [only rows that say]`."""
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    apart = {"gain": 0.3}
    print("| simulated | comparisons | interval holds the truth | difference found | found in any class (Holm) |")
    print("|---|---|---|---|---|")
    for said, world, n, class_name in (
        ("no difference, 25 images", World(25), 2000, None),
        ("no difference, 100 images", World(100), 2000, None),
        ("no difference, 100 images, 1,000 resamples", World(100, resamples=1000), 1000, None),
        ("no difference, 400 images", World(400), 400, None),
        ("no difference, 100 images, `coco`", World(100, protocol="coco", name="mAP50-95"), 400, None),
        ("no difference, 100 images, 10 classes", World(100, classes=10), 500, None),
        ("no difference, rarest of 10 classes, 150 images", World(150, classes=10, name="AP50"), 600, "j"),
        ("true difference, 25 images", World(25, **apart), 1000, None),
        ("true difference, 100 images", World(100, **apart), 1000, None),
        ("2 seeds each, no difference, seeds differ", World(50, 2, seed=0.2), 1000, None),
        ("3 seeds each, no difference, seeds differ", World(50, 3, seed=0.2), 1000, None),
        ("5 seeds each, no difference, seeds differ", World(50, 5, seed=0.2), 600, None),
        ("3 seeds each, no difference, seeds alike", World(50, 3), 1000, None),
    ):
        if only not in said:
            continue
        truth = world.truth() if world.gain else 0.0
        got = world.shares(max(int(n * scale), 2), truth, class_name, seed=4321 if world.resamples == 1000 else 0)
        print(f"| {said} | {got.comparisons} | {100 * got.covered:.1f} % | {100 * got.found:.1f} % | "
              f"{100 * got.found_by_holm:.1f} % |", flush=True)  # fmt: skip
    print("\n| power | comparisons | true difference | said to be the smallest shown | found |\n|---|---|---|---|---|")
    for said, world, n in (
        ("power, 100 images", World(100, gain=0.30), 600),
        ("power, 50 images, 3 seeds each", World(50, 3, gain=0.75, seed=0.2), 400),
    ):
        if only not in said:
            continue
        got = world.shares(max(int(n * scale), 2))
        truth = world.truth(seeds=1 if world.seeds == 1 else 30, images=20_000 if world.seeds == 1 else 3000)
        sizes = f"{100 * truth:.1f} | {100 * got.smallest:.1f}"
        print(f"| {said} | {got.comparisons} | {sizes} | {100 * got.found:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
