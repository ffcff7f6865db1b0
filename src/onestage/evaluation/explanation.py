"""The same detections by every protocol that fits, and the gaps taken apart rule by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onestage.evaluation import PROTOCOLS, protocols_named
from onestage.evaluation.judgement import Protocol
from onestage.evaluation.pool import Pool, lay_out
from onestage.evaluation.result import truncation
from onestage.evaluation.rules import NAMES, Judge, can_go, rules_of, way
from onestage.records import Annotations, Detections, ImageId

FLOORS = (0.001, 0.01, 0.05, 0.25)
_Truths = Mapping[ImageId, Annotations]
_Found = Mapping[ImageId, Detections]

# Protocols whose gap is told in words, not computed: they judge another thing than the mean AP of plain boxes.
# A protocol in neither table is shown with what its `about` says.
DIFFERENCES: Mapping[str, str] = {
    "visdrone": "drops what lies in ignored regions by area, takes the first rows of an image's file over all classes, "
    "averages IoU 0.5 to 0.95, and weights each class by the number of images that hold it",
    "widerface": "scales scores to 0 to 1 over the whole set, faces outside the subset count neither way, and "
    "precision is read at 1,000 score thresholds",
    "fddb": "faces are ellipses, assigned one to one at the best total overlap; the number is the share of faces found "
    "at so many false ones, not an average precision",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One rule changed: what it was and became, the value after it, its effect, and why in a sentence."""

    rule: str
    before: str
    after: str
    value: float
    delta: float
    why: str


@dataclass(frozen=True)
class Account:
    """One protocol's headline number and how it comes to differ from the reference's by `delta`.

    `steps` add up to `delta`; they are empty where nothing differs, or where `reason` tells in words why the
    number cannot be reached by changing single rules.
    """

    protocol: str
    headline: str
    about: str
    value: float
    delta: float
    steps: tuple[Step, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Probe:
    """What one change to the input would do to each protocol's headline number: `deltas` by protocol."""

    name: str
    why: str
    deltas: Mapping[str, float]


@dataclass(frozen=True)
class Explanation:
    """The same detections by several protocols. Values are shares of 1; a NaN is a number that is not defined.

    `reference` is the protocol that gaps are measured from (None: none fits). `unfit` says why a protocol was left out.
    """

    reference: str | None
    accounts: tuple[Account, ...]
    probes: tuple[Probe, ...]
    unfit: Mapping[str, str]
    n_images: int
    n_truths: int
    n_detections: int
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON, null for what is not defined."""
        result: dict[str, Any] = _plain(asdict(self))
        return result


def explain(
    truths: _Truths,
    detections: _Found,
    classes: Sequence[str],
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
    protocols: Sequence[str] | None = None,
    score_floor: float | None = None,
) -> Explanation:
    """Judge the same detections by every protocol that fits, or by those asked, and take the gaps apart.

    The reference is the first protocol asked for that fits, else voc10, else the first that fits. The gap between
    VOC's, COCO's and darknet's headline numbers becomes a chain of single-rule changes, each really judged, whose
    effects add up to the gap; other protocols are told in words. Probes judge changed input: equal scores in the
    worst and best order, detections below a score left out, the marks `ignore` and `crowd`, or `difficult`, not there.

    Raises UsageError for an unknown protocol, DataError as `evaluate` does for detections that do not fit the truth.
    """
    asked = protocols_named(protocols or tuple(PROTOCOLS))
    pool = lay_out(truths, detections, classes, sizes)
    unfit = {name: why for name, protocol in asked.items() if (why := protocol.unfit(pool)) is not None}
    fit = {name: protocol for name, protocol in asked.items() if name not in unfit}
    reference = "voc10" if protocols is None and "voc10" in fit else next(iter(fit), None)
    judged = {name: protocol(pool) for name, protocol in fit.items()}
    values = {name: _headline(protocol, judged[name].values()) for name, protocol in fit.items()}
    judge = Judge(pool)
    _, note = truncation(pool, judged, score_floor)
    probes = [
        *_ties(judge, values), *_floors(truths, detections, classes, sizes, fit, values, pool),
        *_marks(truths, detections, classes, sizes, fit, values, pool),
    ]  # fmt: skip
    return Explanation(
        reference,
        tuple(_account(name, fit[name], values, reference, judge) for name in fit),
        tuple(probes), unfit, len(pool.images), sum(map(len, truths.values())), len(pool.group),
        (note,) if note else (),
    )  # fmt: skip


def _headline(protocol: Protocol, values: Mapping[tuple[str, str | None], float]) -> float:
    return values.get((protocol.headline, None), math.nan)


def _account(
    name: str, protocol: Protocol, values: Mapping[str, float], reference: str | None, judge: Judge
) -> Account:  # fmt: skip
    value = values[name]
    delta = 0.0 if name == reference else value - values[reference or name]
    told = Account(name, protocol.headline, protocol.about, value, delta)
    if name == reference or reference is None:
        return told
    own, start = rules_of(name), rules_of(reference)
    if own is None or start is None or not can_go(start, own):
        other = name if own is None or "@" in name else reference
        reason = DIFFERENCES.get(other, "no single rule turns one number into the other")
        return replace(told, reason=f"{other}: {reason}")
    steps, before = [], values[reference]
    for change in way(start, own):
        after = judge.value(change.rules)
        why = f"{change.why} (none here)" if judge.idle(change.rule) else change.why
        steps.append(Step(NAMES[change.rule], change.before, change.after, after, after - before, why))
        before = after
    return replace(told, steps=tuple(steps))


def _ties(judge: Judge, values: Mapping[str, float]) -> list[Probe]:
    """Equal scores in the worst and in the best order, for protocols whose rules are known."""
    ranges = {name: judge.tie_range(rules) for name in values if (rules := rules_of(name)) is not None}
    why = "equal scores have no order of their own; each tool takes them as its sort leaves them"
    if not ranges:
        return []
    return [
        Probe(f"equal scores, {word} order", why, {name: ends[i] - values[name] for name, ends in ranges.items()})
        for i, word in enumerate(("worst", "best"))
    ]


def _floors(
    truths: _Truths, detections: _Found, classes: Sequence[str], sizes: Mapping[ImageId, tuple[int, int]] | None,
    fit: Mapping[str, Protocol], values: Mapping[str, float], pool: Pool,
) -> list[Probe]:  # fmt: skip
    """What is lost where detections below a score are left out, for floors that leave any out."""
    if not len(pool.score) or pool.score.min() < 0 or pool.score.max() > 1:
        return []  # scores of another scale: no floor means anything there
    probes, before = [], 0
    for floor in FLOORS:
        lost = int((pool.score < floor).sum())
        if lost == before:
            continue
        before = lost
        kept = {image: found.above(floor) for image, found in detections.items()}
        why = f"{lost} of {len(pool.score)} detections score less; average precision needs them"
        changed = lay_out(truths, kept, classes, sizes)
        probes.append(Probe(f"detections below {floor:g} left out", why, _deltas(fit, changed, values)))
    return probes


def _marks(
    truths: _Truths, detections: _Found, classes: Sequence[str], sizes: Mapping[ImageId, tuple[int, int]] | None,
    fit: Mapping[str, Protocol], values: Mapping[str, float], pool: Pool,
) -> list[Probe]:  # fmt: skip
    """What the marks of the truth do: ignored areas and crowds taken away, difficult truths made ordinary."""
    probes = []
    aside = sum(int((truth.ignore | truth.crowd).sum()) for truth in truths.values())
    if aside:
        plain = {image: truth.take(~(truth.ignore | truth.crowd)) for image, truth in truths.items()}
        why = f"{aside} marked areas or crowds are taken away, so that detections in them become false"
        changed = lay_out(plain, detections, classes, sizes)
        probes.append(Probe("ignored areas and crowds unmarked", why, _deltas(fit, changed, values)))
    hard = int(pool.truth_difficult.sum())
    if hard:
        plain = {image: replace(truth, difficult=np.zeros(len(truth), np.bool_)) for image, truth in truths.items()}
        why = f"{hard} difficult truths are taken as ordinary ones"
        changed = lay_out(plain, detections, classes, sizes)
        probes.append(Probe("difficult truths unmarked", why, _deltas(fit, changed, values)))
    return probes


def _deltas(fit: Mapping[str, Protocol], changed: Pool, values: Mapping[str, float]) -> dict[str, float]:
    """The change of each headline number where the protocol still fits."""
    return {
        name: _headline(protocol, protocol(changed).values()) - values[name]
        for name, protocol in fit.items()
        if protocol.unfit(changed) is None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
