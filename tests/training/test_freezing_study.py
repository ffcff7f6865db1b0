"""benchmarks/freezing.py: variants with equal budgets, runs made once, the diary's table with verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from drawn import benchmark
from test_fit import shapes

from onestage.errors import UsageError
from toy_cfg import TOY


@pytest.fixture(scope="module")
def freezing() -> ModuleType:
    """The module benchmarks/freezing.py."""
    return benchmark("freezing")


@pytest.fixture(scope="module")
def study(freezing: ModuleType) -> Any:
    return yaml.safe_load((freezing.ROOT / "studies" / "freezing.yaml").read_text(encoding="utf-8"))


def test_every_variant_has_the_budget(freezing: ModuleType, study: Any) -> None:
    made = {one.name: one for one in freezing.planned(study, list(study["variants"]), "photos", 10, {"batch": 4})}
    assert {one.keys["epochs"] for one in made.values()} == {10}
    assert {one.keys["batch"] for one in made.values()} == {4}
    assert [stage["epochs"] for stage in made["two-stages"].keys["stages"]] == [5, 5]
    assert made["backbone"].keys["freeze"] == ["backbone"]
    assert made["all-but-heads"].keys["model"] == "yolov3-tiny"
    assert list(made)[-1] == "fine-tuned"  # which begins with another's weights


def test_a_change_of_the_loss_leaves_the_weights_of_the_bases_behind(freezing: ModuleType, study: Any) -> None:
    (one,) = freezing.planned(study, ["all-but-heads"], "photos", 10, {"options.loss": "ratio"})
    assert "loss" not in one.keys


def test_a_variant_that_is_not_there_is_refused(freezing: ModuleType, study: Any) -> None:
    with pytest.raises(UsageError, match="did you mean 'backbone'"):
        freezing.planned(study, ["backbon"], "photos", 10, {})


def test_the_reference_is_always_there(freezing: ModuleType, study: Any) -> None:
    assert [one.name for one in freezing.planned(study, ["fine-tuned"], "photos", 10, {})] == [
        "all-but-heads", "fine-tuned",
    ]  # fmt: skip


@pytest.mark.slow
def test_runs_are_made_once_and_compared(
    freezing: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    cfg, told = tmp_path / "toy.cfg", tmp_path / "told.json"
    cfg.write_text(TOY)
    words = [
        str(shapes(tmp_path / "data", images=8, empty=0)), "--epochs", "1", "--seeds", "1",
        "--runs", str(tmp_path / "runs"), "--json", str(told), "--variants", "fine-tuned", f"model={cfg}",
        "weights=none", "size=64", "batch=4", "multiscale.high=1", "multiscale.low=1", "precision=fp32",
    ]  # fmt: skip
    assert freezing.main(words) == 0
    first = capsys.readouterr().out
    assert first.count("epoch 1, mAP50") == 2
    assert "| 07 | fine-tuned | 1 |" in first
    found = json.loads(told.read_text())
    assert [one["name"] for one in found["variants"]] == ["all-but-heads", "fine-tuned"]
    assert len(found["comparison"]["pairs"]) == 1
    assert freezing.main(words) == 0  # nothing is trained again
    assert "epoch" not in capsys.readouterr().out.partition("| ID")[0]
    assert freezing.main([*words, "batch=2"]) == 2
    assert "was made with other keys" in capsys.readouterr().err
