"""Every shipped recipe is a valid one, and its head says what it costs and what to expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from onestage import models
from onestage.boxes.clusters import HOW
from onestage.data.augment import augmentation, with_fit
from onestage.data.samples import SAMPLES
from onestage.training.loop.freezing import problems_with
from onestage.training.multiscale import Sizes
from onestage.training.plan import ask
from onestage.training.recipe import Recipe, known_keys
from onestage.training.recipe.foresight import foresee
from onestage.training.recipe.keys import flat, read_recipe
from onestage.training.recipe.stages import legs

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
HEAD = ("paper", "data", "hardware", "hours", "expected", "by us")


def test_there_are_recipes() -> None:
    assert {path.stem for path in RECIPES} >= {
        "ssd-lite0-trees", "ssd300-voc0712", "ssd512-voc0712", "faceboxes-wider", "faceboxes-diary",
        "yolov3-visdrone", "yolov3-tiny-signs", "yolov3-rubbish", "yolov3-voc",
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


YOLO = {"yolov3-visdrone": 10, "yolov3-tiny-signs": 6, "yolov3-rubbish": 44, "yolov3-voc": 20}


@pytest.mark.parametrize("name", YOLO)
def test_the_recipes_of_yolo_ask_what_their_networks_can_give(name: str) -> None:
    recipe = ask(read_recipe(FOLDER / f"{name}.yaml"))
    _fits(recipe, YOLO[name])


def _fits(recipe: Recipe, classes: int) -> None:
    """Options, parts, sizes and policy of a recipe, on a network without numbers."""
    options = {key: value for key, value in recipe.options.items() if value not in HOW}  # made of the data
    with torch.device("meta"):
        detector = models.build(recipe.model, classes, recipe.input_size, **options)
    assert set(recipe.loss) == set(detector.default_weights)
    words = [*(recipe.freeze or ()), *(word for stage in recipe.stages for word in stage.freeze or ())]
    assert problems_with(detector, words) == []
    sizes = Sizes.of(recipe, detector.size)
    for size in (sizes.possible[0], sizes.possible[-1]):
        detector.resized(size)
    policy = augmentation(recipe.augmentation.policy, **recipe.augmentation.options)
    assert with_fit(policy, recipe.fit).fit == recipe.fit


def test_the_sizes_of_the_diaries() -> None:
    sizes = {name: Sizes.of(ask(read_recipe(FOLDER / f"{name}.yaml")), (416, 416)).possible for name in YOLO}
    assert [size[0] for size in sizes["yolov3-visdrone"]] == list(range(320, 609, 32))
    assert [size[0] for size in sizes["yolov3-rubbish"]] == list(range(320, 513, 32))
    assert sizes["yolov3-tiny-signs"] == ((416, 416),)


def test_visdrones_rates_are_those_of_its_cfg() -> None:
    recipe = ask(read_recipe(FOLDER / "yolov3-visdrone.yaml"))
    leg = legs(recipe.changed({"epochs": 1004}), 50)[0]
    assert leg.steps == 50_200
    rate = [1e-3 * leg.share(step) for step in range(leg.steps)]
    assert rate[499] == pytest.approx(1e-3 * 0.5**4)
    assert [rate[step] for step in (999, 39_999, 40_000, 45_000)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_the_signs_rate_is_halved_after_the_warm_up() -> None:
    recipe = ask(read_recipe(FOLDER / "yolov3-tiny-signs.yaml"))
    leg = legs(recipe.changed({"epochs": 188}), 187)[0]
    falls = [step for step in range(1001, leg.steps) if leg.share(step) < leg.share(step - 1)]
    assert falls == [11_000, 21_000, 31_000]


STUDY = FOLDER.parent / "studies" / "freezing.yaml"


def test_the_study_of_freezing_has_the_diarys_nine_rows() -> None:
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    base = read_recipe(FOLDER.parent / study["base"])
    assert study["reference"] in study["variants"]
    assert [one["id"] for one in study["variants"].values()] == [f"0{number}" for number in range(1, 10)]
    assert study["variants"][study["reference"]]["set"] == {}
    assert [one["said"]["score"] for one in study["variants"].values()] == [
        0.0515, 2.35, 22.87, 29.9, 27.7, 26.7, 27.74, 27.38, 27.65,
    ]  # fmt: skip
    for name, variant in study["variants"].items():
        assert variant["purpose"], name
        assert variant.get("after", study["reference"]) in study["variants"]
        recipe = ask({**base, **flat(variant["set"])})
        assert recipe.epochs == study["budget"]["epochs"], name
        _fits(recipe, 44)
        per_epoch = 13_468 // recipe.batch
        assert not [one for one in foresee(recipe, per_epoch) if one.code == "lr-at-nothing"], name
    for key, levels in study["factors"].items():
        for level in levels:
            ask({**base, key: level})


def test_the_diarys_second_stage_did_not_move_and_ours_does() -> None:
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    base = read_recipe(FOLDER.parent / study["base"])
    rates = {"name": "multi-step", "milestones": ["1 epoch", "11 epochs"], "factor": [0.01, 0.1]}
    still = {"epochs": 20, "freeze": ["none"], "optimiser": {"lr": 1e-5}, "schedule": rates}
    diarys = ask({**base, "stages": [{"epochs": 20}, still]})
    assert "lr-at-nothing" in {one.code for one in foresee(diarys, 210)}
