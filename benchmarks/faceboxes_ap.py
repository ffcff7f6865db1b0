"""FaceBoxes on WIDER FACE: our whole path beside that of zisianw/FaceBoxes.PyTorch, and where the gap comes from.

    python benchmarks/faceboxes_ap.py --data WIDER_FACE [--weights FILE] [--peer CHECKOUT] [--scales 1 2] [--json]

Both take the same weights and images, and both results are judged by our protocol `widerface`. The peer's path is that
of its test.py: OpenCV's reader, its network, priors and decoding, scores above 0.05, the best 5,000, its suppression
at 0.3, the best 750, widths one larger. Its detections go through files, as they would to WIDER FACE's own tool. Then
our path is changed into the peer's, one difference at a time. Without `--peer` ours is judged alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from onestage.boxes.geometry import clip, nms
from onestage.data.dataset import Dataset
from onestage.data.detections import widerface
from onestage.data.detections.reading import read_detections
from onestage.data.images import decode, fit
from onestage.data.one_set import open_set
from onestage.evaluation import evaluate
from onestage.models import defaults
from onestage.models.inference import TorchPredictor
from onestage.models.published import published
from onestage.models.weights import load_detector
from onestage.models.weights_files import read_state
from onestage.records import Detections, ImageId
from onestage.training.judging.dataset import judge

LAST = np.array([0.0, 0.0, 1.0, 1.0])
LEVELS = ("APeasy", "APmedium", "APhard")
Boxes = tuple[NDArray[np.float64], NDArray[np.float64]]
Answer = Callable[[Path], Boxes]
Found = Mapping[ImageId, Detections]


@dataclass(frozen=True)
class After:
    """What is done with a network's boxes; the fields are the differences between the two programs."""

    floor: float = 0.01
    pixel: float = 0.0
    cut: bool = True
    wider: bool = False

    def detections(self, raw: Boxes, width: int, height: int) -> Detections:
        """Of all boxes (P, 4) in pixels of the image and their scores (P,), those that are kept."""
        boxes, scores = raw
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self.floor][:5000]
        boxes, scores = boxes[order], scores[order]
        kept = nms(boxes + self.pixel * LAST, scores, 0.3)[:750]
        boxes, scores = boxes[kept], scores[kept]
        if self.cut:
            boxes = clip(boxes, width, height)
            there = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
            boxes, scores = boxes[there], scores[there]
        return Detections(boxes + self.wider * LAST, np.zeros(len(boxes), int), scores)


WAY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("scores from 0.05 on, not 0.01", {"floor": 0.05}),
    ("boxes not cut at the image's border", {"cut": False}),
    ("a pixel added when boxes are compared for suppression", {"pixel": 1.0}),
    ("widths and heights written one larger", {"wider": True}),
)


def ours(weights: Path, scale: float, rounded: bool = True) -> Answer:
    """Our decoding, network and priors: boxes in pixels of the image and scores.

    `rounded` False scales the pixels as the peer does, as floating point numbers that stay such.
    """
    predictor = TorchPredictor(load_detector(weights, "faceboxes").detector)

    def answer(path: Path) -> Boxes:
        image = decode(path)
        shown, transform = fit(image, (1, 1), "native", scale=scale)
        if not rounded:
            linear = {"fx": scale, "fy": scale, "interpolation": cv2.INTER_LINEAR}
            shown = cv2.resize(np.float32(image), None, **linear)  # type: ignore[call-overload]
        boxes, scores = predictor(np.ascontiguousarray(shown.transpose(2, 0, 1))[None])
        return transform.to_image(boxes[0]), scores[0, :, 0].astype(np.float64)

    return answer


def peers(checkout: Path, weights: Path, scale: float) -> Answer:
    """The peer's: OpenCV's BGR as float32 less its mean, its network, PriorBox and decode."""
    sys.path.insert(0, str(checkout))
    names = ("models.faceboxes", "layers.functions.prior_box", "utils.box_utils", "data.config")
    faceboxes, prior_box, box_utils, config = map(importlib.import_module, names)
    network = faceboxes.FaceBoxes(phase="test", size=None, num_classes=2)
    network.load_state_dict(read_state(weights), strict=False)
    network.eval()

    def answer(path: Path) -> Boxes:
        image = np.float32(cv2.imread(str(path), cv2.IMREAD_COLOR))  # type: ignore[call-overload]
        if scale != 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        height, width = image.shape[:2]
        image -= (104, 117, 123)
        with torch.no_grad():
            places, scores = network(torch.from_numpy(image.transpose(2, 0, 1)).unsqueeze(0))
        priors = prior_box.PriorBox(config.cfg, image_size=(height, width)).forward()
        boxes = box_utils.decode(places.squeeze(0), priors, config.cfg["variance"])
        boxes = boxes * torch.tensor([width, height, width, height]) / scale
        return boxes.double().numpy(), scores[0, :, 1].double().numpy()

    return answer


def peer_suppression(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> Detections:
    """The end of the peer's test.py, with its own suppression."""
    theirs = importlib.import_module("utils.nms.py_cpu_nms").py_cpu_nms
    some = np.flatnonzero(scores > 0.05)
    some = some[scores[some].argsort()[::-1][:5000]]
    rows = np.hstack([boxes[some], scores[some, None]]).astype(np.float32)
    rows = rows[theirs(rows, 0.3)][:750] if len(rows) else rows
    return Detections(rows[:, :4], np.zeros(len(rows), int), rows[:, 4])


def through_files(found: Found, dataset: Dataset) -> Found:
    """The detections written with widths one larger, as the peer's FDDB files are, and read again."""
    with tempfile.TemporaryDirectory() as folder:
        widerface.write(found, dataset.images, Path(folder), plus_one=True)
        return read_detections(Path(folder), dataset, format="widerface").detections


def judged(dataset: Dataset, found: Found, intervals: bool = True) -> dict[str, Any]:
    """The three APs in [0, 1], with 95 % intervals where asked, and how many detections there are."""
    metrics = evaluate(dataset.truths, found, dataset.classes, ("widerface",), intervals, sizes=dataset.sizes).metrics
    rows = {name: metrics.row(name, "widerface") for name in LEVELS}
    result: dict[str, Any] = {name: round(row.value, 6) for name, row in rows.items()}
    if intervals:
        result["intervals"] = {name: [round(v, 4) for v in row.interval or ()] for name, row in rows.items()}
    return {**result, "detections": sum(map(len, found.values()))}


def at_scale(dataset: Dataset, weights: Path, peer: Path | None, scale: float) -> dict[str, Any]:
    """Both programs at one scale, and the way from one to the other."""
    answer = ours(weights, scale)
    raw = {image.id: answer(image.path) for image in dataset.images}

    def found(how: After, boxes: Mapping[ImageId, Boxes]) -> Found:
        return {one.id: how.detections(boxes[one.id], one.width, one.height) for one in dataset.images}

    how, limits = After(), defaults("faceboxes")
    detector = load_detector(weights, "faceboxes").detector
    _, product = judge(
        detector, dataset, ["widerface"], score=how.floor, fit="native", scale=scale,
        iou=limits["validation.iou"], candidates=limits["validation.candidates"], most=limits["validation.most"],
    )  # fmt: skip
    result: dict[str, Any] = {"scale": scale, "onestage": judged(dataset, product)}
    if peer is None:
        return result
    theirs = peers(peer, weights, scale)
    their_raw = {image.id: theirs(image.path) for image in dataset.images}
    written = through_files({image: peer_suppression(*boxes) for image, boxes in their_raw.items()}, dataset)
    result["zisianw/FaceBoxes.PyTorch"] = judged(dataset, written)
    rows = [{"ours with": "nothing changed", **judged(dataset, found(how, raw), False)}]
    for words, change in WAY:
        how = replace(how, **change)
        rows.append({"ours with": words, **judged(dataset, found(how, raw), False)})
    if scale != 1:
        answer = ours(weights, scale, rounded=False)
        raw = {image.id: answer(image.path) for image in dataset.images}
        rows.append({"ours with": "scaled pixels not rounded", **judged(dataset, found(how, raw), False)})
    rows.append({"ours with": "the peer's own boxes and scores", **judged(dataset, found(how, their_raw), False)})
    result["way"] = rows
    same = [one.id for one in dataset.images if len(raw[one.id][1]) == len(their_raw[one.id][1])]
    result["raw"] = {
        "images of equally many boxes": len(same),
        "largest difference of a score": max(float(np.abs(raw[i][1] - their_raw[i][1]).max()) for i in same),
        "largest difference of a corner, boxes above 0.05, pixels": max(_apart(raw[i], their_raw[i]) for i in same),
    }
    return result


def _apart(one: Boxes, other: Boxes) -> float:
    some = one[1] > 0.05
    return float(np.abs(one[0][some] - other[0][some]).max(initial=0.0))


def table(rows: list[dict[str, Any]]) -> None:
    """Print the figures, a line per program and per step between them."""
    for row in rows:
        print(f"scale {row['scale']:g}")
        named = [(name, row[name]) for name in ("onestage", "zisianw/FaceBoxes.PyTorch") if name in row]
        for name, one in [*named, *((f"  {step['ours with']}", step) for step in row.get("way", ()))]:
            spans = one.get("intervals", {})
            cells = [f"{one[n]:.4f}" + (" ({:.3f}–{:.3f})".format(*spans[n]) if n in spans else "") for n in LEVELS]
            print(f"{name:<58}{'  '.join(cells)}  {one['detections']}")
        for words, value in row.get("raw", {}).items():
            print(f"{words}: {value:.3g}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="a WIDER FACE folder with images and level lists")
    parser.add_argument("--weights", type=Path, help="weights in the names of zisianw; default: faceboxes-wider")
    parser.add_argument("--peer", type=Path, help="a checkout of zisianw/FaceBoxes.PyTorch")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], help="images at so many times their pixels")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    peer = asked.peer
    if peer is None or not (peer / "models" / "faceboxes.py").is_file():
        told = "no --peer" if peer is None else f"{peer} holds no models/faceboxes.py"
        print(f"{told}: ours is judged alone; git clone https://github.com/zisianw/FaceBoxes.PyTorch", file=sys.stderr)
        peer = None
    known = published("faceboxes-wider")
    weights = asked.weights or (known.file() if known else None)
    dataset = open_set(asked.data, "val", classes=("face",))
    rows = [at_scale(dataset, weights, peer, scale) for scale in asked.scales]
    if asked.json:
        print(json.dumps({"images": len(dataset), "weights": str(weights), "rows": rows}, indent=1))
    else:
        table(rows)


if __name__ == "__main__":
    main()
