"""A split spec: a YAML that names train and val (and test), each one or several sets of any format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage.data.formats import recognise
from onestage.data.formats.files import printable
from onestage.data.formats.rows import number
from onestage.data.formats.yolo_folder import load_yaml
from onestage.errors import DataError, did_you_mean

ROLES = ("train", "val", "test")
_KEYS = (*ROLES, "classes")
_ENTRY = ("data", "split", "ratio", "every")
_OTHERS = ("names", "nc", "path")  # keys of YOLO's data.yaml


@dataclass(frozen=True)
class Source:
    """One set that a spec names: its place, which of the sets there, its share beside the others, how it is called.

    Of `every` so many images, or frames of a video, one is taken.
    """

    path: Path
    split: str | None
    ratio: float | None
    name: str
    every: int = 1


@dataclass(frozen=True)
class Spec:
    """The sets that a split spec names for train, val and test, and its class list where it has one."""

    path: Path
    sets: Mapping[str, tuple[Source, ...]]
    classes: tuple[str, ...] | None = None


def read_spec(path: Path) -> Spec | None:
    """The spec at `path`, or None where it is no YAML file or is YOLO's data.yaml, which names classes.

    Paths are relative to the spec. Raises DataError where one of them does not exist, for unknown keys and for ratios
    that are none, all problems at once.
    """
    if not path.is_file() or path.suffix.lower() not in (".yaml", ".yml"):
        return None
    document = load_yaml(path)
    if not isinstance(document, dict) or "train" not in document:
        raise DataError(f"{path.name} names no training set", hint="write train: PATH and val: PATH")
    listed = {key: _listed(document[key]) for key in ROLES if document.get(key)}
    entries = [entry for several in listed.values() for entry in several]
    detailed = _is_spec(document)
    if not detailed:
        words = isinstance(document["train"], (str, list)) and all(isinstance(entry, str) for entry in entries)
        if not words or not document["train"] or any(key in document for key in _OTHERS):
            return None
    problems = [] if "train" in listed else ["train: names no set"]
    sets = {key: _sources(key, several, path, problems) for key, several in listed.items()}
    sources = [source for several in sets.values() for source in several]
    has_lists = any(isinstance(document[key], list) for key in listed)
    if not detailed and ((has_lists and problems) or not all(recognise(s.path) for s in sources if s.path.exists())):
        return None  # plain image folders: a data.yaml without names
    problems += [f"{key}: no such key{did_you_mean(str(key), _KEYS)}" for key in document if key not in _KEYS]
    classes = document.get("classes")
    if classes is not None and not (isinstance(classes, list) and classes):
        problems.append(f"classes: expected a list of names, got {classes!r}")
    if problems:
        raise DataError(f"{path.name} cannot be followed", problems=problems, hint=_hint(document))
    return Spec(path, sets, None if classes is None else tuple(map(str, classes)))


def _hint(document: Mapping[Any, Any]) -> str | None:
    if any(key in document for key in _OTHERS):
        return "names, nc and path belong to YOLO's data.yaml; here classes: [a, b], and paths relative to this file"
    return "a set is PATH, or {data: PATH, split: NAME, ratio: 1, every: 1}; all but data may be left out"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _sources(key: str, entries: list[Any], path: Path, problems: list[str]) -> tuple[Source, ...]:
    """The sets of one key of the spec; what is wrong with them goes to `problems`."""
    found = []
    for place, entry in enumerate(entries, 1):
        where = f"{key}, set {place}" if len(entries) > 1 else key
        source = _source(where, entry, path, problems)
        if source is not None:
            found.append(source)
            if source.ratio is not None and key != "train":
                problems.append(f"{where}: ratio: {key} is always judged whole; leave it out")
    with_ratio = [source for source in found if source.ratio is not None]
    if key == "train" and with_ratio and len(with_ratio) < len(found):
        without = ", ".join(source.name for source in found if source.ratio is None)
        problems.append(f"{key}: ratio: {without} has none; give every set one, or none at all")
    return tuple(found)


def _is_spec(document: Any) -> bool:
    """Whether a YAML names sets with keys of their own, as only a split spec does."""
    listed = [entry for key in ROLES for entry in _listed(document.get(key))] if isinstance(document, dict) else []
    return any(isinstance(entry, dict) for entry in listed)


def _source(where: str, entry: Any, path: Path, problems: list[str]) -> Source | None:
    """One set; None where it cannot be told which."""
    told = entry if isinstance(entry, dict) else {"data": entry}
    problems += [
        f"{where}: {word}: no such key{did_you_mean(str(word), _ENTRY)}" for word in told if word not in _ENTRY
    ]
    data, split, ratio = told.get("data"), told.get("split"), told.get("ratio")
    if not isinstance(data, str) or not data:
        problems.append(f"{where}: data: expected a path, got {data!r}")
        return None
    if split is not None and not isinstance(split, str):
        problems.append(f"{where}: split: expected the name of a set, got {split!r}")
        split = None
    share = number(ratio)  # also from text: YAML takes 1e-3 for a word
    if "ratio" in told and not (math.isfinite(share) and share > 0):
        problems.append(f"{where}: ratio: expected a number above 0, got {ratio!r}")
    every = told.get("every", 1)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        problems.append(f"{where}: every: expected a whole number from 1 on, got {every!r}")
        every = 1
    place = path.parent / Path(data).expanduser()
    try:
        there = place.exists()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        beside = sorted(printable(other.name) for other in place.parent.iterdir()) if place.parent.is_dir() else ()
        problems.append(f"{where}: {data} does not exist beside {path.name}{did_you_mean(place.name, beside)}")
        return None
    if place.suffix.lower() in (".yaml", ".yml") and place.is_file() and _is_spec(load_yaml(place)):
        problems.append(f"{where}: {data} is a split spec itself; name its sets here")
        return None
    name = ", ".join([data, *([split] if split else []), *([f"every {every}"] if every > 1 else [])])
    return Source(place, split, share if "ratio" in told else None, name, every)
