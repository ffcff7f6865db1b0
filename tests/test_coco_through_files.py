"""COCO JSON of odd kinds gives pycocotools' twelve numbers, of each class too, from file to metrics."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from onestage.analysis.judging import JudgedFile, judge_detections
from onestage.evaluation.coco import PER_CLASS, SUMMARY

Json = dict[str, Any]
KINDS: dict[str, Json] = {
    "equal scores": {"tied": True}, "crowds": {"tied": True, "crowd": 0.4}, "odd boxes": {"odd": True},
    "areas of masks": {"area": True}, "sides of 32 and 96": {"exact": True, "noise": 0.0},
    "ignore flags": {"ignore": True}, "twice": {"twice": True, "tied": True},
    "ids with gaps": {"classes": [5, 1000, 2**40, 77]}, "a class without truth": {"absent": True},
    "large ids": {"ids": [2**53 + 1, 2**40, 10**12, 5, 3, 10**15, 999999999999, 17]},
    "named images": {"ids": ["b", "a", "10", "9", "x/1", "Z", "ä"]}, "any scores": {"extreme": True},
    "empty images": {"empty": True}, "800 detections of a class": {"ids": [2, 1], "false": 3000, "tied": True},
    "id 0": {"first": 0, "noise": 1.0, "ids": [4, 2]}, "one image": {"ids": [7]},
}  # fmt: skip


def random_set(random: RandomState, kind: Json) -> tuple[Json, list[Json]]:
    """A truth and detections of a kind; both in no order."""
    classes, ids = kind.get("classes", [1, 3, 7, 90]), kind.get("ids", random.permutation(9).tolist())
    truths: list[Json] = []
    found: list[Json] = []

    def score() -> float:
        if kind.get("extreme"):
            return float(random.choice([-1, 1]) * 10 ** random.uniform(-30, 6))
        return random.randint(0, 6) / 5 if kind.get("tied") else float(random.rand())

    def put(image: int | str, category: int, box: Any) -> None:
        box = [round(float(side), 2) for side in box]
        found.append({"image_id": image, "category_id": category, "bbox": box, "score": score()})

    for image in ids:
        for _ in range(0 if kind.get("empty") and random.rand() < 0.3 else random.randint(1, 12)):
            category = int(random.choice(classes[: len(classes) - bool(kind.get("absent"))]))
            box = [*random.uniform(-20, 500, 2).round(1).tolist(), *np.exp(random.uniform(1, 5.5, 2)).round(2).tolist()]
            if kind.get("exact"):
                box[2] = box[3] = float(random.choice([32, 96]))
            if kind.get("odd") and random.rand() < 0.3:
                box[2 + random.randint(2)] *= random.choice([0.0, -1.0])
            mask = random.uniform(0.3, 1.3) if kind.get("area") else 1.0
            row = {"id": len(truths) + kind.get("first", 1), "image_id": image, "category_id": category, "bbox": box,
                   "area": box[2] * box[3] * mask, "iscrowd": int(random.rand() < kind.get("crowd", 0.1))}  # fmt: skip
            if kind.get("ignore") and random.rand() < 0.3:
                row["ignore"] = 1
            truths.append(row)
            if kind.get("twice") and random.rand() < 0.3:
                truths.append(row | {"id": row["id"] + 1})
            for _ in range(random.randint(0, 4)):
                moved = np.array(box) + random.normal(0, 1, 4) * kind.get("noise", 4.0)
                put(image, category, [*moved[:2], *np.maximum(moved[2:], 0)])
        for _ in range(kind.get("false", 3)):
            put(image, int(random.choice(classes)), [*random.uniform(0, 400, 2), *random.uniform(1, 200, 2)])
    named = [{"id": category, "name": f"class {category}"} for category in classes]
    images = [{"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480} for image in ids]
    order = random.permutation(len(found))
    return {"images": images, "annotations": truths, "categories": named}, [found[i] for i in order]


def official(truth: Path, found: Path) -> tuple[list[float], dict[str, list[float]]]:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        judge = COCOeval(known, known.loadRes(str(found)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision, recall = judge.eval["precision"], judge.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    per_class = {}
    for k, category in enumerate(judge.params.catIds):
        parts = [precision[:, :, k, 0, 2], precision[0, :, k, 0, 2], precision[5, :, k, 0, 2]]
        parts += [precision[:, :, k, area, 2] for area in (1, 2, 3)] + [recall[:, k, 0, limit] for limit in range(3)]
        parts += [recall[:, k, area, 2] for area in (1, 2, 3)]
        per_class[known.cats[category]["name"]] = [mean(part) for part in parts]
    return [float(value) for value in judge.stats], per_class


def compared(folder: Path, truth: Json, found: list[Json]) -> JudgedFile:
    paths = folder / "instances_val.json", folder / "found.json"
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(json.dumps(content))
    judged = judge_detections(paths[1], paths[0], protocols=["coco"], intervals=False)
    summary, per_class = official(*paths)
    metrics = judged.evaluation.metrics
    ours = np.nan_to_num([metrics.value(name, "coco") for name in SUMMARY], nan=-1)
    np.testing.assert_allclose(ours, summary, rtol=0, atol=1e-12)
    for name, expected in per_class.items():
        ours = np.nan_to_num([metrics.value(row, "coco", name) for row in PER_CLASS], nan=-1)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=name)
    return judged


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_those_of_pycocotools(tmp_path: Path, name: str) -> None:
    for seed in range(3):
        compared(tmp_path, *random_set(RandomState(seed), KINDS[name]))


def test_an_annotation_with_id_0_is_told(tmp_path: Path) -> None:
    judged = compared(tmp_path, *random_set(RandomState(0), {"first": 0, "noise": 0.0, "crowd": 0}))
    assert any("id 0" in note for note in judged.evaluation.notes)
    assert judged.evaluation.metrics.value("mAP50", "coco") < 1


def test_repeated_annotation_ids_are_listed(tmp_path: Path) -> None:
    truth, found = random_set(RandomState(0), {})
    truth["annotations"][3]["id"] = truth["annotations"][2]["id"]
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    judged = judge_detections(tmp_path / "found.json", tmp_path / "instances_val.json", protocols=["coco"])
    assert "repeated-id" in [finding.code for finding in judged.dataset.findings]


def test_ids_written_as_decimals_are_whole_numbers(tmp_path: Path) -> None:
    truth, found = random_set(RandomState(0), {})
    for row in found:
        row |= {"image_id": float(row["image_id"]), "category_id": float(row["category_id"])}
    compared(tmp_path, truth, found)
