"""The verbs in Python on a tiny data set: train, judge, predict, load; what is refused; what importing costs."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import onestage
from onestage import Detector, Run
from onestage.errors import DataError, ModelError, RecipeError, UsageError
from onestage.experiments.run_weights import weights_of

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from command_line import discs

QUICK: dict[str, Any] = {"epochs": 1, "batch": 4, "precision": "fp32", "augmentation__policy": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ONESTAGE_OFFLINE", "1")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Run]:
    detector = Detector("ssd-lite0", pretrained=False, size=96)
    run = detector.train(data, root=tmp_path_factory.mktemp("runs"), optimiser={"lr": 2e-3}, fit="letterbox", **QUICK)
    return detector, run


def same_weights(a: Detector, b: Detector) -> bool:
    other = b.model.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in a.model.state_dict().items())


def test_the_recipe_is_the_detector_and_the_keys(trained: tuple[Detector, Run]) -> None:
    detector, run = trained
    recipe = run.recipe
    assert (recipe["model"], recipe["weights"], recipe["fit"], recipe["epochs"]) == ("ssd-lite0", None, "letterbox", 1)
    assert (recipe["optimiser"]["lr"], recipe["augmentation"]["policy"]) == (2e-3, "none")
    assert run.info["status"] == "finished"
    assert (detector.classes, detector.fit, detector.model.size) == (("disc",), "letterbox", (96, 96))


def test_after_training_the_detector_has_the_best_weights_and_judges_as_the_run_did(
    trained: tuple[Detector, Run],
) -> None:
    detector, run = trained
    assert same_weights(detector, Detector.load(run.folder))
    judged = detector.val(device="cpu")
    mine = {(row.protocol, row.name, row.class_name): row.value for row in judged.metrics}
    rows = {(row["protocol"], row["name"], row["class"]): row["value"] for row in run.metrics["rows"]}
    assert mine.keys() == rows.keys()
    for key, value in rows.items():
        assert mine[key] == pytest.approx(value, nan_ok=True) if value is not None else np.isnan(mine[key])


def test_predicting_on_the_validation_images_gives_the_run_s_predictions(trained: tuple[Detector, Run]) -> None:
    detector, run = trained
    kept: dict[Any, list[Any]] = {}
    for row in run.predictions:
        kept.setdefault(row["image_id"], []).append(row)
    assert kept
    folder = Path(run.info["data"]["root"]) / "JPEGImages"
    recipe = run.recipe["validation"]
    for image_id, rows in kept.items():
        [found] = detector.predict(folder / f"{image_id}.jpg", score=recipe["score"], iou=recipe["iou"], device="cpu")
        most = min(len(found), len(rows))  # `view` keeps 100 boxes, judging 300
        assert most == min(100, len(rows))
        xywh = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
        np.testing.assert_allclose(found.scores[:most], [row["score"] for row in rows[:most]], atol=1e-5)
        np.testing.assert_allclose(xywh[:1], [row["bbox"] for row in rows[:1]], atol=0.01)


def test_arrays_paths_folders_and_names_together(trained: tuple[Detector, Run], data: Path) -> None:
    detector, _ = trained
    path = data / "JPEGImages" / "disc03.jpg"
    array = np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])
    found = detector.predict([array, path, str(data / "JPEGImages" / "disc0[0-2].jpg")], score=0, device="cpu")
    assert [one.name for one in found] == ["array-000", "disc03", "disc00", "disc01", "disc02"]
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)
    assert set(found[0].class_names) == {"disc"}
    assert repr(found[1]).startswith("Prediction('disc03', 96x96, ")
    assert len(detector.predict(array, device="cpu")) == 1
    with pytest.raises(DataError, match="no images"):
        detector.predict("nowhere/*.jpg")


def test_loading_by_path_name_and_weights_and_training_on_from_there(
    trained: tuple[Detector, Run], data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    detector, run = trained
    monkeypatch.setenv("ONESTAGE_RUNS", str(run.folder.parent))
    for what in (
        run.folder,
        run.name,
        run.weights_dir / "best.safetensors",
        detector.save(tmp_path / "own.safetensors"),
    ):
        loaded = Detector.load(what)
        assert same_weights(loaded, detector)
        assert (loaded.classes, loaded.fit) == (("disc",), "letterbox")
    assert Run(run.name).folder == Run(str(run.folder)).folder == run.folder
    again = Detector.load(run.name).train(data, root=tmp_path, **QUICK)
    assert again.recipe["weights"] == str(run.weights_dir / "best.safetensors")
    assert again.recipe["fit"] == "letterbox"
    assert again.info["model"]["weights"]["initialised"] == 0
    other = Detector("ssd-lite0", ["a", "b"], pretrained=run.name, size=96)  # other classes: its heads start anew
    assert other.model.classes == 2


def test_a_network_of_its_own_before_training() -> None:
    detector = Detector("ssd-lite0", classes=2, pretrained=False, size=(96, 64))
    assert (detector.model.classes, detector.model.size, detector.classes) == (2, (96, 64), ("0", "1"))
    assert sum(p.numel() for p in Detector("ssd300", 20, pretrained=False).model.parameters()) == 26_285_486
    with pytest.raises(UsageError, match="classes are unknown"):
        _ = Detector("ssd-lite0").model


def test_what_is_refused_and_that_nothing_is_written(data: Path, tmp_path: Path) -> None:
    detector = Detector("ssd-lite0", classes=2, pretrained=False, size=96)
    with pytest.raises(UsageError, match="2 classes, the data 1: disc"):
        detector.train(data, **QUICK)
    with pytest.raises(UsageError, match="this detector is ssd-lite0"):
        detector.train(data, model="ssd300")
    with pytest.raises(RecipeError, match=r"optimiser\.lr"):
        detector.train(data, optimiser__lrr=1)
    with pytest.raises(UsageError, match="comes from no run"):
        detector.val()
    with pytest.raises(DataError):
        detector.train(tmp_path / "absent")
    with pytest.raises(ModelError, match="did you mean"):
        Detector("ssd30")
    with pytest.raises(UsageError, match="list of names"):
        Detector("ssd-lite0", "cat")
    with pytest.raises(UsageError, match="at least 1"):
        Detector("ssd-lite0", 0)
    with pytest.raises(ModelError, match="no weights at"):
        Detector.load("absent.safetensors")
    with pytest.raises(UsageError, match="no run"):
        Detector.load("absent")
    with pytest.raises(UsageError, match="no run"):
        Run("absent")
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_tells_what_training_would_do_and_writes_its_picture_alone(data: Path, tmp_path: Path) -> None:
    detector = Detector("ssd-lite0", pretrained=False, size=96)
    found = detector.dry_run(data, picture=tmp_path / "first.png", optimiser={"lr": 2e-3}, **QUICK)
    assert found.plan.recipe.optimiser.lr == 2e-3
    assert found.estimate.seconds > 0
    assert len(found.first_batch.names) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["first.png"]
    with pytest.raises(RecipeError, match="epocs"):
        detector.dry_run(data, epocs=3)


def test_an_engine_is_made_once_and_anew_for_other_weights() -> None:
    detector, image = Detector("faceboxes", ["face"], pretrained=False, size=64), np.full((64, 64, 3), 90, np.uint8)
    before = detector.predict(image, score=0.0, device="cpu")[0].scores
    engine = detector.predictor("cpu")
    assert detector.predictor("cpu") is engine
    assert detector.predictor("cpu", precision="bf16") is not engine
    bias = detector.model.get_parameter("conf.0.bias")
    for write in (lambda: bias.data[1::2].add_(1.0), lambda: torch.nn.init.normal_(bias)):
        engine = detector.predictor("cpu")
        write()
        assert detector.predictor("cpu") is not engine
        after = detector.predict(image, score=0.0, device="cpu")[0].scores
        assert after.shape != before.shape or not np.allclose(after, before)
        before = after
    assert np.array_equal(copy.deepcopy(detector).predict(image, score=0.0, device="cpu")[0].scores, before)
    assert np.array_equal(
        pickle.loads(pickle.dumps(detector)).predict(image, score=0.0, device="cpu")[0].scores, before
    )


def test_a_run_without_weights_says_so(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "young")
    with pytest.raises(ModelError, match="has no weights yet: it is running"):
        weights_of(run.folder)


def test_weights_changed_by_hand_are_not_forgotten_in_silence(data: Path, tmp_path: Path) -> None:
    detector = Detector("ssd-lite0", ["disc"], pretrained=False, size=96)
    detector.predict(np.zeros((8, 8, 3), np.uint8), device="cpu")  # only looks
    detector.model.load_state_dict(detector.model.state_dict())
    with pytest.raises(UsageError, match="changed outside"):
        detector.train(data, **QUICK)
    run = Detector.load(detector.save(tmp_path / "mine.safetensors")).train(data, **QUICK)
    assert run.info["model"]["weights"]["source"] == "mine.safetensors"


def test_importing_onestage_is_light() -> None:
    heavy = ("torch", "cv2", "numpy", "pydantic", "rich", "typer")
    code = (
        f"import sys, onestage; onestage.__version__; dir(onestage); sys.exit(any(m in sys.modules for m in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="it has Detector"):
        _ = onestage.Detecter
    assert set(onestage.__all__) <= set(dir(onestage))


def test_without_torch_the_names_that_need_it_say_so() -> None:
    code = "import sys; sys.modules['torch'] = None; import onestage; onestage.Run; onestage.Detector"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'onestage[train]'" in done.stderr.splitlines()[-1]


def test_a_detector_of_a_cfg_is_saved_whole_and_needs_the_file_no_more(tmp_path: Path, data: Path) -> None:
    from toy_cfg import TOY

    cfg = tmp_path / "toy.cfg"
    cfg.write_text(TOY.replace("mish", "leaky"))
    detector = Detector(cfg, classes=["disc"])
    assert (detector.name, detector.fit) == ("darknet", "squash")  # its scale_x_y is AlexeyAB's, who squashes
    saved = detector.save(tmp_path / "toy.safetensors")
    cfg.unlink()
    again = Detector.load(saved)
    picture = np.full((40, 60, 3), 90, np.uint8)
    for one, other in zip(detector.predict(picture, score=0.0), again.predict(picture, score=0.0), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
    run = again.train(data, **QUICK)
    assert run.recipe["fit"] == "squash"
    assert again.train(data, **QUICK).recipe["options"]["cfg"] == again.options["cfg"]
    with pytest.raises(UsageError, match=r"toy\.weights: expected a name that ends in \.safetensors"):
        detector.save(tmp_path / "toy.weights")
    with pytest.raises(ModelError, match="are two networks"):
        Detector("a.cfg", cfg="b.cfg")


@pytest.mark.parametrize("classes", [True, 2.5, {"a": 1}, [1, 2], ["a", "a"], "ab", 0])
def test_classes_of_any_other_kind_are_refused(classes: Any) -> None:
    with pytest.raises(UsageError, match="classes: "):
        Detector(classes=classes)


@pytest.mark.parametrize("size", ["64", 64.5, float("nan"), (64,), (64, 64, 64), 0, (64, -1), {}])
def test_sizes_of_any_other_kind_are_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="size: expected a number of pixels"):
        Detector(classes=1, size=size)
