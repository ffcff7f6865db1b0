"""Where runs lie and what they are called; numbers are never given twice."""

from __future__ import annotations

import os
import re
from pathlib import Path

from onestage.errors import UsageError

_NAME = re.compile(r"\w[\w.+-]{0,99}")
_REGISTER = ".ids"
# Endings of files that name a set, and such names that do not tell one set from another.
_LISTS = frozenset({".data", ".yaml", ".yml", ".json", ".txt"})
_SAYS_NOTHING = frozenset({"data", "dataset"})


def runs_root() -> Path:
    """The folder that holds all runs: $ONESTAGE_RUNS, or `runs` in the current folder."""
    return Path(os.environ.get("ONESTAGE_RUNS") or "runs")


def run_names(root: Path | None = None) -> list[str]:
    """Names of the folders under `root` that look like runs (they hold a run.json), sorted; none is fine."""
    root = root or runs_root()
    try:
        return sorted(entry.name for entry in root.iterdir() if (entry / "run.json").is_file())
    except OSError:
        return []


def usual_prefix(model: str, data: str) -> str:
    """What a run without a name of its own is called before its number: the model's name and that of its data.

    A cfg, and a file that lists or describes a set, go by their names without the ending; a data.yaml
    goes by its folder's.
    """
    place = Path(data).expanduser().resolve()
    told = place.stem if place.suffix.lower() in _LISTS else place.name
    if told.lower() in _SAYS_NOTHING and place.suffix:
        told = place.parent.name
    return f"{model.removesuffix('.cfg')}-{told or 'data'}"


def named_folder(root: Path, name: str) -> Path:
    """Make `root/name`; UsageError where the name is taken or cannot be a folder's name on every system."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise UsageError(
            f"{name!r} cannot name a run",
            hint="letters, digits, '_', '-', '+' and '.', at most 100, beginning with a letter or digit",
        )
    folder = root / name
    try:
        folder.mkdir()
    except FileExistsError:
        raise UsageError(
            f"a run called {name!r} is already in {root}",
            hint=f"pick another name, or go on with it: onestage train --resume {name}",
        ) from None
    return folder


def numbered_folder(root: Path, prefix: str) -> Path:
    """Make `root/<prefix>-001`, or the next number that was never given, safe against other processes.

    Each number is written to `root/.ids` before its folder is made, and the making itself decides who gets it.
    """
    prefix = re.sub(r"[^\w.+]+", "-", prefix).strip("-.") or "run"
    last = _last_number(root, prefix)
    while True:
        last += 1
        name = f"{prefix}-{last:03d}"
        with (root / _REGISTER).open("a", encoding="utf-8") as register:
            register.write(name + "\n")
        try:
            (root / name).mkdir()
        except FileExistsError:
            continue
        return root / name


def _last_number(root: Path, prefix: str) -> int:
    given = re.compile(re.escape(prefix) + r"-(\d+)")
    register = root / _REGISTER
    names = register.read_text(encoding="utf-8", errors="replace").split("\n") if register.is_file() else []
    names += [entry.name for entry in root.iterdir()]
    return max((int(match[1]) for name in names if (match := given.fullmatch(name))), default=0)
