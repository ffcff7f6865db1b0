"""The stretches of a run, one per process: where each ran, what changed, whether it is exact."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from onestage.experiments.tables import time_now

# What must be alike for the same steps bit for bit, and how it is called.
MACHINE = {
    "cpu": "CPU", "torch": "torch version", "threads": "number of threads", "device": "device", "gpu": "GPU",
    "devices": "number of devices", "precision": "precision",
}  # fmt: skip


def facts(environment: Mapping[str, Any], devices: int = 1) -> dict[str, Any]:
    """What a segment says of the machine it runs on, out of run.json's `environment`."""
    said = {key: environment.get(key) for key in MACHINE if environment.get(key) is not None}
    return {**said, "devices": devices}


def done_by(info: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The segment of run.json (`info`) that did `step`, {} for step 0, which is before the first.

    Segments of earlier versions did not say on what machine; run.json's environment did.
    """
    segments = [segment for segment in info.get("segments", []) if segment["from_step"] < step]
    return {**facts(info.get("environment", {})), **(segments[-1] if segments else {})} if step else {}


def inexact(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why steps done with the facts `now` need not be those done with `before`, bit for bit; empty where they are.

    A fact that is missing on either side is not held against it.
    """
    return [
        f"another {name}: {before[key]} before, {now[key]} now"
        for key, name in MACHINE.items()
        if before.get(key) is not None and now.get(key) is not None and before[key] != now[key]
    ]


def begun(
    segments: Sequence[Mapping[str, Any]], from_step: int, last_step: int | None, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """`segments` and one more that starts after `from_step`; one that was killed is taken to reach to `last_step`."""
    kept = [dict(segment) for segment in segments]
    if kept and kept[-1].get("to_step") is None:
        kept[-1]["to_step"] = last_step
    segment = {
        "start": time_now(), "end": None, "from_step": from_step, "to_step": None, "host": socket.gethostname(),
        **facts,
    }  # fmt: skip
    return [*kept, segment]


def ended(segments: Sequence[Mapping[str, Any]], last_step: int | None) -> list[dict[str, Any]]:
    """`segments` with the last one closed after `last_step`."""
    kept = [dict(segment) for segment in segments]
    if kept and kept[-1].get("end") is None:
        kept[-1] |= {"end": time_now(), "to_step": last_step}
    return kept
