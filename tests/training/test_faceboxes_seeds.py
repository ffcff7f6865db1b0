"""FaceBoxes from random weights: the first steps of the shipped recipe are finite and fall, whatever the seed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from drawn import benchmark
from test_fit import shapes


@pytest.fixture(scope="module")
def seeds() -> ModuleType:
    """The module benchmarks/faceboxes_seeds.py."""
    return benchmark("faceboxes_seeds")


@pytest.mark.slow
def test_two_seeds_are_finite_and_fall(seeds: ModuleType, tmp_path: Path) -> None:
    data, told = shapes(tmp_path / "data", images=20), tmp_path / "told.json"
    words = [str(data), "--seeds", "2", "--size", "128", "--batch", "4", "--steps", "30", "--json", str(told)]
    assert seeds.main(words) == 0
    found = json.loads(told.read_text())
    assert (found["seeds"], found["finite"], found["counting"]) == (2, 2, 2)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert found["runs"][0]["last"] != found["runs"][1]["last"]


def test_a_run_that_stands_still_does_not_count(seeds: ModuleType, tmp_path: Path) -> None:
    keys = {**seeds.beginning(), "data": str(shapes(tmp_path / "data")), "size": 64, "batch": 4, "optimiser.lr": 1e-12}
    done = seeds.course(keys, 0, 5, 5.545)
    assert done.finite
    assert not done.counts


def test_a_run_that_diverges_does_not_count(seeds: ModuleType, tmp_path: Path) -> None:
    keys = {**seeds.beginning(), "data": str(shapes(tmp_path / "data")), "size": 64, "batch": 4, "optimiser.lr": 1e8}
    done = seeds.course(keys, 0, 8, 5.545)
    assert not done.counts
    assert not done.finite or done.last > done.first
