"""Speed of the judge beside its peers, on one synthetic set: ratios as a table and as JSON.

    python benchmarks/evaluation.py [--quick] [--lufficc PATH] [--memory] [--json PATH]

Peers: pycocotools and faster-coco-eval (where installed) for COCO's twelve numbers; for VOC a plain evaluator written
here, a loop over classes, images and detections in numpy as the classical repositories have it, which stands in for
them, and with --lufficc the evaluator of that repository itself. 1,000 paired resamples of two runs stand beside one
evaluation by pycocotools. All run in this process, on the same arrays, one after another.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from onestage.boxes.geometry import iou
from onestage.evaluation import coco, evaluate, lay_out, uncertainty, voc
from onestage.records import Annotations, Detections


def scene(images: int, classes: int, seed: int = 0) -> dict[Any, Any]:
    """About seven truths in each image."""
    rng = np.random.default_rng(seed)
    truths = {}
    for image in range(images):
        n = int(rng.poisson(7))
        corner, size = rng.uniform(0, 400, (n, 2)), np.exp(rng.uniform(2.5, 5.5, (n, 2)))
        truths[image] = Annotations(np.c_[corner, corner + size], rng.integers(0, classes, n))
    return truths


def detector(truths: dict[Any, Any], per_image: int, classes: int, seed: int = 1) -> dict[Any, Any]:
    """Detections of each image: half of them truths moved about, copied and mislabelled, the others noise."""
    rng = np.random.default_rng(seed)
    found = {}
    for image, truth in truths.items():
        n = len(truth)
        m = per_image // 2 if n else 0
        pick = rng.integers(0, max(n, 1), m)
        size = truth.boxes[:, 2:] - truth.boxes[:, :2]
        near = truth.boxes[pick] + rng.normal(0, 0.15, (m, 4)) * np.tile(size[pick], 2) if m else np.zeros((0, 4))
        corner = rng.uniform(0, 400, (per_image - m, 2))
        noise = np.c_[corner, corner + np.exp(rng.uniform(2.5, 5.5, (per_image - m, 2)))]
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        said = np.r_[np.where(rng.random(m) < 0.8, truth.labels[pick] if m else 0, rng.integers(0, classes, m)),
                     rng.integers(0, classes, per_image - m)].astype(np.int64)  # fmt: skip
        found[image] = Detections(np.r_[near, noise], said, rng.random(per_image))
    return found


def lufficc(checkout: Path, truths: dict[Any, Any], found: dict[Any, Any]) -> Callable[[], float]:
    """The VOC evaluator of a checkout of lufficc/SSD on the same arrays; it adds a pixel, as our `voc07+1`."""
    path = checkout / "ssd/data/datasets/evaluation/voc/eval_detection_voc.py"
    spec = spec_from_file_location("lufficc_voc", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"--lufficc: expected a checkout of github.com/lufficc/SSD with {path}")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"--lufficc: its evaluator needs the package {error.name}: pip install {error.name}") from None
    rows = [found[image] for image in truths]
    columns = (
        [f.boxes for f in rows], [f.labels for f in rows], [f.scores for f in rows],
        [t.boxes for t in truths.values()], [t.labels for t in truths.values()],
    )  # fmt: skip

    def run() -> float:
        with np.errstate(all="ignore"):
            return float(module.eval_detection_voc(*columns, use_07_metric=True)["map"])

    return run


def plain_voc07(truths: dict[Any, Any], found: dict[Any, Any], classes: int) -> float:
    """The stand-in: per class and image the overlaps, then a loop over detections; AP50 by 11 points."""
    verdicts: list[list[bool]] = [[] for _ in range(classes)]
    scores: list[list[float]] = [[] for _ in range(classes)]
    positives = np.zeros(classes)
    for image, truth in truths.items():
        f = found[image]
        for label in np.unique(np.r_[truth.labels, f.labels]):
            own, mine = truth.boxes[truth.labels == label], f.labels == label
            positives[label] += len(own)
            scores[label].extend(f.scores[mine])
            if not len(own):
                verdicts[label].extend([False] * int(mine.sum()))
                continue
            overlap = iou(f.boxes[mine], own)
            best = overlap.argmax(1)
            best[overlap.max(1, initial=0) < 0.5] = -1
            used = np.zeros(len(own), bool)
            for index in best:
                verdicts[label].append(bool(index >= 0 and not used[index]))
                if index >= 0:
                    used[index] = True
    result = []
    for label in np.flatnonzero(positives):
        hit = np.array(verdicts[label], bool)[np.argsort(-np.array(scores[label]), kind="stable")]
        hits = np.cumsum(hit)
        recall, precision = hits / positives[label], hits / np.arange(1, len(hits) + 1)
        result.append(sum(precision[recall >= p].max(initial=0) for p in np.arange(11) * 0.1) / 11)
    return float(np.mean(result))


def coco_json(truths: dict[Any, Any], found: dict[Any, Any], classes: int) -> tuple[dict[str, Any], list[Any]]:
    def xywh(box: Any) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    truth: dict[str, Any] = {
        "info": {}, "images": [{"id": i} for i in truths], "annotations": [],
        "categories": [{"id": c + 1, "name": f"c{c}"} for c in range(classes)],
    }  # fmt: skip
    for image, record in truths.items():
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            sides = xywh(box)
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": label + 1, "bbox": sides,
                "area": sides[2] * sides[3], "iscrowd": 0,
            })  # fmt: skip
    results = [
        {"image_id": image, "category_id": label + 1, "bbox": xywh(box), "score": score}
        for image, f in found.items()
        for box, label, score in zip(f.boxes.tolist(), f.labels.tolist(), f.scores.tolist(), strict=True)
    ]
    return truth, results


def coco_peer(package: str, truth: dict[str, Any], results: list[Any]) -> Callable[[], float]:
    if package == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO()
        images.dataset = truth
        images.createIndex()
        found = images.loadRes([dict(row) for row in results])

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(images, found, "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return float(judge.stats[0])

    return run


def timed(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Least CPU seconds of `repeats` runs, and the answer."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        answer = run()
        best = min(best, time.process_time() - start)
    return best, answer


def measure(images: int, per_image: int, classes: int, checkout: Path | None = None) -> list[dict[str, Any]]:
    truths = scene(images, classes)
    found, other = (detector(truths, per_image, classes, seed) for seed in (1, 2))
    names = [f"c{k}" for k in range(classes)]
    rows: list[dict[str, Any]] = []

    def add(kind: str, who: str, run: Callable[[], float], repeats: int = 1) -> None:
        seconds, answer = timed(run, repeats)
        rows.append({"kind": kind, "classes": classes, "who": who, "cpu_s": seconds, "answer": answer})
        print(f"{kind:<32}{classes:>4} classes  {who:<24}{seconds:>9.3f} s   {answer:.12f}", flush=True)

    def voc07(offset: float) -> float:
        return voc.voc07(lay_out(truths, found, names), pixel_offset=offset).values()["mAP50", None]

    def coco12() -> float:
        return coco.coco(lay_out(truths, found, names)).values()["mAP50-95", None]

    add("VOC07 AP50", "onestage", lambda: voc07(0.0), 3)
    add("VOC07 AP50", "plain loop (stand-in)", lambda: plain_voc07(truths, found, classes))
    if checkout is not None:
        add("VOC07+1 AP50", "onestage", lambda: voc07(1.0), 3)
        add("VOC07+1 AP50", "lufficc/SSD", lufficc(checkout, truths, found))
    add("COCO, twelve numbers", "onestage", coco12, 3)
    truth, results = coco_json(truths, found, classes)
    for package, module in (("faster-coco-eval", "faster_coco_eval"), ("pycocotools", "pycocotools")):
        if find_spec(module):
            add("COCO, twelve numbers", f"{package} {version(package)}", coco_peer(package, truth, results))
    paired = "COCO mAP50-95, 1,000 paired draws"
    add(paired, "onestage", lambda: paired_bootstrap(truths, found, other, names))
    once = next((row for row in rows if row["who"].startswith("pycocotools")), None)
    if once is not None:
        rows.append(once | {"kind": paired, "who": "pycocotools, one evaluation"})
    for row in rows:
        own = next(r["cpu_s"] for r in rows if r["kind"] == row["kind"] and r["who"] == "onestage")
        row["times_ours"] = row["cpu_s"] / own
    return rows


def paired_bootstrap(truths: dict[Any, Any], a: dict[Any, Any], b: dict[Any, Any], names: list[str]) -> float:
    """Two runs judged from their records and 1,000 resamples of both with the same draws; the spread of the gap."""
    key = ("mAP50-95", None)
    weights = uncertainty.multiplicities(len(truths), 1000)
    one, two = (coco.coco(lay_out(truths, found, names)).chosen(weights, [key])[key] for found in (a, b))
    return float(np.std(one - two))


def memory(images: int, what: str) -> dict[str, Any]:
    """Peak resident memory of judging `images` x 100 detections by voc10 and coco in a process of its own."""
    start = time.time()
    done = subprocess.run(
        [sys.executable, __file__, "--resident", what, "--images", str(images)], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    row: dict[str, Any] = json.loads(done.stdout) | {"images": images, "what": what, "wall_s": time.time() - start}
    print(
        f"memory, {images:>7,} images, {what:<10} records {row['records_gb']:.2f} GB, peak {row['peak_gb']:.2f} GB, "
        f"judging {row['judging_cpu_s']:.0f} s", flush=True,
    )  # fmt: skip
    return row


def resident(images: int, what: str) -> None:
    """What `memory` runs: makes the set, judges it, prints the peaks as JSON."""
    truths = scene(images, 20)
    found = detector(truths, 100, 20)
    records = _peak()
    start = time.process_time()
    result = evaluate(truths, found, [f"c{k}" for k in range(20)], ("voc10", "coco"), what == "intervals")
    print(json.dumps({
        "records_gb": records, "peak_gb": _peak(), "judging_cpu_s": time.process_time() - start,
        "mAP50-95": result.metrics.row("mAP50-95", "coco").value,
    }))  # fmt: skip


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="500 images instead of 5,000")
    parser.add_argument("--images", type=int, help="as many images instead")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--lufficc", type=Path, help="a checkout of github.com/lufficc/SSD, whose evaluator joins in")
    parser.add_argument("--memory", action="store_true", help="peak memory of 100,000 images x 100 detections instead")
    parser.add_argument("--resident", choices=["scores", "intervals"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    images = asked.images or (500 if asked.quick else 5000)
    if asked.resident:
        resident(images, asked.resident)
        return
    rows: list[dict[str, Any]]
    if asked.memory:
        images = asked.images or (5_000 if asked.quick else 100_000)
        rows = [memory(n, what) for what in ("scores", "intervals") for n in (images // 4, images)]
    else:
        print(
            f"{images} images x 100 detections, numpy {np.__version__}, {platform.machine()}, CPU seconds, "
            "ours best of 3"
        )
        rows = [row for classes in (20, 80) for row in measure(images, 100, classes, asked.lufficc)]
        for row in rows:
            if row["who"] != "onestage":
                what = f"{row['kind']}, {row['classes']} classes"
                print(f"{what}: onestage is {row['times_ours']:.1f} times as fast as {row['who']}")
    if asked.json:
        asked.json.write_text(
            json.dumps({"images": images, "detections_per_image": 100, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
