"""Runs in stages: the rates of every step, what is frozen when, and what the run folder says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_fit import TINY, shapes

from onestage.experiments.run import Run
from onestage.training.fit import fit
from onestage.training.plan import ask, make_plan
from onestage.training.recipe import Recipe
from onestage.training.recipe.stages import legs

STAGES: list[dict[str, Any]] = [
    {"name": "heads", "epochs": 2, "freeze": ["all-but-heads"], "optimiser": {"name": "sgd", "lr": 0.01},
     "schedule": {"name": "constant", "warmup": 2}},
    {"name": "all", "epochs": 1, "freeze": ["backbone.blocks.0", "backbone.blocks.1.0*"],
     "optimiser": {"backbone": 0.1}, "schedule": {"warmup": 0}},
]  # fmt: skip


def keys_for(data: Path, **changes: Any) -> dict[str, Any]:
    keys = {key: value for key, value in TINY.items() if key != "epochs"}
    return {**keys, "data": str(data), "ema": 0, **changes}


def moved(run: Run, keys: dict[str, Any]) -> set[str]:
    """The tensors that differ from those the run began with."""
    start = make_plan(ask(keys)).detector.state_dict()
    end = load_file(run.weights_dir / "last.safetensors")
    assert set(end) <= set(start)
    return {name for name, tensor in end.items() if not torch.equal(tensor, start[name].cpu())}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("staged"), images=15)


@pytest.fixture(scope="module")
def staged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(keys_for(data, stages=STAGES), root=tmp_path_factory.mktemp("runs"))


def test_every_step_has_the_rate_of_its_leg(staged: Run) -> None:
    recipe = Recipe.recorded(staged.recipe)
    per_epoch = len(staged.steps) // 3
    laid = legs(recipe, per_epoch)
    assert [leg.optimiser.name for leg in laid] == ["sgd", "adamw"]
    for row in staged.steps:
        leg = laid[0] if row["step"] <= 2 * per_epoch else laid[1]
        share = leg.share(row["step"] - 1)
        groups = {"heads", "heads.no_decay"} | ({"backbone", "backbone.no_decay"} if leg.index else set())
        assert set(row["lr"]) == groups
        assert row["lr"]["heads"] == pytest.approx(leg.optimiser.lr * share)
        if leg.index:
            assert row["lr"]["backbone"] == pytest.approx(leg.optimiser.lr * 0.1 * share)


def test_what_both_stages_freeze_is_as_it_was_and_the_rest_is_not(staged: Run, data: Path) -> None:
    changed = moved(staged, keys_for(data, stages=STAGES))
    still = ("backbone.blocks.0.", "backbone.blocks.1.0.")
    assert not {name for name in changed if name.startswith(still)}
    assert any(name.startswith("backbone.blocks.2.") for name in changed)
    assert any(name.startswith("heads.") for name in changed)


def test_frozen_norms_keep_their_statistics_through_a_run(data: Path, tmp_path: Path) -> None:
    keys = keys_for(data, epochs=1, norms="frozen", freeze=[])
    changed = moved(fit(keys, root=tmp_path), keys)
    assert not [name for name in changed if "running" in name or "num_batches" in name]
    assert "backbone.blocks.0.1.weight" in changed


def test_the_recipe_on_disk_states_every_stage_in_steps(staged: Run) -> None:
    recipe = staged.recipe
    assert recipe["epochs"] == 3
    first, second = recipe["stages"]
    assert first["schedule"]["warmup"] == "2 steps"
    assert second["schedule"]["warmup"] == "0 steps"
    assert first["optimiser"]["decay"] == 0.0005
    assert second["optimiser"]["beta2"] == 0.999
    assert (first["name"], second["name"]) == ("heads", "all")
