"""Recipes: unknown keys, dead keys, every problem at once, and the words of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.errors import ModelError, RecipeError
from onestage.training.plan import ask, automatic_epochs
from onestage.training.recipe import Recipe, build, describe_keys, known_keys
from onestage.training.recipe.keys import flat, parse_assignments, read_recipe


def problems(keys: dict[str, object]) -> str:
    with pytest.raises(RecipeError) as caught:
        build(keys)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("epohs", "epochs"), ("optimiser.momentun", "optimiser.momentum"), ("lr", "optimiser.lr"),
        ("optimizer.lr", "optimiser.lr"), ("Batch", "batch"), ("schedule.warm_up", "schedule.warmup"),
    ],
)  # fmt: skip
def test_a_misspelt_key_gets_the_right_one(wrong: str, right: str) -> None:
    text = problems({"data": "x", wrong: 3})
    assert f"{wrong}: unknown key" in text
    assert f"did you mean {right!r}" in text


@pytest.mark.parametrize(
    ("word", "key"),
    [("max_batches", "steps"), ("subdivisions", "accumulate"), ("hue", "augmentation.options.hue")],
)  # fmt: skip
def test_darknets_words_get_ours(word: str, key: str) -> None:
    assert f"{word}: a word of darknet's cfg files: {key} here" in problems({"data": "x", word: 3})


def test_all_problems_come_at_once() -> None:
    text = problems({"epochs": 0, "batch": "many", "seeed": 1, "size": 7, "optimiser.lr": -1})
    for word in ("data: missing", "epochs", "batch", "seeed: unknown key", "size", "optimiser.lr"):
        assert word in text
    assert "6 problems" in text


@pytest.mark.parametrize(
    ("keys", "dead"),
    [
        ({"schedule.name": "cosine", "schedule.milestones": [0.5]}, "milestones"),
        ({"schedule.name": "step", "schedule.final": 0.1}, "final"),
        ({"schedule.name": "constant", "schedule.factor": 0.1}, "factor"),
        ({"optimiser.name": "adamw", "optimiser.nesterov": True}, "nesterov"),
    ],
)
def test_a_key_that_another_disables_is_an_error(keys: dict[str, object], dead: str) -> None:
    text = problems({"data": "x", **keys})
    assert dead in text
    assert "no effect" in text


def test_words_of_the_command_line() -> None:
    words = [
        "data=x y",
        "epochs=3",
        "--batch",
        "8",
        "--optimiser.lr=1e-3",
        "classes=[a, b]",
        "weights=none",
        "name=7",
    ]
    assert parse_assignments(words) == {
        "data": "x y", "epochs": 3, "batch": 8, "optimiser.lr": 1e-3, "classes": ["a", "b"],
        "weights": "none", "name": 7,
    }  # fmt: skip
    recipe = build(parse_assignments([*words[:-1], "name='7'"]))
    assert recipe.optimiser.lr == 0.001
    assert recipe.classes == ("a", "b")
    assert recipe.weights is None


def test_a_word_that_sets_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="'epochs': expected key=value"):
        parse_assignments(["epochs"])


def test_model_defaults_stand_unless_the_user_says_otherwise() -> None:
    assert ask({"data": "x", "model": "ssd300"}).optimiser.name == "sgd"
    assert ask({"data": "x", "model": "ssd300", "optimiser.name": "adamw"}).optimiser.name == "adamw"
    assert ask({"data": "x"}).optimiser.name == "adamw"
    with pytest.raises(ModelError, match="did you mean 'ssd300'"):
        ask({"data": "x", "model": "ssd30"})


@pytest.mark.parametrize("weights", ["faceboxes-wider", "FaceBoxesProd.pth"])
def test_a_run_from_trained_weights_takes_smaller_steps(weights: str) -> None:
    tuned = ask({"data": "x", "model": "faceboxes", "weights": weights})
    assert (tuned.optimiser.lr, tuned.norms, tuned.clip) == (2e-5, "frozen", 100)
    assert ask({"data": "x", "model": "faceboxes", "weights": weights, "norms": "own"}).norms == "own"
    for fresh in ({}, {"weights": "none"}, {"weights": None}):
        recipe = ask({"data": "x", "model": "faceboxes", **fresh})
        assert (recipe.optimiser.lr, recipe.norms, recipe.weights) == (1e-3, "own", None)
    assert ask({"data": "x", "weights": "imagenet"}) == ask({"data": "x"})


@given(
    epochs=st.integers(1, 999), batch=st.integers(1, 64), lr=st.floats(1e-6, 1),
    size=st.sampled_from([None, 320, (96, 64)]), rest=st.floats(0, 0.9),
    options=st.dictionaries(st.sampled_from(["gamma", "alpha"]), st.floats(0.1, 3)),
)  # fmt: skip
def test_what_is_written_is_read_back(
    epochs: int, batch: int, lr: float, size: object, rest: float, options: dict[str, float]
) -> None:
    recipe = build({
        "data": "x", "epochs": epochs, "batch": batch, "optimiser.lr": lr, "size": size, "augmentation.rest": rest,
        "options": options,
    })  # fmt: skip
    assert build(flat(recipe.as_dict())) == recipe
    assert recipe.changed({"epochs": 5}).epochs == 5


def test_options_can_be_set_one_by_one() -> None:
    recipe = build({"data": "x", "options.gamma": 1.5, "augmentation.options.probability": 0.2, "loss.box": 2})
    assert recipe.options == {"gamma": 1.5}
    assert recipe.augmentation.options == {"probability": 0.2}
    assert recipe.loss == {"box": 2}


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(data="x").epochs = 4


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: x\noptimiser:\n  lr: 0.01\n")
    assert read_recipe(path) == {"data": "x", "optimiser.lr": 0.01}
    for content, words in (("- a\n", "expected keys and values"), ("a: [", "no YAML")):
        path.write_text(content)
        with pytest.raises(RecipeError, match=words):
            read_recipe(path)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_every_key_is_explained() -> None:
    assert all(meaning or key in ("optimiser", "schedule") for key, meaning in known_keys().items())
    assert {key for key, _, _ in describe_keys()} == set(known_keys())


def test_automatic_epochs() -> None:
    assert automatic_epochs(1) == 400
    assert automatic_epochs(250) == 40
    assert automatic_epochs(100_000) == 12


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"epochs": "three"}, "epochs: expected a whole number, got 'three'"),
        ({"optimiser.lr": "fast"}, "optimiser.lr: expected a number, got 'fast'"),
        ({"size": [1, 2, 3]}, "size: expected one number or [width, height], got [1, 2, 3]"),
        ({"freeze": 3}, "freeze: expected a list, [a, b], got 3"),
        ({"augmentation.options": 3}, "augmentation.options: expected keys and values, got 3"),
        ({"options.classes": 3}, "options: classes: no option of a model"),
        ({"optimiser": 3}, "optimiser: a group of keys: optimiser.name, optimiser.lr"),
        ({"schedule.name": "step", "schedule.final": 0.1}, "leave it away, or set it to null"),
    ],
)
def test_problems_are_told_once_and_in_words(keys: dict[str, object], said: str) -> None:
    text = problems({"data": "x", **keys})
    assert said in text
    assert "1 problem\n" in text
    assert "input" not in text


def test_a_complete_recipe_can_take_another_schedule() -> None:
    cosine = build({"data": "x", "schedule.final": 0.05})
    recipe = cosine.changed({"schedule.name": "multi-step", "schedule.final": None})
    assert recipe.schedule.completed(100).milestones == ("67 steps", "83 steps")


def test_a_group_on_the_command_line_is_its_keys() -> None:
    words = ["schedule={name: steps, milestones: [3, 6]}", "optimiser={lr: 0.1, rates: {neck: 0.5}}", "loss={box: 2}"]
    assert parse_assignments(words) == {
        "schedule.name": "steps", "schedule.milestones": [3, 6], "optimiser.lr": 0.1, "optimiser.rates": {"neck": 0.5},
        "loss": {"box": 2},
    }  # fmt: skip


def test_a_lone_word_freezes_too() -> None:
    assert build({"data": "x", "freeze": "stem"}).freeze == ("stem",)
    stages = build({"data": "x", "stages": [{"epochs": 1, "freeze": "all-but-heads"}]}).stages
    assert stages[0].freeze == ("all-but-heads",)


def test_what_was_meant_by_a_group_is_told() -> None:
    assert "(did you mean schedule.name=cosine?)" in problems({"data": "x", "schedule": "cosine"})
    with pytest.raises(RecipeError) as caught:
        parse_assignments(["stages=[{name: a, epochs: 1]"])
    assert caught.value.problems[0].startswith("stages: '[{name: a, epochs: 1]' is no YAML: ")


def test_a_mapping_within_the_options_takes_the_place_of_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "signs.yaml"
    path.write_text("data: x\naugmentation: {policy: zoom, options: {mirror: 0.4, swap: {left: right}}}\n")
    asked = read_recipe(path)
    for words, swap in (
        (["augmentation.options.swap={}"], {}),
        (["augmentation.options.swap={port: starboard}"], {"port": "starboard"}),
        (["augmentation.options.swap.port=starboard"], {"left": "right", "port": "starboard"}),
    ):
        options = build({**asked, **parse_assignments(words)}).augmentation.options
        assert options == {"mirror": 0.4, "swap": swap}
