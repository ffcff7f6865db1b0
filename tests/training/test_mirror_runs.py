"""Runs whose mirror swaps classes: the recipe's names reach every batch, and a wrong one stops the run beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_runs import QUIET, Told, small
from test_faults_end_to_end import suns_and_skies

from onestage.errors import RecipeError
from onestage.training.feed import training_loader
from onestage.training.plan import make_plan
from onestage.training.recipe import Recipe

__all__ = ["small"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suns_and_skies(tmp_path_factory.mktemp("mirror") / "two", {"train": 12, "val": 6})


@pytest.mark.parametrize("policy", ["zoom", "mosaic"])
def test_names_of_a_recipe_swap_in_the_run(policy: str, data: Path, tmp_path: Path) -> None:
    keys = {"augmentation.policy": policy, "augmentation.options": {"swap": {"sun": "sky"}}}
    told = Told({"data": str(data), "epochs": 1, **keys, **QUIET}, tmp_path)
    assert told.error is None
    assert told.codes == []
    assert told.run.recipe["augmentation"]["options"] == {"swap": {"sun": "sky"}}


def test_every_batch_of_a_mirrored_epoch_holds_the_other_class(data: Path) -> None:
    options = {"mirror": 1.0, "scale": [1.0, 1.0], "aspect": [1.0, 1.0]}
    labels = []
    for swap in ({}, {"swap": {"sun": "sky"}}):
        recipe = Recipe.model_validate({
            "data": str(data), "model": "ssd-small", "size": 64, "weights": None, "batch": 12, "device": "cpu",
            "precision": "fp32", "augmentation": {"policy": "zoom", "options": {**options, **swap}},
        })  # fmt: skip
        batch = training_loader(make_plan(recipe)).batch_of(0, 0)
        labels.append([one.labels.tolist() for one in batch.annotations])
    assert labels[1] == [[1 - label for label in one] for one in labels[0]]


def test_an_unknown_class_stops_the_run_before_it_starts(data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "augmentation.options": {"swap": {"sun": "skye"}}}, tmp_path)
    assert isinstance(told.error, RecipeError)
    assert "did you mean 'sky'?" in str(told.error)
