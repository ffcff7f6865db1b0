"""Finds the run that this very command began, when its launcher has started it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.errors import UsageError
from onestage.experiments.naming import runs_root
from onestage.experiments.run import Run
from onestage.experiments.storage import plain
from onestage.training.devices.launch import same_job


def begun_by(jobs: Sequence[str], keys: Mapping[str, Any], root: Path | None = None) -> Run | None:
    """The newest run under `root` that a command with these `keys` began in the same job; None where there is none.

    `jobs` is what all processes of the command are known by (`launch.jobs`); run.json keeps it.
    """
    if not jobs:
        return None
    found = []
    for path in (root or runs_root()).glob("*/run.json"):
        run = Run(path.parent)
        try:
            info = run.info
        except UsageError:
            continue
        if same_job(info.get("jobs", []), jobs) and run.asked == plain(dict(keys)):
            found.append((str(info.get("created", "")), run))
    return max(found, key=lambda one: one[0])[1] if found else None
