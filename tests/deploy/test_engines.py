"""Engines answer like the detector; graphs are kept and made again; what is missing or impossible is told in words."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onestage import models
from onestage.boxes.coding import decode
from onestage.boxes.offsets import boxes_of
from onestage.boxes.selection import Selection
from onestage.deploy.engines import ENGINES, check_engine, graph, packages, start_engine
from onestage.deploy.engines.kept import Kept
from onestage.deploy.engines.parity import made_up
from onestage.deploy.engines.quantised import shown_for_int8, some_of
from onestage.deploy.predict import predict
from onestage.errors import ExportError, ModelError, UsageError
from onestage.models.detector import Detector
from onestage.models.inference import TorchPredictor
from onestage.models.served import folded

SIZES = [(96, 64), (131, 70)]


def detector_of(
    name: str = "faceboxes", classes: int = 1, size: tuple[int, int] | None = (160, 96), **options: Any
) -> Detector:
    """A random detector whose scores and norms differ from place to place."""
    torch.manual_seed(3)
    detector = models.build(name, classes, size, **options)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return detector.eval()


def pictures(size: tuple[int, int], count: int = 2) -> NDArray[np.uint8]:
    """As `predict` gives them: channels first, in memory last."""
    images = np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    images[0] = made_up(size)[0].transpose(1, 2, 0)
    return images.transpose(0, 3, 1, 2)


def needs(*names: str) -> None:
    """Skip where a package is missing, without importing it: that is for `package` to do, which keeps it silent."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def faceboxes() -> Detector:
    return detector_of()


def answers(detector: Detector, images: NDArray[np.uint8]) -> tuple[Any, Any]:
    size = detector.size
    try:
        return TorchPredictor(detector)(images)
    finally:
        detector.resized(size)


@pytest.mark.parametrize("options", [
    {}, {"classes": 3}, {"class_loss": "focal"}, {"variant": "lxg2015", "layout": "symmetric"},
])  # fmt: skip
@pytest.mark.parametrize("size", SIZES)
def test_the_served_network_is_the_trained_one(options: dict[str, Any], size: tuple[int, int]) -> None:
    detector, images = detector_of(**options), pictures(size)
    boxes, scores = start_engine("torch", detector)(images)
    expected_boxes, expected_scores = answers(detector, images)
    assert np.abs(scores - expected_scores).max() < 1e-5
    assert np.abs(boxes - expected_boxes).max() < 0.02
    assert scores.dtype == boxes.dtype == np.float32


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", SIZES)
def test_engines_equal_torch_at_every_size(faceboxes: Detector, engine: str, size: tuple[int, int]) -> None:
    needs(engine)
    needs("onnx")
    runs, images = start_engine(engine, faceboxes, threads=1), pictures(size)
    expected_boxes, expected_scores = answers(faceboxes, images)
    for _ in range(6):  # from the fifth time on OpenVINO has a program for this size alone
        boxes, scores = runs(images)
        assert np.abs(scores - expected_scores).max() < 1e-5
        assert np.abs(boxes - expected_boxes).max() < 0.02
    assert runs.difference is not None
    few = runs.candidates(images, 0.5)
    for i, (some_boxes, some_scores) in enumerate(few):
        rows = scores[i, :, 0] >= 0.5
        assert 0 < len(some_boxes) < len(boxes[i])
        assert np.array_equal(some_scores, scores[i][rows])
        assert np.allclose(some_boxes, boxes[i][rows], atol=1e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_model_of_several_maps_runs_at_its_own_size(engine: str) -> None:
    needs(engine)
    needs("onnx")
    detector = detector_of("ssd-lite0", 3, (64, 96))
    runs, images = start_engine(engine, detector, threads=1), pictures((64, 96), 3)
    boxes, scores = runs(images)
    expected_boxes, expected_scores = answers(detector, images)
    assert np.abs(scores - expected_scores).max() < 1e-5
    assert np.abs(boxes - expected_boxes).max() < 0.02
    with pytest.raises(ModelError, match="64x96 alone, got 96x64"):
        runs(pictures((96, 64)))


def test_int8_learns_from_images_and_stays_near(faceboxes: Detector) -> None:
    needs("openvino")
    needs("onnxruntime")
    size = (160, 96)
    images = [image.transpose(1, 2, 0) for image in pictures(size, 3)]
    _, expected = answers(faceboxes, pictures(size, 3))
    apart = {}
    for engine in ("onnxruntime", "openvino"):
        runs = start_engine(engine, faceboxes, "int8", 1, calibration=images)
        _, scores = runs(pictures(size, 3))
        apart[engine] = float(np.abs(scores - expected).max())
        assert runs.difference is not None
    assert all(1e-5 < far < 0.2 for far in apart.values()), apart
    with pytest.raises(UsageError, match="needs images"):
        start_engine("onnxruntime", faceboxes, "int8")


def test_bf16_is_told_apart_from_fp32(faceboxes: Detector) -> None:
    needs("openvino")
    openvino = packages.package("openvino", "a test")
    images = pictures((96, 64))
    _, expected = answers(faceboxes, images)
    kinds = ["torch"] + ["openvino"] * ("BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    for engine in kinds:
        _, scores = start_engine(engine, faceboxes, "bf16", 1)(images)
        assert 1e-6 < np.abs(scores - expected).max() < 0.05


def test_runtimes_report_nothing(tmp_path: Path) -> None:
    """In a process of its own, as importing them is what matters; onnxruntime writes an identifier where it reports."""
    needs("openvino", "onnxruntime")
    code = (
        "import sys; from onestage.deploy.engines.packages import package\n"
        "package('openvino', 'x'); package('onnxruntime', 'x')\n"
        "assert sys.modules['openvino_telemetry'] is None, 'it can report'\n"
        "assert 'torch' not in sys.modules"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    bare = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run([sys.executable, "-c", code], check=True, env=bare | home)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_graphs_are_kept_and_damaged_ones_made_again(
    faceboxes: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))
    made: list[Path] = []
    whole = bytes(range(256))
    monkeypatch.setattr(graph, "export", lambda _, target: (made.append(target), target.write_bytes(whole)))
    kept = graph.graph_of(faceboxes)
    assert graph.graph_of(faceboxes) == kept
    assert len(made) == 1
    for damage in (whole[:128], b"", whole[:-1] + b"x"):
        kept.file.write_bytes(damage)
        graph.graph_of(faceboxes)
        assert kept.file.read_bytes() == whole
    (kept.file.parent / "graph.json").write_text("no JSON")
    graph.graph_of(faceboxes)
    assert len(made) == 5
    assert sorted(path.name for path in kept.file.parent.iterdir()) == ["graph.json", "graph.onnx"]
    other = detector_of()
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += 1e-3
    keys = {graph.graph_of(each).key for each in (faceboxes, other, detector_of(layout="symmetric"), detector_of())}
    assert len(keys) == 3


def test_what_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))

    def breaks(target: Path) -> None:
        target.write_bytes(b"half of it")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        Kept("k").get(breaks)
    assert list((tmp_path / "engines" / "k").iterdir()) == []


def test_a_graph_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnxruntime")
    needs("onnx")
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))
    detector, other = detector_of(), detector_of()
    with torch.no_grad():
        other.loc[0].bias += 0.05
    real = graph.export
    monkeypatch.setattr(graph, "export", lambda _, target: real(other, target))
    for _ in range(2):  # the second time the graph is there, and still unchecked
        with pytest.raises(ExportError, match="does not answer like the model") as caught:
            start_engine("onnxruntime", detector)
        assert any(text.startswith("boxes differ by") for text in caught.value.problems)


def test_a_check_is_remembered(faceboxes: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnxruntime")
    needs("onnx")
    first = start_engine("onnxruntime", faceboxes)
    facts = json.loads((graph.graph_of(faceboxes).file.parent / "graph.json").read_text())
    assert any(key.startswith("onnxruntime ") and key.endswith(" fp32") for key in facts["differences"])
    monkeypatch.setattr(graph, "difference", lambda *_: pytest.fail("checked again"))
    assert start_engine("onnxruntime", faceboxes).difference == first.difference


@pytest.mark.parametrize("missing", ["onnxruntime", "openvino", "onnx"])
def test_missing_packages_are_told(faceboxes: Detector, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return importlib.import_module(name)

    monkeypatch.setattr(packages, "import_module", import_module)
    with pytest.raises(ModelError, match=missing) as caught:
        start_engine("onnxruntime" if missing == "onnx" else missing, faceboxes)
    assert caught.value.hint == 'pip install "onestage[export]"'


@pytest.mark.parametrize(("words", "says"), [
    (("opnevino",), "did you mean 'openvino'"), (("onnxruntime", "bf16"), "precision fp32, int8, not 'bf16'"),
    (("torch", "int8"), "precision fp32, bf16, not 'int8'"), (("torch", "fp32", 0), "threads"),
    (("openvino", "fp32", True), "threads"), (("openvino", "fp32", 1, "cuda"), "not on cuda"),
])  # fmt: skip
def test_what_engines_do_not_take_is_refused(words: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_engine(*words)


def test_every_engine_is_there() -> None:
    for name, (_, precisions) in ENGINES.items():
        for precision in precisions:
            check_engine(name, precision, 2, "cpu")


def test_numpy_decodes_as_torch_does() -> None:
    random = np.random.default_rng(1)
    offsets = random.normal(0, 3, (2, 50, 4)).astype(np.float32)
    offsets[0, 0] = (0, 0, 500, -500)
    priors = random.uniform(1, 99, (50, 4)).astype(np.float32)
    expected = decode(torch.from_numpy(offsets), torch.from_numpy(priors)).numpy()
    assert np.allclose(boxes_of(offsets, priors), expected, rtol=1e-5, atol=1e-3)
    assert boxes_of(offsets[:, :0], priors[:0]).shape == (2, 0, 4)


def test_folding_leaves_the_original_alone() -> None:
    detector = detector_of()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    copied = folded(detector)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copied.modules())
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_predict_takes_the_candidates_of_an_engine(faceboxes: Detector) -> None:
    engine = start_engine("torch", faceboxes)
    images = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in pictures((160, 96))]
    limits = Selection(0.5, 0.3)
    all_boxes = predict(lambda x: engine(x), images, ["face"], (160, 96), selection=limits)
    few = predict(engine, images, ["face"], (160, 96), selection=limits)
    for one, other in zip(all_boxes, few, strict=True):
        assert len(one) > 0
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.array_equal(one.scores, other.scores)
    with pytest.raises(ModelError, match="2 classes"):
        list(predict(engine, images, ["face", "hat"], (160, 96)))


def test_numbers_that_are_not_finite_are_told() -> None:
    detector = detector_of()
    with torch.no_grad():
        detector.conf[0].bias[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        start_engine("torch", detector).candidates(pictures((96, 64)), 0.5)


def test_images_for_int8_are_spread_and_readable(tmp_path: Path) -> None:
    assert some_of(range(200), 3) == [0, 100, 199]
    assert some_of(range(2), 3) == [0, 1]
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    image = np.zeros((50, 40, 3), np.uint8)
    assert [x.shape for x in shown_for_int8([tmp_path / "cut.jpg", image], (30, 20), "squash")] == [(20, 30, 3)]
