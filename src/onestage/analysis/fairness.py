"""Only like with like: what makes a comparison unfair, and the part of the data that all arms share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onestage.analysis.arms import Arm, Member
from onestage.errors import GateError, did_you_mean
from onestage.records import Annotations, Detections, FloatArray, ImageId

# Boxes may differ so much, in pixels, and be the same: files keep so many digits.
CLOSE = 1e-3
# Where a file's score floor is not known, its lowest score stands for it, and below this one none is missed.
UNSEEN, NEAR = 0.01, 0.01
_LISTED = 5
# Columns of a truth that a protocol of its own sees, with their widths: WIDER FACE's, VisDrone's and FDDB's.
SEEN_BY_SOME = {"easy": 1, "medium": 1, "hard": 1, "score": 1, "category": 1, "ellipse": 5}


@dataclass(frozen=True, eq=False)
class Common:
    """What all arms are judged on, with their classes and floor made alike; `left_out` says what is not in it."""

    arms: tuple[Arm, ...]
    truths: Mapping[ImageId, Annotations]
    classes: tuple[str, ...]
    sizes: Mapping[ImageId, tuple[int, int]]
    protocol: str
    floor: float | None
    left_out: tuple[str, ...] = ()


def fair(arms: Sequence[Arm], protocol: str | None = None, common: bool = False) -> Common:
    """The arms ready to be judged alike, by `protocol` or else that of the runs.

    Truth (boxes, labels, flags, areas), classes, image set, score floor, settings of judging and protocol must be the
    same: GateError names everything that is not. `common` judges what they share instead: images with equal truth,
    classes of all, the highest score floor.
    """
    members = [member for arm in arms for member in arm.members]
    reasons: list[str] = []
    classes = _classes(members, reasons)
    ordered = [_relabelled(member, classes) for member in members]
    images = _images(ordered, reasons)
    floor = _floor(members, reasons)
    ways = _settings(members)
    chosen = protocol or _protocol(members, reasons)
    if (reasons or ways) and not common:
        raise GateError(
            f"{_all([arm.name for arm in arms])} cannot be compared fairly", problems=[*reasons, *ways],
            hint=_advice(reasons, bool(ways), bool(images and classes)),
        )  # fmt: skip
    if not images or not classes:
        raise GateError(
            f"{_all([arm.name for arm in arms])} have nothing in common that could be judged", problems=reasons
        )
    if chosen is None:
        raise GateError("the runs share no protocol", problems=reasons, hint="protocol=coco judges all anew")
    cut = iter(_kept(member, images, floor) for member in ordered)
    alike = tuple(Arm(arm.name, tuple(next(cut) for _ in arm.members)) for arm in arms)
    first = ordered[0]
    sizes: dict[ImageId, tuple[int, int]] = {}
    for member in members:
        sizes |= {image: size for image, size in member.sizes.items() if image not in sizes}
    truths = {image: first.truths[image] for image in images}
    return Common(alike, truths, classes, sizes, chosen, floor, (*reasons, *ways))


def _classes(members: Sequence[Member], reasons: list[str]) -> tuple[str, ...]:
    """The classes of all members, in the order of the first."""
    shared = tuple(name for name in members[0].classes if all(name in member.classes for member in members))
    for member in members:
        extra = [name for name in member.classes if name not in shared]
        if extra:
            others = sorted({name for other in members for name in other.classes} - set(member.classes))
            near = did_you_mean(extra[0], others)
            reasons.append(f"classes: {_some(extra)} of {member.name} are not classes of all{near}")
    return shared


def _relabelled(member: Member, classes: tuple[str, ...]) -> Member:
    """The member with labels by `classes`; truths and detections of other classes are left out, regions stay."""
    if member.classes == classes:
        return member
    place = {name: label for label, name in enumerate(classes)}
    to = np.array([place.get(name, -1) for name in member.classes], np.int64)
    truths = {}
    for image, truth in member.truths.items():
        region = np.asarray(truth.extra.get("region", np.zeros(len(truth))), bool)
        labels = np.where(region, 0, to[truth.labels])
        moved = Annotations(truth.boxes, labels, truth.difficult, truth.ignore, truth.crowd, truth.extra)
        truths[image] = moved.take(labels >= 0)
    found = {}
    for image, one in member.detections.items():
        labels = to[one.labels]
        found[image] = Detections(one.boxes, labels, one.scores, one.extra).take(labels >= 0)
    return replace(member, truths=truths, detections=found, classes=classes)


def _images(members: Sequence[Member], reasons: list[str]) -> list[ImageId]:
    """The images that all have, with the same truth."""
    everywhere = set.intersection(*(set(member.truths) for member in members))
    for member in members:
        own = [image for image in member.truths if image not in everywhere]
        if own:
            reasons.append(
                f"images: {len(own)} of the {len(member.truths)} images of {member.name} are not judged by all: "
                f"{_some(own)}"
            )
    first = members[0]
    signs = {image: _truth_sign(first.truths[image]) for image in everywhere}
    unlike: dict[ImageId, str] = {}
    for member in members[1:]:
        if member.truths is first.truths:
            continue
        for image in everywhere:
            if why := _unlike(signs[image], _truth_sign(member.truths[image])):
                unlike.setdefault(image, f"{why}, {first.name} and {member.name}")
    if unlike:
        shown = [f"{image} ({why})" for image, why in list(unlike.items())[:_LISTED]]
        more = f" and {len(unlike) - _LISTED} more" if len(unlike) > _LISTED else ""
        reasons.append(f"truth: it differs in {len(unlike)} images: {'; '.join(shown)}{more}")
    return [image for image in first.truths if image in everywhere and image not in unlike]


def _truth_sign(truth: Annotations) -> FloatArray:
    """What judging can see of a truth, a row per annotation: (N, 20)."""
    sides = np.maximum(truth.boxes[:, 2:] - truth.boxes[:, :2], 0.0).prod(1)
    area = np.asarray(truth.extra.get("area", np.full(len(truth), np.nan)), np.float64)
    region = np.asarray(truth.extra.get("region", np.zeros(len(truth))), np.float64)
    special = [
        np.asarray(truth.extra.get(name, np.full((len(truth), width), -1.0)), np.float64).reshape(len(truth), width)
        for name, width in SEEN_BY_SOME.items()
    ]
    return np.column_stack([
        truth.labels, truth.difficult, truth.ignore, truth.crowd, region, truth.boxes,
        np.where(np.isnan(area), sides, area), *special,
    ]).astype(np.float64)  # fmt: skip


def _unlike(a: FloatArray, b: FloatArray) -> str | None:
    """What differs between two truths, in a word or two; None where only the order of rows does, or nothing."""
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} boxes"
    why = _differs(a, b)
    return why and _differs(_sorted(a), _sorted(b)) and why


def _sorted(rows: FloatArray) -> FloatArray:
    result: FloatArray = rows[np.lexsort(np.round(rows, 1).T[::-1])]
    return result


def _differs(a: FloatArray, b: FloatArray) -> str | None:
    for name, columns, close in (
        ("boxes", slice(5, 9), CLOSE), ("labels", slice(0, 1), 0.5), ("flags", slice(1, 5), 0.5),
        ("levels", slice(10, 13), 0.5), ("scores or categories", slice(13, 15), 0.5),
        ("ellipses", slice(15, 20), CLOSE),
    ):  # fmt: skip
        if np.abs(a[:, columns] - b[:, columns]).max(initial=0.0) > close:
            return f"other {name}"
    slack = CLOSE * (2 + (a[:, 7:9] - a[:, 5:7]).sum(1))
    return "other areas" if (np.abs(a[:, 9] - b[:, 9]) > slack).any() else None


def _floor(members: Sequence[Member], reasons: list[str]) -> float | None:
    """The highest score floor, known or seen; a reason where floors are not alike."""
    lowest = [min((float(d.scores[-1]) for d in m.detections.values() if len(d)), default=UNSEEN) for m in members]
    if min(lowest) < 0:
        return None  # no scores from 0 to 1: a floor says nothing
    known = {member.floor for member in members if member.floor is not None}
    seen = {max(low, UNSEEN) for low, member in zip(lowest, members, strict=True) if member.floor is None}
    levels = {max(level, UNSEEN) for level in known} | seen
    if len(known) <= 1 and max(levels) - min(levels) <= NEAR:
        return next(iter(known), None)
    said = [
        f"{member.name} has no score below {low:.4g}" if member.floor is None
        else f"{member.name} keeps nothing below {member.floor:g}"
        for member, low in zip(members, lowest, strict=True)
    ]  # fmt: skip
    reasons.append(f"score floor: {', '.join(dict.fromkeys(said))}")
    return max(known | seen)


def _settings(members: Sequence[Member]) -> list[str]:
    """Settings of judging that differ between runs; nothing can make these alike afterwards."""
    result = []
    runs = [member for member in members if member.settings is not None]
    for name in dict.fromkeys(name for member in runs for name in member.settings or {}):
        values = {member.name: (member.settings or {}).get(name) for member in runs}
        if len(set(map(str, values.values()))) > 1:
            result.append(f"{name}: {', '.join(f'{who} {_known(value)}' for who, value in values.items())}")
    return result


def _known(value: Any) -> str:
    return "not known" if value is None else str(value)


def _protocol(members: Sequence[Member], reasons: list[str]) -> str | None:
    """The protocol to judge by where none was asked for: coco if it is among those of the runs."""
    runs = [member for member in members if member.protocols]
    if not runs:
        return "coco"
    shared = [name for name in runs[0].protocols if all(name in run.protocols for run in runs)]
    if any(set(run.protocols) != set(shared) for run in runs):
        said = {f"{run.name} by {', '.join(run.protocols)}" for run in runs}
        reasons.append(f"protocol: judged were {'; '.join(sorted(said))}")
    return "coco" if "coco" in shared else (shared[0] if shared else None)


def _kept(member: Member, images: Sequence[ImageId], floor: float | None) -> Member:
    found = {image: member.detections[image] for image in images if image in member.detections}
    if floor is not None:
        found = {image: one.above(floor) for image, one in found.items()}
    return replace(member, detections=found)


def _advice(reasons: Sequence[str], settings: bool, shared: bool) -> str:
    """What can be done about these reasons."""
    kinds = {reason.partition(":")[0] for reason in reasons}
    said = []
    if kinds & {"truth", "images", "classes"}:
        said.append("judge all on the same data")
    if "protocol" in kinds:
        said.append("protocol=coco (or another) judges all anew")
    if "score floor" in kinds:
        said.append("floor=… cuts all at one score, and takes files as not cut above it")
    if settings:
        said.append("have the detectors judged alike")
    if shared:
        said.append("--common compares what they share" + (" and these settings all the same" if settings else ""))
    return "; ".join(said)


def _all(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _some(values: Sequence[Any]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(map(str, values[:_LISTED])) + more
