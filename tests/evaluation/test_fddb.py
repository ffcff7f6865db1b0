"""FDDB's judge against the official program's ROC files, a drawing of the whole image, and every permutation."""

from __future__ import annotations

import itertools
import json
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.detections import fddb as detection_files
from onestage.data.formats import fddb as folds
from onestage.errors import DataError
from onestage.evaluation import PROTOCOLS, Pool, evaluate, lay_out
from onestage.evaluation.fddb import LEVELS, fddb, roc, unfit
from onestage.evaluation.fddb_matching import _flawed, matching, stops_early
from onestage.evaluation.fddb_overlap import overlaps
from onestage.records import Annotations, Detections

GOLDEN = Path(__file__).parent.parent / "golden" / "fddb"


def detections(path: Path) -> dict[str, Detections]:
    rows = detection_files.read(path)
    assert not [finding for finding in rows.findings if finding.severity != "note"]
    result = {}
    for index, name in enumerate(rows.images):
        own = np.flatnonzero(rows.image == index)
        extra = {key: column[own] for key, column in rows.extra.items()} | {"row": np.arange(len(own))}
        result[name] = Detections(rows.boxes[own], rows.label[own], rows.scores[own], extra)
    return result


def judged(truth: Path, found: Path, sizes: dict[str, tuple[int, int]] | None = None) -> Pool:
    dataset = folds.read(truth, None, probe_images=False)
    known = {image.id: (image.width, image.height) for image in dataset.images} if sizes is None else sizes
    return lay_out(dataset.annotations, detections(found), dataset.classes, known)


def lines(pool: Pool) -> tuple[list[str], list[str]]:
    """Both curves as the official program prints them: lowest score first, six digits."""
    curve = roc(pool)
    faces = int(curve.faces.sum())
    score, false, found, overlap = (column[::-1] for column in curve.points())
    discrete = [f"{hits / faces:.6g} {fp} {at:.6g}" for hits, fp, at in zip(found, false, score, strict=True)]
    continuous = [f"{hits / faces:.6g} {fp}" for hits, fp in zip(overlap, false, strict=True)]
    if len(set(pool.image_of(pool.group).tolist())) < len(pool.images):  # an image without detections adds this line
        discrete.append("0 0 1.79769e+308")
        continuous.append("0 0")
    return discrete, continuous


def small_sizes() -> dict[str, tuple[int, int]]:
    rows = [line.split() for line in (GOLDEN / "sizes.txt").read_text().splitlines()]
    return {name: (int(width), int(height)) for name, width, height in rows}


def small(kind: str = "rectangles") -> Pool:
    return judged(GOLDEN / "ellipseList.txt", GOLDEN / f"{kind}.txt", small_sizes())


@pytest.mark.parametrize("kind", ["rectangles", "ellipses"])
def test_small_set_gives_the_official_curves_line_for_line(kind: str) -> None:
    discrete, continuous = lines(small(kind))
    assert discrete == (GOLDEN / f"{kind}-DiscROC.txt").read_text().splitlines()
    assert continuous == (GOLDEN / f"{kind}-ContROC.txt").read_text().splitlines()


def test_mtcnn_gives_the_official_curves_line_for_line(shared: Path) -> None:
    pool = judged(shared / "fddb", shared / "fddb" / "detections" / "MTCNN")
    assert len(pool.images) == 2845
    assert len(pool.truth_group) == 5171
    discrete, continuous = lines(pool)
    assert discrete == (shared / "fddb" / "detections" / "MTCNNDiscROC.txt").read_text().splitlines()
    assert continuous == (shared / "fddb" / "detections" / "MTCNNContROC.txt").read_text().splitlines()


def test_mtcnn_without_sizes_is_near_and_says_so(shared: Path) -> None:
    pool = judged(shared / "fddb", shared / "fddb" / "detections" / "MTCNN", {})
    judgement = fddb(pool)
    assert judgement.values()["disc@2000", None] == pytest.approx(0.896345, abs=0.0006)
    assert any("size of 2845 of 2845 images is not known" in note for note in judgement.notes)


def test_official_solver_stops_short_of_the_best_where_columns_are_left_over() -> None:
    # Run beside the official Hungarian.cpp: it matches (0, 0) and (1, 1), total 0.317578; the best is 1.100596
    iou = np.array([[0.07624, 0.0, 0.859258], [0.0, 0.241338, 0.96]])
    assert _flawed(iou)
    assert stops_early(iou)[1].tolist() == [0, 1]
    assert matching(iou).sum() == pytest.approx(0.317578)
    assert matching(iou.T).sum() == pytest.approx(0.317578)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    values = st.one_of(st.just(0.0), st.floats(0.01, 1.0))
    iou = np.array(draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))).reshape(rows, columns)
    return iou[:, iou.any(0)]


@given(matrices())
def test_matching_is_the_best_of_all_permutations_or_the_solver_stops_early(iou: np.ndarray) -> None:
    if not iou.size:
        return
    few = iou if len(iou) <= iou.shape[1] else iou.T
    best = max(
        sum(few[r, c] for r, c in enumerate(columns))
        for columns in itertools.permutations(range(few.shape[1]), len(few))
    )
    total = matching(iou).sum()
    touched = iou[iou.any(1)]
    if _flawed(touched if len(touched) <= touched.shape[1] else touched.T):
        assert total <= best + 1e-9
    else:
        assert total == pytest.approx(best)


@given(matrices())
def test_solver_that_stops_early_matches_every_row_once(iou: np.ndarray) -> None:
    if iou.shape[0] < iou.shape[1]:
        rows, columns = stops_early(iou)
        assert rows.tolist() == list(range(len(iou)))
        assert len(set(columns.tolist())) == len(iou)
        assert (columns >= 0).all()


def whole(box: np.ndarray, ellipse: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """The region drawn on the whole image, by OpenCV alone."""
    canvas = np.zeros(size[::-1], np.uint8)
    if ellipse is None:
        corners = [tuple(int(np.rint(np.float32(v))) for v in corner) for corner in (box[:2], box[2:])]
        return cv2.rectangle(canvas, *corners, 1, cv2.FILLED)
    major, minor, angle, x, y = ellipse
    centre = (int(np.rint(np.float32(x))), int(np.rint(np.float32(y))))
    degrees = 180 - (np.pi - angle) * 180 / np.pi
    return cv2.ellipse(canvas, centre, (int(major), int(minor)), degrees, 0, 360, 1, cv2.FILLED)


@pytest.mark.parametrize(("faces", "found"), [(True, False), (True, True), (False, True), (False, False)])
def test_overlaps_are_those_of_masks_of_the_whole_image(faces: bool, found: bool) -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        size = tuple(int(v) for v in rng.integers(20, 120, 2))
        shapes = np.column_stack(
            [rng.uniform(0, 50, 6), rng.uniform(0, 50, 6), rng.uniform(-3, 3, 6), rng.uniform(-20, 140, (6, 2))]
        )
        shapes[::2] = np.round(shapes[::2] * 2) / 2
        boxes = np.concatenate([shapes[:, 3:] - shapes[:, :2] / 2, shapes[:, 3:] + shapes[:, :2] / 2], axis=1)
        truth = Annotations(boxes[:3], np.zeros(3), extra={"ellipse": shapes[:3]} if faces else {})
        answer = Detections(boxes[3:], np.zeros(3), [0.9, 0.8, 0.7], {"ellipse": shapes[3:]} if found else {})
        got = np.zeros((3, 3))
        pairs = overlaps(lay_out({1: truth}, {1: answer}, ("face",), {1: size}))
        got[pairs.truth, pairs.detection] = pairs.iou
        for t, d in itertools.product(range(3), range(3)):
            a = whole(boxes[t], shapes[t] if faces else None, size)
            b = whole(boxes[3 + d], shapes[3 + d] if found else None, size)
            union = np.count_nonzero(a | b)
            assert got[t, d] == (np.count_nonzero(a & b) / union if union else 0)


def test_bootstrap_is_judging_really_repeated_images() -> None:
    dataset = folds.read(GOLDEN / "ellipseList.txt", None, probe_images=False)
    found, sizes = detections(GOLDEN / "rectangles.txt"), small_sizes()
    images = sorted(dataset.annotations)
    judgement = fddb(small())
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(images) * 8, np.full(len(images), 1 / len(images)), 4)
    scores = judgement.scores(weights)
    for row, weight in enumerate(weights):
        copies = [(name, f"{name} {k}") for name, times in zip(images, weight, strict=True) for k in range(times)]
        pool = lay_out(
            {copy: dataset.annotations[name] for name, copy in copies}, {copy: found[name] for name, copy in copies},
            ("face",), {copy: sizes[name] for name, copy in copies},
        )  # fmt: skip
        values = fddb(pool).values()
        assert values["disc@500", None] > values["disc@100", None] > 0  # the levels do cut the curve
        for key, value in values.items():
            assert scores[key][row] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("block", [1, 3, 50])
def test_following_the_curve_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    module = import_module("onestage.evaluation.fddb")
    levels = (1, 5, 20, 60)  # so that the curve is left long before its end
    monkeypatch.setattr(module, "LEVELS", levels)
    monkeypatch.setattr(module, "_BLOCK", block)
    pool = small()
    weights = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), 30)
    scores, curve = fddb(pool).scores(weights), roc(pool)
    for row, weight in enumerate(weights):
        one = weight[curve.image]
        false = np.cumsum(one * (1 - curve.found))[curve.last]
        for name, gain in (("disc", curve.found), ("cont", curve.overlap)):
            hits = np.cumsum(one * gain)[curve.last]
            for level in levels:
                below = np.flatnonzero(false <= level)
                expected = hits[below[-1]] / (weight @ curve.faces) if len(below) else 0.0
                assert scores[f"{name}@{level}", None][row] == pytest.approx(expected, abs=1e-12)


def hand_made(n_false: int) -> Pool:
    """One face found at 0.9; false positives at 0.8, 0.79, …; a second face found last."""
    face, other = [0.0, 0.0, 50.0, 50.0], [100.0, 100.0, 149.0, 149.0]
    boxes = [face, *([[300.0, 300.0, 310.0, 310.0]] * n_false), other]
    scores = [0.9, *(0.8 - 0.0001 * np.arange(n_false)), 0.1]
    truth = Annotations([face, other], [0, 0])
    return lay_out({1: truth}, {1: Detections(boxes, np.zeros(len(boxes)), scores)}, ("face",), {1: (400, 400)})


def test_a_level_is_the_last_point_with_at_most_so_many_false_positives() -> None:
    at_limit, beyond = fddb(hand_made(100)).values(), fddb(hand_made(101)).values()
    assert at_limit["disc@100", None] == 1.0
    assert beyond["disc@100", None] == 0.5
    assert beyond["disc@500", None] == 1.0
    assert beyond["cont@100", None] == 0.5


def test_a_curve_that_ends_early_says_where() -> None:
    notes = fddb(hand_made(101)).notes
    assert "the curve ends at 101 false positives: @500, @1000, @2000 are its last point" in notes
    assert "2 of 2 faces have no ellipse and are judged as rectangles" in notes


def test_equal_scores_are_one_point() -> None:
    truth = Annotations([[0.0, 0.0, 9.0, 9.0]], [0])
    same = Detections([[0.0, 0.0, 9.0, 9.0]] + [[50.0, 50.0, 60.0, 60.0]] * 101, np.zeros(102), np.full(102, 0.5))
    judgement = fddb(lay_out({1: truth}, {1: same}, ("face",)))
    assert judgement.values()["disc@100", None] == 0.0  # the only point has 101
    assert judgement.values()["disc@500", None] == 1.0
    assert judgement.curves["discrete"]["false_positives"] == [101]


def test_nothing_found_is_zero_and_no_face_is_undefined() -> None:
    truth = Annotations([[0.0, 0.0, 9.0, 9.0]], [0])
    nothing = fddb(lay_out({1: truth}, {}, ("face",)))
    assert set(nothing.values().values()) == {0.0}
    assert nothing.curves["discrete"] == {"false_positives": [], "true_positive_rate": [], "scores": []}
    found = Detections([[0.0, 0.0, 9.0, 9.0]], [0], [0.5])
    no_face = fddb(lay_out({1: Annotations.empty()}, {1: found}, ("face",)))
    assert np.isnan(list(no_face.values().values())).all()
    assert np.isnan(list(fddb(lay_out({}, {}, ("face",))).values().values())).all()


def test_a_region_outside_the_image_overlaps_nothing() -> None:
    truth = Annotations([[-50.0, -50.0, -20.0, -20.0]], [0], extra={"ellipse": np.array([[15.0, 15, 0, -35, -35]])})
    found = Detections([[-50.0, -50.0, -20.0, -20.0], [1e300, 0.0, -1e300, 5.0]], [0, 0], [0.5, 0.4])
    assert fddb(lay_out({1: truth}, {1: found}, ("face",), {1: (90, 90)})).values()["cont@100", None] == 0.0


@pytest.mark.parametrize(
    ("truth", "classes", "said"),
    [
        (Annotations([[0.0, 0, 9, 9]], [0]), ("face", "head"), "it judges one class, faces; this truth has face, head"),
        (Annotations([[0.0, 0, 9, 9]], [0]), ("face",), "this truth has none"),
        (Annotations([[0.0, 0, 9, 9]], [0], ignore=[True]), ("face",), "1 truths are marked as ignore or crowd"),
        (
            Annotations([[0.0, 0, 9, 9]], [0], extra={"ellipse": np.array([[1e9, 5, 0, 1, 1]])}), ("face",),
            "1 ellipses of the truths are none, such as (1e+09, 5, 0, 1, 1)",
        ),
        (
            Annotations([[0.0, 0, 9, 9]], [0], extra={"ellipse": np.array([[9, 5, np.nan, 1, 1]])}), ("face",),
            "1 ellipses of the truths are none, such as (9, 5, nan, 1, 1)",
        ),
        (
            Annotations([[0.0, 0, 9, 9]], [0], extra={"ellipse": np.array([[9, 5, 1, 1]])}), ("face",),
            "expected five values each",
        ),
    ],
)  # fmt: skip
def test_unfit_truth_is_refused_in_words(truth: Annotations, classes: tuple[str, ...], said: str) -> None:
    assert said in str(unfit(lay_out({1: truth}, {}, classes)))
    with pytest.raises(DataError, match="cannot be judged by"):
        evaluate({1: truth}, {}, classes, ("fddb",), intervals=False)


def test_evaluate_hands_on_rows_intervals_curves_and_notes() -> None:
    dataset = folds.read(GOLDEN / "ellipseList.txt", None, probe_images=False)
    found = detections(GOLDEN / "ellipses.txt")
    result = evaluate(dataset.annotations, found, dataset.classes, ("fddb",), sizes=small_sizes(), resamples=50)
    row = result.metrics.row(PROTOCOLS["fddb"].headline, "fddb")
    assert row.n == 202
    assert row.interval is not None
    assert row.interval[0] <= row.value <= row.interval[1]
    assert [metric.name for metric in result.metrics if metric.protocol == "fddb"] == [
        f"{kind}@{level}" for kind in ("disc", "cont") for level in LEVELS
    ]
    assert any(note.startswith("fddb: the curve ends at") for note in result.notes)
    assert "size" not in " ".join(note for note in result.notes if note.startswith("fddb"))
    curves = json.loads(json.dumps(result.as_dict()["curves"]["fddb"], allow_nan=False))
    assert len(curves["discrete"]["scores"]) == len((GOLDEN / "ellipses-DiscROC.txt").read_text().splitlines()) - 1


def test_a_score_floor_is_told_of_average_precision_alone() -> None:
    truths = {1: Annotations([[0, 0, 20, 30]], [0], extra={"ellipse": np.array([[15.0, 10.0, 1.57, 10.0, 15.0]])})}
    found = {1: Detections([[0, 0, 20, 30]], [0], [0.5])}
    alone = evaluate(truths, found, ("face",), ("fddb",), intervals=False)
    assert alone.score_floor == 0.5
    assert not alone.truncated
    assert not any("truncated" in note for note in alone.notes)
    beside = evaluate(truths, found, ("face",), ("fddb", "voc10"), intervals=False)
    (told,) = (note for note in beside.notes if "truncated" in note)
    assert "voc10" in told
    assert "fddb" not in told


def test_long_curves_are_thinned_with_their_ends_kept() -> None:
    n = 12_000
    found = Detections(np.tile([500.0, 500.0, 510.0, 510.0], (n, 1)), np.zeros(n), np.arange(n) / n)
    curve = fddb(lay_out({1: Annotations([[0.0, 0, 9, 9]], [0])}, {1: found}, ("face",))).curves["continuous"]
    assert len(curve["scores"]) == 5000
    assert (curve["false_positives"][0], curve["false_positives"][-1]) == (1, n)
