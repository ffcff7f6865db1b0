"""Records refuse what does not fit, and come back from JSON as they went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage import errors
from onestage.errors import OnestageError, did_you_mean
from onestage.records import Annotations, Batch, Detections, Finding, ImageInfo, ImageTransform, Metric, Metrics, Where


def test_columns_must_be_as_long_as_the_boxes() -> None:
    with pytest.raises(ValueError, match=r"labels: expected 2 values, one per box, got 1"):
        Annotations(np.zeros((2, 4)), [0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected shape \(N, 4\)"):
        Annotations(np.zeros((2, 5)), [0, 0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"extra\['area'\]"):
        Annotations(np.zeros((1, 4)), [0], extra={"area": np.zeros(3)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="difficult"):
        Annotations(np.zeros((1, 4)), [0], difficult=[True, False])  # type: ignore[arg-type]


def test_nothing_is_a_set_of_boxes() -> None:
    assert Annotations.empty().boxes.shape == (0, 4)
    assert Detections.empty().boxes.shape == (0, 4)
    assert len(Annotations([], [])) == 0  # type: ignore[arg-type]


def test_records_do_not_share_memory_with_what_made_them() -> None:
    boxes = np.ones((1, 4))
    annotations = Annotations(boxes, [0])  # type: ignore[arg-type]
    boxes[:] = 9
    assert annotations.boxes.tolist() == [[1, 1, 1, 1]]


def test_taking_rows_takes_all_columns() -> None:
    whole = Annotations(
        np.arange(12.0).reshape(3, 4),
        [0, 1, 2],
        difficult=[True, False, True],
        extra={"line": [7, 8, 9]},  # type: ignore[arg-type, dict-item]
    )
    some = whole.take(np.array([2, 0]))
    assert some.labels.tolist() == [2, 0]
    assert some.difficult.tolist() == [True, True]
    assert some.extra["line"].tolist() == [9, 7]
    moved = whole.take(np.array([True, False, False]), boxes=np.zeros((1, 4)))
    assert moved.boxes.tolist() == [[0, 0, 0, 0]]


def test_detections_are_sorted_and_ties_keep_their_order() -> None:
    found = Detections(np.arange(16.0).reshape(4, 4), [0, 1, 2, 3], [0.5, 0.9, 0.5, 0.1])  # type: ignore[arg-type]
    assert found.labels.tolist() == [1, 0, 2, 3]
    assert len(found.above(0.5)) == 3


def test_extra_columns_of_detections_move_with_their_rows() -> None:
    found = Detections(np.zeros((3, 4)), [0, 1, 2], [0.1, 0.9, 0.5], {"row": [0, 1, 2]})  # type: ignore[arg-type]
    assert found.extra["row"].tolist() == [1, 2, 0]
    assert found.above(0.5).extra["row"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"extra\['row'\]: expected 3 values, got 1"):
        Detections(np.zeros((3, 4)), [0, 1, 2], [0.1, 0.9, 0.5], {"row": [0]})  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [np.nan, -np.inf, np.inf])
def test_scores_that_are_no_numbers_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        Detections(np.zeros((1, 4)), [0], [score])  # type: ignore[arg-type]


number = st.floats(-500, 500)


@given(
    st.lists(st.tuples(number, number, number, number), max_size=5),
    st.floats(0.05, 20), st.floats(0.05, 20), number, number,
)  # fmt: skip
def test_transforms_are_undone(rows: list[tuple[float, ...]], sx: float, sy: float, px: float, py: float) -> None:
    transform = ImageTransform(sx, sy, px, py)
    there = transform.to_net(rows)
    assert there.shape == (len(rows), 4)
    np.testing.assert_allclose(transform.to_image(there), np.reshape(rows, (-1, 4)), atol=1e-6)


def test_a_batch_is_of_one_length() -> None:
    images = np.zeros((2, 3, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="ids: expected 2 entries, got 1"):
        Batch(images, [Annotations.empty()] * 2, [ImageTransform()] * 2, ["a"], [1, 2])
    with pytest.raises(ValueError, match="uint8"):
        Batch(images.astype(np.float64), [], [], [], [])


def test_an_image_has_a_size() -> None:
    with pytest.raises(ValueError, match="positive size"):
        ImageInfo("a", Path("a.jpg"), 0, 4)


def test_metrics_come_back_from_json() -> None:
    metrics = Metrics((
        Metric("voc10", "mAP50", 0.5, 7, interval=(0.4, 0.6)), Metric("voc10", "AP50", float("nan"), 0, "cat"),
    ))  # fmt: skip
    again = Metrics.from_list(metrics.as_list())
    assert again.row("mAP50") == metrics.row("mAP50")
    assert np.isnan(again.value("AP50", "voc10", "cat"))
    with pytest.raises(KeyError, match="voc10/mAP50"):
        metrics.row("mAP75")


def test_a_place_in_words() -> None:
    where = Where("a/b.xml", 7, "b", (1.0, 2, 3, 4))
    assert str(where) == "a/b.xml:7, box (1, 2, 3, 4)"
    assert str(Where(image="x", step=4)) == "image x, step 4"
    finding = Finding("zero-area-box", "warning", where, "what").as_dict()
    assert finding["where"] == {"file": "a/b.xml", "line": 7, "image": "b", "box": (1.0, 2, 3, 4)}


def test_exit_codes_are_the_promised_ones() -> None:
    promised = {
        "OnestageError": 1, "FetchError": 1, "StorageError": 1, "LostRankError": 1, "UsageError": 2, "RecipeError": 2,
        "DataError": 3, "ModelError": 4, "ExportError": 5, "GateError": 6, "DivergedError": 7,
    }  # fmt: skip
    family = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, OnestageError)
    }
    assert {name: kind.exit_code for name, kind in family.items()} == promised


def test_an_error_tells_what_where_and_what_to_try() -> None:
    error = OnestageError("it broke", problems=["here", "there"], hint="mend it")
    assert str(error) == "it broke\n  - here\n  - there\n  try: mend it"
    assert did_you_mean("epohs", ["epochs", "batch"]) == " (did you mean 'epochs'?)"
    assert did_you_mean("zzz", ["epochs"]) == ""
