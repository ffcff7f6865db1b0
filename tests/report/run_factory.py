"""Makes run folders such as training leaves behind, for tests and for looking at pages: python run_factory.py ROOT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from onestage.evaluation import evaluate
from onestage.experiments.run import Run
from onestage.experiments.truth import write_truth
from onestage.records import Annotations, Detections, ImageInfo
from onestage.report.pairing import pair

Labelled = list[tuple[ImageInfo, Annotations]]
LEFT = "box leaves the image"
FINDINGS = (
    ("outside", "warning", {"image": "BloodImage_00027", "box": [600, 3, 652, 80]}, LEFT, "clipped"),
    ("outside", "warning", {"image": "BloodImage_00041", "box": [-4, 3, 52, 80]}, LEFT, "clipped"),
    ("zero-area", "error", {"file": "Annotations/BloodImage_00016.xml", "line": 31}, "box without area", "dropped"),
    ("size-differs", "note", {"file": "Annotations/BloodImage_00050.xml", "line": 4}, "the image has 641x480", ""),
)


def decode(path: Path) -> np.ndarray:
    """Any picture as RGB; the product's own decoder is not needed to test pages."""
    image = cv2.imread(str(path))
    if image is None:
        raise OSError(f"{path}: no picture")
    return np.ascontiguousarray(image[:, :, ::-1])


def painted_images(folder: Path, count: int = 14, classes: int = 2, seed: int = 0) -> Labelled:
    """Pictures of blobs with their boxes."""
    chance, made = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = chance.integers(180, 220, (120, 160, 3), np.uint8)
        rows = []
        for _ in range(chance.integers(0 if number == 3 else 1, 5)):
            x, y, radius = chance.integers(20, 140), chance.integers(20, 100), int(chance.integers(6, 18))
            label = int(chance.integers(classes))
            cv2.circle(picture, (int(x), int(y)), radius, [(40, 60, 160), (50, 150, 60), (150, 60, 60)][label % 3], -1)
            rows.append(([x - radius, y - radius, x + radius + 1, y + radius + 1], label))
        path = folder / f"blob {number:02d}.png"
        cv2.imwrite(str(path), picture)
        boxes = np.clip(np.array([row[0] for row in rows], float).reshape(-1, 4), 0, [160, 120, 160, 120])
        made.append((ImageInfo(number, path, 160, 120), Annotations(boxes, np.array([row[1] for row in rows], int))))
    return made


def bccd_images(folder: Path, names: Sequence[str] = ("RBC", "WBC", "Platelets"), count: int = 40) -> Labelled:
    """Real blood pictures of shared/data/bccd with their boxes."""
    made = []
    for path in sorted((folder / "Annotations").glob("*.xml"))[:count]:
        root = ElementTree.parse(path).getroot()
        rows = [
            (
                [float(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")],
                item.findtext("name"),
            )
            for item in root.iter("object")
        ]
        picture = folder / "JPEGImages" / f"{path.stem}.jpg"
        boxes = np.array([row[0] for row in rows]).reshape(-1, 4)
        labels = np.array([names.index(row[1]) for row in rows], int)
        made.append((ImageInfo(path.stem, picture, 640, 480), Annotations(boxes, labels)))
    return made


def guesses(truth: Annotations, classes: int, size: tuple[int, int], chance: np.random.Generator) -> Detections:
    """What a middling detector might say: shifted boxes, some missed, some invented, scores to match."""
    keep = chance.random(len(truth)) < chance.uniform(0.55, 1.0)
    boxes = truth.boxes[keep] + chance.normal(0, 2.5, (int(keep.sum()), 4))
    invented = chance.poisson(1.3)
    corners = chance.random((invented, 2)) * np.array(size) * 0.7
    boxes = np.concatenate([boxes, np.concatenate([corners, corners + chance.uniform(20, 90, (invented, 2))], 1)])
    labels = np.concatenate([truth.labels[keep], chance.integers(0, classes, invented)])
    scores = np.concatenate([chance.beta(7, 2, int(keep.sum())), chance.beta(2, 4, invented)])
    order = boxes[:, :2].copy()
    boxes[:, :2], boxes[:, 2:] = np.minimum(order, boxes[:, 2:] - 1), np.maximum(boxes[:, 2:], order + 1)
    return Detections(boxes, labels, scores)


def make_run(
    root: Path, images: Labelled, classes: Sequence[str], *, name: str = "ssd-lite0-demo-001", steps: int = 900
) -> Run:
    """A finished run with everything a run folder can hold."""
    run, chance = Run.create(root, name=name), np.random.default_rng(1)
    run.write_asked("model: ssd-lite0\ndata: ../bccd\ntrain.epochs: 20\n")
    run.write_recipe({
        "model": "ssd-lite0", "data": "../bccd", "seed": 0,
        "train": {"epochs": 20, "batch": 16, "optimiser": "adamw", "lr": 1e-3, "schedule": "cosine", "ema": 0.998},
        "augment": {"policy": "ssd", "size": 320, "fit": "squash"},
        "evaluate": {"every": 1, "protocols": ["voc10", "coco"]},
    })  # fmt: skip
    run.begin()
    _write_curves(run, steps, chance)
    found = {image.id: guesses(truth, len(classes), (image.width, image.height), chance) for image, truth in images}
    write_truth(run, [image for image, _ in images], {image.id: truth for image, truth in images}, classes)
    run.write_predictions([
        {"image_id": key, "category_id": int(label) + 1, "score": float(score),
         "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
        for key, said in found.items()
        for box, label, score in zip(said.boxes, said.labels, said.scores, strict=True)
    ])  # fmt: skip
    run.write_metrics(judged(images, found, classes, run.results[16]["metrics/mAP50"]))
    run.write_findings(
        [
            {"code": code, "severity": severity, "where": where, "what": what, "consequence": "", "remedy": remedy}
            for code, severity, where, what, remedy in FINDINGS
        ]
    )
    run.update(
        code={"version": "0.1.0", "commit": "2768be1"}, seed=0, protocol="voc10",
        model={"name": "ssd-lite0", "parameters": 4_213_764, "weights": "efficientnet-lite0, ImageNet"},
        data={
            "root": "../bccd", "format": "voc", "classes": list(classes),
            "train": {"images": 205, "boxes": 2751, "fingerprint": "9f2c…"},
            "val": {"images": len(images), "boxes": sum(len(t) for _, t in images), "split": "as given: test.txt"},
        },
        environment={
            "python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "opencv": "5.0.0", "os": "Linux 6.1",
            "cpu": "2 cores",
            "threads": 2, "device": "cpu", "precision": "bf16", "measured": {"bf16": 31.2, "fp32": 14.0},
        },
        best={"epoch": 17, "step": 17 * steps // 20, "metric": "mAP50"},
        seconds={"train": 300.0, "data": 24.0, "eval": 61.0, "total": 402.0},
    )  # fmt: skip
    run.finish()
    return run


def _write_curves(run: Run, steps: int, chance: np.random.Generator) -> None:
    lines = []
    for step in range(1, steps + 1):
        done = step / steps
        cls = 0.9 + 4.5 * np.exp(-6 * done) + chance.gamma(2, 0.12) + (6 if step == steps // 3 else 0)
        box = 0.5 + 1.6 * np.exp(-4 * done) + chance.gamma(2, 0.06)
        rate = 1e-3 * min(1, step / 60) * 0.5 * (1 + np.cos(np.pi * done))
        lines.append({
            "step": step, "epoch": 1 + (step - 1) * 20 // steps, "time": 0.33 * step, "loss": cls + box,
            "raw": {"cls": cls, "box": box}, "weighted": {"cls": cls, "box": box}, "positives": 120,
            "positives_per_level": [60, 40, 15, 5, 0, 0], "lr": {"head": rate, "backbone": rate / 10},
            "grad_norm": 2.0, "images": 16, "seconds": {"data": 0.02, "step": 0.31},
        })  # fmt: skip
        if step % max(1, steps // 20) == 0:
            epoch = round(20 * done)
            score = 0.86 * (1 - np.exp(-5 * done)) + chance.normal(0, 0.012) - 0.03 * max(0, epoch - 17)
            run.append_result({
                "epoch": epoch, "step": step, "time": 0.4 * step, "train/cls": cls, "train/box": box,
                "val/cls": 1.2 + 4.5 * np.exp(-6 * done), "val/box": 0.6 + 1.6 * np.exp(-4 * done),
                "metrics/mAP50": score, "metrics/mAP50-95": 0.62 * score, "metrics/precision": 0.9 * score,
                "metrics/recall": 0.95 * score, "lr/head": rate,
            })  # fmt: skip
    for line in lines:
        run.append_step(line)


def judged(images: Labelled, found: dict, classes: Sequence[str], whole: float, cut: float = 0.4) -> dict[str, Any]:
    """A metrics.json of the judge's shape; the rates are counted, the areas made up around `whole`."""
    rows, curves, n_images = [], {}, len(images)
    totals = np.zeros(3)
    for label, name in enumerate(classes):
        n = sum(int((truth.labels == label).sum()) for _, truth in images)
        marks = []
        for image, truth in images:
            outcome = pair(found[image.id], truth)
            own = found[image.id].labels == label
            marks += list(zip(found[image.id].scores[own], outcome.right[own], strict=True))
        marks.sort(key=lambda row: -row[0])
        hits = np.cumsum([bool(row[1]) for row in marks])
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(n, 1)
        curves[name] = {
            "recall": recall.tolist(),
            "precision": precision.tolist(),
            "scores": [float(row[0]) for row in marks],
        }
        at = sum(row[0] >= cut for row in marks) - 1
        rates = [float(precision[at]), float(recall[at])] if at >= 0 else [0.0, 0.0]
        rates.append(2 * rates[0] * rates[1] / max(sum(rates), 1e-9))
        totals += np.array(rates) / len(classes)
        area = float(np.sum(np.diff(recall, prepend=0) * np.maximum.accumulate(precision[::-1])[::-1])) if n else None
        for protocol, word, value in (
            ("voc10", "AP50", area), ("coco", "AP50-95", area and 0.6 * area),
            *zip(["voc10"] * 3, ("precision", "recall", "F1"), rates, strict=True),
        ):  # fmt: skip
            spread = None if value is None else [max(0.0, value - 0.05), min(1.0, value + 0.04)]
            rows.append({"protocol": protocol, "name": word, "class": name, "value": value, "n": n, "interval": spread})
    objects = sum(len(truth) for _, truth in images)
    for protocol, word, value in (
        ("voc10", "mAP50", whole), ("voc07", "mAP50", whole - 0.01), ("coco", "mAP50-95", 0.62 * whole),
        *zip(["voc10"] * 3, ("precision", "recall", "F1"), totals.tolist(), strict=True),
    ):  # fmt: skip
        rows.append({"protocol": protocol, "name": word, "class": None, "value": value, "n": objects,
                     "interval": [value - 0.05, value + 0.04]})  # fmt: skip
    real = evaluate({image.id: truth for image, truth in images}, found, classes, ("voc10",), score=cut, resamples=40)
    closer = {key: value for key, value in real.as_dict().items() if key in ("calibration", "confusion", "confidence")}
    return {
        "protocols": ["voc07", "voc10", "coco"], "n_images": n_images, "score_floor": 0.01, "rows": rows,
        "curves": {"voc10@0.5": curves}, "notes": [], **closer,
        "operating_point": {**real.as_dict()["operating_point"], "chosen": "best mean F1"},
    }  # fmt: skip


if __name__ == "__main__":
    from onestage.report.page import write_report

    here = Path(sys.argv[1])
    data = next(
        parent / "shared" / "data" / "bccd"
        for parent in Path(__file__).resolve().parents
        if (parent / "shared").is_dir()
    )
    print(write_report(make_run(here, bccd_images(data), ("RBC", "WBC", "Platelets")), decode))
