"""Faces without area, planted in WIDER FACE's txt and past its reader: each is named, and training stays finite."""

from __future__ import annotations

import math
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from onestage.models import build
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.devices.machine import engine
from onestage.training.fit import fit
from onestage.training.loop.loop import Loop
from onestage.training.recipe import Guard
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Leg
from onestage.training.recorder import Recorder

SIDE = 128
PLACES = 50
SOUND = (30.0, 40.0, 66.0, 76.0)
Placed = tuple[str, int, tuple[float, ...]]


def wrong(chance: random.Random, kind: int) -> tuple[int, int, int, int]:
    """x, y, width, height of a face of no width, of no height, or turned round."""
    x, y, side = chance.randrange(20, 90), chance.randrange(20, 90), chance.randrange(3, 15)
    return x, y, *((0, side), (side, 0), (-side, side), (side, -side), (0, 0))[kind % 5]


def wider(folder: Path, images: int, planted: int) -> set[tuple[int, str, tuple[float, ...]]]:
    """A WIDER FACE folder with faces without area at random rows; their lines, images and corners."""
    chance, places = random.Random(3), set()
    for part, names in (("train", images), ("val", 2)):
        at = [chance.randrange(names) for _ in range(planted if part == "train" else 0)]
        lines: list[str] = []
        for number in range(names):
            stem = f"0_{part}_{number}"
            path = folder / f"WIDER_{part}" / "images" / "0--Parade" / f"{stem}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
            rows = [
                (30, 40, 36, 36),
                (70, 20, 40, 44),
                *(wrong(chance, kind) for kind, one in enumerate(at) if one == number),
            ]
            chance.shuffle(rows)
            lines += [f"0--Parade/{stem}.jpg", str(len(rows))]
            for x, y, width, height in rows:
                lines.append(f"{x} {y} {width} {height} 0 0 0 0 0 0 ")
                if width <= 0 or height <= 0:
                    places.add((len(lines), f"0--Parade/{stem}", (x, y, x + width, y + height)))
        split = folder / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
        split.parent.mkdir(exist_ok=True)
        split.write_text("\n".join(lines) + "\n")
    return places


def test_each_face_without_area_in_the_file_is_named_and_the_loss_stays_finite(tmp_path: Path) -> None:
    places = wider(tmp_path / "data", 12, PLACES)
    run = fit(
        {"data": str(tmp_path / "data"), "model": "faceboxes", "size": SIDE, "batch": 4, "epochs": 1, "weights": None,
         "precision": "fp32", "device": "cpu", "validation.protocols": ["voc10"]}, root=tmp_path / "runs",
    )  # fmt: skip
    told = [row["where"] for row in run.findings if row["code"] == "degenerate-face"]
    assert len(places) == len(told) == PLACES
    assert {(where["line"], where["image"], tuple(where["box"])) for where in told} == places
    assert {Path(where["file"]).name for where in told} == {"wider_face_train_bbx_gt.txt"}
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in run.steps)
    assert run.incidents == []


def batches(chance: random.Random) -> tuple[list[Batch], set[Placed]]:
    """Eight batches of eight images with wrong faces at PLACES places, some images with several; and a sound batch."""
    boxes = {(step, image): [SOUND] for step in range(9) for image in range(8)}
    for kind in range(PLACES):
        x, y, width, height = wrong(chance, kind)
        rows = boxes[chance.randrange(8), chance.randrange(8)]
        rows.insert(chance.randrange(len(rows) + 1), (x, y, x + width, y + height))
    made, places = [], set()
    for step in range(9):
        ids = [f"{step}-{image}" for image in range(8)]
        truths = [
            Annotations(np.array(boxes[step, image], float), np.zeros(len(boxes[step, image]), int))
            for image in range(8)
        ]
        pixels = np.random.default_rng(step).integers(0, 256, (8, 3, SIDE, SIDE), np.uint8)
        made.append(Batch(pixels, truths, [ImageTransform()] * 8, ids, list(range(8))))
        places |= {
            (name, row, tuple(box)) for name, truth in zip(ids, truths, strict=True)
            for row, box in enumerate(truth.boxes.tolist()) if box[2] <= box[0] or box[3] <= box[1]
        }  # fmt: skip
    return made, places


@pytest.mark.parametrize("seed", range(3))
def test_each_face_without_area_that_gets_past_the_reader_is_named(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    steps, places = batches(random.Random(seed))
    recorder = Recorder(
        Guard(nan="skip", most=100), folder=tmp_path, file_of=lambda image: f"photos/{image}.jpg", classes=("face",)
    )
    loop = Loop(engine("cpu", "fp32"), build("faceboxes", 1, (SIDE, SIDE)), weights={}, observer=recorder)
    loop.enter(Leg(0, "all", 0, 1, 0, 9, (), Optimiser(name="sgd"), Schedule(name="constant", warmup=0), 0.0))
    rows = list(loop.epoch(0, iter(steps), 8))
    named = [cause for incident in recorder.incidents for cause in incident.diagnosis.causes]
    assert {(cause.image, cause.row, cause.box) for cause in named} == places
    assert len(named) == len(places) == PLACES
    assert all(cause.file == f"photos/{cause.image}.jpg" and cause.code == "broken-box" for cause in named)
    evidence = [(finding.where, finding.evidence.get("also", [])) for finding in recorder.take_findings()]
    in_findings = {where.image for where, _ in evidence} | {other["image"] for _, also in evidence for other in also}
    assert in_findings == {image for image, _, _ in places}
    assert [bool(row.extra.get("skipped")) for row in rows] == [True] * 8 + [False]
    assert math.isfinite(rows[-1].loss)
    assert len(list(tmp_path.glob("step-*.json"))) == 8


def test_a_batch_of_very_many_is_named_whole_though_the_error_stays_short() -> None:
    boxes = np.array([(10.0 + row % 7, 20.0, 10.0 + row % 7, 40.0) for row in range(300)])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    truths = [Annotations(boxes, np.zeros(300, int)), Annotations(np.array([SOUND]), np.zeros(1, int))]
    batch = Batch(pixels, truths, [ImageTransform()] * 2, ["crowd", "one"], [0, 1])
    recorder = Recorder(Guard(nan="skip", most=2), classes=("face",))
    loop = Loop(engine("cpu", "fp32"), build("faceboxes", 1, (SIDE, SIDE)), weights={}, observer=recorder)
    loop.enter(Leg(0, "all", 0, 1, 0, 9, (), Optimiser(name="sgd"), Schedule(name="constant", warmup=0), 0.0))
    list(loop.epoch(0, iter([batch]), 2))
    incident = recorder.incidents[0]
    assert [cause.row for cause in incident.diagnosis.causes if cause.row is not None] == list(range(300))
    assert len(incident.error().problems) < 30
    assert any("279 more" in problem for problem in incident.error().problems)
