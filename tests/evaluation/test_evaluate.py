"""The front of the judge: its rows, its JSON, defined answers for nothing, and faults that are listed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.errors import DataError, UsageError
from onestage.evaluation import PROTOCOLS, evaluate, lay_out
from onestage.evaluation.coco import PER_CLASS, SUMMARY
from onestage.records import Annotations, Detections, Metrics

BOXES = np.array([[0, 0, 20, 20], [30, 30, 80, 80], [100, 0, 260, 200.0]])
TRUTH = {i: Annotations(BOXES + i, [0, 1, 1]) for i in range(6)}
PERFECT = {i: Detections(t.boxes, t.labels, [0.9, 0.8, 0.7]) for i, t in TRUTH.items()}
NAMES = ["cat", "dog"]


def test_perfect_detections_give_one_everywhere() -> None:
    pool = lay_out(TRUTH, PERFECT, NAMES)
    fitting = tuple(name for name, protocol in PROTOCOLS.items() if protocol.unfit(pool) is None)
    judged = evaluate(TRUTH, PERFECT, NAMES, protocols=fitting)
    for row in judged.metrics:
        assert np.isnan(row.value) == (row.n == 0)
        if row.n and row.name not in ("AR1", "AR10", "mAR1", "TP", "FP", "FN"):
            assert row.value == pytest.approx(1, abs=1e-12), row
            assert row.interval is not None
            assert row.interval[0] < row.interval[1] == pytest.approx(1, abs=1e-12)  # few images prove no perfection
    assert judged.metrics.value("AR1", "coco") == pytest.approx((1 + 0.5) / 2)
    assert judged.metrics.row("mAP50", "voc07").n == 18
    assert judged.metrics.row("AP50", "voc10", "cat").n == 6
    assert judged.metrics.row("APs", "coco").n == 6


def test_rows_are_complete_and_named() -> None:
    judged = evaluate(TRUTH, PERFECT, NAMES)
    there = {(row.protocol, row.name, row.class_name) for row in judged.metrics}
    expected = {("coco", name, None) for name in SUMMARY}
    expected |= {("coco", name, c) for name in PER_CLASS for c in NAMES}
    expected |= {(p, "mAP50", None) for p in ("voc07", "voc10")} | {
        (p, "AP50", c) for p in ("voc07", "voc10") for c in NAMES
    }
    expected |= {("voc10", name, c) for name in ("precision", "recall", "F1") for c in (None, *NAMES)}
    assert there == expected
    assert len(judged.metrics.rows) == len(expected)


def test_the_matrix_follows_the_protocol_that_adds_a_pixel() -> None:
    truth, found = {0: Annotations([[0, 0, 9, 9]], [0])}, {0: Detections([[0, 0, 9, 4.1]], [0], [0.9])}
    plain, added = (evaluate(truth, found, ["cat"], (name,), score=0.5) for name in ("voc10", "voc10+1"))
    assert plain.details["confusion"]["counts"] == [[0, 1], [1, 0]]
    assert added.details["confusion"]["counts"] == [[1, 0], [0, 0]]


def test_json_has_the_shape_of_the_run_folder() -> None:
    judged = evaluate(TRUTH, PERFECT, NAMES, resamples=20)
    content = json.loads(json.dumps(judged.as_dict(), allow_nan=False))
    assert content["protocols"] == ["voc07", "voc10", "coco"]
    assert content["n_images"] == 6
    assert Metrics.from_list(content["rows"]).value("mAP50", "voc10") == 1.0
    curve = content["curves"]["voc10@0.5"]["dog"]
    assert curve["recall"][-1] == 1.0
    assert len(curve["recall"]) == len(curve["precision"]) == len(curve["scores"]) == 12
    assert content["operating_point"]["score"] == 0.7
    assert content["operating_point"]["classes"]["cat"]["best"]["score"] == 0.9
    assert content["operating_point"]["classes"]["cat"]["best"]["score_interval"] == [0.9, 0.9]
    assert content["confusion"]["counts"] == [[6, 0, 0], [0, 12, 0], [0, 0, 0]]
    assert content["confusion"]["score"] == content["calibration"]["kept"]["at"] == 0.7
    assert content["calibration"]["n"] == 18
    assert content["confidence"]["mean"]["F1"][70] == 1.0


def test_nothing_to_judge_gives_defined_answers() -> None:
    empty_image = {1: Annotations.empty()}
    cases = [
        ({}, {}, NAMES), ({}, {}, []), (empty_image, {}, NAMES), (TRUTH, {}, NAMES),
        (empty_image, {1: PERFECT[0]}, NAMES), ({1: Annotations.empty(), **TRUTH}, {1: Detections.empty()}, NAMES),
    ]  # fmt: skip
    for truths, found, classes in cases:
        judged = evaluate(truths, found, classes, resamples=10)
        for row in judged.metrics:
            if row.n:
                assert row.value == 0.0, row
                assert row.interval is not None or len(truths) < 2
                assert row.interval is None or row.interval[0] == 0.0 < row.interval[1]
            else:
                assert np.isnan(row.value)
                assert row.interval is None
        json.dumps(judged.as_dict(), allow_nan=False)


def test_class_that_does_not_occur_is_undefined_and_left_out_of_the_mean() -> None:
    judged = evaluate(TRUTH, PERFECT, [*NAMES, "cow"], intervals=False)
    for protocol in ("voc07", "voc10", "coco"):
        assert np.isnan(judged.metrics.value("AP50", protocol, "cow"))
        assert judged.metrics.value("mAP50", protocol) == pytest.approx(1, abs=1e-12)
        assert judged.metrics.row("AP50", protocol, "cow").n == 0
    assert judged.operating_point["classes"]["cow"]["F1"] is None


def test_all_problems_are_listed_with_the_nearest_names() -> None:
    truths = {"street_001": Annotations(BOXES, [0, 1, 5]), "7": TRUTH[0]}
    found = {
        "street_01": PERFECT[0], 7: PERFECT[0],
        "7": Detections([[0, 0, np.nan, 5]], [-1], [0.5]),
    }  # fmt: skip
    with pytest.raises(DataError) as caught:
        evaluate(truths, found, NAMES)  # type: ignore[arg-type]
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "did you mean 'street_001'?" in text
    assert "did you mean '7', as str?" in text
    assert "truths of image 'street_001': expected labels 0 to 1, got [5]" in text
    assert "detections of image '7': expected labels 0 to 1, got [-1]" in text
    assert "is not finite" in text


def test_long_lists_of_problems_are_cut() -> None:
    with pytest.raises(DataError) as caught:
        evaluate(TRUTH, {f"x{i}": PERFECT[0] for i in range(300)}, NAMES)
    assert len(caught.value.problems) == 21
    assert "280 more" in caught.value.problems[-1]


def test_class_names_must_differ_and_protocols_exist() -> None:
    with pytest.raises(DataError, match="different names"):
        evaluate(TRUTH, {}, ["cat", "cat"])
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        evaluate(TRUTH, {}, NAMES, protocols=("cocoo", "voc07"))


def test_truncation_is_seen_and_bounded() -> None:
    half = {i: d.above(0.75) for i, d in PERFECT.items()}
    judged = evaluate(TRUTH, half, NAMES, intervals=False)
    assert judged.truncated
    assert judged.score_floor == 0.8
    assert judged.metrics.value("mAP50", "voc10") == pytest.approx(0.75)
    assert "at most 0.2273 of voc07's, 0.2500 of voc10's, " in judged.notes[0]
    assert not evaluate(TRUTH, half, NAMES, score_floor=0.01, intervals=False).truncated
    assert evaluate(TRUTH, half, NAMES, score_floor=0.05, intervals=False).truncated
    assert not evaluate(TRUTH, {}, NAMES, intervals=False).truncated


def test_rates_at_a_given_score() -> None:
    judged = evaluate(TRUTH, PERFECT, NAMES, score=0.85, intervals=False)
    assert judged.operating_point["chosen"] == "given"
    assert judged.metrics.value("recall", "voc10", "cat") == 1.0
    assert judged.metrics.value("recall", "voc10", "dog") == 0.0
    assert judged.metrics.value("precision", "voc10", "dog") == 0.0
    assert judged.metrics.value("recall", "voc10") == 0.5


def test_without_a_voc_protocol_there_are_curves_but_no_voc_rows() -> None:
    judged = evaluate(TRUTH, PERFECT, NAMES, protocols=("coco",), intervals=False)
    assert {row.protocol for row in judged.metrics} == {"coco"}
    assert judged.operating_point["F1"] == 1.0
    assert list(judged.curves) == ["voc10@0.5"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_false_positive_never_raises_any_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = {i: Detections(t.boxes + rng.normal(0, 4, (3, 4)), t.labels, rng.random(3)) for i, t in TRUTH.items()}
    worse = dict(found)
    f = found[2]
    worse[2] = Detections(np.r_[f.boxes, [[500, 500, 540, 540]]], np.r_[f.labels, 1], np.r_[f.scores, rng.random()])
    before, after = (evaluate(TRUTH, d, NAMES, intervals=False).metrics for d in (found, worse))
    moving = {("F1", c) for c in NAMES}  # told, like precision and recall, at a score that may move
    for old, new in zip(before, after, strict=True):
        if old.name not in ("precision", "recall") and (old.name, old.class_name) not in moving:
            assert not new.value > old.value + 1e-12, (old, new)


def test_the_judge_never_imports_torch() -> None:
    code = "import sys, onestage.evaluation; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_voc_at_another_iou_has_a_name_of_its_own() -> None:
    near = {i: Detections(t.boxes + 3.0, t.labels, [0.9, 0.8, 0.7]) for i, t in TRUTH.items()}
    judged = evaluate(TRUTH, near, NAMES, ("voc10@0.5", "voc10@0.75", "voc07+1@.3"), intervals=False)
    assert judged.protocols == ("voc10@0.5", "voc10@0.75", "voc07+1@.3")
    plain = evaluate(TRUTH, near, NAMES, ("voc10",), intervals=False).metrics
    assert judged.metrics.value("mAP50", "voc10@0.5") == plain.value("mAP50", "voc10")
    assert judged.metrics.value("AP75", "voc10@0.75", "cat") == 0.0  # IoU 0.57 of the smallest box
    assert judged.metrics.value("mAP30", "voc07+1@.3") == 1.0


@pytest.mark.parametrize("name", ["voc10@", "voc10@75", "voc10@0", "voc10@nan", "coco@0.5", "@0.5", "vco10@0.5"])
def test_an_iou_that_cannot_be_is_an_unknown_protocol(name: str) -> None:
    with pytest.raises(UsageError, match="unknown protocol") as caught:
        evaluate(TRUTH, PERFECT, NAMES, (name,))
    assert repr(name) in caught.value.problems[0]


def test_protocols_of_one_class_name_a_few_of_many_classes() -> None:
    names = [f"class {k}" for k in range(80)]
    with pytest.raises(DataError) as caught:
        evaluate(TRUTH, PERFECT, names, ("fddb", "widerface"))
    assert len(caught.value.problems) == 2
    for problem in caught.value.problems:
        assert problem.endswith("class 0, class 1, class 2, class 3, class 4, … (80 in all)")
