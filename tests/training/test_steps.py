"""A run whose length is said in optimiser steps: where it ends, that it resumes exactly, how it is made longer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_fit import TINY, StopAt, same_weights, shapes, values

from onestage.errors import RecipeError
from onestage.experiments.run import Run
from onestage.training.fit import fit, resume
from onestage.training.recipe import Recipe, build
from onestage.training.recipe.stages import legs
from onestage.training.replay import replay

# Two steps an epoch.
KEYS: Mapping[str, Any] = {
    **{key: value for key, value in TINY.items() if key != "epochs"}, "model": "ssd-small", "size": 64, "steps": 5,
    "validation.every": 2, "validation.protocols": ["voc10"], "saving.seconds": 0, "weights": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit({**KEYS, "data": str(data)}, root=tmp_path_factory.mktemp("runs"))


def test_it_ends_at_the_step_and_is_judged_there(whole: Run) -> None:
    assert [row["step"] for row in whole.steps] == [1, 2, 3, 4, 5]
    assert (whole.recipe["steps"], whole.recipe["epochs"]) == (5, 3)
    assert [(row["epoch"], row["step"]) for row in whole.results] == [(2, 4), (3, 5)]
    assert whole.info["status"] == "finished"
    leg = legs(Recipe.recorded(whole.recipe), 2)[0]
    assert (leg.steps, leg.epochs) == (5, 3)


@pytest.mark.parametrize("step", [3, 4, 5])
def test_it_resumes_to_the_same_bits(whole: Run, data: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(data), "name": "cut"}, root=tmp_path, watcher=StopAt(step))
    again = resume(Run.open("cut", tmp_path))
    assert [row["step"] for row in again.steps] == [1, 2, 3, 4, 5]
    same_weights(whole, again)
    assert values(whole) == values(again)


def test_a_finished_one_is_made_longer_in_steps_and_in_epochs(data: Path, tmp_path: Path) -> None:
    run = fit({**KEYS, "data": str(data), "schedule.name": "constant", "schedule.warmup": 0}, root=tmp_path)
    assert resume(run, {"steps": 5}).recipe["steps"] == 5  # no change
    assert len(run.info["segments"]) == 1
    longer = resume(run, {"steps": 7})
    assert (longer.recipe["steps"], longer.recipe["epochs"]) == (7, 4)
    assert [row["step"] for row in longer.steps] == [*range(1, 8)]
    epochs = resume(longer, {"epochs": 5})
    assert (epochs.recipe["steps"], epochs.recipe["epochs"]) == (None, 5)
    assert [row["step"] for row in epochs.steps] == [*range(1, 11)]
    with pytest.raises(RecipeError, match="steps: expected at least 10"):
        resume(epochs, {"steps": 9})
    assert not replay(epochs, 6).differences


def test_two_lengths_that_do_not_agree_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two lengths"):
        fit({**KEYS, "data": str(data), "epochs": 4}, root=tmp_path)
    with pytest.raises(RecipeError, match="steps: each stage has its own epochs"):
        build({"data": "x", "steps": 5, "stages": [{"epochs": 1}]})


@pytest.mark.parametrize(
    ("asked", "defaults", "kept"),
    [
        ({"epochs": 3}, {"steps": 50_200}, {"epochs": 3, "steps": None}),
        ({"steps": 9}, {"epochs": 3}, {"epochs": None, "steps": 9}),
        ({"schedule.name": "cosine"}, {"schedule.name": "multi-step", "schedule.milestones": [9]}, {}),
        ({"schedule.name": "constant"}, {"schedule.name": "steps", "schedule.factor": 0.1}, {}),
        ({"optimiser.name": "sgd"}, {"optimiser.name": "adam", "optimiser.eps": 1e-8}, {}),
        ({"options": {"most": 5}}, {"options": {"ignore": 0.5}}, {"options": {"ignore": 0.5, "most": 5}}),
        ({"options.loss": "ratio"}, {"options.ignore": 0.5, "loss.box": 0.07},
         {"options": {"ignore": 0.5, "loss": "ratio"}, "loss": {}}),
        ({"loss": {"cls": 2.0}}, {"loss.box": 0.07}, {"loss": {"box": 0.07, "cls": 2.0}}),
    ],
)  # fmt: skip
def test_defaults_give_way_whole(asked: dict[str, Any], defaults: dict[str, Any], kept: dict[str, Any]) -> None:
    made = build({"data": "x", **asked}, defaults).as_dict()
    assert {key: made[key] for key in kept} == kept


def test_a_policy_of_ones_own_leaves_the_options_of_the_defaults_policy_behind() -> None:
    defaults = {"augmentation.policy": "ssd", "augmentation.options": {"rounds": 3, "mirror": 0.0}}
    own = build({"data": "x", "augmentation.policy": "none"}, defaults).augmentation
    assert own.options == {}
    changed = build({"data": "x", "augmentation.options.mirror": 0.5}, defaults).augmentation
    assert (changed.policy, changed.options) == ("ssd", {"rounds": 3, "mirror": 0.5})
