"""Engines answer like darknet's networks: every kind of layer, at every size, norms and pools as darknet has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from onestage.boxes.selection import Selection
from onestage.deploy.engines import graph, start_engine
from onestage.deploy.engines.packages import package
from onestage.deploy.predict import predict
from onestage.errors import ModelError
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.network import pooled
from onestage.models.inference import TorchPredictor, size_kept
from onestage.models.served import folded

HEAD = """[convolutional]
filters=18
size=1
stride=1
pad=1
activation=linear
"""
# Strides 16 and 8; grouped routes, a shortcut, the pools of the tiny networks and of SPP.
YOLO = f"""[net]
width=96
height=64
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[route]
layers=-1
groups=2
group_id=1
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=mish
[maxpool]
size=5
stride=1
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
groups=3
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=1
stride=1
pad=1
activation=swish
[convolutional]
filters=8
size=1
stride=1
pad=1
activation=linear
[maxpool]
size=2
stride=1
{HEAD}
[yolo]
mask=1,2
anchors=10,14,23,27,37,58
num=3
classes=4
scale_x_y=1.05
[route]
layers=-4
[upsample]
stride=2
[route]
layers=-1,6
{HEAD}
[yolo]
mask=0,1
anchors=10,14,23,27,37,58
num=3
classes=4
"""
REGION = f"""[net]
width=64
height=64
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
{HEAD}
[region]
anchors=1,2,3,1.5
num=2
classes=4
coords=4
softmax=1
"""
SIZES = [(96, 64), (160, 48)]


def detector_of(cfg: str = YOLO) -> Darknet:
    """A network of this cfg whose norms differ from channel to channel, and whose maps are mostly below 0."""
    torch.manual_seed(4)
    detector = Darknet(4, None, cfg)
    for name, tensor in detector.state_dict().items():
        kind = name.rpartition(".")[2]
        if kind == "running_var":
            torch.nn.init.uniform_(tensor, 0.2, 2)
        elif "bn" in name and kind == "weight":
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif kind in ("bias", "running_mean"):
            torch.nn.init.normal_(tensor, -0.5 if kind == "bias" else 0.3, 0.5)
    return detector.eval()


def pictures(size: tuple[int, int], count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), np.uint8).transpose(0, 3, 1, 2)


def answers(detector: Darknet, images: NDArray[np.uint8]) -> tuple[Any, Any]:
    with size_kept(detector):
        return TorchPredictor(detector)(images)


@pytest.fixture(scope="module")
def yolo() -> Darknet:
    return detector_of()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engines_equal_torch_at_every_size(yolo: Darknet, engine: str) -> None:
    if engine != "torch":
        pytest.importorskip("onnx")
        package(engine, "a test")
    runs = start_engine(engine, yolo, threads=1)
    for size in SIZES:
        images = pictures(size)
        expected_boxes, expected_scores = answers(yolo, images)
        assert expected_scores.std(axis=1).min() > 0.005
        for _ in range(6):  # from the fifth time on OpenVINO has a program for this size alone
            boxes, scores = runs(images)
            assert np.abs(scores - expected_scores).max() < 1e-5
            np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-4, atol=1e-2)
        for i, (some_boxes, some_scores) in enumerate(runs.candidates(images, 0.3)):
            rows = scores[i].max(1) >= 0.3
            assert 0 < len(some_boxes) < len(boxes[i])
            assert np.array_equal(some_scores, scores[i][rows])
            np.testing.assert_allclose(some_boxes, boxes[i][rows], rtol=1e-5)
    with pytest.raises(ModelError, match="multiples of 16"):
        runs(pictures((100, 64)))


def test_a_pool_padded_with_zeros_would_be_seen(yolo: Darknet) -> None:
    """Engines that lose the padding's minus infinity would not pass: the pool of stride 1 often sees less than 0."""
    seen: list[torch.Tensor] = []
    handle = yolo.layers["9"].register_forward_hook(lambda _, given, made: seen.append(made))
    answers(yolo, pictures((96, 64)))
    handle.remove()
    right = pooled(seen[0], 2, 1, 1)
    wrong = F.max_pool2d(F.pad(seen[0], (0, 1, 0, 1)), 2, 1)
    assert (wrong - right).abs().max() > 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_fused_convolutions_torch_answers_the_same(
    yolo: Darknet, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures((160, 48))  # not the size that weights are ordered for
    one = start_engine("torch", yolo, precision)(images)
    monkeypatch.setattr("onestage.models.darknet.served.can_fuse", lambda: False)
    other = start_engine("torch", yolo, precision)(images)
    limit = 1e-5 if precision == "fp32" else 0.02
    assert np.abs(one[1] - other[1]).max() < limit
    assert np.abs(one[0] - other[0]).max() < 1e4 * limit


def test_region_heads_answer_by_softmax() -> None:
    pytest.importorskip("onnx")
    detector, images = detector_of(REGION), pictures((64, 64))
    boxes, scores = start_engine("onnxruntime", detector, threads=1)(images)
    expected_boxes, expected_scores = answers(detector, images)
    assert np.abs(scores - expected_scores).max() < 1e-5
    np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-4, atol=1e-2)
    sure = torch.sigmoid(TorchPredictor(detector).raw(images).logits[..., 0]).numpy()
    np.testing.assert_allclose(scores.sum(-1), sure, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_coarser_precisions_stay_near(yolo: Darknet, precision: str) -> None:
    images = pictures((96, 64))
    _, expected = answers(yolo, images)
    shown = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in images]
    engine = "torch" if precision == "bf16" else "openvino"
    if engine == "openvino":
        pytest.importorskip("onnxruntime")
    boxes, scores = start_engine(engine, yolo, precision, 1, calibration=shown)(images)
    assert 1e-6 < np.abs(scores - expected).max() < 0.2
    assert np.isfinite(boxes).all()


def test_heads_stay_exact_in_int8(yolo: Darknet) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shown = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in pictures((96, 64))]
    nodes = onnx.load(graph._kept_graph(yolo, "int8", shown).file).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    plain = [node.input[1] for node in nodes if node.op_type == "Conv" and made_by.get(node.input[1]) is None]
    assert sorted(plain) == ["network.layers.11.conv.weight", "network.layers.16.conv.weight"]


def test_norms_are_folded_as_darknet_divides() -> None:
    """Where a variance is 0, darknet divides by 1e-6: an epsilon within the root would divide by another number."""
    detector = detector_of(REGION)
    unit = detector.layers["0"]
    with torch.no_grad():
        unit.bn.running_var[:4] = torch.tensor([0, 1e-13, 1e-12, 1e-10])  # type: ignore[union-attr, index]
    x = torch.rand(1, 3, 8, 8)
    expected, found = unit(x), folded(unit)(x)
    assert expected.abs().max() > 1e3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


def test_graphs_of_other_cfgs_are_others(yolo: Darknet) -> None:
    pytest.importorskip("onnx")
    same = [detector_of(), detector_of(YOLO.replace("activation=mish", "activation=relu"))]
    assert yolo.state_dict().keys() == same[1].state_dict().keys()
    keys = {graph._key(each) for each in (yolo, *same)}
    assert len(keys) == 2


def test_predict_finds_the_same_with_an_engine(yolo: Darknet, tmp_path: Path) -> None:
    images = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in pictures((96, 64))]
    names, limits = ["a", "b", "c", "d"], Selection(0.3, 0.45)
    by_torch = predict(TorchPredictor(yolo), images, names, (96, 64), "letterbox", limits)
    by_engine = predict(start_engine("torch", yolo), images, names, (96, 64), "letterbox", limits)
    for one, other in zip(by_torch, by_engine, strict=True):
        assert len(one) > 0
        assert one.class_names == other.class_names
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
