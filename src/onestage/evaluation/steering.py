"""The one score that a run is steered by: a protocol's number, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from onestage.errors import DataError, UsageError, did_you_mean
from onestage.evaluation import PROTOCOLS, evaluate, lay_out, protocols_named
from onestage.records import Annotations, ImageId

# Scores that need no protocol before their name: they stand in every run's results.csv under it.
SHORT: Mapping[str, tuple[str, str]] = {"mAP50": ("voc10", "mAP50"), "mAP50-95": ("coco", "mAP50-95")}
# Counts: more of them is not better.
COUNTS = ("TP", "FP", "FN")
# Protocols of one benchmark, all of whose scores results.csv keeps where a run asks for them.
BENCHMARKS = ("widerface", "fddb", "visdrone")


@cache
def score_names(protocol: str) -> tuple[str, ...]:
    """The scores over all classes that a protocol gives, the higher the better, as metrics.json names them."""
    nothing = lay_out({0: Annotations.empty()}, {}, ("face",))
    with np.errstate(all="ignore"):
        judged = protocols_named([protocol])[protocol](nothing)
    return tuple(name for name, class_name in judged.values() if class_name is None and name not in COUNTS)


def steering_score(words: str) -> tuple[str, str]:
    """The protocol and the score that `words` mean: mAP50, mAP50-95, or PROTOCOL/SCORE.

    A protocol alone is the score it is known by; a score may lack its "AP": widerface/hard is widerface/APhard.
    Raises UsageError that names the nearest right words.
    """
    if words in SHORT:
        return SHORT[words]
    protocol, _, asked = words.partition("/")
    try:
        known = protocols_named([protocol])[protocol]
    except UsageError:
        raise _unknown(words) from None
    named = asked or known.headline
    for name in (named, f"AP{named}"):
        if name in score_names(protocol):
            return protocol, name
    raise _unknown(words)


def spelt(words: str) -> str:
    """`words` of `steering_score` in full: mAP50, mAP50-95, or protocol/score; it raises likewise."""
    return words if words in SHORT else "/".join(steering_score(words))


def refuse_undefined(
    words: str, truths: Mapping[ImageId, Annotations], classes: Sequence[str],
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
) -> None:  # fmt: skip
    """DataError where a truth cannot be judged by a score, or holds nothing that it counts."""
    protocol, name = steering_score(words)
    value = evaluate(truths, {}, classes, (protocol,), False, sizes=sizes).metrics.value(name, protocol)
    if np.isnan(value):
        raise DataError(f"{protocol}: {name} is undefined: no truth of the {len(truths)} images counts for it")


def _unknown(words: str) -> UsageError:
    near = [*SHORT, *(f"{protocol}/{name}" for protocol in PROTOCOLS for name in score_names(protocol))]
    near += [one.replace("/AP", "/") for one in near if "/AP" in one]
    ends = [one for one in near if one.partition("/")[2].casefold() == words.casefold()]
    near = ends or near
    return UsageError(
        f"no such score{did_you_mean(ends[0] if ends else words, near)}",
        hint="mAP50, mAP50-95, or PROTOCOL/SCORE such as widerface/APhard",
    )
