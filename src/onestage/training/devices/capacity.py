"""What the machine has: memory left by the system and control groups, room on disk."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

_STATM, _PAGE = Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE")
_STATUS, _MEMINFO, _GROUPS = Path("/proc/self/status"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes a run may use at most, and can get now (None: unknown); `set_by` says what sets the limit."""

    limit: int
    free: int | None
    set_by: str


def memory_for(device: str) -> Memory:
    """The memory of the device a run would use; for the CPU that of the machine, or of the control group if less."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return Memory(total, free, torch.cuda.get_device_name(torch.device(device)))
    return machine_memory()


def machine_memory(meminfo: Path = _MEMINFO, groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> Memory:
    """RAM as the system tells it, cut to the least limit of the control groups this process is in (v1 and v2)."""
    told = _kilobytes(meminfo)
    total = told.get("MemTotal") or _PAGE * os.sysconf("SC_PHYS_PAGES")
    here = Memory(total, told.get("MemAvailable"), "the machine")
    for folder in _group_folders(groups, own):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / limit_name)
            if limit is not None and limit < here.limit:
                used = _number(folder / used_name)
                free = here.free if used is None else min(max(limit - used, 0), here.free or limit)
                here = Memory(limit, free, f"the control group ({folder / limit_name})")
    return here


def _group_folders(groups: Path, own: Path) -> list[Path]:
    """The folders of the control groups of this process, each with those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        place = root / path.lstrip("/")
        folders += [folder for folder in (place, *place.parents) if folder == root or root in folder.parents]
    return folders


def _kilobytes(path: Path) -> dict[str, int]:
    """The lines "Name:  123 kB" of a file of /proc, in bytes."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            words = value.split()
            if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
                found[name] = int(words[0]) * 1024
    return found


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None  # absent, or "max"


def resident() -> int:
    """Bytes of this process in memory now, in microseconds; the most there ever were where the system tells no more."""
    try:
        with _STATM.open("rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest if sys.platform == "darwin" else highest * 1024


def resident_at_rest() -> int:
    """The same once the allocator has given back what it keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
    return resident()


def memory_in_use(device: torch.device) -> int:
    """Bytes in use: allocated on a CUDA device, resident in this process elsewhere."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else resident()


class PeakSince:
    """The highest memory of this process since this was made, in bytes; 0 where the system cannot tell."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device) if device.startswith("cuda") else None
        self.exact = True
        if self.cuda is not None:
            torch.cuda.reset_peak_memory_stats(self.cuda)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5: forget the highest so far (man proc)
        except OSError:
            self.exact = False

    def bytes(self) -> int:
        """Up to now."""
        if self.cuda is not None:
            return int(torch.cuda.max_memory_allocated(self.cuda))
        return _kilobytes(_STATUS).get("VmHWM", 0) if self.exact else 0


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` lies or would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
