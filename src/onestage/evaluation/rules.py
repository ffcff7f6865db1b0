"""VOC's, COCO's and darknet's headline numbers as sets of rules, and the way from one to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from onestage.evaluation import coco, darknet, voc
from onestage.evaluation.average_precision import (
    ELEVEN_POINTS,
    HUNDRED_AND_ONE_POINTS,
    AreaRule,
    area_under_envelope,
    average_precisions,
    mean_present,
)
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.records import FloatArray

AREAS: Mapping[str, AreaRule] = {
    "whole area": area_under_envelope, "11 points": ELEVEN_POINTS, "101 points": HUNDRED_AND_ONE_POINTS,
}  # fmt: skip
_EVERY_SIZE = {"all": coco.AREAS["all"]}
_NO_LIMIT = 2**62


@dataclass(frozen=True)
class Rules:
    """What decides a headline number; each field is one rule, its value the words a reader sees.

    `pixel` is 0 or 1 added to each side, `most` the number of detections per class and image that are looked at (0:
    all), `thresholds` the IoU values averaged over.
    """

    difficult: Literal["left out", "counted"] = "left out"
    pixel: int = 0
    matching: Literal["voc", "darknet", "coco"] = "voc"
    crowds: Literal["like difficult", "as areas"] = "like difficult"
    most: int = 0
    area: str = "whole area"
    absent: Literal["left out", "as 0"] = "left out"
    thresholds: tuple[float, ...] = (0.5,)


_COCO = Rules("counted", 0, "coco", "as areas", 100, "101 points", "left out", tuple(coco.THRESHOLDS.tolist()))
_DARKNET = Rules(matching="darknet", absent="as 0")
RULES_OF: Mapping[str, Rules] = {
    "voc07": Rules(area="11 points"), "voc10": Rules(),
    "voc07+1": Rules(area="11 points", pixel=1), "voc10+1": Rules(pixel=1),
    "coco": _COCO,
    "darknet": _DARKNET,
    "darknet11": replace(_DARKNET, area="11 points"), "darknet101": replace(_DARKNET, area="101 points"),
}  # fmt: skip


def rules_of(name: str) -> Rules | None:
    """The rules of a protocol, also of VOC's at another IoU (voc10@0.75); None where they are not such as these."""
    of, _, iou = name.partition("@")
    known = RULES_OF.get(of)
    return replace(known, thresholds=(float(iou),)) if known and iou else known


# Matching last but for what only COCO's matching knows, so that every stop on the way can be judged.
_ORDER = ("difficult", "pixel", "matching", "crowds", "most", "area", "absent", "thresholds")
NAMES: Mapping[str, str] = {
    "difficult": "difficult truths", "pixel": "pixel added to each side", "matching": "which truth is hit",
    "crowds": "crowds", "most": "detections per class and image", "area": "area under the curve",
    "absent": "classes without truths", "thresholds": "IoU asked for",
}  # fmt: skip
_WHY: Mapping[tuple[str, object], str] = {
    ("difficult", "left out"): "a difficult truth counts neither way, whether found or missed",
    ("difficult", "counted"): "the flag has no effect: a difficult truth found is a hit, one missed lowers recall",
    ("pixel", 0): "half-open boxes have their whole width already, and a pixel more would raise the IoU of small ones",
    ("pixel", 1): "both sides of each box grow by a pixel, which raises IoU, most for small boxes",
    ("matching", "voc"): "a detection belongs to the truth it overlaps most, even one already taken, and is then false",
    ("matching", "coco"): "a detection takes the best truth still free, so one between neighbours may hit the second",
    ("matching", "darknet"): "IoU must exceed 0.5, in single precision; difficult truths compete with no other",
    ("crowds", "as areas"): "overlap with a crowd is the share of the detection inside; it takes in any number",
    ("crowds", "like difficult"): "a crowd is one box, overlap with it is IoU, and it counts neither way",
    ("most", 100): "only the best 100 detections per class and image are looked at",
    ("most", 0): "all detections are looked at, not only the best 100 per class and image",
    ("area", "whole area"): "the exact area under the falling envelope",
    (
        "area",
        "11 points",
    ): "the envelope is read at 11 recalls: recall 0 earns a whole eleventh, the end all or nothing",
    ("area", "101 points"): "the envelope is read at 101 recalls, which gives a little more than the area as a rule",
    ("absent", "as 0"): "a class of which there is no truth counts as AP 0 in the mean",
    ("absent", "left out"): "a class of which there is no truth has no AP and is left out of the mean",
    ("thresholds", 1): "at one IoU alone",
    ("thresholds", 10): "the mean over ten thresholds asks for tight boxes",
}


@dataclass(frozen=True)
class Change:
    """One rule changed: its field of `Rules`, the words before and after, why it matters, and all rules after it."""

    rule: str
    before: str
    after: str
    why: str
    rules: Rules


def way(start: Rules, end: Rules) -> Iterator[Change]:
    """Single-rule changes that lead from `start` to `end`, each stop one that can be judged; see `can_go`."""
    back = start.matching == "coco" or (start.matching != "voc" and end.pixel)
    now = start
    for field in reversed(_ORDER) if back else _ORDER:
        before, after = getattr(now, field), getattr(end, field)
        if before != after:
            now = replace(now, **{field: after})
            key = len(after) if field == "thresholds" else after
            yield Change(field, _words(field, before), _words(field, after), _WHY[field, key], now)


def can_go(start: Rules, end: Rules) -> bool:
    """Whether every stop between can be judged: VOC's rule knows any IoU, darknet's and COCO's only their own."""
    usual = all(len(rules.thresholds) > 1 or rules.thresholds == (0.5,) for rules in (start, end))
    return usual or start.matching == end.matching == "voc"


class Judge:
    """Takes the headline number of a pool under any rules on a `way`; rankings are kept, since many rules share one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ones = np.ones((1, len(pool.images)), np.int64)
        self._ranked = cache(self._rank)

    def value(self, rules: Rules) -> float:
        """The mean AP under `rules`; NaN where it is not defined."""
        ranked = self._rankings(rules)
        return _mean(average_precisions(ranked, AREAS[rules.area], self._ones), rules) if ranked else float("nan")

    def tie_range(self, rules: Rules) -> tuple[float, float]:
        """The least and the greatest mean AP that any order of equal scores gives, verdicts as they are.

        Each class's hits come last, or first, among the detections of the same score.
        """
        ranked = self._rankings(rules)
        if not ranked:
            return float("nan"), float("nan")
        worst, best = (
            np.stack([
                average_precisions(_reordered(ranking, first), AREAS[rules.area], self._ones)[:, 0]
                for ranking in ranked
            ])
            for first in (False, True)
        )  # fmt: skip
        return _mean(worst, rules), _mean(best, rules)

    def idle(self, rule: str) -> bool:
        """Whether the set holds nothing that the `rule` (a field of `Rules`) speaks of."""
        pool = self._pool
        if rule == "absent":
            counts = ~(pool.truth_ignore | pool.truth_crowd)
            there = np.unique(pool.label_of(pool.truth_group[counts]))
            return len(there) == len(pool.classes) and not pool.truth_difficult.any()
        if rule == "pixel":
            return voc.compared_boxes(pool, 0.0)[2] == 1.0
        spoken_of = {
            "difficult": pool.truth_difficult, "crowds": pool.truth_crowd,
            "most": pool.rank >= coco.MAX_DETECTIONS[-1],
        }  # fmt: skip
        return rule in spoken_of and not spoken_of[rule].any()

    def _rankings(self, rules: Rules) -> Sequence[Ranking]:
        return self._ranked(replace(rules, area="whole area", absent="left out"))

    def _rank(self, rules: Rules) -> Sequence[Ranking]:
        counted = rules.difficult == "counted"
        if rules.matching == "coco":
            pool = self._pool
            if rules.crowds != "as areas":
                none = np.zeros_like(pool.truth_crowd)
                pool = replace(pool, truth_crowd=none, truth_ignore=pool.truth_ignore | pool.truth_crowd)
            return coco.rankings(pool, np.array(rules.thresholds), rules.most or _NO_LIMIT, _EVERY_SIZE)["all"]
        if rules.matching == "darknet":
            return darknet.rankings(self._pool, counted)
        return voc.rankings(self._pool, rules.thresholds, rules.pixel, counted)


def _mean(ap: FloatArray, rules: Rules) -> float:
    """The mean of AP (C, T, 1) over classes and thresholds."""
    return float((np.nan_to_num(ap).mean((0, 1)) if rules.absent == "as 0" else mean_present(ap, (0, 1)))[0])


def _reordered(ranking: Ranking, hits_first: bool) -> list[Ranking]:
    """The ranking at each of its thresholds by itself, hits first or last among equal scores."""
    result = []
    for hit, counted in zip(ranking.hit, ranking.counted, strict=True):
        order = np.lexsort((~hit if hits_first else hit, -ranking.score))
        result.append(Ranking(
            ranking.image[order], ranking.score[order], ranking.rank[order], hit[None, order], counted[None, order],
            ranking.truths,
        ))  # fmt: skip
    return result


def _words(field: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:g}" if len(value) == 1 else f"{value[0]:g} to {value[-1]:g}"
    if field == "most":
        return str(value or "all")
    if field == "matching":
        return {"voc": "best, taken or not", "darknet": "best above 0.5", "coco": "best free"}[str(value)]
    return str(value)
