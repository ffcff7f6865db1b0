"""What is foreseen of a run's rates: each planted fault by its name, and nothing of sound recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_checks import TINY, pictures
from test_stages import ADAM

from onestage import models
from onestage.records import Finding
from onestage.training.plan import ask, automatic_epochs, make_plan, steps_per_epoch
from onestage.training.recipe import build
from onestage.training.recipe.foresight import foresee
from onestage.training.recipe.keys import read_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
IMAGES = {"VOC0712": 16_551, "WIDER_FACE": 12_880, "trees": 200}


def seen(keys: dict[str, Any], per_epoch: int) -> list[Finding]:
    return foresee(build({"data": "x", **keys}), per_epoch)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_raise_nothing(path: Path) -> None:
    recipe = ask(read_recipe(path))
    images = IMAGES.get(recipe.data, 1000)
    recipe = recipe.changed({"epochs": recipe.epochs or automatic_epochs(images)})
    assert foresee(recipe, steps_per_epoch(images, recipe.batch)) == []


@pytest.mark.parametrize("model", [*models.MODELS])
@pytest.mark.parametrize("images", [1, 3, 32, 250, 5000, 200_000])
def test_the_defaults_raise_nothing(model: str, images: int) -> None:
    recipe = ask({"data": "x", "model": model, "epochs": automatic_epochs(images)})
    assert foresee(recipe, steps_per_epoch(images, recipe.batch)) == []


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam"])
@pytest.mark.parametrize(
    "schedule",
    ["cosine", "linear", "polynomial", "exponential", "step", "multi-step", "constant", "random", "sig"],
)
def test_automatic_values_of_every_schedule_raise_nothing(name: str, schedule: str) -> None:
    for epochs in (1, 2, 12, 300):
        assert seen({"optimiser.name": name, "schedule.name": schedule, "epochs": epochs}, 7) == [], epochs


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "darknet": ({"schedule.name": "steps", "schedule.warmup": 1000, "schedule.rise": 4, "schedule.start": 0,
                 "schedule.milestones": [40_000, 45_000]}, 50_200),
    "ssd": ({"schedule.name": "multi-step", "schedule.warmup": 500, "schedule.milestones": [80_000, 100_000]}, 120_000),
    "faceboxes": ({"schedule.name": "multi-step", "schedule.milestones": ["200 epochs", "250 epochs"]}, 300 * 400),
    "traffic-signs": ({"schedule.name": "multi-step", "schedule.warmup": 1000, "schedule.origin": "warmup",
                       "schedule.milestones": [10_000, 20_000, 30_000], "schedule.factor": 0.5}, 40_000),
    "peterisfar": ({"optimiser.lr": 1e-4, "schedule.final": 0.01, "schedule.warmup": "2 epochs"}, 50 * 2069),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules_raise_nothing(name: str) -> None:
    keys, steps = PUBLISHED[name]
    sgd = {"optimiser.name": "sgd", "optimiser.lr": 1e-3, "optimiser.decay": 5e-4}
    epochs = 300 if name == "faceboxes" else 50
    assert seen({**sgd, **keys, "epochs": epochs}, steps // epochs) == []


def test_the_freezing_diarys_fine_tuning_is_called_out_with_its_steps_and_rate() -> None:
    # Adam 1e-5 and StepLR(10, 0.1) stepped with the run's epoch: 1e-5 in the first epoch of the second stage, 1e-7 from
    # its second on, 1e-8 from its eleventh on.
    stages = [
        {"epochs": 20, "freeze": ["all-but-heads"]},
        {"name": "all", "epochs": 20, "freeze": ["none"], "optimiser": {"lr": 1e-5},
         "schedule": {"name": "multi-step", "milestones": ["1 epoch", "10 epochs"], "factor": [0.01, 0.1]}},
    ]  # fmt: skip
    (finding,) = seen({**ADAM, "stages": stages}, 500)
    assert (finding.code, finding.severity, finding.where.step) == ("lr-at-nothing", "warning", 10_501)
    assert "stage 'all': lr is 1e-08 to 1e-07 from step 10501 to 20000, 9500 of its 10000 steps" in finding.what
    assert finding.evidence["steps"] == [10_501, 20_000]
    assert "stages[1].optimiser.lr" in finding.remedy
    stages[1]["schedule"] = {"name": "step", "every": "10 epochs"}  # as it was meant: counted from its own start
    assert seen({**ADAM, "stages": stages}, 500) == []


STAGED = {"stages": [{"epochs": 10}, {"epochs": 10, "schedule": {"name": "multi-step", "milestones": [1500]}}]}
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("lr-at-nothing", {"optimiser.lr": 1e-9}, "100 of its 100 steps"),
    ("lr-at-nothing", {"schedule.name": "exp", "schedule.gamma": 0.7}, "of its 100 steps"),
    ("lr-at-nothing", {"optimiser.name": "sgd", "schedule.name": "step", "schedule.every": 10}, "sgd moves nothing"),
    ("lr-too-high", {"optimiser.name": "sgd", "optimiser.lr": 1e6}, "which takes 1 at most"),
    ("lr-too-high", {"optimiser.lr": 0.5}, "lr 0.5 with adamw, which takes 0.1 at most"),
    ("lr-too-high", {"optimiser.lr": 0.05, "optimiser.rates": {"heads": 10}}, "lr 0.5"),
    ("warmup-too-long", {"schedule.warmup": 100}, "the warm-up takes 100 steps, the whole has 100"),
    ("milestone-beyond-end", {"schedule.name": "multi-step", "schedule.milestones": [50, 100]}, "fall at 100"),
    ("milestone-beyond-end", {"schedule.name": "step", "schedule.every": "10 epochs"}, "fall at 100"),
    ("milestone-in-warmup", {"schedule.name": "steps", "schedule.warmup": 20, "schedule.milestones": [10]}, "10 lie"),
    ("decay-too-strong", {"optimiser.decay": 50}, "5.0% of every weight"),
    ("decay-too-strong", {"optimiser.name": "adam", "optimiser.decay": 0.05}, "adds it to the gradient"),
    ("decay-too-strong", {"optimiser.name": "sgd", "optimiser.decay": 0.05, "optimiser.lr": 0.1}, "5.0% of every"),
    ("ema-too-long", {"ema": 0.9999}, "averages over 10,000 steps, the run has 100"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "keys", "said"), FAULTS, ids=[f"{code}-{i}" for i, (code, *_) in enumerate(FAULTS)])
def test_a_planted_fault_is_named_alone(code: str, keys: dict[str, Any], said: str) -> None:
    (finding,) = seen({"epochs": 10, "schedule.warmup": 0, **keys}, 10)
    assert finding.code == code
    assert said in finding.what
    assert finding.consequence
    assert finding.remedy


def test_milestones_counted_from_the_run_are_told_with_the_right_ones() -> None:
    (finding,) = seen({**STAGED, "schedule.warmup": 0}, 100)
    assert finding.code == "counted-from-the-run"
    assert "milestones at 1500 of 1000 steps" in finding.what
    assert "stages[1].schedule.milestones=[500]" in finding.remedy


def test_each_code_is_explained() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    for code in {code for code, *_ in FAULTS} | {"counted-from-the-run"}:
        assert f"### {code}\n" in page


def test_a_plan_carries_what_is_foreseen_and_is_complete(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 10)
    keys = {
        **TINY,
        "epochs": 4,
        "data": str(data),
        "optimiser.lr": 0.5,
        "freeze": ["stem"],
        "schedule.warmup": "1 epoch",
    }
    plan = make_plan(ask(keys))
    assert [finding.code for finding in plan.foresight] == ["lr-too-high"]
    assert plan.recipe.schedule.warmup == f"{plan.steps_per_epoch} steps"
    assert (plan.recipe.optimiser.beta2, plan.recipe.optimiser.decay) == (0.999, 0.05)
    ((leg, rows),) = plan.groups
    assert leg.steps == plan.steps
    assert [row.group for row in rows if not row.trainable] == ["stem (frozen)"]
    again = make_plan(plan.recipe)
    assert again.recipe == plan.recipe


def test_a_plan_of_stages_is_complete_in_each(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 10)
    stages = [{"epochs": 2, "freeze": ["all-but-heads"]}, {"epochs": 3, "schedule": {"warmup": 0}}]
    keys = {key: value for key, value in TINY.items() if key != "epochs"}
    plan = make_plan(ask({**keys, "data": str(data), "stages": stages}))
    assert plan.recipe.epochs == 5
    assert plan.steps == sum(leg.steps for leg in plan.legs) == 5 * plan.steps_per_epoch
    assert [stage.freeze for stage in plan.recipe.stages] == [("all-but-heads",), ()]
    assert [stage.name for stage in plan.recipe.stages] == ["stage 1", "stage 2"]
    assert plan.recipe.stages[1].schedule["warmup"] == "0 steps"
    assert make_plan(plan.recipe).recipe == plan.recipe
