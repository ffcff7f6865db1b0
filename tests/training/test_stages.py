"""Stages: what they inherit, where they lie, what is wrong with them, and that they come from everywhere."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onestage.errors import RecipeError
from onestage.experiments.storage import plain
from onestage.training.plan import laid_out
from onestage.training.recipe import Recipe, build
from onestage.training.recipe.keys import flat, parse_assignments, read_recipe
from onestage.training.recipe.schedule import SCHEDULE_KEYS
from onestage.training.recipe.stages import Stage, legs
from onestage.training.saving.state import digest

# Diary 004, an ablation of freezing: 20 epochs of the heads with Adam 1e-3, then 20 of everything, a new Adam 1e-5.
TWO: list[dict[str, Any]] = [
    {"name": "heads", "epochs": 20, "freeze": ["all-but-heads"]},
    {"name": "all", "epochs": 20, "freeze": [], "optimiser": {"lr": 1e-5},
     "schedule": {"name": "step", "warmup": 0, "every": "10 epochs"}},
]  # fmt: skip
ADAM = {"data": "x", "optimiser.name": "adam", "schedule.name": "constant", "schedule.warmup": 0}


def problems(keys: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        build(keys)
    return list(caught.value.problems)


def test_a_recipe_without_stages_has_one_leg() -> None:
    recipe = build({"data": "x", "epochs": 7, "freeze": ["stem"], "clip": 3})
    (leg,) = legs(recipe, 11)
    assert (leg.first_epoch, leg.epochs, leg.first_step, leg.steps) == (0, 7, 0, 77)
    assert (leg.name, leg.freeze, leg.clip) == ("all", ("stem",), 3)
    assert [leg.share(step) for step in range(77)] == [leg.schedule.share(step, 77) for step in range(77)]


def test_the_freezing_diarys_two_stages_as_they_were_meant() -> None:
    recipe = build({**ADAM, "stages": TWO})
    heads, whole = legs(recipe, 100)
    assert recipe.epochs == 40
    assert (whole.first_epoch, whole.first_step, whole.steps) == (20, 2000, 2000)
    assert (heads.freeze, whole.freeze) == (("all-but-heads",), ())
    rates = {epoch: whole.optimiser.lr * whole.share(epoch * 100) for epoch in (20, 29, 30, 39)}
    assert list(rates.values()) == pytest.approx([1e-5, 1e-5, 1e-6, 1e-6])  # the program's own went to 1e-7 at epoch 21
    assert heads.optimiser.lr * heads.share(1999) == 1e-3


def test_a_stage_inherits_what_it_does_not_set_and_leaves_what_means_nothing_to_it() -> None:
    recipe = build({
        "data": "x", "clip": 5, "freeze": ["stem"], "optimiser.beta2": 0.99, "optimiser.momentum": 0.8,
        "optimiser.rates": {"neck": 2.0}, "schedule.final": 0.3, "schedule.warmup": "2 epochs",
        "stages": [{"epochs": 3},
                   {"epochs": 4, "clip": 0, "optimiser": {"name": "sgd"}, "schedule": {"name": "steps"}}],
    })  # fmt: skip
    first, second = legs(recipe, 10)
    assert (first.name, second.name) == ("stage 1", "stage 2")
    assert (first.clip, second.clip) == (5, 0)
    assert first.optimiser.beta2 == 0.99
    assert second.optimiser.beta2 is None
    assert second.optimiser.momentum == 0.8
    assert second.optimiser.rates == {"neck": 2.0}
    assert first.freeze == second.freeze == ("stem",)
    assert (first.schedule.final, second.schedule.final) == (0.3, None)
    assert second.schedule.name == "multi-step"
    assert first.schedule.warmup == second.schedule.warmup == "20 steps"


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from(["cosine", "step", "random"])), min_size=1, max_size=5),
    st.integers(1, 40),
)  # fmt: skip
def test_legs_lie_end_to_end_and_add_up(lengths: list[tuple[int, str]], per_epoch: int) -> None:
    stages = [{"epochs": epochs, "schedule": {"name": name}} for epochs, name in lengths]
    recipe = build({"data": "x", "stages": stages})
    laid = legs(recipe, per_epoch)
    assert sum(leg.epochs for leg in laid) == recipe.epochs
    assert sum(leg.steps for leg in laid) == int(recipe.epochs or 0) * per_epoch
    for before, after in itertools.pairwise(laid):
        assert after.first_step == before.first_step + before.steps
        assert after.first_epoch == before.first_epoch + before.epochs
        assert after.share(after.first_step) == after.schedule.share(0, after.steps, recipe.seed)
    complete = laid_out(recipe, per_epoch)
    assert legs(complete, per_epoch) == laid
    assert laid_out(complete, per_epoch) == complete


@given(
    st.sampled_from(list(SCHEDULE_KEYS)),
    st.sampled_from([None, 0, 7, 0.3, "2 epochs", "15 %"]),
    st.sampled_from(["sgd", "adam", "adamw", "nadam"]),
    st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31), st.floats(1e-12, 1e3), st.booleans(),
)  # fmt: skip
def test_a_recipe_read_back_gives_the_same_rates_to_the_bit(
    name: str, warmup: Any, optimiser: str, epochs: int, per_epoch: int, seed: int, lr: float, staged: bool
) -> None:  # fmt: skip
    """What a resume reads from recipe.yaml lays out the very legs of the run, and has the digest its states know."""
    keys = {"data": "x", "schedule.name": name, "schedule.warmup": warmup, "optimiser.name": optimiser,
            "optimiser.lr": lr, "seed": seed}  # fmt: skip
    length = {"stages": [{"epochs": epochs}, {"epochs": 2, "clip": 0.1}]} if staged else {"epochs": epochs}
    recipe = laid_out(build({**keys, **length}), per_epoch)
    text = yaml.safe_dump(plain(recipe.as_dict()), sort_keys=False, allow_unicode=True)
    kept = yaml.safe_load(text)
    assert digest(kept) == digest(recipe.as_dict())
    again = Recipe.recorded(kept)
    assert again == recipe
    assert laid_out(again, per_epoch) == recipe
    for leg, other in zip(legs(recipe, per_epoch), legs(again, per_epoch), strict=True):
        steps = range(leg.first_step, leg.first_step + leg.steps)
        shares = [leg.share(step) for step in steps]
        assert shares == [other.share(step) for step in steps]
        assert all(0 <= share <= 1 for share in shares)


def test_problems_of_stages_come_with_the_others_and_with_their_path() -> None:
    found = problems({
        "data": "x", "epochs": 0, "seeed": 1,
        "stages": [{"epochs": 3, "freze": []}, {"optimser": {"lr": 1}, "schedule": {"name": "cosin"}}, 7],
    })  # fmt: skip
    text = "\n".join(found)
    for words in (
        "seeed: unknown key (did you mean 'seed'?)",
        "epochs: ",
        "stages[0].freze: unknown key (did you mean 'freeze'?)",
        "stages[1].optimser.lr: unknown key (did you mean 'optimiser.lr'",
        "stages[1].epochs: missing",
        "(did you mean 'cosine'?)",
        "stages[2]: expected keys and values, got 7",
    ):
        assert words in text
    assert len(found) == 7


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"epochs": 0}], "stages[0].epochs: expected greater than or equal to 1, got 0"),
        ([{"epochs": 2, "optimiser": {"name": "sgd", "eps": 1}}], "stages[0].optimiser: eps has no effect with sgd"),
        ([{"epochs": 2, "schedule": {"milestones": ["soon"]}}], "stages[0].schedule.milestones[0]: expected a whole"),
        ([{"epochs": 2}, {"epochs": 2, "freeze": 3}], "stages[1].freeze: expected a list, [a, b], got 3"),
        (3, "stages: expected a list"),
    ],
)
def test_one_wrong_thing_in_a_stage_is_told_once(stages: Any, said: str) -> None:
    found = problems({"data": "x", "stages": stages})
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_problem_of_the_recipes_own_optimiser_is_not_told_again_for_each_stage() -> None:
    assert len(problems({"data": "x", "optimiser.lr": -1, "stages": [{"epochs": 1}, {"epochs": 2}]})) == 1


def test_epochs_that_disagree_with_the_stages_are_refused() -> None:
    assert "20 + 20 = 40" in problems({**ADAM, "epochs": 30, "stages": TWO})[0]
    assert build({**ADAM, "epochs": 40, "stages": TWO}).epochs == 40


def test_stages_come_from_files_the_command_line_and_python_alike(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: x\nstages:\n- {name: heads, epochs: 2, freeze: [all-but-heads]}\n"
        "- epochs: 3\n  optimiser: {lr: 1e-4, rates: {neck.*: 0.5}}\n"
    )
    words = "stages=[{name: heads, epochs: 2, freeze: [all-but-heads]}, {epochs: 3, optimiser.lr: 1e-4, optimiser.rates: {neck.*: 0.5}}]"  # noqa: E501
    plain = [Stage(name="heads", epochs=2, freeze=("all-but-heads",)),
             Stage(epochs=3, optimiser={"lr": 1e-4, "rates": {"neck.*": 0.5}})]  # fmt: skip
    ways = [
        build(read_recipe(path)),
        build(parse_assignments(["data=x", words])),
        build({"data": "x", "stages": plain}),
    ]
    laid = [legs(recipe, 10) for recipe in ways]
    assert laid[0] == laid[1] == laid[2]
    assert laid[0][1].optimiser.rates == {"neck.*": 0.5}
    assert laid[0][1].optimiser.lr == 1e-4


def test_a_recipe_with_stages_can_be_changed_and_read_back() -> None:
    recipe = build({**ADAM, "stages": TWO})
    assert build(flat(recipe.as_dict())) == recipe
    assert recipe.changed({"seed": 3}).stages == recipe.stages
    complete = laid_out(recipe, 100)
    assert Recipe.recorded(complete.as_dict()) == complete
    assert complete.stages[1].schedule["every"] == "1000 steps"
    with pytest.raises(RecipeError, match="20 \\+ 20 = 40"):
        recipe.changed({"epochs": 60})


def test_a_run_of_the_first_release_goes_on_as_it_began() -> None:
    kept = {
        "data": "x", "seed": 4, "epochs": 232,
        "optimiser": {"name": "sgd", "lr": 0.001, "backbone": 1.0, "momentum": 0.9, "nesterov": False, "decay": 0.0005},
        "schedule": {"name": "step", "warmup": 500, "start": 0.3333, "final": None, "milestones": [0.6667, 0.8333],
                     "factor": 0.1},
    }  # fmt: skip
    recipe = Recipe.recorded(kept)
    (leg,) = legs(recipe, 517)
    assert recipe.split_seed == 4
    assert leg.schedule.name == "multi-step"
    assert leg.schedule.warmup == "500 steps"
    falls = [step for step in range(1, leg.steps) if leg.share(step) < leg.share(step - 1)]
    assert falls == [round(0.6667 * leg.steps), round(0.8333 * leg.steps)]
    assert leg.share(100) == pytest.approx(0.3333 + 0.6667 * 101 / 500)
    cosine = {"name": "cosine", "warmup": 12, "start": 0.001, "final": 0.02, "milestones": None, "factor": None}
    assert legs(Recipe.recorded({**kept, "schedule": cosine}), 517)[0].schedule.warmup == "12 steps"


def test_the_recipes_of_the_page_are_recipes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
    blocks = [flat(yaml.safe_load(block)) for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    assert len(blocks) == 2
    rates, staged = (build({"data": "x", "epochs": None, **block}) for block in blocks)
    assert rates.optimiser.rates["backbone.blocks.0*"] == 0.01
    assert [leg.freeze for leg in legs(staged, 10)] == [("all-but-heads",), ("stem",)]
    assert legs(staged, 10)[0].schedule.warmup == "10 steps"
    for name in SCHEDULE_KEYS:
        assert f"| `{name}`" in page
