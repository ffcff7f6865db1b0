"""`predict` and `val` write a benchmark's files, from images at their own pixels; what cannot be is refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onestage import Detector
from onestage.cli import run

EVENTS = ("0--Parade", "9--Press_Conference")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small WIDER FACE folder: two events, images of different sizes, no level lists."""
    root, rng = tmp_path_factory.mktemp("wider"), np.random.default_rng(0)
    lines = []
    for event in EVENTS:
        for i in range(2):
            height, width = (int(v) for v in rng.integers(60, 120, 2))
            path = root / "WIDER_val" / "images" / event / f"{event.replace('--', '_')}_{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), np.uint8))
            lines += [f"{event}/{path.name}", "1", "10 12 30 32 0 0 0 0 0 0"]
    (root / "wider_face_split").mkdir()
    (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that see faces everywhere: their heads' biases are raised."""
    detector = Detector("ssd-lite0", ["face"], pretrained=False, size=96)
    state = detector.model.state_dict()
    for name in state:
        if name.startswith("heads.cls_headers.") and name.endswith(".3.bias"):
            state[name] += 4
    return detector.save(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_RUNS", str(tmp_path / "runs"))


def call(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, Any, str]:
    code = run([str(word) for word in words] + ["--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.strip() else None, said.err


def scores(said: Any) -> dict[tuple[str, str], float]:
    return {(row["protocol"], row["name"]): row["value"] for row in said["rows"]}


@pytest.mark.parametrize("format", ["widerface", "fddb"])
def test_val_writes_what_it_judged(
    format: str, weights: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [f"data={faces}", "protocol=voc10,coco"]
    limits = ["fit=native", "scale=1.5", "most=40", "candidates=200", "iou=0.3", "score=0"]
    asked = [*own, *limits, f"write={tmp_path / 'w'}", f"format={format}"]
    code, said, err = call(capsys, "val", weights, *asked)
    assert code == 0, err
    assert f"format {format}: 160 detections in 4 images" in err
    code, again, err = call(capsys, "val", tmp_path / "w", *own)
    assert code == 0, err
    assert again["detections"]["format"] == format
    assert scores(again) == pytest.approx(scores(said), nan_ok=True)
    if format == "widerface":
        assert {path.relative_to(tmp_path / "w").as_posix() for path in (tmp_path / "w").rglob("*.txt")} == {
            f"{event}/{event.replace('--', '_')}_{i}.txt" for event in EVENTS for i in range(2)
        }
        code, _, err = call(capsys, "val", weights, *asked)
        assert code == 2
        assert "holds something already" in err


def test_predict_names_events_by_their_folders_and_finds_what_val_finds(
    weights: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["fit=native", "most=30", "iou=0.3"]
    images = faces / "WIDER_val" / "images"
    for place, names in ((images, EVENTS), (images / EVENTS[1], EVENTS[1:])):
        out = tmp_path / place.name
        code, said, err = call(
            capsys, "predict", weights, place, *limits, "format=widerface", f"out={out}", "--no-draw"
        )
        assert code == 0, err
        assert said["images"] == 2 * len(names)
        found = {path.relative_to(out / "widerface"): path.read_text() for path in (out / "widerface").rglob("*.txt")}
        assert {path.parts[0] for path in found} == set(names)
        assert all(int(text.split("\n")[1]) == 30 for text in found.values())  # the floor is that of judging
    code, _, err = call(capsys, "val", weights, f"data={faces}", *limits, f"write={tmp_path / 'v'}", "protocol=voc10")
    assert code == 0, err
    for path in found:
        ours, theirs = (np.loadtxt(root / path, skiprows=2) for root in (tmp_path / "v", out / "widerface"))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "faceboxes-widr", "{f}", "out={o}"], "no run 'faceboxes-widr' (did you mean 'faceboxes-wider'?)"),
        (["val", "faceboxes-widr", "data={f}"], "no run 'faceboxes-widr' (did you mean 'faceboxes-wider'?)"),
        (["predict", "{w}", "{f}", "format=wider", "out={o}"], "'wider' is not written (did you mean 'widerface'?)"),
        (["predict", "{w}", "{f}", "plus_one=true", "out={o}"], "plus_one has no effect without format"),
        (["predict", "{w}", "{f}", "scale=2", "out={o}"], "scale has no effect on fit=squash"),
        (["predict", "{w}", "{f}", "fit=native", "scale=0", "out={o}"], "scale: expected a number above 0"),
        (["predict", "{w}", "{f}", "most=0", "out={o}"], "most: expected a whole number from 1 on"),
        (["val", "{w}", "data={f}", "format=widerface"], "format has no effect on weights without write=FOLDER"),
        (["val", "{w}", "data={f}", "write={o}", "format=coco"], "'coco' is not written"),
        (["val", "{w}", "data={f}", "write={w}"], "holds something already"),
        (["val", "{w}", "data={f}", "scale=2"], "scale has no effect on fit=squash"),
        (
            ["val", "{w}", "data={f}", "fit=native", "scale=99", "most=0"],
            "scale: expected a number above 0, at most 16",
        ),
    ],
)
def test_refusals(
    words: list[str], told: str, weights: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([word.format(w=weights, f=faces, o=tmp_path / "o") for word in words])
    err = capsys.readouterr().err
    assert (code, told in err) == (2, True), err
    assert not (tmp_path / "o").exists()
