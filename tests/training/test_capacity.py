"""What the machine has: control groups of both versions honoured, the peak of memory seen, disks of folders to be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from onestage.training.devices.capacity import PeakSince, free_disk, machine_memory, resident_at_rest

GB = 10**9


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:   6000000 kB\nHugePages_Total: 0\n")
    return path


def test_without_control_groups_the_machine_sets_the_limit(tmp_path: Path, meminfo: Path) -> None:
    found = machine_memory(meminfo, tmp_path / "none", tmp_path / "nothing")
    assert (found.limit, found.free, found.set_by) == (8_000_000 * 1024, 6_000_000 * 1024, "the machine")


def test_a_limit_above_the_own_group_counts_version_2(tmp_path: Path, meminfo: Path) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "self"
    (groups / "job" / "task").mkdir(parents=True)
    own.write_text("0::/job/task\n")
    (groups / "job" / "task" / "memory.max").write_text("max\n")
    (groups / "job" / "memory.max").write_text(f"{2 * GB}\n")
    (groups / "job" / "memory.current").write_text(f"{GB // 2}\n")
    found = machine_memory(meminfo, groups, own)
    assert (found.limit, found.free) == (2 * GB, 3 * GB // 2)
    assert "job" in found.set_by


def test_the_limit_of_a_group_of_version_1(tmp_path: Path, meminfo: Path) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "self"
    (groups / "memory" / "box").mkdir(parents=True)
    own.write_text("5:cpu:/box\n4:memory:/box\n")
    (groups / "memory" / "box" / "memory.limit_in_bytes").write_text(f"{3 * GB}")
    (groups / "memory" / "box" / "memory.usage_in_bytes").write_text(f"{GB}")
    (groups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    found = machine_memory(meminfo, groups, own)
    assert (found.limit, found.free) == (3 * GB, 2 * GB)


def test_a_group_cannot_give_more_than_the_machine(tmp_path: Path, meminfo: Path) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "self"
    groups.mkdir()
    own.write_text("0::/\n")
    (groups / "memory.max").write_text(f"{99 * GB}")
    assert machine_memory(meminfo, groups, own).limit == 8_000_000 * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak")
def test_the_peak_of_memory_is_seen_and_forgotten() -> None:
    before = resident_at_rest()
    peak = PeakSince("cpu")
    if not peak.exact:
        pytest.skip("this system does not let a process forget its peak")
    torch.ones(25_000_000).sum()  # 100 MB, gone at once
    assert 95e6 < peak.bytes() - before < 150e6
    resident_at_rest()
    assert PeakSince("cpu").bytes() - before < 50e6


def test_the_disk_of_a_folder_to_be_is_that_of_its_parent(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.01)
