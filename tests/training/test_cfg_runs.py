"""`model=my.cfg`: the run is trained as the cfg says, tells what it does not follow, and needs the file no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_fit import StopAt, same_weights, shapes, values

from onestage import models
from onestage.cli import run as command
from onestage.data.augment import augmentation
from onestage.errors import ModelError
from onestage.experiments.run import Run
from onestage.models.darknet.binary import read_weights
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse, read
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.files import as_weights
from onestage.models.darknet.header import Header
from onestage.models.darknet.layout import Layout
from onestage.models.darknet.settings import settings
from onestage.training.fit import fit, resume
from onestage.training.plan import ask
from toy_cfg import TOY

NET = """width=64
height=64
batch=5
subdivisions=2
learning_rate=.001
burn_in=3
max_batches=5
policy=steps
steps=4
scales=.1
saturation=1.5
hue=.1
mixup=1
"""


def toy(folder: Path, net: str = NET) -> Path:
    path = folder / "toy.cfg"
    path.write_text(TOY.replace("width=96\nheight=64\n", net))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


def test_a_run_of_a_cfg_is_what_it_says_and_resumes_without_the_file(data: Path, tmp_path: Path) -> None:
    keys = {"data": str(data), "model": str(toy(tmp_path)), "precision": "fp32", "saving.seconds": 0}
    whole = fit(keys, root=tmp_path / "whole")
    assert whole.name == f"toy-{data.name}-001"
    assert (whole.info["model"]["name"], whole.info["model"]["cfg"]) == ("darknet", "toy.cfg")
    assert (whole.info["data"]["root"], whole.info["data"]["name"]) == (str(data), data.name)
    assert "  cfg: |\n    [net]\n    width=64\n" in (whole.folder / "recipe.yaml").read_text()
    recipe = whole.recipe
    assert (recipe["model"], recipe["steps"], recipe["batch"], recipe["accumulate"]) == ("darknet", 5, 4, 2)
    assert recipe["options"]["cfg"] == read(tmp_path / "toy.cfg").text()
    rates = [max(row["lr"].values()) for row in whole.steps]
    assert rates == pytest.approx([1e-3 * (1 / 3) ** 4, 1e-3 * (2 / 3) ** 4, 1e-3, 1e-3, 1e-4])
    told = [row for row in whole.findings if row["code"] == "cfg-not-followed"]
    assert [(row["where"]["line"], row["evidence"]["key"]) for row in told] == [(5, "batch"), (15, "mixup")]
    assert told[0]["what"] == (
        "toy.cfg, line 5, batch=5: darknet takes 2 x 2 = 4 images, and so is done here"
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        fit({**keys, "name": "cut"}, root=tmp_path, watcher=StopAt(3))
    (tmp_path / "toy.cfg").unlink()
    again = resume(Run.open("cut", tmp_path))
    same_weights(whole, again)
    assert values(whole) == values(again)
    assert [row["code"] for row in again.findings] == [row["code"] for row in whole.findings]


def test_a_run_from_darknets_weights_lists_what_became_of_every_tensor(data: Path, tmp_path: Path) -> None:
    """A file of five classes for a set of other ones: run.json counts, weights/start.json has each tensor and why."""
    torch.manual_seed(2)
    five = models.build("darknet", 5, cfg=TOY)
    assert isinstance(five, Darknet)
    header = Header(0, 2, 5, 64)
    (tmp_path / "five.weights").write_bytes(as_weights(five.architecture, five.state_dict(), header))
    keys = {
        "data": str(data),
        "model": str(toy(tmp_path)),
        "weights": str(tmp_path / "five.weights"),
        "precision": "fp32",
    }
    run = fit({**keys, "steps": 1}, root=tmp_path / "runs")
    told = run.info["model"]["weights"]
    heads = [f"layers.{layer}.conv.{leaf}" for layer in (14, 8) for leaf in ("bias", "weight")]
    assert (told["source"], told["loaded"], told["initialised"]) == ("five.weights", 25, 4)
    assert sorted(told["skipped"]) == heads
    assert told["notes"][0].startswith("its heads are of 5 classes, these of ")
    start = json.loads((run.weights_dir / "start.json").read_text())
    assert start["notes"] == told["notes"]
    rows = {row["tensor"]: row for row in start["tensors"]}
    assert [name for name, row in sorted(rows.items()) if row["becomes"] == "initialised"] == heads
    assert rows["layers.8.conv.bias"]["why"].startswith("a head of 5 classes, here ")
    assert sum(row["becomes"] == "loaded" for row in rows.values()) == 25
    assert command(["weights", "convert", str(run.folder), str(tmp_path / "out.weights")]) == 0
    network = architecture(read(tmp_path / "out.cfg"))
    written = read_weights(tmp_path / "out.weights", network)
    assert (written.header, written.layout) == (Header(seen=4), Layout(network.classes))  # one step of four images
    assert (tmp_path / "out.names").read_text().splitlines() == list(run.recipe["classes"])


def test_a_recipe_yaml_of_such_a_run_trains_it_again(tmp_path: Path) -> None:
    text = read(toy(tmp_path)).text()
    recipe = ask({"data": "x", "model": "darknet", "options": {"cfg": text}, "steps": None, "epochs": 2, "batch": 8})
    assert (recipe.steps, recipe.epochs, recipe.batch, recipe.optimiser.lr) == (None, 2, 8, 1e-3)


@pytest.mark.parametrize(
    ("net", "head"),
    [("learning_rate=.1", "jitter=.3\nresize=1.5"), ("learning_rate=.1\nmosaic=1\nhue=.1\nexposure=.4", "jitter=.2")],
)
def test_the_policy_takes_what_the_cfg_gives(net: str, head: str) -> None:
    text = TOY.replace("width=96\n", f"width=96\n{net}\n").replace("truth_thresh=1\n", f"truth_thresh=1\n{head}\n")
    keys = settings(parse(text)).keys
    policy = augmentation(keys["augmentation.policy"], **keys["augmentation.options"])
    inner = getattr(policy, "zoom", policy)
    assert (type(inner).__name__, inner.crop) == ("AspectJitter", True)


def test_a_misspelt_key_is_told_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    path = toy(tmp_path, NET.replace("learning_rate", "learning_rat"))
    with pytest.raises(ModelError) as caught:
        fit({"data": str(data), "model": str(path)}, root=tmp_path / "runs")
    assert "line 7, learning_rat: unknown key (did you mean 'learning_rate'" in str(caught.value)
    assert not (tmp_path / "runs").exists()
