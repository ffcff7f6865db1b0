"""Every shipped recipe is a valid one, and its head says what it costs and what to expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onestage.data.samples import SAMPLES
from onestage.training.plan import ask
from onestage.training.recipe import known_keys
from onestage.training.recipe.keys import flat, read_recipe

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
HEAD = ("paper", "data", "hardware", "hours", "expected", "by us")


def test_there_are_recipes() -> None:
    assert {path.stem for path in RECIPES} >= {"ssd-lite0-trees", "ssd300-voc0712", "ssd512-voc0712"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_says_what_it_means(path: Path) -> None:
    keys = read_recipe(path)
    recipe = ask(keys)
    complete = flat(recipe.as_dict())
    for key, value in keys.items():
        kept = complete[key]
        wanted = None if key == "weights" and value == "none" else value
        assert kept == wanted, key
    assert recipe.model in path.stem
    assert set(keys) <= set(known_keys())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_head_names_source_cost_and_expectation(path: Path) -> None:
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in HEAD:
        assert any(re.match(rf"# {word}: +\S", line) for line in head), (
            f"{path.name}: no line '# {word}: …' in its head"
        )


def test_the_published_schedules_take_120_000_steps() -> None:
    # Liu et al. 2016, section 3.1 counts steps; recipes count epochs of 16,551 images
    for name in ("ssd300-voc0712", "ssd512-voc0712"):
        recipe = ask(read_recipe(FOLDER / f"{name}.yaml"))
        steps = (recipe.epochs or 0) * (16_551 // recipe.batch)
        assert steps == pytest.approx(120_000, rel=0.002), name
        assert recipe.schedule.milestones == (80_000, 100_000)


def test_the_demo_recipe_names_a_sample() -> None:
    assert ask(read_recipe(FOLDER / "ssd-lite0-trees.yaml")).data in SAMPLES
