"""Every shipped recipe is a valid one, and its head says what it costs and what to expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onestage import models
from onestage.data.augment import augmentation
from onestage.data.samples import SAMPLES
from onestage.training.plan import ask
from onestage.training.recipe import known_keys
from onestage.training.recipe.keys import flat, read_recipe
from onestage.training.recipe.stages import legs

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
HEAD = ("paper", "data", "hardware", "hours", "expected", "by us")


def test_there_are_recipes() -> None:
    assert {path.stem for path in RECIPES} >= {
        "ssd-lite0-trees", "ssd300-voc0712", "ssd512-voc0712", "faceboxes-wider", "faceboxes-diary",
    }  # fmt: skip


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
    # Liu et al. 2016 and Zhang et al. 2017, section 3.1 and 3.3, count steps; recipes count epochs of so many images
    for name, images in {"ssd300-voc0712": 16_551, "ssd512-voc0712": 16_551, "faceboxes-wider": 12_880}.items():
        recipe = ask(read_recipe(FOLDER / f"{name}.yaml"))
        steps = (recipe.epochs or 0) * (images // recipe.batch)
        assert steps == pytest.approx(120_000, rel=0.002), name
        assert recipe.schedule.milestones == (80_000, 100_000)


def test_the_demo_recipe_names_a_sample() -> None:
    assert ask(read_recipe(FOLDER / "ssd-lite0-trees.yaml")).data in SAMPLES


def test_the_diarys_recipe_is_the_diarys() -> None:
    recipe = ask(read_recipe(FOLDER / "faceboxes-diary.yaml"))
    leg = legs(recipe, 402)[0]
    falls = [step for step in range(1, leg.steps) if leg.share(step) < leg.share(step - 1)]
    assert [fall // 402 for fall in falls] == [190, 250]
    assert leg.share(leg.steps - 1) == pytest.approx(0.01)
    policy = augmentation(recipe.augmentation.policy, **recipe.augmentation.options)
    assert (policy.min_face, policy.photometric.darken, policy.photometric.probability) == (10, 0.7, 0)
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.decay) == ("adam", 1e-3, 1e-4)
    assert recipe.loss == {"cls": 1, "box": 1}
    assert recipe.log == "faceboxes"


@pytest.mark.parametrize("name", ["faceboxes-wider", "faceboxes-diary"])
def test_the_recipes_of_faceboxes_build_without_any_weights(name: str) -> None:
    recipe = ask(read_recipe(FOLDER / f"{name}.yaml"))
    assert recipe.weights is None
    detector = models.build(recipe.model, 1, (64, 64), **recipe.options)
    assert {key: recipe.options[key] for key in ("layout", "threshold")} == {"layout": "symmetric", "threshold": 0.35}
    assert (
        sum(p.numel() for p in detector.parameters())
        == {"zisianw": 1_007_330, "lxg2015": 1_008_810}[recipe.options["variant"]]
    )
