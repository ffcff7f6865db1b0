"""YOLOv3 and YOLOv3-tiny: one image's network, JPEG bytes to boxes, and a training step, beside other programs.

    python benchmarks/yolo.py [--peer CHECKOUT] [--darknet NAME=BINARY …] [--models yolov3-tiny yolov3] [--threads 1 2]
        [--weights yolov3-tiny=FILE …] [--images FOLDER] [--engines openvino/bf16 …] [--parts network jpeg train cuda]
        [--repeats 10] [--size 416] [--quick] [--json FILE]

The peer is a checkout of eriklindernoren/PyTorch-YOLOv3, in eager float32; without one the same network is built of
plain torch modules as that program does, and told so. Each BINARY is a darknet, whose own timer is taken: wall time of
its network alone; under CPU stands what its process took, pictures read and written included. All forms have equal
weights and take turns.

network: from pixels to all boxes and scores. Ours begins with bytes, the peer with floats that are there already.
jpeg: from the bytes of a JPEG file to the boxes kept, scores from 0.25, overlap 0.45.
train: a step of the first of the models at batch 8, forward, loss, backward and SGD: the loop's form here (channels
last, bfloat16, fused optimiser, freed memory kept) beside the same model and loss in eager float32, contiguous, and
beside the peer's own network and loss; darknet's own timer again.
cuda: network and step on a GPU, wall time; left out, and told so, where there is none.

CPU time of the process is counted, medians; x is the median of the ratios turn by turn. The floor is the time the
multiplications take at the peak of one core (peak.py). Networks without --weights are untrained, their norms set to
noise and stripes; yolov3-tiny has those published for COCO where they can be fetched.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceboxes import multiplications, pictures
from onestage.boxes.selection import Selection, select_in_image
from onestage.data.images import decode, fit
from onestage.deploy.engines import ENGINES, start_engine
from onestage.deploy.engines.engine import Engine
from onestage.deploy.engines.parity import made_up
from onestage.errors import OnestageError
from onestage.models import build
from onestage.models.darknet.detector import Darknet
from onestage.models.published import PUBLISHED
from onestage.models.weights import load_detector
from peak import peaks
from yolo_darknet import SCORE, DarknetBinary, darknet_rows, mapping_of
from yolo_peers import OVERLAP, Peer
from yolo_train import cuda_rows, train_rows

FORMS = [f"{engine}/{precision}" for engine, (_, precisions) in ENGINES.items() for precision in precisions]
SELECTION = Selection(SCORE, OVERLAP, 400, 300)
TARGETS = {"yolov3-tiny": 5.0, "yolov3": 3.0}
PARTS = ("network", "jpeg", "train", "cuda")
Row = dict[str, Any]


def detector_of(name: str, size: int, weights: Path | None) -> tuple[Darknet, str]:
    """The detector, and where its weights are from."""
    if weights is None and f"{name}-coco" in PUBLISHED:
        try:
            weights = PUBLISHED[f"{name}-coco"].file()
        except OnestageError as error:
            print(f"{name}-coco cannot be fetched ({error.message}): untrained weights", file=sys.stderr)
    if weights is not None:
        found = load_detector(weights, name).detector
        assert isinstance(found, Darknet)
        found.resized((size, size))
        return found.eval(), weights.name
    torch.manual_seed(0)
    made = build(name, 80, (size, size))
    assert isinstance(made, Darknet)
    norms = [module for module in made.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, size, size), np.uint8)
    images = np.concatenate([noise, made_up((size, size))])
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        for weight in made.parts()["heads"].parameters():
            weight *= 0.1  # its answers differ little, as engines are checked by how they differ
        made.train()(torch.from_numpy(images))
    for norm in norms:
        norm.momentum = 0.01
    return made.eval(), "untrained"


def ours(engine: Engine) -> Callable[[bytes], dict[str, float]]:
    """The path of `predict` for one image, with the CPU seconds of its parts."""

    def path(jpeg: bytes) -> dict[str, float]:
        begin = time.process_time()
        image = decode(jpeg)
        decoded = time.process_time()
        shown, transform = fit(image, engine_size, "letterbox")
        network = time.process_time()
        [(boxes, scores)] = engine.candidates(shown[None].transpose(0, 3, 1, 2), SELECTION.score)
        answered = time.process_time()
        select_in_image(boxes, scores, SELECTION, transform, image.shape[1], image.shape[0])
        rest = time.process_time() - answered
        return {"jpeg": decoded - begin, "network": answered - decoded, "boxes": rest, "resize": network - decoded}

    engine_size = (engine.shown, engine.shown)  # type: ignore[attr-defined]
    return path


def timed(
    forms: dict[str, Callable[[], Any]], turns: int, pause: float, warm: int = 6
) -> dict[str, list[dict[str, float]]]:
    """CPU and wall seconds of each form, turn by turn; what a form gives as a dict of parts is kept."""
    for form in forms.values():
        for _ in range(warm):  # programs for this size, caches
            form()
    times: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
    for _ in range(turns):
        for name, form in forms.items():
            time.sleep(pause)  # threads of the form before wait in a loop for a while
            wall, cpu = time.perf_counter(), time.process_time()
            said = form()
            taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            parts = {key: value for key, value in said.items() if key != "resize"} if isinstance(said, dict) else {}
            times[name].append({**taken, **parts})
    return times


def rows_of(
    part: str, model: str, threads: int, times: dict[str, list[dict[str, float]]], work: float, limits: Any
) -> list[Row]:
    """One row for each form; the first of them is the peer."""
    first = next(iter(times.values()))
    made = []
    for name, taken in times.items():
        _, _, precision = name.partition("/")
        peak = (limits or {}).get(precision or "fp32")
        floor = 1e3 * work / peak / 1e9 if peak else None
        ms = {key: 1e3 * statistics.median(t[key] for t in taken) for key in taken[0]}
        made.append({
            "part": part, "model": model, "form": name, "threads": threads, "turns": len(taken), "milliseconds": ms,
            "times_peer": statistics.median(p["cpu"] / t["cpu"] for p, t in zip(first, taken, strict=True)),
            "times_peer_wall": statistics.median(p["wall"] / t["wall"] for p, t in zip(first, taken, strict=True)),
            "floor_ms": floor, "share_of_floor": floor / ms["cpu"] if floor and part == "network" else None,
        })  # fmt: skip
    return made


def model_rows(asked: argparse.Namespace, detector: Darknet, name: str, threads: int, limits: Any) -> list[Row]:
    """The parts "network" and "jpeg" of one model at one number of threads."""
    torch.set_num_threads(threads)
    size = (asked.size, asked.size)
    peer = Peer(detector, asked.peer)
    calibration = [decode(jpeg) for jpeg in pictures(size, asked.images, 16)]
    engines = {}
    for form in asked.engines:
        engine, precision = form.split("/")
        engines[form] = start_engine(engine, detector, precision, threads, calibration=calibration)
        engines[form].shown = asked.size  # type: ignore[attr-defined]
    jpegs = pictures((640, 480), asked.images, 8)
    work = 2 * multiplications(detector, size)
    binaries = {word: DarknetBinary(path, detector, jpegs, threads) for word, path in mapping_of(asked.darknet).items()}
    pause = 0.02 if threads > 1 else 0.0
    turns = asked.repeats if name.endswith("tiny") else max(asked.repeats // 3, 3)
    made: list[Row] = []
    if "network" in asked.parts:
        pixels = np.stack([calibration[0]])
        floats = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).contiguous().float() / 255
        forms: dict[str, Callable[[], Any]] = {peer.name: lambda: peer.forward(floats)}
        forms |= {form: _whole(engine, pixels.transpose(0, 3, 1, 2)) for form, engine in engines.items()}
        made += rows_of("network", name, threads, timed(forms, turns, pause), work, limits)
    if binaries:
        made += darknet_rows(name, threads, binaries, made, max(turns // 3, 2))
    if "jpeg" in asked.parts:
        paths = {peer.name: peer.path} | {form: ours(engine) for form, engine in engines.items()}
        forms = {form: _in_turn(path, jpegs) for form, path in paths.items()}
        made += rows_of("jpeg", name, threads, timed(forms, turns, pause, 2), work, limits)
    return made


def _whole(engine: Engine, images: NDArray[np.uint8]) -> Callable[[], Any]:
    return lambda: engine(images)


def _in_turn(path: Callable[[bytes], Any], jpegs: Sequence[bytes]) -> Callable[[], Any]:
    state = iter(range(10**9))
    return lambda: path(jpegs[next(state) % len(jpegs)])


def table(result: Row) -> str:
    """The result for people."""
    peak = result["peak"]
    told = "unknown: no C compiler" if peak is None else ", ".join(f"{k} {v or 0:.0f}" for k, v in peak.items())
    lines = [
        f"{result['size']}x{result['size']}, one image, {result['pictures']}; weights: "
        + ", ".join(f"{name} {of}" for name, of in result["weights"].items()),
        f"peer: {result['peer']}; peak of one core, 10^9 operations a second: {told}",
        f"{'part':<10}{'model':<13}{'threads':>7} {'form':<29}{'CPU':>9}{'wall':>9} ms{'x':>7}{'x wall':>8}"
        f"{'floor':>7}",
    ]
    for row in result["rows"]:
        ms = row["milliseconds"]
        more = "  ".join(f"{key} {ms[key]:.1f}" for key in ms if key not in ("cpu", "wall"))
        if "ours_times_quicker" in row:
            more = "ours: " + ", ".join(f"{key} {value:.1f}x" for key, value in row["ours_times_quicker"].items())
        cells = [
            f"{row['part']:<10}{row['model']:<13}{row['threads'] or '-':>7} {row['form']:<29}",
            f"{_told(ms.get('cpu'), '.1f'):>9}{_told(ms.get('wall'), '.1f'):>9}   ",
            f"{_told(row.get('times_peer'), '.2f'):>7}{_told(row.get('times_peer_wall'), '.2f'):>8}",
            f"{_told(row.get('share_of_floor'), '.0%'):>7}  {more}",
        ]
        lines.append("".join(cells).rstrip())
    aims = ", ".join(f"{name} {value:g} times the peer" for name, value in TARGETS.items())
    return "\n".join([*lines, *result["left_out"], f"targets at 416, one thread: {aims}; step 2.6 times fp32 eager; "
                      "ten times each darknet for yolov3"])  # fmt: skip


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, help="a checkout of eriklindernoren/PyTorch-YOLOv3")
    parser.add_argument("--darknet", nargs="+", default=[], metavar="NAME=BINARY", help="darknets that are built")
    parser.add_argument("--models", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--weights", nargs="+", default=[], metavar="MODEL=FILE")
    parser.add_argument("--images", type=Path, help="a folder of photographs; by default pictures are made up")
    parser.add_argument("--engines", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--repeats", type=int, default=15, help="turns of the tiny network; a third of it for the other"
    )
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--quick", action="store_true", help="the first model, one thread, 3 turns")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    if asked.quick:
        asked.models, asked.threads, asked.repeats = asked.models[:1], [1], 3
    return asked


def main() -> None:
    asked = arguments()
    cv2.setNumThreads(1)
    limits = peaks()
    weights = mapping_of(asked.weights)
    made: list[Row] = []
    left_out: list[str] = []
    sources = {}
    for name in asked.models:
        detector, sources[name] = detector_of(name, asked.size, weights.get(name))
        for threads in asked.threads:
            print(f"{name}, {threads} thread(s) …", file=sys.stderr, flush=True)
            if {"network", "jpeg"} & set(asked.parts):
                made += model_rows(asked, detector, name, threads, limits)
            if "train" in asked.parts and name == asked.models[0]:
                made += train_rows(detector, name, threads, asked, limits)
        if "cuda" in asked.parts and torch.cuda.is_available():
            made += cuda_rows(detector, name, asked)
    if "cuda" in asked.parts and not torch.cuda.is_available():
        left_out.append("cuda: torch finds no GPU here, its rows are left out")
    result = {
        "benchmark": "yolo", "size": asked.size, "peak": limits, "weights": sources,
        "pictures": asked.images.name if asked.images else "made-up pictures",
        "peer": f"PyTorch-YOLOv3 of {asked.peer.name}, eager fp32" if asked.peer else
        "the network of plain torch modules as eriklindernoren/PyTorch-YOLOv3 builds it, eager fp32 (no --peer)",
        "torch": torch.__version__, "processor": platform.processor() or platform.machine(), "rows": made,
        "left_out": left_out,
    }  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
