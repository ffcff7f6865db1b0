"""Who started this process: torchrun, srun or the user, and what a restarted command is known by."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """One process of several: `rank` of `count` over all machines, `local` of `here` on this one."""

    launcher: str
    rank: int
    count: int
    local: int
    here: int


def placed() -> Place | None:
    """Where torchrun or srun put this process, as their environment variables say; None where neither started it."""
    said = os.environ
    if "TORCHELASTIC_RUN_ID" in said:
        count = int(said["WORLD_SIZE"])
        here = int(said.get("LOCAL_WORLD_SIZE", count))
        return Place("torchrun", int(said["RANK"]), count, int(said.get("LOCAL_RANK", said["RANK"])), here)
    if "SLURM_STEP_NUM_TASKS" in said:  # set by srun alone, while SLURM_NTASKS is there in a batch script too
        count = int(said["SLURM_STEP_NUM_TASKS"])
        per_node = said.get("SLURM_STEP_TASKS_PER_NODE", str(count))  # as "2", "4(x2)", "4(x2),3"
        on_first = int(per_node.partition(",")[0].partition("(")[0])
        return Place("srun", int(said["SLURM_PROCID"]), count, int(said["SLURM_LOCALID"]), on_first)
    return None


def jobs() -> tuple[str, ...]:
    """What stays the same when the launcher starts this command again, so that it finds the run it began.

    torchrun's run id with the process that restarts its workers; Slurm's job and step, which a requeued job keeps.
    A batch script may train twice without a step of its own, so that a Slurm job alone counts only once requeued.
    """
    found = []
    if run := os.environ.get("TORCHELASTIC_RUN_ID"):
        found.append(f"torchrun {run} {socket.gethostname()} {os.getppid()} {_started(os.getppid())}".rstrip())
    if job := os.environ.get("SLURM_JOB_ID"):
        cluster = os.environ.get("SLURM_CLUSTER_NAME", "-")
        found.append(f"slurm {cluster} {job} {os.environ.get('SLURM_STEP_ID', '-')}")
    return tuple(found)


def same_job(earlier: Sequence[str], now: Sequence[str]) -> bool:
    """Whether a command known as `earlier` was started again as `now`."""
    requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    return any(text in earlier for text in now if requeued or not (text.startswith("slurm") and text.endswith(" -")))


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks since boot; empty where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
