"""Lines as darknet prints them: those of a diary come out to the letter, and are read by the readers of such logs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.experiments.dialects import DIALECTS, Darknet, Place

NUM = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|nan(?:\(ind\))?|inf|1\.#(?:IND|QNAN|INF)\d*)"
# The expressions of those who read such logs: the plain form, the tolerant one, the batch line.
REGION = re.compile(
    rf"^Region (\d+) Avg IOU: ({NUM}), Class: ({NUM}), Obj: ({NUM}), No Obj: ({NUM}), \.5R: ({NUM}), \.75R: ({NUM}),"
    r"\s+count: (\d+)$"
)
TOLERANT = re.compile(
    rf"^(?:v3 \((?P<kind>mse|iou|giou) loss, Normalizer: \((?P<norm>[^)]*)\) )?Region (?P<layer>\d+) Avg \(?IOU: "
    rf"(?P<iou>{NUM})(?:, GIOU: (?P<giou>{NUM}))?\)?(?P<rest>.*?),\s+count: (?P<count>\d+)(?P<tail>.*)$"
)
BATCH = re.compile(
    rf"^\s*(?P<it>\d+): (?P<loss>{NUM}), (?P<avg>{NUM}) avg(?: loss)?, (?P<lr>{NUM}) rate, (?P<sec>{NUM}) seconds, "
    rf"(?P<img>\d+) images(?:, (?P<left>{NUM}) (?:hours|time) left)?\s*$"
)
LOADED = re.compile(rf"^Loaded: ({NUM}) seconds$")
# What pjreddie's darknet printed at step 1631 of YOLOv3 on VisDrone, batch 128 in 16 subdivisions: a user's diary.
DIARY = Path(__file__).parents[1] / "golden" / "darknet" / "visdrone-1631.txt"
KEYS = ("iou", "cls", "obj", "noobj", "r50", "r75")
PLACE = Place(1, 1, 1, 1, math.nan, (82, 94, 106))


def printed(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The Region lines of a log as layer and what it tells; -nan is a level without truths."""
    found = [match for line in text.splitlines() if (match := REGION.match(line))]
    return [
        (int(match[1]), {"count": int(match[8]),
                         **{key: None if match[i] == "-nan" else float(match[i]) for i, key in enumerate(KEYS, 2)}})
        for match in found
    ]  # fmt: skip


def row(step: int = 1, **changed: Any) -> dict[str, Any]:
    level = {"count": 0, **dict.fromkeys(KEYS), "noobj": 0.00005}
    return {
        "step": step, "loss": 9.0, "cost": 64.0, "images": 8, "lr": {"backbone": 1e-4, "heads": 1e-3},
        "scales": [level] * 3, "seconds": {"data": 0.01, "step": 2.5}, **changed,
    }  # fmt: skip


# ---- the diary of pjreddie's darknet, "yolov3 on VisDrone", iteration 1631 at batch 128


def test_region_lines_of_the_diary_come_out_to_the_letter() -> None:
    text = DIARY.read_text(encoding="utf-8")
    theirs = [line for line in text.splitlines() if REGION.match(line)]
    rows = printed(text)
    assert len(rows) == 48  # 16 subdivisions of three levels
    ours = [
        Darknet()(row(scales=[told]), Place(1, 1, 1, 1, math.nan, (layer,)))[1] for layer, told in rows
    ]  # fmt: skip
    assert ours == theirs
    assert sum("-nan" in line for line in ours) == 6


def test_lines_of_the_diary_come_out_to_the_letter() -> None:
    words = Darknet()
    words.average, words.images = 28.899563, 1630 * 128
    full = {"count": 327, "iou": 0.367602, "cls": 0.526159, "obj": 0.513706, "noobj": 0.003694, "r50": 0.351682,
            "r75": 0.149847}  # fmt: skip
    empty = {"count": 0, **dict.fromkeys(KEYS), "noobj": 0.00005}
    step = row(1631, cost=27.562284 * 128, images=128, scales=[empty, full], lr={"all": 0.001},
               seconds={"data": 0.000049, "step": 11.283772})  # fmt: skip
    assert words(step, Place(1, 1, 1, 1, math.nan, (82, 106))) == [
        "Loaded: 0.000049 seconds",
        "Region 82 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.000050, .5R: -nan, .75R: -nan,  count: 0",
        "Region 106 Avg IOU: 0.367602, Class: 0.526159, Obj: 0.513706, No Obj: 0.003694, .5R: 0.351682, "
        ".75R: 0.149847,  count: 327",
        "1631: 27.562284, 28.765835 avg, 0.001000 rate, 11.283772 seconds, 208768 images",
    ]


# ---- what is remembered from step to step


def test_the_average_begins_with_the_first_and_forgets_a_tenth() -> None:
    words, average = Darknet(), 0.0
    for step, loss in enumerate((800.0, 700.0, 10.0), 1):
        last = BATCH.match(words(row(step, cost=8 * loss), PLACE)[-1])
        average = loss if step == 1 else 0.9 * average + 0.1 * loss
        assert last is not None
        assert float(last["loss"]) == loss
        assert float(last["avg"]) == pytest.approx(average, abs=1e-6)
        assert (int(last["it"]), int(last["img"]), float(last["lr"])) == (step, 8 * step, 1e-3)


def test_a_step_that_was_left_out_does_not_spoil_the_average() -> None:
    words = Darknet()
    words(row(1), PLACE)
    left_out = words(row(2, loss=math.nan, cost=math.nan, skipped=True), PLACE)[-1]
    assert left_out.startswith("2: nan, 8.000000 avg")
    assert words(row(3, cost=80.0), PLACE)[-1].startswith("3: 10.000000, 8.200000 avg")


def test_a_loss_that_tells_no_cost_is_itself() -> None:
    assert Darknet()(row(cost=None), PLACE)[-1].startswith("1: 9.000000, 9.000000 avg")
    assert len(Darknet()({"step": 1, "loss": 2.0}, PLACE)) == 2  # no levels, no rates, no images
    assert Darknet()(row(scales=[row()["scales"][0]]), PLACE)[1].startswith("Region 0 ")  # of no cfg


def test_a_new_size_is_told_once() -> None:
    words = Darknet()
    heads = [
        words(row(step, size=size), PLACE)[:2] for step, size in enumerate(([416, 416], [416, 416], [608, 352]), 1)
    ]
    assert heads[0] == ["Resizing", "416"]
    assert heads[1][0].startswith("Loaded")
    assert heads[2] == ["Resizing", "608 x 352"]


numbers = st.one_of(st.none(), st.floats(0, 1), st.just(math.nan))


@given(
    st.lists(
        st.fixed_dictionaries({"count": st.integers(0, 9999), **dict.fromkeys(KEYS, numbers)}), min_size=3, max_size=3
    ),
    st.floats(allow_nan=True), st.floats(0, 1e4),
)  # fmt: skip
def test_every_line_is_read_by_the_readers(scales: list[dict[str, Any]], loss: float, seconds: float) -> None:
    lines = DIALECTS["darknet"]()(row(scales=scales, cost=8 * loss, seconds={"data": seconds, "step": seconds}), PLACE)
    assert [bool(REGION.match(line)) for line in lines] == [False, True, True, True, False]
    assert LOADED.match(lines[0])
    assert BATCH.match(lines[-1])
    for line, told, layer in zip(lines[1:4], scales, PLACE.layers, strict=True):
        match = TOLERANT.match(line)
        assert match is not None
        assert (int(match["layer"]), int(match["count"])) == (layer, told["count"])
        assert match["iou"] == ("-nan" if told["iou"] is None else f"{told['iou']:f}")
