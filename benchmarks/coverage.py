"""Do 95 % intervals hold the truth in 95 of 100 sets? Synthetic detectors whose score on all images is known.

    python benchmarks/coverage.py [--quick] [--sets N] [--kinds KIND …] [--json PATH]

Each kind of detector is judged once on a population of 20,000 images, which gives its true scores. Then sets of 25 to
500 images are drawn from it and judged; of each score's interval it is counted whether the truth lies inside.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestage.evaluation import coco, lay_out, operating, voc
from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    HUNDRED_AND_ONE_POINTS,
    area_under_envelope,
    average_precisions,
    mean_present,
)
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.uncertainty import RESAMPLES, multiplicities, score_interval
from onestage.records import Annotations, Detections, ImageId

POPULATION = 20_000
SIZES = (25, 50, 100, 500)
FIXED_SCORE = 0.5


@dataclass(frozen=True)
class Kind:
    """A detector and its images.

    `classes` are shares of the objects; `objects` is the mean number in an image; `found` the chance that one is
    detected and `false` the mean number of false alarms; `mood` spreads both from image to image (logits);
    `jitter` moves found boxes, as a share of their sides; `apart` is how far scores of hits lie above the others.
    """

    about: str
    classes: tuple[float, ...]
    objects: float
    found: float
    false: float
    mood: float
    jitter: float
    apart: float


KINDS = {
    "plain": Kind("independent objects, two classes", (0.5, 0.5), 3.0, 0.75, 2.0, 0.0, 0.06, 1.5),
    "clustered": Kind("hard and easy images", (0.5, 0.3, 0.2), 6.0, 0.7, 4.0, 1.5, 0.07, 1.5),
    "sparse": Kind("few objects, 8 unequal classes", tuple(1 / k for k in range(1, 9)), 1.5, 0.7, 1.5, 0.7, 0.06, 1.5),
    "weak": Kind("a weak detector, many false alarms", (0.6, 0.4), 4.0, 0.4, 12.0, 0.7, 0.12, 0.8),
    "strong": Kind("a strong detector", (0.5, 0.3, 0.2), 4.0, 0.97, 1.0, 0.7, 0.03, 3.0),
}  # fmt: skip


def population(kind: Kind, images: int, seed: int = 0) -> tuple[dict[ImageId, Annotations], dict[ImageId, Detections]]:
    """Truths and detections of all images of a kind."""
    rng = np.random.default_rng(seed)
    share = np.array(kind.classes) / sum(kind.classes)
    truths: dict[ImageId, Annotations] = {}
    found: dict[ImageId, Detections] = {}
    for image in range(images):
        mood = rng.normal(0, kind.mood)
        n = int(rng.poisson(kind.objects))
        corner = np.arange(n)[:, None] * 250.0 + rng.uniform(0, 50, (n, 2))
        side = np.exp(rng.uniform(3.0, 5.0, (n, 2)))
        labels = rng.choice(len(share), n, p=share)
        chance = 1 / (1 + np.exp(-(np.log(kind.found / (1 - kind.found)) + mood)))
        seen = np.flatnonzero(rng.random(n) < chance)
        false = int(rng.poisson(kind.false * np.exp(-0.5 * mood - kind.mood**2 / 8)))
        boxes = np.c_[corner, corner + side]
        moved = boxes[seen] + rng.normal(0, kind.jitter, (len(seen), 4)) * np.tile(side[seen], 2)
        far = rng.uniform(-900, -400, (false, 2))
        logit = np.r_[rng.normal(kind.apart + 0.5 * mood, 1.2, len(seen)), rng.normal(-kind.apart, 1.2, false)]
        truths[image] = Annotations(boxes, labels)
        found[image] = Detections(
            np.r_[moved, np.c_[far, far + 40]], np.r_[labels[seen], rng.choice(len(share), false, p=share)],
            1 / (1 + np.exp(-logit)),
        )  # fmt: skip
    return truths, found


class Drawer:
    """Rankings of sets drawn from a judged population: the same as judging the drawn images anew."""

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self.rankings = rankings
        self.order = [np.argsort(r.image, kind="stable") for r in rankings]
        self.edges = [
            np.searchsorted(r.image[order], np.arange(len(r.truths) + 1))
            for r, order in zip(rankings, self.order, strict=True)
        ]

    def draw(self, images: Any) -> list[Ranking]:
        """The rankings of the set that holds the given images of the population, each as often as it is given."""
        result = []
        for r, order, edges in zip(self.rankings, self.order, self.edges, strict=True):
            counts = edges[images + 1] - edges[images]
            ends = np.cumsum(counts)
            at = np.arange(ends[-1]) + np.repeat(edges[images] - ends + counts, counts)
            rows, image = order[at], np.repeat(np.arange(len(images)), counts)
            by_score = np.argsort(-r.score[rows], kind="stable")
            rows = rows[by_score]
            result.append(Ranking(
                image[by_score], r.score[rows], r.rank[rows], r.hit[:, rows], r.counted[:, rows], r.truths[images]
            ))  # fmt: skip
        return result


def scores(voc_rankings: list[Ranking], coco_rankings: list[Ranking], weights: Any) -> dict[str, tuple[Any, int]]:
    """The scores under test for `weights` (B, I), each with the number of truths it rests on."""
    names = [str(k) for k in range(len(voc_rankings))]
    truths = [r.n_truths for r in voc_rankings]
    eleven = average_precisions(voc_rankings, ELEVEN_POINTS, weights)[:, 0]
    whole = average_precisions(voc_rankings, area_under_envelope, weights)[:, 0]
    ten = average_precisions(coco_rankings, HUNDRED_AND_ONE_POINTS, weights)
    result = {
        "voc07 mAP50": (mean_present(eleven), sum(truths)),
        "voc10 mAP50": (mean_present(whole), sum(truths)),
        "coco mAP50-95": (mean_present(ten, (0, 1)), sum(truths)),
        "coco mAP50": (mean_present(ten[:, 0]), sum(truths)),
        "AP50, commonest class": (whole[0], truths[0]),
        "AP50, rarest class": (whole[-1], truths[-1]),
    }
    rates = operating.at_score(voc_rankings, names, FIXED_SCORE, "voc10", weights.shape[1]).scores(weights)
    return result | {name: (rates[name, None], sum(truths)) for name in ("precision", "recall", "F1")}


def cover(
    name: str, sizes: Sequence[int], sets: int, images: int = POPULATION, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """Of `sets` sets of each size drawn from a population: the share of intervals that hold the true score.

    Images are drawn with replacement, so that the population's score is the truth itself and nothing is left to
    chance but the sets. Sets in which a score has no interval (no truth of the class) are not counted.
    """
    truths, found = population(KINDS[name], images)
    pool = lay_out(truths, found, [str(k) for k in range(len(KINDS[name].classes))])
    judged = voc.rankings(pool), coco.rankings(pool)["all"]
    true = {key: float(value[0]) for key, (value, _) in scores(*judged, np.ones((1, images), np.int64)).items()}
    drawers = [Drawer(rankings) for rankings in judged]
    rows = []
    for size in sizes:
        rng = np.random.default_rng(size)
        weights = np.concatenate([np.ones((1, size), np.int64), multiplicities(size, resamples)])
        seen: dict[str, list[tuple[float, float, float]]] = {key: [] for key in true}
        for _ in range(sets):
            drawn = rng.integers(0, images, size)
            of_voc, of_coco = (drawer.draw(drawn) for drawer in drawers)
            for key, (values, n) in scores(of_voc, of_coco, weights).items():
                ends = score_interval(values[1:], float(values[0]), size, n)
                if ends is not None:
                    seen[key].append((*ends, float(values[0])))
        for key, of_key in seen.items():
            low, high, point = np.array(of_key).reshape(-1, 3).T
            rows.append({
                "kind": name, "images": size, "score": key, "true": true[key], "sets": len(low),
                "covered": float(((low <= true[key]) & (true[key] <= high)).mean()),
                "too_high": float((low > true[key]).mean()), "too_low": float((high < true[key]).mean()),
                "width": float((high - low).mean()), "bias": float(point.mean() - true[key]),
            })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Percent covered as a Markdown table: a line per score and size, a column per kind of detector."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    lines = [f"| score | images | {' | '.join(kinds)} |", f"|---|---|{'---|' * len(kinds)}"]
    at = {(row["score"], row["images"], row["kind"]): row["covered"] for row in rows}
    for score, size in dict.fromkeys((row["score"], row["images"]) for row in sorted(rows, key=_by_score(rows))):
        cells = [f"{100 * at[score, size, kind]:.1f}" for kind in kinds]
        lines.append(f"| {score} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_score(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any]], tuple[int, int]]:
    order = list(dict.fromkeys(row["score"] for row in rows))
    return lambda row: (order.index(row["score"]), row["images"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="40 sets of 25 and 100 images, two kinds of detector")
    parser.add_argument("--sets", type=int, help="sets of each size (1,000; a quarter of them for 500 images)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), help="these kinds of detector alone")
    parser.add_argument("--json", type=Path, help="write the figures here")
    asked = parser.parse_args()
    sets = asked.sets or (40 if asked.quick else 1000)
    rows: list[dict[str, Any]] = []
    for kind in asked.kinds or (("plain", "clustered") if asked.quick else KINDS):
        for size in (25, 100) if asked.quick else SIZES:
            start = time.process_time()
            many = max(1, sets // 4) if size >= 500 else sets
            rows += cover(kind, [size], many, 4000 if asked.quick else POPULATION)
            print(f"{kind}, {size} images, {many} sets: {time.process_time() - start:.0f} s", flush=True)
            if asked.json:
                asked.json.write_text(json.dumps({"resamples": RESAMPLES, "rows": rows}, indent=1) + "\n")
    print(f"percent of 95 % intervals that hold the truth; chance alone: {196 * (0.0475 / sets) ** 0.5:.1f} either way")
    print(table(rows))


if __name__ == "__main__":
    main()
