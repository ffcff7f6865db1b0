"""What the ring keeps of a step, and forgets; the checks of a batch against a slow reference."""

from __future__ import annotations

import math
import mmap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import GOOD, SIZE, Unclamped, batch, bench, good

from onestage.models.detector import Loss, Raw
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.devices.capacity import resident
from onestage.training.loop.evidence import Evidence, Pass
from onestage.training.recorder.batch_checks import OUTSIZE, check_batch
from onestage.training.recorder.ring import BoxTable, Ring


def evidence(step: int, *sizes: int) -> Evidence:
    """A step of passes with so many images each; image i has i truths and losses of its own."""
    passes, first = [], 0
    for size in sizes:
        numbers = torch.arange(first, first + size).float()
        one = batch(*[GOOD[:1] * i for i in range(size)])
        loss = Loss({"cls": numbers, "box": numbers / 2}, torch.stack([numbers, numbers + 1], 1).long(), numbers)
        passes.append(Pass(one, [], Raw(torch.zeros(size, 3, 4), torch.zeros(size, 3, 2)), loss))
        first += size
    return Evidence(step, 0, passes, 1.0, {}, {}, [1, 2], first, {"all": 0.1}, 2.0, (SIZE, SIZE), 8.0)


def add(ring: Ring, one: Evidence):
    return ring.add(one, [p.batch for p in one.passes], [BoxTable.of(p.batch.annotations) for p in one.passes])


def test_an_entry_holds_every_image_of_every_pass():
    entry = add(Ring(4), evidence(7, 2, 3))
    assert entry.ids == ("im0", "im1", "im0", "im1", "im2")
    assert entry.seeds == (100, 101, 100, 101, 102)
    assert entry.truths.tolist() == [0, 1, 0, 1, 2]
    assert entry.parts["cls"].tolist() == [0, 1, 2, 3, 4]
    assert entry.parts["box"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert entry.positives.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]
    row = entry.as_row()
    assert (row["step"], row["images"], row["truths"], row["positives_per_level"]) == (7, 5, 4, [10, 15])
    assert (row["lr"], row["grad_norm"], row["scale"]) == (0.1, 2.0, 8.0)
    assert entry.images()[4]["loss"] == {"cls": 4.0, "box": 2.0}
    assert 1e6 < row["memory"]["rss"] < 1e12


def test_extreme_truths_are_named_by_image_and_row():
    run = bench(Unclamped())
    run(batch(GOOD, ((0.0, 0, 2, 40), (1.0, 1, 64, 63)), (), (GOOD[0], (5.0, 5, 6, 8))), update=False)
    extremes = run.recorder.ring.entries[-1].extremes
    assert extremes["shortest side"] == (1.0, "im3", 1)
    assert extremes["longest side"] == (63.0, "im1", 1)
    assert extremes["largest aspect"] == (20.0, "im1", 0)
    run(batch((), ()), update=False)
    assert run.recorder.ring.entries[-1].extremes == {}


def test_the_ring_forgets_and_goes_back():
    ring = Ring(3)
    for step in range(1, 6):
        add(ring, evidence(step, 1))
    assert [entry.step for entry in ring.entries] == [3, 4, 5]
    assert [entry.step for entry in ring.last(2, before=5)] == [3, 4]
    add(ring, evidence(4, 1))  # after a rollback
    assert [entry.step for entry in ring.entries] == [3, 4]


def test_what_shows_after_a_step_is_taken_in():
    run = bench(Unclamped())
    one = run.evidence(batch(*good(2)))
    run.recorder.examine(one, run.detector)
    one.update_norm = 0.5
    run.recorder.done(one, {"data": 0.25, "step": 1.0})
    entry = run.recorder.ring.entries[-1]
    assert entry.update_norm == 0.5
    assert entry.seconds == {"data": 0.25, "step": 1.0}


def test_resident_memory_grows_with_an_array():
    before = resident()
    block = np.frombuffer(mmap.mmap(-1, 64_000_000), np.uint8)  # of its own: freed memory may be kept for arrays
    block[:] = 1
    assert resident() - before > 0.5 * block.nbytes


number = st.one_of(
    st.integers(-20, 90).map(float), st.sampled_from([math.nan, math.inf, -math.inf, 1e6, -1e6, 1e30, 0.0, 64.0])
)
some_box = st.tuples(number, number, number, number)
some_image = st.lists(st.tuples(some_box, st.integers(-2, 5), st.booleans()), max_size=4)


def slowly(images) -> set:
    """(code, image, row) of what is wrong, box by box in plain Python."""
    found = set()
    for image, rows in enumerate(images):
        for row, ((x1, y1, x2, y2), label, ignored) in enumerate(rows):
            if not 0 <= label < 3 and not ignored:
                found.add(("label-out-of-range", image, row))
            if not all(map(math.isfinite, (x1, y1, x2, y2))):
                found.add(("broken-box", image, row))
            elif x2 <= x1 or y2 <= y1:
                if not ignored:
                    found.add(("broken-box", image, row))
            elif max(x2 - x1, y2 - y1) > OUTSIZE * SIZE or any(
                not -OUTSIZE * SIZE <= value <= (OUTSIZE + 1) * SIZE for value in (x1, y1, x2, y2)
            ):
                found.add(("outsize-box", image, row))
    return found


@settings(max_examples=80)
@given(st.lists(some_image, min_size=1, max_size=4))
def test_batch_checks_equal_the_slow_reference(images):
    annotations = [
        Annotations(
            np.array([row[0] for row in rows], np.float64).reshape(-1, 4), [row[1] for row in rows],
            ignore=[row[2] for row in rows],
        )
        for rows in images
    ]  # fmt: skip
    pixels = np.arange(len(images) * 3 * SIZE * SIZE, dtype=np.uint8).reshape(len(images), 3, SIZE, SIZE)
    pixels[:, 0, 0, 0], pixels[:, 0, -1, -1], pixels[:, 0, 16, 16] = 1, 2, 77
    n = len(images)
    one = Batch(pixels, annotations, [ImageTransform()] * n, list(range(n)), [0] * n)
    faults = check_batch(one, 3, (SIZE, SIZE))
    assert {(fault.code, fault.image, fault.row) for fault in faults} == slowly(images)
    assert [fault.severe for fault in faults] == sorted((fault.severe for fault in faults), reverse=True)


@pytest.mark.parametrize("value", [0, 255, 114])
def test_only_an_image_of_one_value_throughout_is_constant(value):
    one = batch(*good(3))
    one.images[1] = value
    one.images[2] = value
    one.images[2, 1, 3, 3] = value ^ 1  # off the grid that is looked at first
    assert [(fault.code, fault.image) for fault in check_batch(one, 3)] == [("constant-image", 1)]


def test_a_batch_without_images_is_told():
    empty = Batch(np.zeros((0, 3, 8, 8), np.uint8), [], [], [], [])
    assert [fault.code for fault in check_batch(empty, 3)] == ["empty-batch"]
