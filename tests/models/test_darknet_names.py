"""States of PyTorch ports of darknet: their names, their checkpoints, what their norms add."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from onestage import models
from onestage.errors import ModelError
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.named import YOLOv3Tiny
from onestage.models.darknet.names import options_in, ours, port_of
from onestage.models.darknet.network import DarknetNorm
from onestage.models.darknet.plans import plan
from onestage.models.weights import load_detector, start_from
from onestage.models.weights_files import read_state
from toy_cfg import TOY

NET = architecture(parse(TOY))
PORTS = {
    "eriklindernoren/PyTorch-YOLOv3": (
        1e-5,
        lambda name: re.sub(
            r"layers\.(\d+)\.(conv|bn)",
            lambda m: f"module_list.{m[1]}.{'conv' if m[2] == 'conv' else 'batch_norm'}_{m[1]}",
            name,
        ),
    ),
    "2damin/yolov3-pytorch": (
        1e-4,
        lambda name: re.sub(r"layers\.(\d+)\.(conv|bn)", r"module_list.\1.layer_\1_\2", name),
    ),
}


def made(classes: int = 3, seed: int = 1) -> Darknet:
    torch.manual_seed(seed)
    detector = models.build("darknet", classes, cfg=TOY)
    for name, tensor in detector.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(1e-4, 2)
    assert isinstance(detector, Darknet)
    return detector.eval()


def theirs(detector: Darknet, port: str) -> dict[str, Tensor]:
    return {PORTS[port][1](name): tensor for name, tensor in detector.state_dict().items()}


@pytest.mark.parametrize("port", PORTS)
def test_names_of_ports_are_known(port: str) -> None:
    detector = made()
    state = theirs(detector, port)
    assert "module_list.0.conv_0.weight" in state or "module_list.0.layer_0_conv.weight" in state
    assert port_of(state) == port
    renamed = ours(state, NET)
    assert set(renamed) == set(detector.state_dict())
    for name, tensor in detector.state_dict().items():
        if not name.endswith("running_var"):
            assert torch.equal(renamed[name], tensor)
    assert port_of(detector.state_dict()) is None
    assert ours(detector.state_dict(), NET).keys() == detector.state_dict().keys()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("inside", [0.0, 1e-5])
def test_norms_divide_as_they_did_there(port: str, inside: float) -> None:
    """Theirs add 1e-5 or 1e-4 to the variance; the smallest variances show it most."""
    network = NET if inside else architecture(parse(TOY.replace("scale_x_y=1.1", "").replace("mish", "leaky")))
    name, variance = "layers.2.bn.running_var", torch.tensor([0.0, 1e-9, 1e-6, 1e-4, 1e-2, 1.0, 7.0, 100.0])
    moved = ours({PORTS[port][1](name): variance}, network)[name]
    norm = DarknetNorm(8, inside).eval()
    norm.running_var = moved
    x = torch.randn(2, 8, 3, 3)
    wanted = F.batch_norm(x, torch.zeros(8), variance, torch.ones(8), torch.zeros(8), False, 0.0, PORTS[port][0])
    torch.testing.assert_close(norm(x), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("port", PORTS)
def test_a_checkpoint_of_a_port_is_a_detector(tmp_path: Path, port: str) -> None:
    """Diary 002's checkpoint: the state beside epoch, iteration, optimiser and loss; `module.` before the names."""
    state = {f"module.{name}": tensor for name, tensor in theirs(made(), port).items()}
    optimiser = {"state": {}, "param_groups": [{"lr": 0.001, "momentum": 0.9, "params": [0, 1]}]}
    told = {"epoch": 7, "iteration": 5137, "model_state_dict": state, "optimizer_state_dict": optimiser,
            "loss": torch.tensor(0.25)}  # fmt: skip
    torch.save(told, tmp_path / "model_epoch7.pth")
    (tmp_path / "toy.cfg").write_text(TOY)
    loaded = load_detector(tmp_path / "model_epoch7.pth", str(tmp_path / "toy.cfg"), ("a", "b", "c"))
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        for one, two in zip(loaded.detector(image), made()(image), strict=True):
            assert one.shape == two.shape
    assert set(read_state(tmp_path / "model_epoch7.pth")) == set(theirs(made(), port))


def test_heads_of_other_classes_in_a_state_are_passed_over(tmp_path: Path) -> None:
    torch.save(theirs(made(5), "2damin/yolov3-pytorch"), tmp_path / "five.pth")
    report = start_from(made(3), str(tmp_path / "five.pth"))
    heads = {f"layers.{at}.conv.{leaf}" for at in (8, 14) for leaf in ("weight", "bias")}
    assert set(report.skipped) == set(report.initialised) == heads
    assert report.why["layers.8.conv.bias"] == "in the file it has the shape (30,)"
    with pytest.raises(ModelError, match=r"five\.pth: 3 class names are given: it tells 5 apart"):
        load_detector(tmp_path / "five.pth", _cfg(tmp_path), ("a", "b", "c"))
    with pytest.raises(ModelError, match="the class names are needed: it tells 5 apart"):
        load_detector(tmp_path / "five.pth", _cfg(tmp_path))


def test_a_state_of_ours_without_a_card_tells_its_classes(tmp_path: Path) -> None:
    torch.save(made().state_dict(), tmp_path / "ours.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "strange.pth")
    with pytest.raises(ModelError, match="the class names are needed: it tells 3 apart"):
        load_detector(tmp_path / "ours.pth", _cfg(tmp_path))
    loaded = load_detector(tmp_path / "ours.pth", _cfg(tmp_path), ("a", "b", "c"))
    for name, tensor in made().state_dict().items():
        assert torch.equal(loaded.detector.state_dict()[name], tensor)
    with pytest.raises(ModelError, match="a: the model has no such tensor"):
        load_detector(tmp_path / "strange.pth", _cfg(tmp_path), ("a", "b", "c"))


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    state = theirs(made(), "eriklindernoren/PyTorch-YOLOv3")
    state["module_list.5.conv_5.weight"] = torch.zeros(2, 2, 1, 1)
    with pytest.raises(ModelError, match="1 tensors belong to no convolution of it") as caught:
        ours(state, NET)
    assert caught.value.problems == ("module_list.5.conv_5.weight",)


def test_anchors_that_a_state_tells_are_its_options() -> None:
    """PyTorch-YOLOv3 saves the anchors of each [yolo]; a detector with others would answer with other boxes."""
    network = architecture(plan("yolov3-tiny", 80))
    usual = {f"module_list.{head.index}.yolo_{head.index}.anchors": torch.tensor(head.own) for head in network.heads}
    assert options_in(usual, network) == {}
    assert options_in({}, network) == {}
    signs = [[9, 14], [15, 22], [24, 36], [39, 55], [58, 94], [76, 168]]
    state = {
        "module_list.16.yolo_16.anchors": torch.tensor(signs[3:]).float(),
        "module_list.23.yolo_23.anchors": torch.tensor(signs[:3]).float(),
        "module_list.23.yolo_23.anchor_grid": torch.tensor(signs[:3]).float().view(1, -1, 1, 1, 2),
    }
    assert YOLOv3Tiny.options_of(state) == {"anchors": signs, "masks": [[3, 4, 5], [0, 1, 2]]}
    assert ours({**state, "module_list.0.conv_0.weight": torch.zeros(1)}, network).keys() == {"layers.0.conv.weight"}


def _cfg(folder: Path) -> str:
    path = folder / "toy.cfg"
    path.write_text(TOY)
    return str(path)
