"""`onestage weights`: what it shows, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import Command

from onestage import models
from onestage.models.darknet.header import Header
from onestage.models.weights import as_safetensors
from onestage.models.weights_files import read_card
from toy_cfg import TOY


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with toy.cfg, toy.weights (32,000 images seen) and toy.safetensors of random weights."""
    from onestage.models.darknet.files import as_weights

    torch.manual_seed(5)
    detector = models.build("darknet", 3, cfg=TOY)
    header = Header(0, 2, 0, 32_000)
    (tmp_path / "toy.cfg").write_text(TOY)
    (tmp_path / "toy.weights").write_bytes(as_weights(detector.architecture, detector.state_dict(), header))  # type: ignore[arg-type]
    options = type(detector).resolved({"cfg": TOY})
    (tmp_path / "toy.safetensors").write_bytes(as_safetensors(detector, ("a", "b", "c"), options))
    return tmp_path


def test_every_tensor_is_listed(toy: Path, here: Command) -> None:
    said = here("weights", "show", toy / "toy.weights", f"model={toy / 'toy.cfg'}")
    assert said.code == 0
    assert "version 0.2.0, 32,000 images seen" in said.out
    assert "29 tensors loaded, 0 skipped, 0 initialised afresh" in said.out
    assert said.out.count(" loaded ") == 29
    told = here("weights", "show", toy / "toy.weights", f"model={toy / 'toy.cfg'}", "classes=2", "--json").json
    assert told["header"] == {"version": "0.2.0", "seen": 32_000}
    assert (told["held"], told["classes"], told["loaded"]) == (3, 2, 25)
    rows = {row["tensor"]: row for row in told["tensors"]}
    assert len(rows) == 29
    assert rows["layers.8.conv.bias"] == {
        "layer": "8 head", "tensor": "layers.8.conv.bias", "shape": [21], "becomes": "initialised",
        "why": "a head of 3 classes, here 2",
    }  # fmt: skip
    assert rows["layers.2.bn.running_var"]["becomes"] == "loaded"
    assert "floats astray from layer 11" in told["notes"][0]


def test_our_own_files_say_what_they_are(toy: Path, here: Command) -> None:
    told = here("weights", "show", toy / "toy.safetensors", "--json").json
    assert (told["model"], told["classes"], told["header"]) == ("darknet", 3, None)
    assert {row["becomes"] for row in told["tensors"]} == {"loaded"}


def test_there_and_back_is_the_same_file(toy: Path, here: Command) -> None:
    said = here("weights", "convert", toy / "toy.weights", toy / "a.safetensors", f"model={toy / 'toy.cfg'}",
                "classes=[x,y,z]")  # fmt: skip
    assert (said.code, said.err) == (0, "")
    told = here("weights", "convert", toy / "a.safetensors", toy / "b.weights", "--json").json
    assert sorted(Path(name).name for name in told["written"]) == ["b.cfg", "b.names", "b.weights"]
    assert (toy / "b.names").read_text() == "x\ny\nz\n"
    assert (toy / "b.weights").read_bytes()[20:] == (toy / "toy.weights").read_bytes()[20:]
    assert (toy / "b.weights").read_bytes()[:12] == Header().as_bytes()[:12]
    text = (toy / "b.cfg").read_text()
    assert text.startswith("[net]\nbatch=1\nsubdivisions=1\n")
    assert here("weights", "show", toy / "b.weights", f"model={toy / 'b.cfg'}").code == 0
    said = here(
        "weights", "convert", toy / "toy.weights", toy / "c.weights", f"model={toy / 'toy.cfg'}", "classes=a,b,c"
    )
    assert "c.weights: all layers, version 0.2.0, 32,000 images seen" in said.out
    assert (toy / "c.weights").read_bytes() == (toy / "toy.weights").read_bytes()


def test_names_come_from_darknets_files_too(toy: Path, here: Command) -> None:
    model = f"model={toy / 'toy.cfg'}"
    said = here("weights", "convert", toy / "toy.weights", toy / "a.safetensors", model)
    assert said.code == 4
    assert "the class names are needed: it tells 3 apart" in said.err
    (toy / "signs.names").write_text("left\nright\n\nstop\n")
    assert (
        here("weights", "convert", toy / "toy.weights", toy / "b.weights", model, f"classes={toy / 'signs.names'}").code
        == 0
    )
    assert here("weights", "convert", toy / "b.weights", toy / "c.safetensors", f"model={toy / 'b.cfg'}").code == 0
    assert read_card(toy / "c.safetensors")["classes"] == ["left", "right", "stop"]  # of b.names, which lies beside
    said = here("weights", "convert", toy / "b.weights", toy / "d.safetensors", model, "classes=none.names")
    assert "no class names at none.names: No such file" in said.err


def test_the_first_layers(toy: Path, here: Command) -> None:
    model = (f"model={toy / 'toy.cfg'}", "classes=a,b,c")
    assert here("weights", "convert", toy / "toy.weights", toy / "toy.conv.8", *model).code == 0
    assert here("weights", "convert", toy / "toy.weights", toy / "cut.weights", *model, "layers=8").code == 0
    assert (toy / "toy.conv.8").read_bytes() == (toy / "cut.weights").read_bytes()
    assert not (toy / "cut.cfg").exists()
    said = here("weights", "show", toy / "toy.conv.8", f"model={toy / 'toy.cfg'}")
    assert "it holds the first 8 of 16 layers; the others start afresh" in said.out
    assert "the file holds the first 8 layers" in said.out
    whole = here("weights", "convert", toy / "toy.conv.8", toy / "a.safetensors", *model)
    assert whole.code == 4
    assert "is no whole darknet: the file holds the first 8 layers, 9 of 29 tensors are missing" in whole.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "show or convert?"),
        (("shwo", "a"), 2, "did you mean 'show'"),
        (("show",), 2, "one file is expected"),
        (("show", "a.weights", "b"), 2, "one file is expected"),
        (("convert", "a.weights"), 2, "a file or run and what to write"),
        (("show", "{toy}/toy.weights", "layers=3"), 2, "layers: unknown key"),
        (("show", "{toy}/toy.weights", "classes=0"), 2, "classes: expected a number from 1"),
        (("show", "{toy}/toy.weights", "model=7"), 2, "model: expected a name"),
        (("convert", "{toy}/toy.weights", "{toy}/a.weights", "layers=0"), 2, "layers: expected a number"),
        (("show", "{toy}/none.weights"), 4, "no weights at"),
        (("show", "{toy}/toy.weights"), 4, "by its length: none that is known by name"),
        (("show", "{toy}/toy.weights", "model=yolov3-tiny"), 4, "too few"),
        (("convert", "{toy}/toy.weights", "{toy}/a.weights"), 4, "does not say what model it belongs to"),
        (("convert", "{toy}/toy.safetensors", "{toy}/toy.weights"), 2, "are there already"),
        (("convert", "{toy}/toy.safetensors", "{toy}/a.bin"), 2, "ends in .weights, .conv.N or .safetensors"),
        (("convert", "{toy}/toy.safetensors", "{toy}/a.conv.4", "layers=3"), 2, "a name for the first 4 layers"),
        (("convert", "{toy}/toy.safetensors", "{toy}/a.safetensors", "layers=3"), 2, "layers has no effect"),
        (("convert", "{toy}/toy.safetensors", "{toy}/b.weights", "layers=99"), 4, "layers: expected 1 to 16, got 99"),
    ],
)
def test_refusals(toy: Path, here: Command, words: tuple[str, ...], code: int, told: str) -> None:
    said = here("weights", *(word.format(toy=toy) for word in words))
    assert told in said.err
    assert said.code == code


def test_a_model_that_is_no_network_of_darknet(tmp_path: Path, here: Command) -> None:
    detector = models.build("ssd-lite0", 2, (96, 96))
    (tmp_path / "a.safetensors").write_bytes(as_safetensors(detector, ("a", "b"), {}))
    said = here("weights", "convert", tmp_path / "a.safetensors", tmp_path / "a.weights")
    assert said.code == 4
    assert "ssd-lite0 is no network of darknet's" in said.err
    assert not (tmp_path / "a.weights").exists()
    told = here("weights", "show", tmp_path / "a.safetensors", "--json").json
    assert json.loads(json.dumps(told))["model"] == "ssd-lite0"
