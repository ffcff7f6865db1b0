"""Compares runs and detection files on shared images: how large the difference is, and how sure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onestage.analysis.arms import Arm, Member, Place, Reading, read_arms
from onestage.analysis.fairness import Common, fair
from onestage.analysis.judging import several
from onestage.analysis.verdicts import said, said_smallest
from onestage.errors import UsageError, did_you_mean
from onestage.evaluation import lay_out, protocols_named
from onestage.evaluation.comparison import (
    RESAMPLES,
    Difference,
    counts,
    differences,
    differing_images,
    draw,
    fingerprints,
)
from onestage.evaluation.judgement import Judgement, Key
from onestage.evaluation.significance import holm
from onestage.evaluation.uncertainty import multiplicities

Outcome = Literal["better", "worse", "not distinguishable", "identical", "too few to tell"]


@dataclass(frozen=True)
class Pair:
    """An arm `b` beside the first arm `a`: a row per score, overall and per class, and what follows.

    `holm` is the headline's p corrected for all arms that are compared with the first. `images_needed` and
    `seeds_needed` are what would show a true difference of `see` in 80 of 100 sets; None where no number would.
    """

    a: str
    b: str
    headline: Difference
    rows: tuple[Difference, ...]
    outcome: Outcome
    holm: float | None
    see: float
    images_needed: int | None
    seeds_needed: int | None
    verdict: str
    smallest: str

    def overall(self) -> list[Difference]:
        """The rows over all classes."""
        return [row for row in self.rows if row.class_name is None]

    def per_class(self, name: str | None = None) -> list[Difference]:
        """The rows of each class for the score `name`, by default the headline's, the surest difference first."""
        there = dict.fromkeys(row.name for row in self.rows if row.class_name is not None)
        own = class_score(self.headline.name)
        wanted = name or (own if own in there else next(iter(there), own))
        rows = [row for row in self.rows if row.class_name is not None and row.name == wanted]
        return sorted(rows, key=lambda row: (math.inf if row.p is None else row.p, -abs(row.value)))

    def as_dict(self) -> dict[str, Any]:
        """The pair as JSON."""
        return {
            "a": self.a, "b": self.b, "outcome": self.outcome, "verdict": self.verdict,
            "headline": self.headline.as_dict(), "holm_over_arms": self.holm, "see": self.see,
            "images_needed": self.images_needed, "seeds_needed": self.seeds_needed,
            "rows": [row.as_dict() for row in self.rows],
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Arms judged alike by one protocol, each beside the first.

    `seeds` names what each arm is made of. `floor` is the score below which nothing was judged, None where not known.
    `left_out` says what was not judged with `common`, `notes` what belongs beside the numbers.
    """

    pairs: tuple[Pair, ...]
    seeds: Mapping[str, tuple[str, ...]]
    protocol: str
    score: str
    n_images: int
    n_truths: int
    classes: tuple[str, ...]
    floor: float | None
    level: float
    resamples: int
    seed: int
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What came out, a sentence for each arm beside the first."""
        return "\n".join(pair.verdict for pair in self.pairs)

    def __str__(self) -> str:
        return self.verdict

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {
            "verdict": self.verdict, "protocol": self.protocol, "score": self.score, "n_images": self.n_images,
            "n_truths": self.n_truths, "classes": list(self.classes), "score_floor": self.floor, "level": self.level,
            "resamples": self.resamples, "seed": self.seed,
            "arms": [{"name": name, "seeds": list(of)} for name, of in self.seeds.items()],
            "left_out": list(self.left_out), "notes": list(self.notes),
            "pairs": [pair.as_dict() for pair in self.pairs],
        }  # fmt: skip


def compare(
    *arms: Place | Sequence[Place], data: str | Path | None = None, split: str | None = None,
    protocol: str | None = None, score: str | None = None, floor: float | None = None, common: bool = False,
    names: Sequence[str] | None = None, classes: Sequence[str] | None = None, categories: str | None = None,
    format: str | None = None, allow_loss: bool = False,
    resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95, see: float | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Comparison:  # fmt: skip
    """Say whether the second arm (and each further one) is really better than the first.

    An arm is a run (its name, folder or `Run`), a detection file, or several of these: the seeds of one recipe. Runs
    bring their truth with them; files (of `format`, or as their content says) are judged on the set `split` of `data`,
    or on the first run's images; with `allow_loss` rows that cannot be judged are left out and noted. All are
    judged by `protocol` (default: that of the runs, else coco) on the same images, by the same resamples of them
    drawn with `seed`. `score` is the row the verdict is about (default: the protocol's headline); `see` is a
    difference in [0, 1] that you hope to show (default: the one found), for which the number of images is told.

        verdict = compare("base-001", "new-001").verdict
        compare(["base-001", "base-002"], ["new-001", "new-002"], score="mAP50").as_dict()

    Raises GateError with all reasons where the comparison would not be fair; `common` compares what the arms share.
    """
    _check(protocol, resamples, level, seed)
    reading = Reading(data, split, several(classes), categories, floor, format, allow_loss)
    read = read_arms(arms, reading, several(names), progress)
    progress("comparing truth and settings")
    shared = fair(read, protocol, common)
    chosen = protocols_named([shared.protocol])[shared.protocol]
    weights = multiplicities(len(shared.truths), resamples, seed)
    judging = _Judging(shared, score or chosen.headline, progress)
    drawn = [draw(judging.judgements(arm, resamples), weights) for arm in shared.arms]
    progress("setting the arms beside each other")
    headline, prints = judging.headline, judging.prints
    tables = [
        differences(drawn[0], other, len(shared.truths), judging.resting, level=level,
                    differing=differing_images([*prints[shared.arms[0].name], *prints[arm.name]]))
        for arm, other in zip(shared.arms[1:], drawn[1:], strict=True)
    ]  # fmt: skip
    heads = [next(row for row in rows if (row.name, row.class_name) == headline) for rows in tables]
    corrected = holm([math.nan if row.p is None else row.p for row in heads])
    pairs = tuple(
        _pair(shared, arm, rows, head, float(p), level, see)
        for arm, rows, head, p in zip(shared.arms[1:], tables, heads, corrected, strict=True)
    )
    return Comparison(
        pairs, {arm.name: tuple(member.name for member in arm.members) for arm in shared.arms}, shared.protocol,
        headline[0], len(shared.truths), judging.n_truths, shared.classes, shared.floor, level, resamples, seed,
        shared.left_out, (*_seed_notes(shared.arms), *_odd(shared.arms), *judging.notes),
    )  # fmt: skip


def class_score(headline: str) -> str:
    """The name that a class's own score has where the mean over classes is called `headline`."""
    return headline.removeprefix("m") if headline.startswith("mAP") else headline


def _check(protocol: str | None, resamples: int, level: float, seed: int) -> None:
    problems = []
    if protocol is not None and "," in protocol:
        problems.append(f"protocol: one is expected, got {protocol}")
    elif protocol is not None:
        try:
            protocols_named([protocol])
        except UsageError as error:
            problems.append(f"protocol: unknown protocol {error.problems[0]}: {error.hint}")
    if resamples < 100:
        problems.append(f"resamples: expected at least 100, got {resamples}")
    if seed < 0:
        problems.append(f"seed: expected a whole number from 0, got {seed}")
    if not 0.5 <= level < 1:
        problems.append(f"level: expected a number from 0.5 to below 1, as 0.95, got {level}")
    if problems:
        raise UsageError("compare: values that cannot be used", problems=problems)


class _Judging:
    """Judges all members of all arms, one at a time: of each is kept only what a comparison needs.

    `resting`, `n_truths` and `notes` are those of the first member: all are judged on the same truth. `prints` are the
    fingerprints of each arm's members.
    """

    def __init__(self, shared: Common, score: str, progress: Callable[[str], None]) -> None:
        self.shared, self.progress = shared, progress
        self.headline: Key = (score, None)
        self.resting: Mapping[Key, tuple[int, int]] = {}
        self.n_truths = 0
        self.notes: tuple[str, ...] = ()
        self.prints: dict[str, list[NDArray[np.uint64]]] = {arm.name: [] for arm in shared.arms}

    def judgements(self, arm: Arm, resamples: int) -> Iterator[Judgement]:
        """The judgements of an arm's members; each is forgotten here when the next is asked for."""
        for member in arm.members:
            self.progress(f"judging {member.name}")
            judgement = self._judged(arm, member)
            self.progress(f"{resamples:,} resamples of {member.name}")
            yield judgement
            del judgement

    def _judged(self, arm: Arm, member: Member) -> Judgement:
        shared = self.shared
        protocol = protocols_named([shared.protocol])[shared.protocol]
        pool = lay_out(shared.truths, member.detections, shared.classes, shared.sizes)
        if (why := protocol.unfit(pool)) is not None:
            raise UsageError(f"protocol {shared.protocol} cannot judge this truth: {why}", hint="protocol=…")
        judgement = protocol(pool)
        self.prints[arm.name].append(fingerprints(pool))
        if not self.resting:
            self.headline = _headline(judgement, self.headline[0])
            self.resting = counts(judgement, pool)
            self.n_truths, self.notes = judgement.count(self.headline), judgement.notes
        return judgement


def _headline(judgement: Judgement, score: str) -> Key:
    keys = [key for key in judgement.values() if key[1] is None]
    if (score, None) not in keys:
        there = [name for name, _ in keys]
        raise UsageError(
            f"score={score}: {judgement.protocol} has no such score{did_you_mean(score, there)}",
            hint=f"one of {', '.join(there)}",
        )
    return score, None


def _pair(
    shared: Common, arm: Arm, rows: tuple[Difference, ...], head: Difference, corrected: float, level: float,
    see: float | None,
) -> Pair:  # fmt: skip
    wanted = abs(head.value) if see is None else abs(see)
    p = None if head.p is None else corrected
    outcome = _outcome(head, p, level)
    images = seeds = None
    if head.spread is not None and not math.isnan(wanted):
        images = head.spread.images_needed(wanted, level)
        seeds = head.spread.seeds_needed(wanted, level)
    base = shared.arms[0]
    verdict = said(
        base.name, arm.name, head, outcome, p=p, n_images=len(shared.truths),
        seeds=(len(base.members), len(arm.members)), several=len(shared.arms) > 2, level=level, see=wanted,
        images_needed=images, seeds_needed=seeds,
    )  # fmt: skip
    return Pair(base.name, arm.name, head, rows, outcome, p, wanted, images, seeds, verdict, said_smallest(head, level))


def _outcome(head: Difference, p: float | None, level: float) -> Outcome:
    if p is None:
        return "too few to tell"
    if head.spread is None:
        return "identical"
    if p >= 1 - level:
        return "not distinguishable"
    return "better" if head.value > 0 else "worse"


def _odd(arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(note for arm in arms for member in arm.members for note in member.notes))


def _seed_notes(arms: Sequence[Arm]) -> list[str]:
    single = [arm.name for arm in arms if len(arm.members) == 1]
    if not single:
        return []
    if len(single) == len(arms):
        return ["one seed per arm: this tells two detectors apart, not the recipes they came from; give several seeds"]
    return [f"{', '.join(single)}: one seed only; its seeds are taken to spread like those of the other arm"]
