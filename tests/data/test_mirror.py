"""Classes that a mirror exchanges: exactly when mirrored, both ways, by names that the data knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.augment import augmentation, for_classes
from onestage.data.dataset import Dataset
from onestage.data.loader import Loader
from onestage.data.mirror import Swap, mirrored
from onestage.data.policy import Policy
from onestage.data.policy_check import policy_keeps_boxes
from onestage.errors import RecipeError
from onestage.records import Annotations, ImageInfo

SIGNS = ("stop", "left", "right", "u-turn", "keep left", "keep right")
PAIRS = {"left": "right", "keep right": "keep left"}
LABELS = (0, 2, 1, 3, 5, 4)
STILL = {"photometric": {"probability": 0.0}}
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("ssd", STILL), ("zoom", STILL), ("zoom", {"upside_down": 0.5, **STILL}), ("faceboxes", {**STILL, "min_face": 1.0}),
    ("darknet", {}), ("mosaic", {"probability": 0.0}),
]  # fmt: skip


def with_signs(name: str, **options: Any) -> Policy:
    return for_classes(augmentation(name, swap=PAIRS, **options), SIGNS)


def picture() -> tuple[np.ndarray, Annotations]:
    rng = np.random.default_rng(5)
    corners = rng.uniform(10, 60, (6, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (6, 2))], 1)
    return rng.integers(0, 255, (100, 120, 3), np.uint8), Annotations(boxes, np.arange(6), extra={"line": np.arange(6)})


@pytest.mark.parametrize(("name", "options"), POLICIES, ids=lambda value: str(value)[:30])
def test_labels_change_exactly_where_the_picture_is_mirrored(name: str, options: dict[str, Any]) -> None:
    policy, plain = with_signs(name, **options), augmentation(name, **options)
    image, truth = picture()
    ways = set()
    for seed in range(40):
        found = policy(image, truth, np.random.default_rng(seed), (96, 96))
        other = plain(image, truth, np.random.default_rng(seed), (96, 96))
        assert np.array_equal(found.image, other.image)
        assert np.array_equal(found.annotations.boxes, other.annotations.boxes)
        was = other.annotations.extra["line"]
        is_mirrored = bool(found.transform.scale_x < 0)
        ways.add((is_mirrored, bool(found.transform.scale_y < 0)))
        assert np.array_equal(found.annotations.labels, np.array(LABELS)[was] if is_mirrored else was)
    assert len(ways) == (4 if "upside_down" in options else 2)


@given(st.lists(st.integers(0, 7), max_size=9), st.permutations(SIGNS), st.integers(0, 3))
def test_mirroring_twice_is_the_identity(labels: list[int], names: list[str], pairs: int) -> None:
    swap = Swap.of([names[2 * i : 2 * i + 2] for i in range(pairs)]).among(SIGNS)
    truth = Annotations(np.ones((len(labels), 4)) * [0, 0, 9, 9], labels)
    twice = mirrored(mirrored(truth, swap), swap)
    assert np.array_equal(twice.labels, truth.labels)
    assert np.array_equal(np.sort(mirrored(Annotations(np.zeros((6, 4)), range(6)), swap).labels), np.arange(6))


@given(st.integers(0, 2**32 - 1))
def test_a_whole_sample_mirrored_twice_is_the_picture(seed: int) -> None:
    policy = with_signs("zoom", scale=(1.0, 1.0), aspect=(1.0, 1.0), mirror=1.0, **STILL)
    image, truth = picture()
    once = policy(image, truth, np.random.default_rng(seed), (120, 100))
    twice = policy(once.image, once.annotations, np.random.default_rng(seed), (120, 100))
    assert np.array_equal(twice.image, image)
    assert np.array_equal(twice.annotations.labels, truth.labels)
    assert np.allclose(twice.annotations.boxes, truth.boxes)
    assert not np.array_equal(once.annotations.labels, truth.labels)


def test_pairs_are_taken_from_a_mapping_or_a_list_and_work_both_ways() -> None:
    for written in (
        PAIRS,
        [["left", "right"], ["keep left", "keep right"]],
        {"left": "right", "right": "left", **PAIRS},
    ):
        assert Swap.of(written).among(SIGNS).labels == LABELS
    assert Swap.of({30: 50}).among(("30", "50")).labels == (1, 0)
    assert Swap.of({}).among(SIGNS) == Swap()


@pytest.mark.parametrize(
    ("written", "words"),
    [({"left": "right", "keep left": "left"}, "'left' is in two pairs"), ({"stop": "stop"}, "'stop' is paired with"),
     ([["left"]], "two class names"), ("left", "expected pairs"), (3, "expected pairs"),
     ({"left": None}, "two class names")],
)  # fmt: skip
def test_what_is_no_pair_is_refused(written: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        augmentation("zoom", swap=written)


def test_an_unknown_class_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="the data has not") as caught:
        for_classes(augmentation("mosaic", swap={"left": "rigth", "stp": "u-turn"}), SIGNS)
    assert [problem.split(" (")[0] for problem in caught.value.problems] == ["'rigth'", "'stp'"]
    assert "did you mean 'right'?" in caught.value.problems[0]


def test_names_that_nobody_resolved_are_no_silent_nothing() -> None:
    image, truth = picture()
    with pytest.raises(ValueError, match="for_classes"):
        augmentation("zoom", swap=PAIRS, mirror=1.0)(image, truth, np.random.default_rng(0), (64, 64))


def test_the_loader_resolves_names_of_its_own_policy_and_of_one_for_an_epoch(tmp_path: Path) -> None:
    image, truth = picture()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    info = ImageInfo("a", tmp_path / "a.png", 120, 100)
    data = Dataset(tmp_path, "voc", "train", SIGNS, (info,), {"a": truth})
    policy = augmentation("zoom", scale=(1.0, 1.0), aspect=(1.0, 1.0), mirror=1.0, swap=PAIRS)
    for batch in (
        *Loader(data, (120, 100), policy, prefetch=0).epoch(0),
        *Loader(data, (120, 100), "none", prefetch=0).epoch(0, policy=policy),
        Loader(data, (120, 100), "none").batch_of(0, 0, policy=policy),
    ):
        assert batch.annotations[0].labels.tolist() == list(LABELS)
    with pytest.raises(RecipeError, match="the data has not"):
        Loader(data, (120, 100), augmentation("ssd", swap={"port": "starboard"}))


@pytest.mark.parametrize(("name", "options"), POLICIES, ids=lambda value: str(value)[:30])
def test_the_check_of_policies_takes_no_swap_for_a_fault(name: str, options: dict[str, Any]) -> None:
    assert policy_keeps_boxes(with_signs(name, **options), (96, 96), tries=40) == []


def test_the_check_of_policies_finds_a_swap_that_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = for_classes(augmentation("zoom", swap={"stop": "left"}), SIGNS)
    monkeypatch.setattr("onestage.data.augment.mirrored", lambda annotations, swap: annotations)
    (finding,) = policy_keeps_boxes(policy, (96, 96))
    assert finding.code == "policy-changes-labels"
    assert "and is mirrored, which makes it" in finding.what
