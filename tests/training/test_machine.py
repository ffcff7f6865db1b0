"""What a run finds out of its machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from onestage import models
from onestage.errors import UsageError
from onestage.training.devices import machine


def test_devices_that_are_not_there_are_refused() -> None:
    assert machine.choose_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="not on this machine"):
        machine.choose_device("tpu")


@pytest.mark.parametrize(("seconds", "chosen"), [((1.0, 0.5), "bf16"), ((1.0, 0.95), "fp32"), ((1.0, 2.0), "fp32")])
def test_bfloat16_is_taken_where_it_gains(
    seconds: tuple[float, float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = dict(zip(("fp32", "bf16"), seconds, strict=True))
    monkeypatch.setattr(machine, "_step_seconds", lambda detector, device, precision, batch: times[precision])
    precision, measured = machine.choose_precision(models.build("ssd-lite0", 1, (64, 64)), "cpu")
    assert precision == chosen
    assert measured == {"step_fp32": seconds[0], "step_bf16": seconds[1]}


def test_measuring_leaves_the_detector_as_it_was() -> None:
    torch.manual_seed(0)
    detector = models.build("ssd-lite0", 1, (64, 64))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    machine.choose_precision(detector, "cpu", batch=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_and_used_again() -> None:
    import resource

    if not machine.keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    for _ in range(3):
        torch.ones(50_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(50_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    # Mapped anew, the five would fault on each of their pages; kept memory may still have to grow once.
    assert faults < 5 * 50_000_000 * 4 / 4096 / 2


def test_the_environment_names_versions_and_threads() -> None:
    found = machine.environment("cpu", "fp32", {})
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_installed_launcher_that_did_not_start_us_is_no_matter(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    machine.engine("cpu", precision)  # a warning would fail the test


def test_measuring_leaves_the_runs_chance_alone() -> None:
    """A replay knows the precision and does not measure: it must draw what the run drew."""
    detector = models.build("ssd-lite0", 1, (64, 64))
    before = torch.get_rng_state()
    machine.choose_precision(detector, "cpu", batch=1)
    assert torch.equal(torch.get_rng_state(), before)
