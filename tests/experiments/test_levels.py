"""Which level has the small objects, whatever the order of a network; means of levels, weighted by counts."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_darknet_lines import DIARY, printed

from onestage.experiments.levels import COLUMNS, Level, Tally, last_epoch, levels_in, sized

ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
# YOLOv3's heads as its cfg has them: layer, stride, mask.
HEADS = ((82, 32, (6, 7, 8)), (94, 16, (3, 4, 5)), (106, 8, (0, 1, 2)))


def yolov3() -> list[Level]:
    return sized(
        [Level(s, (416 // s, 416 // s), tuple(ANCHORS[i] for i in mask), layer=layer) for layer, s, mask in HEADS]
    )


def scale(count: int, iou: float | None, noobj: float | None = 0.01) -> dict[str, Any]:
    return {"count": count, **dict.fromkeys(("iou", "cls", "obj", "r50", "r75"), iou), "noobj": noobj}


def test_the_large_stride_has_the_large_objects() -> None:
    # diary 001 reads it the other way round: layer 82, 13x13 cells of 32 px at 416, has the largest anchors
    assert [(level.layer, level.words) for level in yolov3()] == [
        (82, "stride 32, large objects (116x90 to 373x326 px)"),
        (94, "stride 16, medium objects (30x61 to 59x119 px)"),
        (106, "stride 8, small objects (10x13 to 33x23 px)"),
    ]


@given(st.permutations(range(3)))
def test_the_order_of_the_levels_changes_no_word(order: list[int]) -> None:
    levels = yolov3()
    assert [level.words for level in sized([levels[i] for i in order])] == [levels[i].words for i in order]


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, ["all"]), (2, ["small", "large"]), (4, ["small", "medium", "large", "very large"]),
     (8, [f"size {i} of 8" for i in range(1, 9)])],
)  # fmt: skip
def test_any_number_of_levels_has_words(count: int, words: list[str]) -> None:
    found = sized([Level(8 * 2**i, (1, 1), ((16.0 * 2**i, 16.0 * 2**i),)) for i in range(count)])
    assert [level.size for level in found] == words
    assert len({level.words for level in found}) == count


def test_levels_alike_in_anchors_go_by_their_stride() -> None:
    found = sized([Level(32, (2, 2), ((30.0, 30.0),)), Level(16, (4, 4), ((30.0, 30.0),))])
    assert [level.words for level in found] == [
        "stride 32, large objects (30x30 px)",
        "stride 16, small objects (30x30 px)",
    ]
    assert sized([Level(32, (2, 2), ())])[0].words == "stride 32, all objects"
    assert sized([]) == []


def test_run_json_keeps_all_of_it() -> None:
    info = json.loads(json.dumps({"model": {"levels": [level.as_dict() for level in yolov3()]}}))
    assert levels_in(info) == yolov3()
    assert info["model"]["levels"][2] == {
        "stride": 8, "grid": [52, 52], "anchors": [[10, 13], [16, 30], [33, 23]], "size": "small", "layer": 106,
        "words": "stride 8, small objects (10x13 to 33x23 px)",
    }  # fmt: skip


@pytest.mark.parametrize("model", [None, "yolov3", {}, {"levels": None}, {"levels": [3]}, {"levels": [{"stride": 8}]},
                                   {"levels": [{"stride": 8, "grid": [], "anchors": []}]}])  # fmt: skip
def test_runs_that_do_not_say_have_none(model: Any) -> None:
    assert levels_in({"model": model}) == []


def test_means_are_weighted_by_counts_and_an_empty_level_has_none() -> None:
    rows = [
        {"step": 1, "images": 8, "scales": [scale(0, None, 0.1), scale(1, 0.9), scale(327, 0.3)]},
        {"step": 2, "images": 8, "scales": [scale(0, None, 0.3), scale(3, 0.5), scale(109, 0.7)]},
    ]
    tally = Tally.of(rows)
    empty, middle, most = tally.rows()
    assert (empty.count, empty.share, empty.means["iou"]) == (0, 0.0, None)
    assert empty.means["noobj"] == pytest.approx(0.2)  # a mean over all boxes: it has no need of truths
    assert middle.means["iou"] == pytest.approx((0.9 + 3 * 0.5) / 4)
    assert most.means["iou"] == pytest.approx((327 * 0.3 + 109 * 0.7) / 436)
    assert most.share == pytest.approx(436 / 440)
    assert tally.table(yolov3())[0] == ["stride 32, large objects", "0.0 %", "-", "-", "-", "0.200", "-", "-"]
    assert {len(row) for row in tally.table(yolov3())} == {len(COLUMNS)}
    assert [row[0] for row in tally.table([])] == ["level 1 of 3", "level 2 of 3", "level 3 of 3"]
    assert tally.when == "steps 1 to 2"


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_mean_is_that_of_all_truths_together(steps: list[tuple[int, float]]) -> None:
    rows = [{"step": i, "scales": [scale(n, value if n else None)]} for i, (n, value) in enumerate(steps, 1)]
    pooled = [value for n, value in steps for _ in range(n)]
    said = Tally.of(rows).rows()[0]
    assert said.count == len(pooled)
    assert said.means["iou"] == (pytest.approx(math.fsum(pooled) / len(pooled), abs=1e-9) if pooled else None)
    assert said.share == (1.0 if pooled else None)


def test_no_obj_goes_by_how_many_boxes_there_were() -> None:
    rows = [{"step": 1, "images": 4, "size": [320, 320], "scales": [scale(1, 1.0, 0.4)]},
            {"step": 2, "images": 2, "size": [640, 640], "scales": [scale(1, 1.0, 0.1)]}]  # fmt: skip
    assert Tally.of(rows).rows()[0].means["noobj"] == pytest.approx((0.4 * 4 + 0.1 * 8) / 12)


def test_what_was_left_out_or_does_not_tell_has_no_part() -> None:
    rows = [{"step": 1, "scales": [scale(4, 0.5)]}, {"step": 2}, {"step": 3, "scales": None},
            {"step": 4, "skipped": True, "scales": [scale(9, math.nan)]}]  # fmt: skip
    assert Tally.of(rows).rows()[0].means["iou"] == 0.5
    assert Tally.of(rows[1:]).rows() == []
    assert Tally.of([]).table(yolov3()) == []


def test_where_a_truth_has_several_boxes_matches_are_counted() -> None:
    row = {"step": 1, "truths": 5, "scales": [scale(2, 0.5), scale(3, 0.5)]}
    assert Tally.of([row]).counted == "5 truths"
    assert Tally.of([{**row, "truths": 4}]).counted == "5 matches of 4 truths"


def test_the_last_epoch_has_as_many_steps_as_one_has() -> None:
    rows = [{"step": i, "epoch": (i - 1) // 4, "scales": [scale(1, 0.5)]} for i in range(1, 11)]
    assert [row["step"] for row in last_epoch(rows)] == [7, 8, 9, 10]
    assert list(last_epoch([{"step": 1, "epoch": 0}])) == []


def test_the_diary_of_darknet_comes_to_its_numbers() -> None:
    """One step of 16 subdivisions: a plain mean of the printed rows would let 27 truths weigh as much as 4994."""
    rows = printed(DIARY.read_text(encoding="utf-8"))
    scales = [[told for layer, told in rows if layer == wanted] for wanted in (82, 94, 106)]
    tally = Tally.of([{"step": i, "scales": list(three)} for i, three in enumerate(zip(*scales, strict=True), 1)])
    large, medium, small = tally.rows()
    assert (large.count, medium.count, small.count) == (27, 318, 4994)
    assert small.share == pytest.approx(0.935, abs=5e-4)
    for level, words in (
        (large, (0.681, 0.707, 0.586, 0.889, 0.407)), (medium, (0.758, 0.739, 0.622, 0.972, 0.582)),
        (small, (0.395, 0.538, 0.466, 0.393, 0.107)),
    ):  # fmt: skip
        assert [level.means[key] for key in ("iou", "cls", "obj", "r50", "r75")] == pytest.approx(words, abs=6e-4)
    assert tally.table(yolov3())[2][:2] == ["stride 8, small objects", "93.5 %"]
