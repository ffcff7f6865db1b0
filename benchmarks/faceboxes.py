"""FaceBoxes from JPEG bytes to boxes: our engines and precisions beside zisianw/FaceBoxes.PyTorch.

    python benchmarks/faceboxes.py [--peer PATH] [--images FOLDER] [--weights FILE] [--calibration FOLDER]
        [--sizes 640x480 1024x1024 1920x1080] [--threads 1 2] [--engines openvino/bf16 …] [--repeats 3] [--quick]
        [--json FILE]

The peer is a checkout of zisianw/FaceBoxes.PyTorch; without one there are no ratios. All forms see the same JPEG files,
take turns image by image in one process, and keep what the peer's test.py keeps: scores from 0.05, overlap 0.3, 750
boxes. CPU time of the process is counted beside wall time, as other work on the machine disturbs it less; parts are the
decoding of JPEG, the network with all that prepares its input, and priors, boxes and NMS together. The floor is the
time the network's multiplications take at the peak of one core (peak.py), without anything else; CPU time of all
threads is compared with it. The last columns say how the detections from 0.3 on differ from float32 in torch: the share
of them that has a counterpart of IoU 0.9, the same the other way round, and the mean difference of their scores.

Without --images the pictures are made up, without --weights those published as faceboxes-wider are fetched. int8 learns
its ranges from --calibration, by default the images themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceboxes_peer import KEPT, OVERLAP, SCORE, TOP, Peer
from onestage.boxes.geometry import iou
from onestage.boxes.selection import Selection, select_in_image
from onestage.data.images import decode, fit
from onestage.deploy.engines import ENGINES, start_engine
from onestage.deploy.engines.engine import Engine
from onestage.deploy.sources import sources
from onestage.models.detector import Detector
from onestage.models.published import PUBLISHED
from onestage.models.weights import load_detector
from onestage.records import Detections
from peak import peaks

Size = tuple[int, int]
Timed = tuple[NDArray[Any], NDArray[Any], dict[str, float]]
SELECTION = Selection(SCORE, OVERLAP, TOP, KEPT)
PARTS = ("jpeg", "network", "boxes")
LOOKED_AT, SAME = 0.3, 0.9
TARGET_RATIO, TARGET_SHARE, AIM = 3.5, 0.2, 250
FORMS = [f"{engine}/{precision}" for engine, (_, precisions) in ENGINES.items() for precision in precisions]
REFERENCE = "torch/fp32"


def pictures(size: Size, folder: Path | None, count: int) -> list[bytes]:
    """JPEG files of `size`: photographs of a folder cut to its proportions, or made-up textures and discs."""
    if folder is None:
        images = [_made_up(size, seed) for seed in range(count)]
    else:
        images = [_cut(decode(path), size) for path in sources([folder])[:count]]
    return [cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for image in images]


def _made_up(size: Size, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    width, height = size
    image = cv2.resize(random.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8), size)
    for _ in range(12):
        centre = (int(random.integers(width)), int(random.integers(height)))
        radius = int(random.integers(12, 90))
        cv2.circle(image, centre, radius, random.integers(60, 255, 3).tolist(), -1, cv2.LINE_AA)
        for side in (-1, 1):
            eye = (centre[0] + side * radius // 3, centre[1] - radius // 5)
            cv2.circle(image, eye, max(radius // 7, 1), (30, 30, 30), -1, cv2.LINE_AA)
    noise = random.normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _cut(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The middle of an image in the proportions of `size`, brought to it."""
    height, width = image.shape[:2]
    share = min(width / size[0], height / size[1])
    across, down = round(size[0] * share), round(size[1] * share)
    x, y = (width - across) // 2, (height - down) // 2
    return fit(np.ascontiguousarray(image[y : y + down, x : x + across]), size)[0]


def ours(engine: Engine) -> Callable[[bytes], Timed]:
    """The path of `predict` for one image, with the CPU seconds of each part."""
    inner = engine.run
    spent = [0.0]

    def run(images: NDArray[np.uint8]) -> Any:
        begin = time.process_time()
        answer = inner(images)
        spent[0] = time.process_time() - begin
        return answer

    engine.run = run  # type: ignore[method-assign]

    def path(jpeg: bytes) -> Timed:
        begin = time.process_time()
        image = decode(jpeg)
        decoded = time.process_time()
        shown, transform = fit(image, (image.shape[1], image.shape[0]), "native")
        [(boxes, scores)] = engine.candidates(shown[None].transpose(0, 3, 1, 2), SELECTION.score)
        found = select_in_image(boxes, scores, SELECTION, transform, image.shape[1], image.shape[0])
        rest = time.process_time() - decoded - spent[0]
        return found.boxes, found.scores, {"jpeg": decoded - begin, "network": spent[0], "boxes": rest}

    return path


def multiplications(detector: Detector, size: Size) -> int:
    """Multiply-adds of the convolutions for one image."""
    counted = [0]

    def count(module: torch.nn.Module, _: Any, out: torch.Tensor) -> None:
        assert isinstance(module, torch.nn.Conv2d)
        counted[0] += out.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in detector.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.inference_mode():
        detector(torch.zeros(1, 3, size[1], size[0]))
    for hook in hooks:
        hook.remove()
    return counted[0]


def measure(
    forms: dict[str, Callable[[bytes], Timed]], jpegs: Sequence[bytes], repeats: int, pause: float = 0.0
) -> tuple[dict[str, list[dict[str, float]]], dict[str, list[Detections]]]:
    """CPU seconds of the parts and wall seconds of each form and image, taking turns; and what each found.

    Threads of one form go on waiting in a loop when it is done; a `pause` before each keeps that from the next one.
    """
    times: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
    found: dict[str, list[Detections]] = {name: [] for name in forms}
    for path in forms.values():  # warm up: programs for this size, caches
        for _ in range(6):
            path(jpegs[0])
    for turn in range(repeats):
        for jpeg in jpegs:
            for name, path in forms.items():
                time.sleep(pause)
                wall = time.perf_counter()
                boxes, scores, parts = path(jpeg)
                parts["wall"] = time.perf_counter() - wall
                parts["whole"] = sum(parts[part] for part in PARTS)
                times[name].append(parts)
                if turn == 0:
                    found[name].append(Detections(boxes, np.zeros(len(boxes), np.int64), np.clip(scores, 0, 1)))
    return times, found


def compared(found: Sequence[Detections], reference: Sequence[Detections]) -> dict[str, float | int | None]:
    """How detections from 0.3 on differ from the reference's; see the head of this file."""
    here, there, apart, counts = 0, 0, [], [0, 0]
    for one, other in zip(found, reference, strict=True):
        a, b = (x.boxes[x.scores >= LOOKED_AT] for x in (one, other))
        counts[0] += len(a)
        counts[1] += len(b)
        # A counterpart may itself be just below 0.3.
        over_a, over_b = iou(b, one.boxes), iou(a, other.boxes)
        there += int((over_a.max(1, initial=0) >= SAME).sum())
        here += int((over_b.max(1, initial=0) >= SAME).sum())
        if len(one.boxes):
            best = over_a.argmax(1)
            matched = over_a.max(1, initial=0) >= SAME
            apart += np.abs(other.scores[other.scores >= LOOKED_AT] - one.scores[best])[matched].tolist()
    return {
        "detections": counts[0], "reference": counts[1],
        "found_again": there / counts[1] if counts[1] else None,
        "in_reference": here / counts[0] if counts[0] else None,
        "score_difference": statistics.fmean(apart) if apart else None,
    }  # fmt: skip


def rows(asked: argparse.Namespace, detector: Detector, size: Size, threads: int, limits: Any) -> list[dict[str, Any]]:
    """One row for each form at one size and number of threads."""
    torch.set_num_threads(threads)
    jpegs = pictures(size, asked.images, asked.count)
    calibration = [decode(jpeg) for jpeg in pictures(size, asked.calibration or asked.images, 64)]
    forms: dict[str, Callable[[bytes], Timed]] = {}
    if asked.peer is not None:
        forms["peer"] = Peer(asked.peer, {name: tensor.clone() for name, tensor in detector.state_dict().items()})
    for name in asked.engines:
        engine, precision = name.split("/")
        forms[name] = ours(start_engine(engine, detector, precision, threads, calibration=calibration))
    times, found = measure(forms, jpegs, asked.repeats, pause=0.02 if threads > 1 else 0.0)
    work = 2 * multiplications(detector, size)
    made = []
    for name, taken in times.items():
        parts = {part: 1e3 * statistics.median(t[part] for t in taken) for part in (*PARTS, "whole", "wall")}
        peak = (limits or {}).get("fp32" if name == "peer" else name.split("/")[1])
        floor = 1e3 * work / peak / 1e9 if peak else None
        ratio = wall_ratio = None
        if "peer" in times:
            ratio = statistics.median(p["whole"] / t["whole"] for p, t in zip(times["peer"], taken, strict=True))
            wall_ratio = statistics.median(p["wall"] / t["wall"] for p, t in zip(times["peer"], taken, strict=True))
        made.append({
            "form": name, "size": list(size), "threads": threads, "images": len(jpegs), "repeats": asked.repeats,
            "milliseconds": parts, "images_per_second_and_core": 1e3 / parts["whole"],
            "times_peer": ratio, "times_peer_wall": wall_ratio, "share_of_boxes": parts["boxes"] / parts["whole"],
            "floor_ms": floor, "share_of_floor": floor / parts["network"] if floor else None,
            "against_torch_fp32": compared(found[name], found[REFERENCE]) if REFERENCE in found else None,
        })  # fmt: skip
    return made


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    peak = result["peak"]
    told = "unknown: no C compiler" if peak is None else ", ".join(f"{k} {v or 0:.0f}" for k, v in peak.items())
    lines = [
        f"FaceBoxes, JPEG bytes to boxes, {result['pictures']}; peak of one core, 10^9 operations a second: {told}",
        "peer: zisianw/FaceBoxes.PyTorch"
        if result["peer"]
        else "no peer: --peer PATH names a checkout, hence no ratios",
        f"{'size':>10} {'threads':>7} {'form':<17}{'jpeg':>7}{'network':>9}{'boxes':>7}{'whole':>8}{'wall':>8} ms"
        f"{'images/s':>9}{'x peer':>8}{'boxes':>7}{'floor':>7}{'again':>8}{'in ref':>8}{'score':>8}",
    ]
    for row in result["rows"]:
        ms, same = row["milliseconds"], row["against_torch_fp32"] or {}
        lines.append(
            f"{'x'.join(map(str, row['size'])):>10} {row['threads']:>7} {row['form']:<17}{ms['jpeg']:>7.2f}"
            f"{ms['network']:>9.2f}{ms['boxes']:>7.2f}{ms['whole']:>8.2f}{ms['wall']:>8.2f}   "
            f"{row['images_per_second_and_core']:>9.0f}{_told(row['times_peer'], '.2f'):>8}"
            f"{row['share_of_boxes']:>7.0%}{_told(row['share_of_floor'], '.0%'):>7}"
            f"{_told(same.get('found_again'), '.1%'):>8}{_told(same.get('in_reference'), '.1%'):>8}"
            f"{_told(same.get('score_difference'), '.4f'):>8}"
        )
    lines.append(
        f"targets at 640x480, one thread: {TARGET_RATIO} times the peer, boxes below {TARGET_SHARE:.0%}; "
        f"aim {AIM} images/s"
    )
    return "\n".join(lines)


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _size(text: str) -> Size:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, help="a checkout of zisianw/FaceBoxes.PyTorch")
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--calibration", type=Path, help="a folder of photographs for int8, by default the images")
    parser.add_argument("--weights", type=Path, help="FaceBoxes weights, by default those published")
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(640, 480), (1024, 1024), (1920, 1080)])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--count", type=int, default=40, help="images of each size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="640x480, one thread, 10 images once")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    if asked.quick:
        asked.sizes, asked.threads, asked.count, asked.repeats = [(640, 480)], [1], 10, 1
    cv2.setNumThreads(1)
    detector = load_detector(asked.weights or PUBLISHED["faceboxes-wider"].file(), "faceboxes").detector
    limits = peaks()
    done = []
    for size in asked.sizes:
        for threads in asked.threads:
            print(f"{size[0]}x{size[1]}, {threads} thread(s) …", file=sys.stderr, flush=True)
            done += rows(asked, detector, size, threads, limits)
    result = {
        "benchmark": "faceboxes", "pictures": str(asked.images.name if asked.images else "made-up pictures"),
        "peer": asked.peer is not None, "peak": limits, "torch": torch.__version__, "opencv": cv2.__version__,
        "processor": platform.processor() or platform.machine(), "rows": done,
    }  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
