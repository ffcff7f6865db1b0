"""VisDrone's numbers against its own toolkit run in Octave, the ignored regions pixel by pixel, and what must hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onestage.data.detections import visdrone as detections_txt
from onestage.data.formats import visdrone as truth_txt
from onestage.evaluation import PROTOCOLS, Judgement, evaluate, lay_out
from onestage.evaluation.ignored_regions import inside_regions
from onestage.evaluation.visdrone import OFFICIAL, PLAIN, visdrone
from onestage.records import Annotations, Detections

GOLDEN = Path(__file__).parents[1] / "golden" / "visdrone"
CLASSES = truth_txt.CLASSES
EXACT = 1e-12


def load_make() -> Any:
    spec = importlib.util.spec_from_file_location("golden_visdrone_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = load_make()
OFFICIALLY: dict[str, dict[str, list[float]]] = json.loads((GOLDEN / "official.json").read_text())
SETS = dict(make.sets(None))


def read_set(root: Path, probe_images: bool = False) -> tuple[dict[Any, Annotations], dict[Any, Detections]]:
    """A set's files as records, through both readers."""
    dataset = truth_txt.read(root, None, probe_images=probe_images)
    rows = detections_txt.read(root / "detections")
    found = {
        image: Detections(
            rows.boxes[of], rows.label[of], rows.scores[of], {key: column[of] for key, column in rows.extra.items()}
        )
        for k, image in enumerate(rows.images) for of in [np.flatnonzero(rows.image == k)]
    }  # fmt: skip
    return {image.id: dataset.annotations[image.id] for image in dataset.images}, found


def judged(made: Any, root: Path) -> Judgement:
    return visdrone(lay_out(*read_set(made.write(root)), CLASSES, made.sizes))


def expect_official(values: Mapping[Any, float], official: Mapping[str, list[float]]) -> None:
    seven = [100 * values[name, None] for name in OFFICIAL]
    assert seven == pytest.approx(official["official"], rel=0, abs=100 * EXACT)
    for k, name in enumerate(CLASSES):
        ours = [100 * values[key, name] for key in ("AP50-95", "AP50", "AR500")]
        expected = official.get(str(k + 1), [np.nan] * 3)
        assert ours == pytest.approx(expected, rel=0, abs=100 * EXACT, nan_ok=True), name


def records(seed: int, images: int = 8, ties: bool = False) -> tuple[dict[str, Annotations], dict[str, Detections]]:
    """A random set with regions, truths of score 0 and unsorted rows; three classes."""
    rng = np.random.default_rng(seed)
    truths, found = {}, {}
    for k in range(images):
        n, m = rng.integers(2, 12), rng.integers(0, 20)
        corner = rng.uniform(0, 90, (n, 2))
        boxes = np.hstack([corner, corner + rng.uniform(3, 40, (n, 2))])
        region, ignore = rng.random(n) < 0.1, rng.random(n) < 0.15
        extra = {"region": region}
        labels = np.where(region, 0, rng.integers(0, 3, n))
        truths[f"i{k}"] = Annotations(boxes, labels, ignore=ignore | region, extra=extra)
        pick = rng.integers(0, n, m)
        near = boxes[pick] + rng.normal(0, 2, (m, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = rng.random(m).round(1) if ties else rng.random(m)
        row = {"row": np.arange(m)}
        found[f"i{k}"] = Detections(near, np.where(rng.random(m) < 0.8, labels[pick], 1), scores, row)
    return truths, found


# ---- the official tool


@pytest.mark.parametrize("name", [name for name in OFFICIALLY if name != "val"])
def test_equals_the_official_toolkit(name: str, tmp_path: Path) -> None:
    expect_official(judged(SETS[name], tmp_path / "set").values(), OFFICIALLY[name])


def test_equals_the_official_toolkit_on_real_annotations(shared: Path, tmp_path: Path) -> None:
    made = make.of_val(shared / "visdrone" / "VisDrone2019-DET-val")
    assert sum(map(len, made.truth.values())) > 500
    expect_official(judged(made, tmp_path / "set").values(), OFFICIALLY["val"])


@pytest.mark.parametrize("name", ["crowded-0", "crowded-3", "over-the-limit"])
def test_boxes_cut_at_the_border_of_real_images_are_judged_as_written(name: str, tmp_path: Path) -> None:
    made = SETS[name]
    root = made.write(tmp_path / "set")
    (root / "images").mkdir()
    for image, (width, height) in made.sizes.items():
        cv2.imwrite(str(root / "images" / f"{image}.png"), np.zeros((height, width, 3), np.uint8))
    truths, found = read_set(root, probe_images=True)
    outside = [(t.boxes[:, 2:] > made.sizes[i]).any() or (t.boxes < 0).any() for i, t in truths.items()]
    assert not any(outside)
    expect_official(visdrone(lay_out(truths, found, CLASSES, made.sizes)).values(), OFFICIALLY[name])


def test_the_goldens_have_teeth(tmp_path: Path) -> None:
    # Each of these departs from the rule in one place; the official numbers must tell
    made = SETS["crowded-1"]
    official = OFFICIALLY["crowded-1"]["official"]
    truths, found = read_set(made.write(tmp_path / "set"))
    without_size = visdrone(lay_out(truths, found, CLASSES)).values()
    sorted_rows = {i: Detections(d.boxes, d.labels, d.scores) for i, d in found.items()}
    in_order = visdrone(lay_out(truths, sorted_rows, CLASSES, made.sizes)).values()
    without_regions = {i: t.take(~t.extra["region"]) for i, t in truths.items()}
    unmasked = visdrone(lay_out(without_regions, found, CLASSES, made.sizes)).values()
    for values in (without_size, in_order, unmasked):
        assert [100 * values[name, None] for name in OFFICIAL] != pytest.approx(official, abs=1e-3)


def test_official_means_weigh_classes_by_images_and_plain_ones_do_not() -> None:
    box = [[10.0, 10, 30, 30]]
    truths = {i: Annotations(np.array(box), [0]) for i in "abc"} | {"d": Annotations(np.array(box), [1])}
    found = {i: Detections(np.array(box), [0], [0.9]) for i in "abc"}
    values = visdrone(lay_out(truths, found, ["x", "y", "none"])).values()
    for official, plain in zip(OFFICIAL, PLAIN, strict=True):
        assert values[official, None] == pytest.approx(3 / 4)
        assert values[plain, None] == pytest.approx(1 / 2)
    assert values["AP50", "x"] == pytest.approx(1)
    assert values["AP50", "y"] == 0
    assert np.isnan(values["AP50", "none"])


# ---- ignored regions


def pixel_by_pixel(box: np.ndarray, regions: np.ndarray, width: int, height: int) -> bool:
    """Whether the toolkit drops a box, from a map of pixels that count from 1."""
    covered = np.zeros((height + 1, width + 1), bool)
    for left, top, w, h in np.maximum(1, regions):
        covered[int(top) : int(min(height, top + h)) + 1, int(left) : int(min(width, left + w)) + 1] = True
    total = covered.cumsum(0).cumsum(1)
    x, y, w, h = (max(1, int(np.trunc(v + np.copysign(0.5, v)))) for v in box)
    x, y = min(width, x), min(height, y)
    right, bottom = min(width, x + w), min(height, y + h)
    inside = total[y, x] + total[bottom, right] - total[y, right] - total[bottom, x]
    return bool(inside / (h * w) >= 0.5)


whole = st.integers(-6, 40)
region_rows = st.lists(st.tuples(whole, whole, st.integers(0, 30), st.integers(0, 30)), max_size=4)
box_rows = st.lists(
    st.tuples(*[st.integers(-24, 160).map(lambda v: v / 4)] * 2, *[st.integers(0, 120).map(lambda v: v / 4)] * 2),
    min_size=1, max_size=6,
)  # fmt: skip


@given(region_rows, box_rows, st.integers(1, 36), st.integers(1, 36))
@settings(max_examples=200)
def test_regions_are_counted_as_pixels(
    regions: list[tuple[float, ...]], boxes: list[tuple[float, ...]], width: int, height: int
) -> None:
    rows = np.array(regions, float).reshape(-1, 4)
    got = inside_regions(np.array(boxes), rows, np.array([width, height], float))
    assert got.tolist() == [len(rows) > 0 and pixel_by_pixel(np.array(b), rows, width, height) for b in boxes]


@given(region_rows, box_rows, st.integers(1, 36), st.integers(1, 36))
@settings(max_examples=200)
def test_an_unknown_size_matters_only_where_box_and_region_cross_the_same_border(
    regions: list[tuple[float, ...]], boxes: list[tuple[float, ...]], width: int, height: int
) -> None:
    rows, found, size = np.array(regions, float).reshape(-1, 4), np.array(boxes), np.array([width, height], float)
    known, unknown = inside_regions(found, rows, size), inside_regions(found, rows, np.full(2, np.nan))
    far = np.maximum(1, np.floor(found[:, :2] + 0.5)) + np.maximum(1, np.floor(found[:, 2:] + 0.5))
    region_far = (np.maximum(1, rows[:, :2]) + np.maximum(1, rows[:, 2:])).max(0, initial=0)
    both = ((far > size) & (region_far > size)).any(1)
    assert (known == unknown)[~both].all()


def test_an_unknown_size_can_matter() -> None:
    box, region = np.array([[15.0, 5, 20, 10]]), np.array([[12.0, 1, 30, 30]])
    assert not inside_regions(box, region, np.array([20.0, 40.0]))[0]
    assert inside_regions(box, region, np.full(2, np.nan))[0]


def test_others_are_no_ignored_region_and_a_category_0_is_one() -> None:
    area, car = [[0.0, 0, 100, 100], [20, 20, 40, 40]], [[20.0, 20, 40, 40]]
    found = {"i": Detections(np.array(car), [1], [0.9])}
    for category, n in ((0, 0), (11, 1)):
        extra = {"region": np.array([True, False]), "category": np.array([category, 2])}
        truth = Annotations(np.array(area), [0, 1], ignore=[True, False], extra=extra)
        judgement = visdrone(lay_out({"i": truth}, found, ["person", "car"], {"i": (100, 100)}))
        assert judgement.count(("AP", None)) == n
        assert np.isnan(judgement.values()["AP", None]) == (n == 0)


# ---- what must hold


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_a_repeated_image(seed: int) -> None:
    truths, found = records(seed)
    classes = ["a", "b", "c"]
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(truths)))
    judgement = visdrone(lay_out(truths, found, classes))
    values = judgement.scores(weights)
    for b, row in enumerate(weights):
        copies = [(i, f"{i}+{k}") for i, n in zip(sorted(truths), row, strict=True) for k in range(n)]
        repeated = visdrone(lay_out({to: truths[i] for i, to in copies}, {to: found[i] for i, to in copies}, classes))
        expected = repeated.values()
        assert expected.keys() == values.keys()
        for key, value in expected.items():
            assert values[key][b] == pytest.approx(value, rel=0, abs=EXACT, nan_ok=True), key


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_order_of_the_mapping_changes_nothing(seed: int) -> None:
    truths, found = records(seed, ties=True)
    shuffled = dict(sorted(truths.items(), key=lambda item: hash((seed, item[0]))))
    first = visdrone(lay_out(truths, found, ["a", "b", "c"])).values()
    second = visdrone(lay_out(shuffled, dict(reversed(found.items())), ["a", "b", "c"])).values()
    assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True)


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=25)
def test_a_false_detection_never_raises_ap(seed: int, score: float) -> None:
    truths, found = records(seed)
    before = visdrone(lay_out(truths, found, ["a", "b", "c"])).values()
    old = found["i0"]
    more = Detections(
        np.vstack([old.boxes, [[500, 500, 540, 540]]]), [*old.labels, 0], [*old.scores, score],
        {"row": np.array([*old.extra["row"], len(old)])},
    )  # fmt: skip
    after = visdrone(lay_out(truths, {**found, "i0": more}, ["a", "b", "c"])).values()
    assert all(after[key] <= before[key] + EXACT for key in before if not np.isnan(before[key]))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_perfect_detections_give_1_where_nothing_is_of_score_0(seed: int) -> None:
    truths, _ = records(seed)
    truths = {i: t.take(t.extra["region"] | ~t.ignore) for i, t in truths.items()}
    found = {}
    for i, t in truths.items():
        own = t.take(~t.extra["region"])
        found[i] = Detections(own.boxes, own.labels, np.full(len(own), 0.5))
    values = visdrone(lay_out(truths, found, ["a", "b", "c"])).values()
    assume(not np.isnan(values["AP", None]))
    assert values["AP", None] == pytest.approx(1)
    assert values["mAR500", None] == pytest.approx(1)


def test_a_truth_of_score_0_takes_many_and_cannot_be_found() -> None:
    boxes = np.array([[0.0, 0, 50, 50], [100, 100, 120, 120]])
    truth = Annotations(boxes, [0, 0], ignore=[True, False])
    inside = np.array([[5.0, 5, 15, 15], [20, 20, 30, 30], [100, 100, 120, 120]])
    judgement = visdrone(lay_out({"i": truth}, {"i": Detections(inside, [0, 0, 0], [0.9, 0.8, 0.7])}, ["a"]))
    assert judgement.count(("AP50", "a")) == 2  # the toolkit counts both as objects …
    assert judgement.values()["AP50", "a"] == pytest.approx(0.5)  # … and none of the first two as false


def test_rows_left_out_of_the_file_keep_their_place() -> None:
    box = np.array([[10.0, 10, 30, 30]])
    truths = {"i": Annotations(box, [0])}
    for row, recall in ((0, 1.0), (1, 0.0)):
        found = {"i": Detections(box, [0], [0.9], {"row": np.array([row])})}
        assert visdrone(lay_out(truths, found, ["a"])).values()["AR1", None] == recall


def test_a_box_moved_after_reading_is_judged_where_it_lies_now() -> None:
    moved, written = np.array([[50.0, 50, 70, 70]]), np.array([[10.0, 10, 20, 20]])
    truths = {"i": Annotations(moved, [0], extra={"xywh": written})}
    values = visdrone(lay_out(truths, {"i": Detections(moved, [0], [1.0])}, ["a"])).values()
    assert values["AP", None] == 1


def test_nothing_to_judge_is_no_number_and_no_error() -> None:
    keys = {(name, None) for name in OFFICIAL + PLAIN}
    for truths, classes in (({}, ["a"]), ({"i": Annotations.empty()}, ["a"]), ({"i": Annotations.empty()}, [])):
        values = visdrone(lay_out(truths, {}, classes)).values()
        assert all(np.isnan(values[key]) for key in keys)
    truth = {"i": Annotations(np.array([[0.0, 0, 9, 9]]), [0])}
    values = visdrone(lay_out(truth, {}, ["a"])).values()
    assert all(values[key] == 0 for key in keys)


def test_notes_say_what_could_not_be_followed() -> None:
    box = np.array([[10.0, 10, 30, 30], [0, 0, 5, 5]])
    plain = {"i": Annotations(box, [0, 0])}
    backwards = {"i": Detections(box, [0, 0], [0.2, 0.9], {"row": np.array([0, 1])})}
    assert [note.split(",")[0] for note in visdrone(lay_out(plain, backwards, ["a"])).notes] == [
        "the truth names no ignored region",
        "the rows of 1 images are not sorted by score; the first 1",
    ]
    region = {"i": Annotations(box, [0, 0], ignore=[False, True], extra={"region": np.array([False, True])})}
    assert "sizes of 1 images" in visdrone(lay_out(region, {}, ["a"])).notes[0]
    assert "sizes of 1 images" in visdrone(lay_out(region, {}, ["a"], {"i": (0, 0)})).notes[0]
    assert visdrone(lay_out(region, {}, ["a"], {"i": (40, 40)})).notes == ()


def test_it_is_one_of_the_protocols() -> None:
    truths, found = records(3)
    evaluation = evaluate(truths, found, ["a", "b", "c"], ("visdrone",), resamples=20)
    row = evaluation.metrics.row(PROTOCOLS["visdrone"].headline, "visdrone")
    assert row.interval is not None
    assert row.interval[0] <= row.value <= row.interval[1]
    assert row.n == visdrone(lay_out(truths, found, ["a", "b", "c"])).count(("AP", None))
