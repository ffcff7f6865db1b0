"""darknet's mAP against what the program printed, a plain loop over its rules, and repeated images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.boxes.geometry import iou
from onestage.evaluation import PROTOCOLS, evaluate, lay_out
from onestage.evaluation.darknet import darknet
from onestage.evaluation.pool import Pool
from onestage.records import Annotations, Detections

GOLDEN = Path(__file__).parents[1] / "golden" / "darknet"
Truths = dict[int | str, Annotations]
Found = dict[int | str, Detections]


def rows(lines: list[str], width: int) -> np.ndarray:
    """Numbers as darknet's fscanf reads them: single precision."""
    return np.array([[np.float32(word) for word in line.split()] for line in lines], float).reshape(-1, width)


def pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.c_[boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2] * np.array([*size, *size])


def golden_image(truth: list[str], difficult: list[str], found: list[str], size: tuple[int, int]) -> Any:
    t, d = rows(truth + difficult, 5), rows(found, 6)
    flag = np.arange(len(t)) >= len(truth)
    return (
        Annotations(pixels(t[:, 1:], size), t[:, 0].astype(int), difficult=flag),
        Detections(pixels(d[:, 2:], size), d[:, 0].astype(int), d[:, 1], {"row": np.arange(len(d))}),
    )


def agrees(pool: Pool, printed: dict[str, list[str]], exact: bool = True) -> None:
    for points, lines in printed.items():
        judged = darknet(pool, int(points))
        values = judged.values()
        said = "\n".join(lines)
        classes = re.findall(r"full: class (\d+) ap (\S+) tp (\d+) fp (\d+)", said)
        assert len(classes) == len(pool.classes)
        for k, ap, tp, fp in classes:
            name = pool.classes[int(k)]
            assert values["AP50", name] == pytest.approx(float(ap), abs=1e-13)
            assert (values["TP", name], values["FP", name]) == (int(tp), int(fp))
        overall = re.search(r"full: mAP (\S+) precision (\S+) recall (\S+) F1 (\S+) iou (\S+)", said)
        assert overall is not None
        for name, value in zip(("mAP50", "precision", "recall", "F1", "IoU"), overall.groups(), strict=True):
            within = 1e-13 if name == "mAP50" else 1e-6
            assert values[name, None] == pytest.approx(float(value), abs=within, nan_ok=True)
        counts = re.search(r"TP = (\d+), FP = (\d+), FN = (\d+), average IoU = (\S+) %", said)
        assert counts is not None
        assert [values[name, None] for name in ("TP", "FP", "FN")] == [int(n) for n in counts.groups()[:3]]
        assert f"{100 * values['IoU', None]:.2f}" == counts[4]
        assert f"(mAP@0.50) = {values['mAP50', None]:.6f}" in said
        detections, truths = map(int, re.findall(r"detections_count = (\d+), unique_truth_count = (\d+)", said)[0])
        assert truths == judged.count(("mAP50", None))
        assert detections == sum(int(ranking.counted.sum()) for ranking in judged.rankings[""])


@pytest.mark.parametrize("number", range(3))
def test_made_sets_judged_by_the_program(number: int) -> None:
    made = json.loads((GOLDEN / "made.json").read_text())[number]
    sets = [golden_image(i["truth"], i["difficult"], i["detections"], tuple(i["size"])) for i in made["images"]]
    names = [f"c{k}" for k in range(made["classes"])]
    sizes = {k: tuple(image["size"]) for k, image in enumerate(made["images"])}
    truths, found = ({k: pair[n] for k, pair in enumerate(sets)} for n in (0, 1))
    agrees(lay_out(truths, found, names, sizes), made["printed"])
    # The golden sets can tell: double precision, or another order of rows, gives other numbers
    assert darknet(lay_out(truths, found, names)).values() != darknet(lay_out(truths, found, names, sizes)).values()


def test_detections_of_the_network_judged_by_the_program(shared: Path) -> None:
    golden = json.loads((GOLDEN / "coco128.json").read_text())
    truths, found, sizes = {}, {}, {}
    for name, detections in golden["images"].items():
        labels = shared / "coco128" / "labels" / f"{name}.txt"
        height, width = cv2.imread(str(shared / "coco128" / "images" / f"{name}.jpg")).shape[:2]
        lines = labels.read_text().splitlines() if labels.is_file() else []
        truths[name], found[name] = golden_image(lines, [], detections, (width, height))
        sizes[name] = width, height
    agrees(lay_out(truths, found, [str(k) for k in range(80)], sizes), golden["printed"])
    agrees(lay_out(truths, found, [str(k) for k in range(80)]), golden["printed"])  # real IoUs are not that close


def random_set(seed: int, images: int = 8, classes: int = 3, digits: int = 1) -> tuple[Truths, Found, list[str]]:
    rng = np.random.default_rng(seed)
    truths: Truths = {}
    found: Found = {}
    for image in rng.permutation(20)[:images].tolist():
        n = int(rng.integers(0, 7))
        corner = rng.integers(0, 60, (n, 2))
        boxes = np.c_[corner, corner + rng.integers(8, 40, (n, 2))].astype(float)
        labels = rng.integers(0, classes, n)
        truths[image] = Annotations(
            boxes, labels, difficult=rng.random(n) < 0.2, ignore=rng.random(n) < 0.1, crowd=rng.random(n) < 0.1
        )
        near = np.repeat(boxes, rng.integers(0, 4, n), 0)
        near = np.r_[near + rng.normal(0, 3, near.shape), rng.integers(0, 40, (3, 4)) + np.array([0, 0, 50, 50.0])]
        found[image] = Detections(
            near, rng.integers(0, classes, len(near)), rng.random(len(near)).round(digits),
            {"row": rng.permutation(len(near))},
        )  # fmt: skip
    return truths, found, [f"c{k}" for k in range(classes + 1)]


def program(truths: Truths, found: Found, classes: int, points: int) -> dict[str, Any]:
    """The program's rules as plain loops in double precision, written from its text, not from ours."""
    ranked, taken_at_quarter, tp, fp, shares = [], set(), 0, 0, 0.0
    known = [0] * classes
    for image in sorted(truths, key=str if any(isinstance(i, str) for i in truths) else int):
        truth, d = truths[image], found[image]
        plain = ~(truth.difficult | truth.ignore | truth.crowd)
        for label in truth.labels[plain].tolist():
            known[label] += 1
        overlaps = iou(d.boxes, truth.boxes)
        verdict = {}
        for k in np.argsort(d.extra["row"]).tolist():
            if d.scores[k] <= 0:
                continue
            same = [j for j in range(len(truth)) if truth.labels[j] == d.labels[k] and overlaps[k, j] > 0.5]
            best = max((j for j in same if plain[j]), key=lambda j: (overlaps[k, j], -j), default=None)
            verdict[k] = None if best is None and same else (image, best)
            if d.scores[k] > 0.25:
                good = best is not None and (image, best) not in taken_at_quarter
                tp, fp, shares = tp + good, fp + (not good), shares + (overlaps[k, best] if good else 0)
            if best is not None:
                taken_at_quarter.add((image, best))
        ranked += [(-d.scores[k], int(d.labels[k]), verdict[k]) for k in range(len(d)) if k in verdict]
    ranked.sort(key=lambda row: row[0])
    result = {"TP": tp, "FP": fp, "IoU": shares / (tp + fp) if tp + fp else 0.0}
    for label in range(classes):
        hits, used, curve = 0, set(), []
        rest = [claim for _, own, claim in ranked if own == label and claim is not None]
        for n, claim in enumerate(rest):
            hits += claim[1] is not None and claim not in used
            used.add(claim)
            curve.append((hits / known[label] if known[label] else 0.0, hits / (n + 1)))
        levels = [i * (1 / (points - 1)) for i in range(points)] if points else []
        ap = sum(max([p for r, p in curve if r >= level], default=0.0) for level in levels) / max(points, 1)
        if not points:
            best, last = 0.0, curve[-1][0] if curve else 0.0
            for recall, precision in reversed([(0.0, 0.0), *curve]):
                ap, last = ap + (last - recall) * best, recall
                best = max(best, precision)
        result[f"c{label}"] = ap
    return result


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.sampled_from([0, 11, 101]))
def test_equals_the_programs_rules(seed: int, points: int) -> None:
    truths, found, classes = random_set(seed)
    values = darknet(lay_out(truths, found, classes), points).values()
    expected = program(truths, found, len(classes), points)
    for name in classes:
        assert values["AP50", name] == pytest.approx(expected[name], abs=1e-12)
    for name in ("TP", "FP", "IoU"):
        assert values[name, None] == pytest.approx(expected[name], abs=1e-12)
    assert values["mAP50", None] == pytest.approx(np.mean([expected[name] for name in classes]), abs=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10**9))
def test_an_image_of_weight_two_is_two_images(seed: int) -> None:
    truths, found, classes = random_set(seed, digits=9)  # two copies of a tie could be taken in another order
    images = sorted(truths)
    weights = np.random.default_rng(seed).integers(0, 3, len(images))
    copies = [(f"{place:03d}-{k}", image) for place, image in enumerate(images) for k in range(weights[place])]
    scores = darknet(lay_out(truths, found, classes)).scores(weights[None])
    repeated = lay_out({c: truths[i] for c, i in copies}, {c: found[i] for c, i in copies}, classes)
    for key, value in darknet(repeated).values().items():
        assert scores[key][0] == pytest.approx(value, abs=1e-12, nan_ok=True), key


def test_a_class_without_truths_lowers_the_official_number_only() -> None:
    box = np.array([[10.0, 10, 50, 50]])
    truths: Truths = {1: Annotations(box, [0])}
    values = darknet(lay_out(truths, {1: Detections(box, [0], [0.9])}, ["here", "absent"])).values()
    assert values["mAP50", None] == 0.5
    assert values["mAP50 present", None] == 1.0
    assert values["AP50", "absent"] == 0.0


def test_the_first_box_of_the_file_owns_the_truth_at_the_confidence() -> None:
    box = np.array([[10.0, 10, 50, 50], [10, 10, 50, 50]])
    for order, tp in (([0, 1], 1.0), ([1, 0], 0.0)):  # the sure one first, then the unsure one first
        found = Detections(box, [0, 0], [0.9, 0.1], {"row": np.array(order)})
        values = darknet(lay_out({1: Annotations(box[:1], [0])}, {1: found}, ["a"])).values()
        assert values["TP", None] == tp
        assert values["mAP50", None] == 1.0


def test_nothing_found_and_nothing_to_find() -> None:
    box = np.array([[10.0, 10, 50, 50]])
    some, none = Annotations(box, [0]), Annotations.empty()
    nothing = darknet(lay_out({1: some}, {}, ["a"])).values()
    assert (nothing["mAP50", None], nothing["recall", None], nothing["FN", None]) == (0.0, 0.0, 1.0)
    assert np.isnan(nothing["precision", None])
    false = darknet(lay_out({1: none}, {1: Detections(box, [0], [0.9])}, ["a"])).values()
    assert (false["mAP50", None], false["precision", None], false["FP", None]) == (0.0, 0.0, 1.0)
    assert np.isnan(false["mAP50 present", None])
    assert np.isnan(darknet(lay_out({}, {}, [])).values()["mAP50", None])


def test_evaluate_gives_rows_with_intervals_and_says_what_is_odd() -> None:
    truths, found, classes = random_set(3)
    named = [name for name in PROTOCOLS if name.startswith("darknet")]
    assert named == ["darknet", "darknet11", "darknet101"]
    evaluation = evaluate(truths, found, classes, named)
    assert {row.protocol for row in evaluation.metrics} == set(named)
    assert any("as 0, for they have no truth" in note for note in evaluation.notes)
    row = next(row for row in evaluation.metrics if row.name == "mAP50")
    assert row.interval is not None


def test_absurd_numbers_are_judged_without_a_warning() -> None:
    box = np.array([[10.0, 10, 50, 50]])
    found = Detections(np.array([[-1e300, 0, 1e300, 50], [10, 10, 50, 50]]), np.array([0, 0]), np.array([1e300, 0.9]))
    for size in ((100, 100), (0, 0)):
        pool = lay_out({1: Annotations(box, np.array([0]))}, {1: found}, ["a"], {1: size})
        assert darknet(pool).values()["mAP50", None] == 0.5
