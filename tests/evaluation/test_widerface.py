"""WIDER FACE's protocol: equal to the official tool's port, to a slow restatement, and to itself when images repeat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from widerface_sets import LEVELS, FaceSet, corners, made_detections, small_set, write_found

from onestage.analysis.judging import judge_detections
from onestage.data.detections import widerface as found_format
from onestage.data.formats import widerface as truth_format
from onestage.errors import DataError
from onestage.evaluation import PROTOCOLS, evaluate, lay_out
from onestage.evaluation.judgement import Judgement
from onestage.records import Annotations, Detections, ImageId

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "widerface" / "scores.json"
KEYS = [f"AP{level}" for level in LEVELS]
OFFICIAL = {"plain": (1, 0.0, 1.0), "stretched": (2, -0.5, 1.7)}


def judge(truths: Mapping[ImageId, Annotations], found: Mapping[ImageId, Detections]) -> Judgement:
    pool = lay_out(truths, found, ("face",))
    assert PROTOCOLS["widerface"].unfit(pool) is None
    return PROTOCOLS["widerface"](pool)


def three(judgement: Judgement) -> list[float]:
    values = judgement.values()
    return [values[key, None] for key in KEYS]


def golden(values: list[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def plain(faces: FaceSet) -> list[float]:
    """The rule once more, slowly: a threshold, an image, a detection at a time."""
    scores = np.concatenate([rows[:, 4] for rows in faces.found.values()] or [np.zeros(0)])
    low, high = min([1.0, *scores]), max([0.0, *scores])
    result = []
    for level in LEVELS:
        n_faces = sum(len(rows) for rows in faces.levels[level].values())
        if not n_faces:
            result.append(np.nan)
            continue
        best, points = 0.0, []
        for step in range(1000):
            points.append(_counts(faces, level, 1 - (step + 1) / 1000, low, high))
        area, recall = 0.0, 1.0 * max(hits for hits, _ in points) / n_faces
        for hits, counted in reversed(points):
            if hits / n_faces < recall:
                area, recall = area + (recall - hits / n_faces) * best, hits / n_faces
            if hits:
                best = max(best, hits / counted)
        result.append(area + recall * best)
    return result


def _counts(faces: FaceSet, level: str, threshold: float, low: float, high: float) -> tuple[int, int]:
    hits = counted = 0
    for name, own in faces.faces.items():
        taken = set()
        for x, y, w, h, score in faces.found[name] if len(own) else []:
            if high == low or (score - low) / (high - low) < threshold:
                continue
            overlaps = []
            for fx, fy, fw, fh in own:
                iw = min(x + w, fx + fw) - max(x, fx) + 1
                ih = min(y + h, fy + fh) - max(y, fy) + 1
                shared = iw * ih if iw > 0 and ih > 0 else 0.0
                whole = (x + w - x + 1) * (y + h - y + 1) + (fx + fw - fx + 1) * (fy + fh - fy + 1)
                overlaps.append(shared / (whole - shared) if shared else 0.0)
            face = overlaps.index(max(overlaps))
            if max(overlaps) >= 0.5 and face not in faces.levels[level][name]:
                continue
            counted += 1
            if max(overlaps) >= 0.5 and face not in taken:
                taken.add(face)
                hits += 1
    return hits, counted


@pytest.mark.parametrize("seed", range(40))
def test_small_sets_as_the_port_judges_their_files(tmp_path: Path, seed: int) -> None:
    """From the very files that the port read: mat truth, a txt per image."""
    small_set(seed).write(tmp_path)
    dataset = truth_format.read(tmp_path / "ground_truth", "val", probe_images=False)
    rows = found_format.read(tmp_path / "found")
    assert not rows.findings
    found = {
        name: Detections(rows.boxes[own], rows.label[own], rows.scores[own])
        for i, name in enumerate(rows.images) for own in [rows.image == i]
    }  # fmt: skip
    expected = golden(json.loads(GOLDEN.read_text())["small"][str(seed)])
    np.testing.assert_allclose(three(judge(dataset.annotations, found)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_unsorted_files_as_the_port_and_as_matlab_take_them(tmp_path: Path, seed: int) -> None:
    """MATLAB sorts each file first; the port does not, and its numbers stand beside."""
    small_set(seed).turned().write(tmp_path)
    dataset = truth_format.read(tmp_path / "ground_truth", "val", probe_images=False)
    rows = found_format.read(tmp_path / "found")
    found = {
        name: Detections(rows.boxes[own], rows.label[own], rows.scores[own], {"row": np.arange(own.sum())})
        for i, name in enumerate(rows.images) for own in [rows.image == i]
    }  # fmt: skip
    judgement = judge(dataset.annotations, found)
    content, values = json.loads(GOLDEN.read_text()), judgement.values()
    np.testing.assert_allclose(three(judgement), golden(content["small"][str(seed)]), rtol=0, atol=1e-12)
    unsorted = any("as filed" in note for note in judgement.notes)
    as_filed = [values[f"{key} as filed", None] for key in KEYS] if unsorted else three(judgement)
    np.testing.assert_allclose(as_filed, golden(content["unsorted"][str(seed)]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_set_as_the_port_judges_it(shared: Path, name: str) -> None:
    """All 3,226 images and 39,708 faces; detections from a seed."""
    dataset = truth_format.read(shared / "wider_face" / "eval", "val", probe_images=False)
    assert len(dataset) == 3226
    truth = {
        str(image): np.concatenate([own.boxes[:, :2], own.boxes[:, 2:] - own.boxes[:, :2]], axis=1)
        for image, own in dataset.annotations.items()
    }
    made = made_detections(truth, *OFFICIAL[name])
    found: dict[ImageId, Detections] = {
        image: Detections(corners(rows[:, :4]), np.zeros(len(rows), np.int64), rows[:, 4])
        for image, rows in made.items()
    }
    judgement = judge(dataset.annotations, found)
    assert [judgement.count((key, None)) for key in KEYS] == [7211, 13319, 31958]
    expected = json.loads(GOLDEN.read_text())["official"][name]
    np.testing.assert_allclose(three(judgement), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_the_official_set_from_files_to_scores(shared: Path, tmp_path: Path) -> None:
    """As `val` judges a folder; scores below 0 are not cut."""
    truth = shared / "wider_face" / "eval"
    dataset = truth_format.read(truth, "val", probe_images=False)
    faces = {
        str(image): np.concatenate([own.boxes[:, :2], own.boxes[:, 2:] - own.boxes[:, :2]], axis=1)
        for image, own in dataset.annotations.items()
    }
    write_found(tmp_path, made_detections(faces, *OFFICIAL["stretched"]))
    judged = judge_detections(tmp_path, truth, intervals=False)
    assert judged.found.format == "widerface"
    assert judged.evaluation.protocols[0] == "widerface"
    expected = json.loads(GOLDEN.read_text())["official"]["stretched"]
    values = [judged.evaluation.metrics.value(key, "widerface") for key in KEYS]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(100, 10**9))
def test_any_set_as_the_slow_restatement(seed: int) -> None:
    faces = small_set(seed)
    np.testing.assert_allclose(three(judge(*faces.records())), plain(faces), rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.data())
def test_a_weight_is_so_many_images(seed: int, data: st.DataObject) -> None:
    truths, found = small_set(seed).records()
    names = sorted(truths)
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names)))
    weights = np.array([counts, [1] * len(names)])
    scores = judge(truths, found).scores(weights)
    again = [(name, k) for name, count in zip(names, counts, strict=True) for k in range(count)]
    repeated = judge({f"{name}+{k}": truths[name] for name, k in again}, {f"{n}+{k}": found[n] for n, k in again})
    np.testing.assert_allclose([scores[key, None][0] for key in KEYS], three(repeated), rtol=0, atol=1e-12)
    np.testing.assert_allclose([scores[key, None][1] for key in KEYS], three(judge(truths, found)), rtol=0, atol=0)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_order_of_images_and_of_equal_scores_changes_nothing(seed: int, random: object) -> None:
    truths, found = small_set(seed).records()
    names = list(truths)
    random.shuffle(names)  # type: ignore[attr-defined]
    turned = {}
    for name in names:
        own = found[name]
        order = np.lexsort((-np.arange(len(own)), -own.scores))  # ties in reverse
        turned[name] = Detections(own.boxes[order], own.labels[order], own.scores[order])
    assert three(judge({n: truths[n] for n in names}, turned)) == pytest.approx(
        three(judge(truths, found)), abs=1e-12, nan_ok=True
    )


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_false_detection_never_raises_a_score(seed: int, share: float) -> None:
    truths, found = small_set(seed).records()
    low, high = min(map(_lowest, found.values())), max(map(_highest, found.values()))
    name = next(name for name in truths)
    own, score = found[name], low + share * (high - low) if np.isfinite(low) else share
    more = Detections([*own.boxes, [900, 900, 950, 950]], [*own.labels, 0], [*own.scores, score])
    for after, before in zip(three(judge(truths, found | {name: more})), three(judge(truths, found)), strict=True):
        assert np.isnan(before) or after <= before + 1e-12


def _lowest(own: Detections) -> float:
    return float(own.scores.min(initial=np.inf))


def _highest(own: Detections) -> float:
    return float(own.scores.max(initial=-np.inf))


def one(faces: list, rows: list, **levels: list) -> Judgement:
    boxes = corners(np.array(faces, float).reshape(-1, 4))
    extra = {level: np.array(levels.get(level, [True] * len(boxes)), bool) for level in LEVELS}
    own = np.array(rows, float).reshape(-1, 5)
    truth = Annotations(boxes, np.zeros(len(boxes)), extra=extra)
    return judge({"e/a": truth}, {"e/a": Detections(corners(own), np.zeros(len(own)), own[:, 4])})


def test_perfect_detections_score_one() -> None:
    faces = [[10, 10, 20, 30], [100, 50, 8, 8], [5, 60, 12, 12]]
    rows = [[*face, 0.9 - i / 10] for i, face in enumerate(faces)]
    assert three(one(faces, rows)) == [1, 1, 1]
    assert three(one(faces, rows, easy=[True, False, False])) == [1, 1, 1]  # the others are not counted


def test_nothing_found_and_nothing_to_find() -> None:
    assert three(one([[10, 10, 20, 30]], [])) == [0, 0, 0]
    assert np.isnan(three(one([], [[10, 10, 20, 30, 0.5]]))).all()
    assert np.isnan(three(one([], []))).all()
    easy, medium, hard = three(one([[10, 10, 20, 30]], [[10, 10, 20, 30, 0.5], [1, 1, 2, 2, 0.1]], easy=[False]))
    assert np.isnan(easy)
    assert (medium, hard) == (1, 1)


def test_a_second_detection_of_a_face_is_false_but_of_a_face_outside_the_level_does_not_count() -> None:
    faces, rows = [[10, 10, 20, 20], [60, 60, 20, 20]], [[10, 10, 20, 20, 0.9], [11, 10, 20, 20, 0.8]]
    rows += [[60, 60, 20, 20, 0.7], [300, 300, 5, 5, 0.1]]
    both, first = one(faces, rows), one(faces, rows, easy=[False, True])
    assert three(both)[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert three(first)[0] == 1.0


def test_a_pixel_is_added_to_every_side() -> None:
    """A box of width 9 spans ten pixels."""
    face, rows = [[0, 0, 9, 9]], [[0, 5, 9, 14, 0.9], [50, 50, 2, 2, 0.1]]  # 10x10, and 10x15 sharing 10x5: 1/4
    assert three(one(face, rows)) == [0, 0, 0]
    assert three(one(face, [[0, 0, 9, 4, 0.9], [50, 50, 2, 2, 0.1]])) == [1, 1, 1]  # 10x5 of 10x10: 0.5, not 4/9


def test_detections_where_there_is_no_face_are_not_counted_and_said() -> None:
    truth, extra = [[10, 10, 20, 20]], {level: np.array([True]) for level in LEVELS}
    truths: dict[ImageId, Annotations] = {
        "e/a": Annotations(corners(np.array(truth, float)), [0], extra=extra), "e/b": Annotations.empty(),
    }  # fmt: skip
    found: dict[ImageId, Detections] = {
        "e/a": Detections([[10, 10, 30, 30], [0, 0, 3, 3]], [0, 0], [0.8, 0.1]),
        "e/b": Detections([[10, 10, 30, 30]], [0], [0.9]),
    }
    judgement = judge(truths, found)
    assert three(judgement) == [1, 1, 1]
    assert judgement.notes == ("1 detections lie in images that have no face at all; the rule does not count them",)


def test_equal_scores_are_said() -> None:
    judgement = one([[10, 10, 20, 20]], [[10, 10, 20, 20, 0.7]])
    assert three(judgement) == [0, 0, 0]  # 0 / 0 in the tool: no score reaches a threshold
    assert "all scores are equal" in judgement.notes[0]


def test_the_extremes_are_at_least_0_and_at_most_1() -> None:
    face = [10, 10, 20, 20]
    assert three(one([face], [[*face, -1]])) == [1, 1, 1]  # stretched from -1 to 0: the last threshold
    assert three(one([face], [[*face, 5]])) == [1, 1, 1]  # stretched from 1 to 5: every threshold


def test_only_the_images_drawn_stretch_the_scores() -> None:
    """A score of 1000 leaves one threshold to all others, unless its image is not drawn."""
    truths, found = small_set(0).records()
    names = sorted(truths)
    found[names[0]] = Detections([[300, 300, 305, 305]], [0], [1000.0])
    rest = {name: truths[name] for name in names[1:]}
    without = three(judge(rest, {name: found[name] for name in rest}))
    weights = np.array([[0] + [1] * len(rest), [1] * len(names)])
    scores = judge(truths, found).scores(weights)
    np.testing.assert_allclose([scores[key, None][0] for key in KEYS], without, rtol=0, atol=1e-12)
    assert all(scores[key, None][1] < score - 0.001 for key, score in zip(KEYS, without, strict=True))


def test_of_equal_faces_the_first_is_meant() -> None:
    twice, rows = [[10, 10, 20, 20]] * 2, [[10, 10, 20, 20, 0.9], [300, 300, 5, 5, 0.1]]
    easy, medium, _ = three(one(twice, rows, easy=[False, True], medium=[True, False]))
    assert (easy, medium) == (0, 1)


def test_a_face_of_no_size_is_no_nan() -> None:
    faces = [[10, 10, 0, 0], [30, 30, -2, 23], [50, 50, 10, 10]]
    rows = [[10, 10, 0, 0, 0.9], [30, 30, 1, 23, 0.8], [50, 50, 10, 10, 0.7], [0, 0, 1, 1, 0.1]]
    assert np.isfinite(three(one(faces, rows))).all()
    assert three(one(faces, rows, easy=[False, False, True]))[0] == pytest.approx(0.5)


def test_truth_without_levels_is_refused_with_the_remedy() -> None:
    truth = Annotations([[1, 1, 9, 9]], [0])
    with pytest.raises(DataError, match=r"widerface: which faces are easy, medium, hard .* wider_easy_val\.mat"):
        evaluate({"a": truth}, {}, ("face",), ("widerface",))
    with pytest.raises(DataError, match="expected the class 'face', got cat, dog"):
        evaluate({"a": truth}, {}, ("cat", "dog"), ("widerface",))


def test_other_classes_do_not_matter() -> None:
    truths, found = small_set(4).records()
    judged = three(judge(truths, found))
    moved = {n: Annotations(t.boxes, t.labels + 1, t.difficult, t.ignore, t.crowd, t.extra) for n, t in truths.items()}
    other = {
        name: Detections([*own.boxes, [0, 0, 9, 9]], [*(own.labels + 1), 0], [*own.scores, 77.0])
        for name, own in found.items()
    }
    pool = lay_out(moved, other, ("cat", "face"))
    assert PROTOCOLS["widerface"].unfit(pool) is None
    assert three(PROTOCOLS["widerface"](pool)) == judged


def test_evaluation_has_rows_intervals_and_curves() -> None:
    truths, found = small_set(1).records()
    result = evaluate(truths, found, ("face",), ("widerface",), score_floor=0.0)
    rows = {row.name: row for row in result.metrics if row.protocol == "widerface"}
    assert list(rows) == KEYS
    for row in rows.values():
        assert row.interval is not None
        assert row.interval[0] <= row.value <= row.interval[1]
    curves = json.loads(json.dumps(result.as_dict(), allow_nan=False))["curves"]["widerface"]
    assert list(curves) == list(LEVELS)
    for level, curve in curves.items():
        recall, precision = np.array(curve["recall"]), np.array(curve["precision"])
        assert len(recall) <= 501
        assert (np.diff(recall) >= 0).all()
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        area = float(np.sum(np.diff(recall, prepend=0) * envelope))
        assert area == pytest.approx(rows[f"AP{level}"].value, abs=0.02)
