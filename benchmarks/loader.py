"""Images per second and core of the loader, beside a float-first pipeline in the order of lufficc/SSD.

    python benchmarks/loader.py [--images FOLDER] [--count 96] [--rounds 5] [--json FILE]

Every row does the whole way of a training image: decode a 500x375 JPEG, draw the IoU crop, change the colours, resize
to 300x300, subtract the mean as float32. "cached" starts from decoded pixels. No row parses annotations or matches
priors. The time is that of the process (all its threads) with OpenCV held to one thread, so other load on the machine
counts little; rounds of all rows alternate, the median counts.

The peer is written here after the order of steps in lufficc/SSD (ssd/data/transforms), not its code: float32 first,
colours at full size, the enlarged canvas made in full, crops tried one by one, mirror, resize, mean. It decodes with
OpenCV where the original takes Pillow, which favours it slightly. Both draw alike, except that ours also tries IoU
.5, turns the hue further, and works on uint8 after resizing, so the pixels differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.images import decode
from onestage.data.loader import Loader
from onestage.records import Annotations, ImageInfo

SIZE = (300, 300)
MEAN = np.array([123, 117, 104], np.float32)
PEER, PEER_CACHED = "float-first, lufficc order", "float-first, cached"


def main() -> None:
    """Measures, prints the table, writes JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of photographs to scale to 500x375; default: synthetic")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), options.count, options.images)
        kilobytes = statistics.mean(info.path.stat().st_size for info in dataset.images) / 1000
        rates = measure(rows(dataset), len(dataset), options.rounds)
    result = {
        "images": len(dataset), "kilobytes": round(kilobytes, 1), "source": str(options.images or "synthetic"),
        "python": sys.version.split()[0], "opencv": cv2.__version__, "numpy": np.__version__, "cores": os.cpu_count(),
        "images_per_cpu_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": {"ssd": round(rates["ssd"] / rates[PEER], 2),
                  "ssd, cached": round(rates["ssd, cached"] / rates[PEER_CACHED], 2)},
    }  # fmt: skip
    print(f"{len(dataset)} JPEGs of 500x375, {kilobytes:.0f} kB each on average; one thread")
    for name, rate in rates.items():
        print(f"{name:28s}{rate:8.0f} images/s{1e3 / rate:8.2f} ms")
    print(f"ssd is {result['ratio']['ssd']} times the peer, cached {result['ratio']['ssd, cached']} times")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def rows(dataset: Dataset) -> dict[str, Callable[[int], object]]:
    """What is measured: name and a function that works through the whole set once, given the number of the round."""

    def ours(policy: str, cache: bool) -> Callable[[int], object]:
        loader = Loader(dataset, SIZE, policy, batch=8, prefetch=0, cache=cache)

        def once(epoch: int) -> None:
            for batch in loader.epoch(epoch):
                for image in batch.images.transpose(0, 2, 3, 1):
                    cv2.subtract(image, (123.0, 117.0, 104.0, 0.0), dtype=cv2.CV_32F)

        return once

    decoded = [decode(info.path) for info in dataset.images]
    boxes = [dataset.annotations[info.id].boxes for info in dataset.images]

    def peer(cached: bool) -> Callable[[int], object]:
        def once(epoch: int) -> None:
            rng = np.random.default_rng(epoch)
            for i, info in enumerate(dataset.images):
                image = decoded[i] if cached else cv2.imread(str(info.path), cv2.IMREAD_COLOR_RGB)
                float_first(image, boxes[i], rng)

        return once

    return {
        "ssd": ours("ssd", False), "ssd, cached": ours("ssd", True), PEER: peer(False), PEER_CACHED: peer(True),
        "none": ours("none", False), "none, cached": ours("none", True),
        "zoom": ours("zoom", False), "zoom, cached": ours("zoom", True),
        "mosaic": ours("mosaic", False), "mosaic, cached": ours("mosaic", True),
    }  # fmt: skip


def measure(functions: dict[str, Callable[[int], object]], images: int, rounds: int) -> dict[str, float]:
    """Images per second of process time: the median over the rounds, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            before = time.process_time()
            function(number)
            times[name].append(time.process_time() - before)
    return {name: images / statistics.median(taken[1:]) for name, taken in times.items()}


def make_dataset(folder: Path, count: int, photographs: Path | None) -> Dataset:
    """JPEGs of 500x375 with one to five boxes each, as in VOC."""
    rng = np.random.default_rng(0)
    found = sorted(path for path in (photographs or folder).rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    infos, annotations = [], {}
    for i in range(count):
        if found:
            image = cv2.resize(decode(found[i % len(found)]), (500, 375), interpolation=cv2.INTER_AREA)
        else:
            image = synthetic(rng)
        path = folder / f"{i:06d}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
        number = int(rng.integers(1, 6))
        corner, share = rng.random((number, 2)), rng.uniform(0.1, 0.8, (number, 2))
        start = corner * (1 - share) * (500, 375)
        boxes = np.concatenate([start, start + share * (500, 375)], 1)
        infos.append(ImageInfo(i, path, 500, 375))
        annotations[i] = Annotations(boxes, rng.integers(0, 20, number))
    return Dataset(folder, "synthetic", "train", tuple(map(str, range(20))), tuple(infos), annotations)


def synthetic(rng: np.random.Generator) -> np.ndarray:
    """A picture whose detail falls off with frequency as in photographs, with a few sharp-edged patches."""
    image = np.zeros((375, 500, 3), np.float32)
    for octave in range(8):
        grid = rng.normal(size=(3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        image += cv2.resize(grid, (500, 375), interpolation=cv2.INTER_CUBIC) * 40 / 1.7**octave
    image += rng.normal(120, 9, image.shape)
    for _ in range(12):
        x, y = int(rng.integers(450)), int(rng.integers(330))
        w, h = rng.integers(10, 150, 2).tolist()
        image[y : y + h, x : x + w] += rng.normal(size=3) * 40
    return np.clip(image, 0, 255).astype(np.uint8)


def float_first(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The peer: a training image of SSD step by step, each step a pass over float32 at full size."""
    image = peer_colours(image.astype(np.float32), rng)
    image, boxes = peer_expand(image, boxes, rng)
    image, boxes = peer_crop(image, boxes, rng)
    if rng.random() < 0.5:
        width = image.shape[1]
        image = image[:, ::-1]
        boxes = boxes.copy()
        boxes[:, 0::2] = width - boxes[:, 2::-2]
    return cv2.resize(image, SIZE).astype(np.float32) - MEAN


def peer_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, contrast, channel order."""
    contrast, first = rng.random() < 0.5, rng.random() < 0.5
    if rng.random() < 0.5:
        image += rng.uniform(-32, 32)
    if contrast and first:
        image *= rng.uniform(0.5, 1.5)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    if rng.random() < 0.5:
        image[:, :, 1] *= rng.uniform(0.5, 1.5)
    if rng.random() < 0.5:
        hue = image[:, :, 0]
        hue += rng.uniform(-18, 18)
        hue[hue > 360] -= 360
        hue[hue < 0] += 360
    image = cv2.cvtColor(image, cv2.COLOR_HSV2RGB)
    if contrast and not first:
        image *= rng.uniform(0.5, 1.5)
    return image[:, :, rng.permutation(3)] if rng.random() < 0.5 else image


def peer_expand(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image on a canvas of up to four times its sides, made in full."""
    if rng.random() < 0.5:
        return image, boxes
    height, width = image.shape[:2]
    ratio = rng.uniform(1, 4)
    left, top = int(rng.uniform(0, width * ratio - width)), int(rng.uniform(0, height * ratio - height))
    canvas = np.zeros((int(height * ratio), int(width * ratio), 3), np.float32)
    canvas[:] = MEAN
    canvas[top : top + height, left : left + width] = image
    return canvas, boxes + np.array([left, top, left, top])


def peer_crop(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop under one of six conditions, tried one at a time."""
    height, width = image.shape[:2]
    while True:
        least = (None, 0.1, 0.3, 0.7, 0.9, 0.0)[rng.integers(6)]
        if least is None:
            return image, boxes
        for _ in range(50):
            w, h = rng.uniform(0.3 * width, width), rng.uniform(0.3 * height, height)
            if not 0.5 <= h / w <= 2:
                continue
            left, top = int(rng.uniform(0, width - w)), int(rng.uniform(0, height - h))
            rect = np.array([left, top, left + int(w), top + int(h)])
            inner = np.clip(np.minimum(boxes[:, 2:], rect[2:]) - np.maximum(boxes[:, :2], rect[:2]), 0, None).prod(1)
            union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (rect[2:] - rect[:2]).prod() - inner
            if (inner / union).max() < least:
                continue
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            kept = ((centres > rect[:2]) & (centres < rect[2:])).all(1)
            if not kept.any():
                continue
            boxes = np.clip(boxes[kept], np.tile(rect[:2], 2), np.tile(rect[2:], 2)) - np.tile(rect[:2], 2)
            return image[rect[1] : rect[3], rect[0] : rect[2]], boxes


if __name__ == "__main__":
    main()
