"""A split spec: a YAML that names train and val (and test), each a folder or file of any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onestage.data.formats import recognise
from onestage.data.formats.yolo_folder import load_yaml
from onestage.errors import DataError


@dataclass(frozen=True)
class Spec:
    """The sets that a split spec names, and its class list where it has one."""

    path: Path
    sets: dict[str, Path]
    classes: tuple[str, ...] | None = None


def read_spec(path: Path) -> Spec | None:
    """The spec at `path`, or None where it is no YAML file or is YOLO's data.yaml, which names classes.

    Paths are relative to the spec. Raises DataError where one of them does not exist, all problems at once.
    """
    if not path.is_file() or path.suffix.lower() not in (".yaml", ".yml"):
        return None
    document = load_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("train"), str):
        if isinstance(document, dict) and "train" in document:
            return None
        raise DataError(f"{path.name} names no training set", hint="write train: PATH and val: PATH")
    if "names" in document or "nc" in document or "path" in document:
        return None
    named = {key: str(document[key]) for key in ("train", "val", "test") if document.get(key)}
    sets = {key: path.parent / entry for key, entry in named.items()}
    missing = [
        f"{key}: {named[key]} does not exist beside {path.name}" for key, place in sets.items() if not place.exists()
    ]
    if missing:
        raise DataError(f"{path.name} names data that is not there", problems=missing)
    if not all(recognise(place) for place in sets.values()):
        return None  # plain image folders: a data.yaml without names
    classes = document.get("classes")
    if classes is not None and not (isinstance(classes, list) and classes):
        raise DataError(f"{path.name}: classes: expected a list of names, got {classes!r}")
    return Spec(path, sets, None if classes is None else tuple(map(str, classes)))
