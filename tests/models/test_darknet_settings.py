"""A cfg's [net] and heads as a recipe: every key of darknet's own cfgs followed, or told with its line."""

from __future__ import annotations

from typing import Any

import pytest

from onestage import models
from onestage.errors import ModelError
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.settings import settings, unfollowed
from onestage.training.plan import ask
from toy_cfg import TOY

# The [net] of yolov3-voc.cfg with its training lines, as diary 001 has it.
VISDRONE = """
batch=128
subdivisions=16
momentum=0.9
decay=0.0005
angle=0
saturation = 1.5
exposure = 1.5
hue=.1
learning_rate=0.001
burn_in=1000
max_batches = 50200
policy=steps
steps=40000,45000
scales=.1,.1
"""


def cfg(net: str = "", head: str = "", text: str = TOY, width: int = 96, height: int = 64) -> Any:
    """The toy with lines added to its [net] and to each of its heads."""
    text = text.replace("width=96\nheight=64", f"width={width}\nheight={height}{net.rstrip()}\n".replace("\n\n", "\n"))
    return parse(text.replace("truth_thresh=1\n", f"truth_thresh=1\n{head}"), "my.cfg")


def test_the_cfg_of_diary_001_is_its_schedule() -> None:
    keys = settings(cfg(VISDRONE, "random=1\njitter=.3\n", width=416, height=416)).keys
    assert keys == {
        "batch": 128, "accumulate": 16, "steps": 50_200, "optimiser.name": "sgd", "optimiser.lr": 1e-3,
        "optimiser.momentum": 0.9, "optimiser.decay": 5e-4, "clip": 0, "ema": 0, "schedule.name": "multi-step",
        "schedule.warmup": 1000, "schedule.start": 0, "schedule.rise": 4, "schedule.milestones": [40_000, 45_000],
        "schedule.factor": 0.1, "augmentation.policy": "darknet", "augmentation.rest": 0,
        "augmentation.options": {
            "jitter": 0.3, "hue": 0.1, "saturation": 1.5, "exposure": 1.5, "flip": 0.5, "crop": True, "resize": 1.0,
        },
        "multiscale.low": 0.7692, "multiscale.high": 1.4616, "multiscale.step": 32, "multiscale.every": 10,
        "fit": "squash",
    }  # fmt: skip


def test_a_cfg_without_keys_of_alexeys_has_pjreddies_jitter_and_letterbox() -> None:
    plain = cfg(VISDRONE, text=TOY.replace("scale_x_y=1.1\n", "").replace("mish", "leaky"))
    assert "crop" not in settings(plain).keys["augmentation.options"]
    assert "fit" not in settings(plain).keys


def test_a_network_alone_says_nothing_of_training() -> None:
    found = settings(cfg("\nbatch=1\nsubdivisions=1", "random=1\njitter=.3\n"))
    assert (found.keys, found.notes) == ({"fit": "squash"}, [])


def test_what_a_training_cfg_leaves_out_has_darknets_value() -> None:
    keys = settings(cfg("\nmax_batches=10")).keys
    assert {key: keys[key] for key in ("optimiser.lr", "optimiser.momentum", "optimiser.decay", "schedule.name")} == {
        "optimiser.lr": 1e-3, "optimiser.momentum": 0.9, "optimiser.decay": 1e-4, "schedule.name": "constant",
    }  # fmt: skip
    assert keys["augmentation.options"] == {
        "jitter": 0.2, "hue": 0, "saturation": 1, "exposure": 1, "flip": 0.5, "crop": True, "resize": 1,
    }  # fmt: skip
    assert keys["schedule.warmup"] == 0
    assert "schedule.rise" not in keys


@pytest.mark.parametrize(
    ("net", "schedule"),
    [
        ("policy=constant", {"name": "constant"}),
        ("policy=step\nstep=500\nscale=.5", {"name": "step", "every": 500, "factor": 0.5}),
        ("policy=step\nstep=500\nscale=1", {"name": "constant"}),
        ("policy=steps\nsteps=-1,100,20000\nscales=.1,10,.1",
         {"name": "multi-step", "milestones": [0, 100, 20_000], "factor": [0.1, 10, 0.1]}),
        ("policy=exp\ngamma=.99", {"name": "exponential", "gamma": 0.99}),
        ("policy=poly\npower=2", {"name": "polynomial", "power": 2, "final": 0}),
        ("policy=random", {"name": "random", "power": 4}),
        ("policy=sig\nstep=700\ngamma=.01", {"name": "sig", "gamma": 0.01, "centre": 700}),
        ("policy=sgdr\nmax_batches=500", {"name": "cosine", "final": 0.01}),
    ],
)  # fmt: skip
def test_every_policy_has_its_schedule(net: str, schedule: dict[str, Any]) -> None:
    keys = settings(cfg(f"\n{net}")).keys
    found = {key.removeprefix("schedule."): value for key, value in keys.items() if key.startswith("schedule.")}
    assert found == {"warmup": 0, **schedule}


def darknets_rate(update: int, burn_in: int, power: float) -> float:
    """What darknet's get_current_rate gives for steps=20,30 scales=.1,.5 at `update`, counted from 1."""
    if update < burn_in:
        return 0.01 * float((update / burn_in) ** power)
    return 0.01 * (0.1 if update >= 20 else 1) * (0.5 if update >= 30 else 1)


def test_the_rates_are_darknets_at_every_update() -> None:
    net = "\nlearning_rate=.01\nburn_in=8\npower=3\npolicy=steps\nsteps=20,30\nscales=.1,.5\nmax_batches=40"
    keys = {key: value for key, value in settings(cfg(net)).keys.items() if not key.startswith("augmentation")}
    schedule = ask({"data": "x", "model": "ssd-lite0", **keys}).schedule.completed(40, 4)
    for done in range(40):
        # the burn-in is the same at every update, a fall comes one update later here (docs/schedules.md)
        assert 0.01 * schedule.share(done, 40) == pytest.approx(darknets_rate(done + (done < 8), 8, 3))


def test_sizes_of_random() -> None:
    keys = settings(cfg("\npolicy=constant", "random=1\n", width=608, height=608)).keys
    assert (keys["multiscale.low"] * 608, keys["multiscale.high"]) == (pytest.approx(320, abs=0.1), 1)
    # AlexeyAB's detector.c: round(size * factor / 32 + 1) * 32, which for 416 is 320 and 608 as well
    for head, size, low, high in (
        ("random=1", 416, 320, 608),
        ("random=1.2", 416, 384, 544),
        ("random=1", 832, 640, 1184),
    ):
        keys = settings(cfg("\npolicy=constant", f"{head}\n", width=size, height=size)).keys
        assert keys["multiscale.low"] * size == pytest.approx(low, abs=0.1)
        assert keys["multiscale.high"] * size == pytest.approx(high, abs=0.1)
        assert keys["multiscale.high"] * size >= high


def test_adam_and_averages() -> None:
    keys = settings(cfg("\nbatch=64\nsubdivisions=8\nadam=1\nlearning_rate=.001\nema_alpha=.9998")).keys
    assert (keys["optimiser.name"], keys["optimiser.beta2"]) == ("adam", 0.999)
    assert keys["optimiser.eps"] == pytest.approx(1e-6 / 64)  # darknet's gradients are sums over 64 images
    assert keys["ema"] == 0.9998


def test_mosaic_is_drawn_with_darknets_jitter() -> None:
    keys = settings(cfg("\nlearning_rate=.001\nmosaic=1\nflip=0\nsaturation=.5")).keys
    assert keys["augmentation.policy"] == "mosaic"
    zoom = keys["augmentation.options"]["zoom"]
    assert (zoom["policy"], zoom["flip"], zoom["saturation"]) == ("darknet", 0, 2)


def test_layers_that_rest_or_learn_slower() -> None:
    text = TOY.replace("[shortcut]\n", "[shortcut]\nstopbackward=1\n", 1)
    text = text.replace("filters=6\n", "filters=6\nlearning_rate_scale=.5\n")
    keys = settings(cfg(text=text)).keys
    assert keys["freeze"] == ["layers.0", "layers.2", "layers.3"]
    assert keys["optimiser.rates"] == {"layers.7": 0.5}


def test_what_is_not_followed_is_told_with_its_line() -> None:
    net = "\nbatch=1\nlearning_rate=.001\nangle=7\nmixup=1\nmax_crop=500\ntry_fix_nan=0"
    found = settings(cfg(net, "max_delta=5\nnms_kind=greedynms\nbeta_nms=0.6\nfocal_loss=1\nmax=30\n"))
    assert {note.key for note in found.notes} == {"batch", "angle", "mixup", "max_crop", "max_delta", "focal_loss"}
    lines = {note.key: note.line for note in found.notes}
    assert (lines["batch"], lines["angle"]) == (5, 7)
    assert str(found.notes[0]).startswith("line 5, batch=1: darknet's setting for testing")
    assert found.keys["options.most"] == 30
    assert "batch" not in found.keys
    told = unfollowed(cfg(net))
    assert {(one.code, one.severity, one.where.file) for one in told} == {("cfg-not-followed", "note", "my.cfg")}


def test_heads_that_differ_are_told() -> None:
    text = TOY.replace("ignore_thresh=.6\n", "ignore_thresh=.7\n", 1)
    assert [(note.key, note.value) for note in settings(cfg(text=text)).notes] == [("ignore_thresh", ".6")]


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("learning_rat=.1", "learning_rat: unknown key (did you mean 'learning_rate'"),
        ("policy=stepss", "did you mean 'steps'"),
        ("policy=steps\nsteps=10,20\nscales=.1", "as many steps as scales, got 2 and 1"),
        ("policy=steps\nsteps=20,10\nscales=.1,.1", "expected rising steps"),
        ("batch=4\nsubdivisions=8", "expected 1 to batch=4, got 8"),
        ("policy=exp\ngamma=0", "expected a number above 0"),
        ("learning_rate=fast", "expected a number, got 'fast'"),
        ("burn_in=-5\npolicy=constant", "expected 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(net: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        settings(cfg(f"\n{net}"))
    assert words in str(caught.value)
    assert "line" in str(caught.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ModelError) as caught:
        settings(cfg("\nlearning_rat=1\nbatch=x\npolicy=no", "ignore_tresh=1\n"))
    assert len(caught.value.problems) == 5  # both heads have the last
    assert "did you mean 'ignore_thresh'" in str(caught.value)


def test_the_door_gives_them_below_what_the_user_says(tmp_path: Any) -> None:
    path = tmp_path / "my.cfg"
    path.write_text(cfg(VISDRONE, "random=0\n").text())
    recipe = ask({"data": "x", "model": str(path)})
    assert (recipe.model, recipe.steps, recipe.batch, recipe.accumulate) == ("darknet", 50_200, 128, 16)
    assert (recipe.weights, recipe.fit, recipe.validation.iou) == (None, "squash", 0.45)
    assert recipe.options == {"cfg": str(path)}
    own = ask({"data": "x", "model": str(path), "epochs": 3, "optimiser.name": "adamw", "schedule.name": "cosine",
               "augmentation.policy": "none", "batch": 8})  # fmt: skip
    assert (own.epochs, own.steps, own.batch, own.accumulate) == (3, None, 8, 16)
    assert (own.schedule.milestones, own.augmentation.options, own.optimiser.lr) == (None, {}, 1e-3)
    assert ask({"data": "x", "model": "darknet", "options": {"cfg": str(path)}}).steps == 50_200
    assert models.unfollowed({"cfg": path.read_text()}) == []
    assert models.unfollowed({}) == []
