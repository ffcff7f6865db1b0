"""What a data.yaml, a darknet .data file or a bare folder says: sets, class names, label columns."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onestage.data.formats.files import IMAGE_SUFFIXES, files_under, is_file, safe_relative, shown, text_lines
from onestage.data.formats.rows import number
from onestage.data.formats.splits import in_order, role
from onestage.errors import DataError, did_you_mean

NOT_LABELS = frozenset(
    {"classes.txt", "labels.txt", "predefined_classes.txt", "readme.txt", "readme.dataset.txt", "readme.roboflow.txt"}
    | {"license.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt"}
)

_MOST_CLASSES = 100_000
# What darknet reads of a .data file; only the first five count here.
_DATA_KEYS = (
    "train", "valid", "test", "names", "classes", "difficult", "backup", "results", "eval", "labels", "map", "top",
    "savelast", "saveweights",
)  # fmt: skip


@dataclass
class YoloFolder:
    """One dataset: its folder, split → folders of images or list files, class names, how it was recognised."""

    root: Path
    said: str
    sources: dict[str, tuple[Path, ...]]
    names: tuple[str, ...] | None = None
    columns: int = 5  # of a row that is no polygon; more for poses
    complaints: list[tuple[str, str]] = field(default_factory=list)  # (code, what) for the listing
    declared: bool = True
    stops: bool = False  # whether its own program stops at an image without a label file


def find(root: Path) -> YoloFolder | None:
    """The dataset at `root`: a data.yaml, a .data file, or a folder; None where it is none of YOLO's.

    Raises DataError where a data.yaml or .data is there and cannot be followed.
    """
    if root.is_file():
        if root.suffix.lower() in (".yaml", ".yml"):
            return from_yaml(root)
        return from_data(root) if root.suffix.lower() == ".data" else None
    if not root.is_dir():
        return None
    named = [root / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    for path in dict.fromkeys([*named, *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]):
        try:
            if path.is_file() and (folder := from_yaml(path)) is not None:
                return folder
        except DataError:
            if path in named:  # any other YAML may be somebody's settings and none of ours
                raise
    for path in sorted(root.glob("*.data")):
        return from_data(path)
    return _bare(root)


def load_yaml(path: Path) -> Any:
    """A YAML document with plain types only. Raises DataError with the line of a mistake."""
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise DataError(f"{shown(path, path.parent)} cannot be opened: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"{shown(path, path.parent)}{line}: not valid YAML: {what}") from error


def from_yaml(path: Path) -> YoloFolder | None:
    """The dataset of a data.yaml; None where the document names no training images.

    `path` is relative to the YAML's own folder, the sets to `path`; '../train/images' is also looked for without the
    '../', as the program that defined this file does (Roboflow's exports rely on it). `download` is never followed.
    """
    document = load_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("train"), (str, list)) or not document["train"]:
        return None
    base = path.parent
    if isinstance(document.get("path"), str) and (base / document["path"]).is_dir():
        base = base / document["path"]
    sources: dict[str, tuple[Path, ...]] = {}
    problems = []
    for key in ("train", "val", "valid", "validation", "test"):
        entries = document.get(key)
        if not entries:
            continue
        listed = entries if isinstance(entries, list) else [entries]
        found = [_entry(base, path.parent, str(entry)) for entry in listed]
        missing = [str(entry) for entry, there in zip(listed, found, strict=True) if there is None]
        if missing and key != "test":
            problems += [f"{key}: {entry} does not exist under {base}" for entry in missing]
        elif not missing:
            name = "val" if key in ("valid", "validation") else key
            sources[name] = (*sources.get(name, ()), *(there for there in found if there is not None))
    if problems:
        raise DataError(
            f"{path.name} names images that are not there", problems=problems,
            hint="correct 'path', 'train' and 'val'; they are relative to the file's own folder",
        )  # fmt: skip
    names = _names(document.get("names"), path)
    folder = YoloFolder(base, f"YOLO data file {path.name}", sources, names)
    count = document.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        folder.names = tuple(map(str, range(count)))
    elif names is not None and isinstance(count, int) and count != len(names):
        folder.complaints.append(("class-count", f"{path.name} says nc: {count} but names {len(names)} classes"))
    keypoints = document.get("kpt_shape")
    if isinstance(keypoints, list) and all(isinstance(n, int) for n in keypoints):
        folder.columns = 5 + math.prod(keypoints)
    return folder


def _entry(base: Path, home: Path, entry: str) -> Path | None:
    text = entry.replace("\\", "/")
    tries = [base / text, home / text]
    if text.startswith("../"):
        tries += [base / text[3:], home / text[3:]]
    return next((path for path in tries if path.exists()), None)


def _names(value: Any, path: Path) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, dict):
        try:
            numbered = {int(key): str(name) for key, name in value.items()}
        except (TypeError, ValueError) as error:
            raise DataError(f"{path.name}: names: expected numbers as keys, got {list(value)[:3]}") from error
        value = [numbered.get(index, str(index)) for index in range(max(numbered, default=-1) + 1)]
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{path.name}: names: expected a list of class names or 'number: name', got {str(value)[:60]!r}"
        )
    return tuple(map(str, value))


def from_data(path: Path) -> YoloFolder:
    """The dataset of a darknet .data file: train=, valid= and test= name list files or folders, names= the classes."""
    keys, problems = _data_keys(path)
    root = path.parent.parent if path.parent.name in ("cfg", "data") else path.parent
    sources: dict[str, tuple[Path, ...]] = {}
    for key, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        if keys.get(key):
            there = _beside(keys[key], path.parent, root)
            if there is None:
                problems.append(f"{key}={keys[key]} does not exist beside {path.name}")
            else:
                sources[split] = (there,)
    if not keys.get("train"):
        problems.append("train= is missing")
    if problems:
        raise DataError(f"{path.name} cannot be followed", problems=problems)
    names_file = _beside(keys["names"], path.parent, root) if keys.get("names") else None
    names = None if names_file is None else tuple(line.strip() for line in text_lines(names_file) if line.strip())
    folder = YoloFolder(root, f"darknet data file {path.name}", sources, names, stops=True)
    count = number(keys.get("classes"))
    if names is not None and math.isfinite(count) and count != len(names):
        folder.complaints.append(("class-count", f"{path.name} says classes={count:g} but names {len(names)}"))
    elif names is None and 1 <= count < _MOST_CLASSES:
        folder.names = tuple(map(str, range(int(count))))
    if keys.get("names") and names_file is None:
        folder.complaints.append(("missing-names", f"names={keys['names']} does not exist beside {path.name}"))
    if keys.get("difficult"):
        folder.complaints.append(("unread-list", f"{path.name} names difficult={keys['difficult']}, which is not read"))
    return folder


def _data_keys(path: Path) -> tuple[dict[str, str], list[str]]:
    """The keys of a .data file, and what in them cannot be meant: misspelt ones, and two values of one."""
    keys: dict[str, str] = {}
    problems = []
    for at, line in enumerate(text_lines(path), 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key.startswith("#"):
            continue
        if key not in _DATA_KEYS and (near := did_you_mean(key, _DATA_KEYS[:5])):
            problems.append(f"line {at}: {key}: unknown key{near}")
        if keys.setdefault(key, value) != value:
            problems.append(f"line {at}: {key}={value}, and before it {key}={keys[key]}: one of the two")
    count = number(keys.get("classes"))
    if keys.get("classes") and not (count >= 1 and count.is_integer()):
        problems.append(f"classes: expected a whole number from 1 on, got {keys['classes']!r}")
    return keys, problems


def _beside(name: str, *bases: Path) -> Path | None:
    if Path(name).is_absolute() and Path(name).exists():
        return Path(name)
    # What another machine calls by an absolute path is taken by the longest end of it that is here.
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]
    relative = [safe_relative("/".join(parts[start:])) for start in range(len(parts))]
    tries = [base / tail for tail in relative if tail is not None for base in bases]
    return next((path for path in tries if is_file(path) or path.is_dir()), None)


def _bare(root: Path) -> YoloFolder | None:
    """images/ + labels/, images/train + labels/train, train/images + train/labels, or images and labels together."""
    sources: dict[str, tuple[Path, ...]] = {}
    said = ""
    if (root / "images").is_dir() and (root / "labels").is_dir():
        below = {path.name: path for path in sorted((root / "images").iterdir()) if path.is_dir() and role(path.name)}
        sources = {name: (path,) for name, path in below.items()} or {"all": (root / "images",)}
        said = "YOLO folder with images/ and labels/"
    else:
        below = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and role(path.name)}
        sources = {name: (path,) for name, path in below.items() if _holds_labels(path)}
        said = f"YOLO folders {', '.join(in_order(sources))}"
        if not sources and any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
            sources, said = {"all": (root,)}, "YOLO folder with images and label files together"
    if not sources or not _holds_labels(root):
        return None
    ordered = {name: sources[name] for name in in_order(sources)}
    return YoloFolder(root, said, ordered, _names_beside(root), declared=False)


def _holds_labels(folder: Path) -> bool:
    """Whether the first label files below a folder, empty ones aside, hold YOLO's rows: whole number, four numbers."""
    files = [path for path in files_under(folder, {".txt"}) if path.name.lower() not in NOT_LABELS]
    told = [path for path in files if path.stat().st_size][:20]  # images without objects have empty files
    rows = [line.split() for path in told for line in text_lines(path)[:3] if line.strip()]
    return any(len(row) >= 5 and all(math.isfinite(number(word)) for word in row) for row in rows)


def _names_beside(root: Path) -> tuple[str, ...] | None:
    places = [place for place in (root, root / "labels", root / "data", root / "train") if place.is_dir()]
    tries = [
        place / name
        for place in places
        for name in ("classes.txt", "labels.txt", "obj.names", "predefined_classes.txt")
    ]
    tries += [path for place in places for path in sorted(place.glob("*.names"))]
    for path in tries:
        if path.is_file() and (names := tuple(line.strip() for line in text_lines(path) if line.strip())):
            return names
    return None
