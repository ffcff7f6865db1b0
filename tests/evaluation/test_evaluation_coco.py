"""COCO's numbers against pycocotools on random and real sets, and the known scores of its own fake results."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from onestage.evaluation import coco, lay_out
from onestage.evaluation.coco_matching import sides
from onestage.records import Annotations, Detections


class HonestEval(COCOeval):
    """pycocotools with the `ignore` mark of the file kept, where it would overwrite it with iscrowd."""

    def _prepare(self) -> None:
        super()._prepare()
        for truths in self._gts.values():
            for truth in truths:
                truth["ignore"] = truth["iscrowd"] or truth.get("mark", 0)


def oracle(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers of pycocotools, and the same per category (12, K); NaN for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO()
        images.dataset = truth
        images.createIndex()
        judge = HonestEval(images, images.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision, recall = judge.eval["precision"], judge.eval["recall"]  # (T, R, K, A, M), (T, K, A, M)
    rows = [precision[..., 0, 2], precision[:1, ..., 0, 2], precision[5:6, ..., 0, 2]]
    rows += [precision[..., area, 2] for area in (1, 2, 3)]
    rows += [recall[:, None, :, 0, limit] for limit in range(3)]
    rows += [recall[:, None, :, area, 2] for area in (1, 2, 3)]
    per_category = np.array([np.where(row[0, 0] < 0, np.nan, row.mean((0, 1))) for row in rows])
    return np.where(judge.stats < 0, np.nan, judge.stats), per_category


def ours(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    classes = [c["name"] for c in truth["categories"]]
    values = coco.coco(lay_out(*records(truth, results), classes)).values()
    twelve = np.array([values[name, None] for name in coco.SUMMARY])
    return twelve, np.array([[values[name, c] for c in classes] for name in coco.PER_CLASS])


def records(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    label = {c["id"]: k for k, c in enumerate(truth["categories"])}
    rows: dict[int, list[Any]] = {image["id"]: [] for image in truth["images"]}
    found: dict[int, list[Any]] = {}
    for row in truth["annotations"]:
        rows[row["image_id"]].append(row)
    for row in results:
        found.setdefault(row["image_id"], []).append(row)
    truths = {
        i: Annotations(
            xyxy(r), [label[a["category_id"]] for a in r], crowd=[a["iscrowd"] for a in r],
            ignore=[a.get("mark", 0) for a in r], extra={"area": np.array([a["area"] for a in r])},
        )
        for i, r in rows.items()
    }  # fmt: skip
    detections = {
        i: Detections(xyxy(r), [label[a["category_id"]] for a in r], [a["score"] for a in r]) for i, r in found.items()
    }
    return truths, detections


def xyxy(rows: list[dict[str, Any]]) -> np.ndarray:
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def random_set(
    seed: int, images: int = 12, classes: int = 3, decimals: int | None = 2, per_image: int = 25
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A crowded set with crowds, ignored truths, areas of masks, ties of score, duplicates and wrong classes."""
    rng = np.random.default_rng(seed)
    cut = (lambda v: float(v)) if decimals is None else (lambda v: round(float(v), decimals))
    truth: dict[str, Any] = {
        "images": [{"id": int(i)} for i in rng.permutation(images * 3)[:images]],
        "categories": [{"id": 3 * k + 2, "name": f"c{k}"} for k in range(classes)],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 14)):
            w, h = np.exp(rng.uniform(1, 5.3, 2))
            x, y = rng.uniform(0, 150, 2)
            box = [cut(v) for v in (x, y, w, h)]
            category = 3 * int(rng.integers(0, classes)) + 2
            area = cut(box[2] * box[3] * rng.choice([1.0, 0.6]))
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image["id"], "category_id": category, "bbox": box,
                "area": area, "iscrowd": int(rng.random() < 0.12), "mark": int(rng.random() < 0.1),
            })  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) + rng.normal(0, rng.choice([0.0, 0.04, 0.15]), 4) * np.array([w, h, w, h])
                category = category if rng.random() < 0.9 else 2
                results.append(detection(image["id"], category, near, rng, cut))
        for _ in range(rng.integers(0, per_image)):
            near = np.r_[rng.uniform(0, 150, 2), np.exp(rng.uniform(1, 5.3, 2))]
            results.append(detection(image["id"], 3 * int(rng.integers(0, classes)) + 2, near, rng, cut))
    order = rng.permutation(len(results))
    return truth, [results[i] for i in order]


def detection(image: int, category: int, box: np.ndarray, rng: np.random.Generator, cut: Any) -> dict[str, Any]:
    box = np.r_[box[:2], np.maximum(box[2:], 0.5)]
    score = round(float(rng.random()), 1 if rng.random() < 0.5 else 6)
    return {"image_id": image, "category_id": category, "bbox": [cut(v) for v in box], "score": score}


def assert_equal(truth: dict[str, Any], results: list[dict[str, Any]]) -> None:
    for mine, theirs in zip(ours(truth, results), oracle(truth, results), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([0, 1, 2, None]), st.integers(1, 4))
def test_equals_pycocotools_on_random_sets(seed: int, decimals: int | None, classes: int) -> None:
    truth, results = random_set(seed, classes=classes, decimals=decimals)
    if results:
        assert_equal(truth, results)


def test_equals_pycocotools_beyond_100_detections_per_image() -> None:
    truth, results = random_set(5, images=4, classes=2, per_image=700)
    assert max(np.bincount([r["image_id"] for r in results if r["category_id"] == 2])) > 100
    assert_equal(truth, results)


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_where_only_a_few_classes_occur(seed: int) -> None:
    truth, results = random_set(seed, images=5, classes=9)
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] in (2, 8)]
    assert_equal(truth, results)


@pytest.mark.parametrize("first", [0, 4])
def test_of_equally_overlapped_truths_the_last_is_taken(first: int) -> None:
    """The first detection lies midway between two truths; whether the second finds its own free is up to the tie."""
    annotations = [
        {"id": k + 1, "image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], "area": 100, "iscrowd": 0}
        for k, x in enumerate((first, 4 - first))
    ]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "c"}], "annotations": annotations}
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], "score": score} for x, score in ((2, 0.9), (4, 0.8))
    ]
    assert_equal(truth, results)
    assert ours(truth, results)[0][1] == pytest.approx(51 / 101 if first == 0 else 1.0)


def test_known_scores_of_cocos_fake_results(shared: Path) -> None:
    """val2014 fake results of the COCO API; the numbers are those its own tool printed (data/README.md)."""
    folder = shared / "known_scores" / "coco100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    known = {
        "mAP50-95": 0.504581, "mAP50": 0.696973, "mAP75": 0.572982, "APs": 0.585626, "APm": 0.519400, "APl": 0.501398,
        "AR1": 0.386813, "AR10": 0.593680, "AR100": 0.595353, "ARs": 0.639811, "ARm": 0.566421, "ARl": 0.564291,
    }  # fmt: skip
    twelve = dict(zip(coco.SUMMARY, ours(truth, results)[0], strict=True))
    assert {name: round(value, 6) for name, value in twelve.items()} == known
    assert_equal(truth, results)


def test_real_set_in_which_most_is_missing(shared: Path) -> None:
    folder = shared / "known_scores" / "review_odm" / "test_coco_eval"
    truth = json.loads((folder / "gts" / "sampled_gts_bbox_area.json").read_text())
    results = json.loads((folder / "dets" / "sampled_bbox_results.json").read_text())["annotations"]
    assert_equal(truth, results)


def test_crowd_takes_any_number_and_ignored_truth_one() -> None:
    box = np.array([[0, 0, 40, 40.0]])
    twice = Detections(np.repeat(box, 2, 0), [0, 0], [0.9, 0.8])
    plain = Annotations(box + 100, [0])

    def ap(crowd: bool, ignore: bool) -> float:
        both = Annotations(np.r_[box, plain.boxes], [0, 0], crowd=[crowd, False], ignore=[ignore, False])
        hits = Detections(np.r_[twice.boxes, plain.boxes], [0, 0, 0], [0.9, 0.8, 0.7])
        return coco.coco(lay_out({1: both}, {1: hits}, ["c"])).values()["mAP50", None]

    assert ap(crowd=True, ignore=False) == 1.0
    assert ap(crowd=False, ignore=True) == pytest.approx(0.5)  # the second on the ignored truth is false


def test_sides_are_those_of_the_file() -> None:
    x, w = 0.1 + np.arange(1000) * 0.37, np.round(np.arange(1000) * 0.13 + 0.01, 2)
    boxes = np.stack([x, x, x + w, x + w], axis=1)
    width, height = sides(boxes)
    np.testing.assert_array_equal(width, w)
    np.testing.assert_array_equal(height, w)
    assert (boxes[:, 2] - boxes[:, 0] != w).any()
    assert sides(np.zeros((0, 4)))[0].shape == (0,)
