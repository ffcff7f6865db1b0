"""What is refused as unfair, with every reason, and what is left of it with `common`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judged_runs import Set

from onestage.analysis.comparing import compare
from onestage.errors import GateError
from onestage.records import Annotations


def refused(*arms: object, **more: object) -> str:
    with pytest.raises(GateError) as caught:
        compare(*arms, **more)  # type: ignore[arg-type]
    assert caught.value.exit_code == 6
    return str(caught.value)


def changed(truth: Annotations, **columns: object) -> Annotations:
    return replace(truth, **columns)  # type: ignore[arg-type]


def test_all_reasons_are_given_at_once(tmp_path: Path) -> None:
    made = Set.made(30)
    a = made.run(tmp_path, "a", made.found(0.5))
    other = Set({image: truth for image, truth in made.truths.items() if image > 3}, ("cat", "dogs"))
    other.truths[5] = changed(other.truths[5], boxes=np.add(other.truths[5].boxes, [0, 0, 1, 0]))
    b = other.run(tmp_path, "b", other.found(0.5, floor=0.1), floor=0.1, iou=0.6, protocols=["voc07"])
    said = refused(a, b)
    for reason in (
        "a and b cannot be compared fairly", "classes: dog of a are not classes of all (did you mean 'dogs'?)",
        "images: 3 of the 30 images of a are not judged by all: 1, 2, 3", "truth: it differs in", "5 (",
        "score floor: a keeps nothing below 0.01, b keeps nothing below 0.1",
        "protocol: judged were a by voc07, voc10, coco; b by voc07", "IoU of non-maximum suppression: a 0.5, b 0.6",
        "--common compares what they share",
    ):  # fmt: skip
        assert reason in said, said


@pytest.mark.parametrize(
    ("why", "columns"),
    [
        ("other boxes", {"boxes": np.array([[0.0, 0, 9, 9], [10, 10, 20, 20]])}),
        ("other labels", {"labels": np.array([1, 1])}),
        ("other flags", {"difficult": np.array([True, False])}),
        ("other flags", {"ignore": np.array([True, False])}),
        ("other flags", {"crowd": np.array([False, True])}),
        ("other areas", {"extra": {"area": np.array([100.0, 2500.0])}}),
        ("other levels", {"extra": {"hard": np.array([True, False])}}),
        ("other scores or categories", {"extra": {"category": np.array([4, 5])}}),
        ("other ellipses", {"extra": {"ellipse": np.full((2, 5), 9.0)}}),
        ("2 and 0 boxes", {"boxes": np.zeros((0, 4)), "labels": [], "difficult": [], "ignore": [], "crowd": []}),
    ],
)
def test_a_truth_that_differs_in_one_image(tmp_path: Path, why: str, columns: dict) -> None:
    made, other = Set.made(20), Set.made(20)
    other.truths[7] = changed(other.truths[7], **columns)
    a, b = made.run(tmp_path, "a", made.found(0.5)), other.run(tmp_path, "b", made.found(0.9, 1))
    assert f"truth: it differs in 1 images: 7 ({why}, a and b)" in refused(a, b)
    found = compare(a, b, common=True)
    assert found.n_images == 19
    assert "it differs in 1 images: 7" in found.left_out[0]


def test_order_of_rows_and_of_classes_is_no_difference(tmp_path: Path) -> None:
    made = Set.made(20)
    other = Set({image: truth.take(np.array([1, 0])) for image, truth in made.truths.items()})
    turned = Set(
        {image: changed(truth, labels=1 - truth.labels) for image, truth in made.truths.items()}, ("dog", "cat")
    )
    a = made.run(tmp_path, "a", made.found(0.5))
    swapped = {image: replace(found, labels=1 - found.labels) for image, found in made.found(0.9).items()}
    b, c = other.run(tmp_path, "b", made.found(0.9)), turned.run(tmp_path, "c", swapped)
    assert compare(a, b).pairs[0].headline.value == compare(a, c).pairs[0].headline.value


def test_common_takes_shared_images_classes_and_the_higher_floor(tmp_path: Path) -> None:
    made = Set.made(30)
    fewer = Set({image: truth for image, truth in made.truths.items() if image > 10})
    a = made.run(tmp_path, "a", made.found(0.5))
    b = fewer.run(tmp_path, "b", {i: d for i, d in made.found(0.9, 1).items() if i > 10}, floor=0.3)
    found = compare(a, b, common=True)
    assert (found.n_images, found.floor, found.classes) == (20, 0.3, ("cat", "dog"))
    assert any("images: 10 of the 30 images of a" in left for left in found.left_out)
    alone = fewer.run(tmp_path, "c", {i: d.above(0.3) for i, d in made.found(0.5).items() if i > 10}, floor=0.3)
    assert compare(alone, b).pairs[0].headline == found.pairs[0].headline

    one = Set({i: t.take(t.labels == 0) for i, t in made.truths.items()}, ("cat",))
    d = one.run(tmp_path, "d", {i: f.take(f.labels == 0) for i, f in made.found(0.9, 1).items()})
    found = compare(a, d, common=True)
    assert (found.classes, found.n_truths) == (("cat",), 30)


def test_nothing_in_common(tmp_path: Path) -> None:
    made = Set.made(20)
    other = Set({image + 100: truth for image, truth in made.truths.items()})
    a, b = made.run(tmp_path, "a", made.found(0.5)), other.run(tmp_path, "b", other.found(0.5))
    assert "--common" not in refused(a, b)
    assert "nothing in common" in refused(a, b, common=True)


def test_files_cut_at_different_scores(tmp_path: Path) -> None:
    made = Set.made(20)
    truth = made.coco_file(tmp_path / "truth.json")
    low = made.detection_file(tmp_path / "low.json", made.found(0.5, floor=0.005))
    cut = made.detection_file(tmp_path / "cut.json", {i: d.above(0.3) for i, d in made.found(0.5, 1).items()})
    said = refused(low, cut, data=truth)
    assert "score floor: low has no score below 0.005, cut has no score below 0.3" in said
    assert "floor=…" in said
    assert compare(low, cut, data=truth, common=True).floor == pytest.approx(0.3, abs=0.1)
    assert compare(low, cut, data=truth, floor=0.35).floor == 0.35


def test_protocols_may_be_chosen_where_runs_differ(tmp_path: Path) -> None:
    made = Set.made(20)
    a = made.run(tmp_path, "a", made.found(0.5), protocols=["voc07"])
    b = made.run(tmp_path, "b", made.found(0.9), protocols=["voc10"])
    assert "protocol: judged were" in refused(a, b)
    assert "share no protocol" in refused(a, b, common=True)
    assert compare(a, b, protocol="voc10").protocol == "voc10"
    c = made.run(tmp_path, "c", made.found(0.9), protocols=["voc07"])
    assert compare(a, c).protocol == "voc07"
