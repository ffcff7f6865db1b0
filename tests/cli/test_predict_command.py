"""`onestage predict` as a process: what it writes, what it says, what it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Answer, discs, onestage

from onestage import Detector
from onestage.cli import run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that see class `disc` everywhere: their heads' biases are raised."""
    detector = Detector("ssd-lite0", ["disc", "ring"], pretrained=False, size=96)
    state = detector.model.state_dict()
    biases = [name for name in state if name.startswith("heads.cls_headers.") and name.endswith(".3.bias")]
    assert len(biases) == 5
    for name in biases:
        state[name].view(-1, 2)[:, 0] += 5
    return detector.save(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for place in ("a", "b"):
        discs(tmp_path / place, images=1, size=120)
        (folder / place).mkdir(parents=True)
        (tmp_path / place / "JPEGImages" / "disc00.jpg").rename(folder / place / "x.jpg")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def call(*words: str | Path, tmp_path: Path) -> Answer:
    return onestage("predict", *words, runs=tmp_path / "runs")


def test_results_of_equal_names_lie_beside_each_other(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    answer = call(weights, photos, f"out={out}", "score=0.05", tmp_path=tmp_path)
    assert answer.code == 0, answer.err
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        "a/x.jpg", "b/x.jpg", "labels/a/x.txt", "labels/b/x.txt", "predictions.json", "predictions.coco.json",
    }  # fmt: skip
    entries = json.loads((out / "predictions.json").read_text())
    assert [entry["image"] for entry in entries] == ["a/x", "b/x"]
    assert all(entry["detections"] for entry in entries)
    rows = json.loads((out / "predictions.coco.json").read_text())
    lines = (out / "labels/a/x.txt").read_text().splitlines() + (out / "labels/b/x.txt").read_text().splitlines()
    assert len(rows) == len(lines) == sum(len(entry["detections"]) for entry in entries)
    drawn, plain = cv2.imread(str(out / "a/x.jpg")), cv2.imread(str(photos / "a/x.jpg"))
    assert drawn.shape == plain.shape
    assert np.abs(drawn.astype(int) - plain).max() > 100
    assert "disc" in answer.out
    assert "2 images" in answer.out
    assert "images/s" in answer.out
    assert "left out: " in answer.out
    assert "bad.png" in answer.out
    assert run(["predict", str(weights), str(photos), f"out={out}", "score=1"]) == 0  # its own folder is used again
    assert json.loads((out / "predictions.coco.json").read_text()) == []


def test_json_on_stdout_alone_and_no_drawing(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    answer = call(weights, photos / "a", "--out", out, "score=0.05", "--no-draw", "--json", tmp_path=tmp_path)
    assert answer.code == 0, answer.err
    assert not list(out.rglob("*.jpg"))
    said = answer.json
    assert said["images"] == 1
    assert said["skipped"] == []
    assert sum(said["detections"].values()) == len(said["predictions"][0]["detections"])
    assert "images/s" in answer.err


def test_a_folder_of_someone_else_is_never_written_to(
    weights: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "a/x.jpg").read_bytes()
    assert run(["predict", str(weights), str(photos / "a"), f"out={photos / 'a'}"]) == 2
    assert "did not write" in capsys.readouterr().err
    assert (photos / "a/x.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{w}"], 2, "expected a run or weights and then images"),
        (["{w}", "nowhere"], 3, "nowhere: there is no such file or folder"),
        (["{w}", "{p}/bad.png"], 3, "none of the images could be read"),
        (["nothing.safetensors", "{p}"], 4, "no weights at nothing.safetensors"),
        (["norun", "{p}"], 2, "there is no run 'norun'"),
        (["{p}/bad.png", "{p}"], 4, "does not say what model it belongs to"),
        (["{w}", "{p}", "scor=0.3", "iou=7"], 2, "did you mean 'score'"),
        (
            ["{w}", "{p}", "score=2", "iou=0", "batch=0", "fit=x"],
            2,
            "fit: expected squash, letterbox or native, got 'x'",
        ),
        (["{w}", "{p}", "device=moon"], 2, "device=moon: not on this machine"),
    ],
)
def test_refusals(
    words: list[str], code: int, told: str, weights: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ONESTAGE_RUNS", str(tmp_path / "runs"))
    given = [word.format(w=weights, p=photos) for word in words]
    assert run(["predict", *given, f"out={tmp_path / 'o'}"]) == code  # in this process: starting one takes seconds
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.out + said.err
    assert said.err.count("bad.png") <= 1


def test_another_engine_finds_the_same(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        pytest.skip("the extra `export` is not installed")
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    found = {}
    for engine in ("torch", "onnxruntime"):
        out = tmp_path / engine
        words = [str(weights), str(photos), f"out={out}", "score=0.05", "--no-draw", f"engine={engine}", "threads=1"]
        assert run(["predict", *words]) == 0
        found[engine] = json.loads((out / "predictions.json").read_text())
    assert "onnxruntime, fp32: on a test picture scores are at most" in capsys.readouterr().out
    # Random weights score many places alike, so that which of them comes first is a matter of rounding.
    for one, other in zip(*found.values(), strict=True):
        scores = [[row["score"] for row in entry["detections"]] for entry in (one, other)]
        assert scores[0]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize(("word", "says"), [
    ("engine=opnevino", "did you mean 'openvino'"), ("precision=int8", "engine=torch has precision fp32, bf16"),
    ("threads=0", "threads: expected a whole number from 1 on"), ("calibration=photos", "without precision=int8"),
])  # fmt: skip
def test_engines_are_refused_before_anything_is_loaded(
    word: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", "no-such-run", "photos", word]) == 2
    assert says in capsys.readouterr().err


def test_a_benchmarks_files_are_not_mixed_with_older_ones_and_pictures_show_what_people_look_for(
    weights: Path, photos: Path, tmp_path: Path
) -> None:
    detector = Detector.load(weights)
    for name, tensor in detector.model.state_dict().items():
        if name.startswith("heads.cls_headers.") and name.endswith(".3.bias"):
            tensor -= 1  # scores of 0.36 instead of 0.60
    faint = detector.save(tmp_path / "faint.safetensors")
    for out, words in (("plain", ["score=0.4"]), ("files", ["format=yolo"])):
        answer = call(faint, photos / "a", f"out={tmp_path / out}", *words, tmp_path=tmp_path)
        assert answer.code == 0, answer.err
    plain, files = ((tmp_path / name).read_text() for name in ("plain/labels/x.txt", "files/yolo/x.txt"))
    assert len(plain.splitlines()) < len(files.splitlines())
    assert (tmp_path / "plain/x.jpg").read_bytes() == (tmp_path / "files/x.jpg").read_bytes()
    again = call(weights, photos / "b", f"out={tmp_path / 'files'}", "format=yolo", tmp_path=tmp_path)
    assert again.code == 2
    assert "holds something already" in again.err
