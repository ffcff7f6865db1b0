"""Steps: micro-batches give the whole batch's update, fp16, memory that runs out, what the guard leaves out."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onestage import models
from onestage.errors import DivergedError
from onestage.models.detector import Detector
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.devices.machine import engine
from onestage.training.loop.averaging import Averaged
from onestage.training.loop.evidence import Action, Evidence
from onestage.training.loop.loop import Loop, RollBack
from onestage.training.loop.step import cut
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Leg


def batch(images: int, size: int = 64, seed: int = 0, empty: int = 1) -> Batch:
    """Noise with a few boxes; the last `empty` images hold none."""
    rng = np.random.default_rng(seed)
    truths = []
    for i in range(images):
        count = 0 if i >= images - empty else int(rng.integers(1, 4))
        corner = rng.uniform(0, size / 2, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, size / 2, (count, 2))], 1)
        truths.append(Annotations(boxes, rng.integers(0, 3, count)))
    pixels = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    return Batch(pixels, truths, [ImageTransform()] * images, list(range(images)), list(range(images)))


def loop(
    model: str = "ssd-small", size: int = 64, precision: str = "fp32", frozen_norms: bool = False,
    options: Mapping[str, Any] | None = None, **keys: Any,
) -> Loop:  # fmt: skip
    torch.manual_seed(0)
    detector = models.build(model, 3, (size, size), **(options or {}))
    made = Loop(engine("cpu", precision), detector, weights={"cls": 1.0, "box": 1.0}, **keys)
    optimiser = Optimiser(name="sgd", lr=0.01, decay=0.0)
    made.enter(Leg(0, "all", 0, 1, 0, 10, (), optimiser, Schedule(name="constant", warmup=0), 10.0))
    if frozen_norms:
        made.frozen = [part for part in detector.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    return made


def run(made: Loop, batches: list[Batch]) -> list[Any]:
    return list(made.epoch(0, iter(batches), len(batches[0])))


def difference(a: Detector, b: Detector) -> float:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs if x.is_floating_point())


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_micro_batches_give_the_update_of_the_whole(pieces: int) -> None:
    whole, parts = loop(frozen_norms=True), loop(frozen_norms=True, accumulate=pieces)
    batches = [batch(6, seed=seed) for seed in range(3)]
    one, many = run(whole, batches), run(parts, batches)
    assert difference(whole.detector, parts.detector) < 1e-5
    for a, b in zip(one, many, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.raw == pytest.approx(a.raw, rel=1e-5)
        assert b.positives_per_level == a.positives_per_level
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=1e-4)
        assert b.images == a.images == 6


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam"])
def test_every_optimisers_update_is_that_of_the_whole_batch(name: str) -> None:
    """From the same weights and momenta; over many steps adaptive ones amplify rounding where a gradient is near 0."""
    options = {"label_smoothing": 0.1, "class_loss": "focal" if name == "nadam" else "softmax-ohem"}
    whole, parts = (loop(frozen_norms=True, options=options, accumulate=pieces) for pieces in (1, 4))
    for made in (whole, parts):
        made.weights |= {"cls": 2.5, "box": 0.3}
        made.differentiator.weights |= made.weights
        made.averaged = Averaged(made.detector, 0.9)
        made.enter(dataclasses.replace(made.leg, optimiser=Optimiser(name=name, lr=1e-3), clip=0.5))
        made.frozen = [part for part in made.detector.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for seed in range(2):
        one, other = (run(made, [batch(7, seed=seed, empty=2)])[0] for made in (whole, parts))
        assert other.loss == pytest.approx(one.loss, rel=1e-6)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
        assert max(float((a - b).abs().max()) for a, b in zip(states(whole), states(parts), strict=True)) < 1e-5
        frozen = parts.frozen
        parts.restore(copy.deepcopy(whole.state()), parts.leg)
        parts.frozen = frozen


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_micro_batches_tell_of_levels_what_the_whole_batch_tells(pieces: int) -> None:
    """Means over all truths of the batch, as one subdivision would have them: no means of means."""
    batches = [batch(6, seed=seed, empty=2) for seed in range(2)]
    whole, parts = loop("ssd-told", frozen_norms=True), loop("ssd-told", frozen_norms=True, accumulate=pieces)
    for made in (whole, parts):
        made.frozen = list(made.detector.modules())  # norms by their statistics, so that each image is itself
    for one, many in zip(run(whole, batches), run(parts, batches), strict=True):
        ours, theirs = one.extra["scales"], many.extra["scales"]
        assert [level["count"] for level in ours] == one.positives_per_level == [level["count"] for level in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert set(mine) == {"count", "iou", "cls", "obj", "r50", "r75", "noobj"}
            assert mine["noobj"] == pytest.approx(other["noobj"], abs=2e-6)
            if mine["count"] == 0:
                assert [mine[key] for key in ("iou", "cls", "obj", "r50", "r75")] == [None] * 5
            else:
                assert mine["cls"] == pytest.approx(other["cls"], abs=2e-6)
                assert mine["cls"] == pytest.approx(2 * mine["iou"], abs=2e-6)  # each under its own name
        for key in ("unanswered", "rewritten", "capped", "cost"):
            assert one.extra[key] == pytest.approx(many.extra[key], rel=1e-5)


def test_micro_batches_of_a_network_without_norms() -> None:
    whole, parts = loop("ssd-plain"), loop("ssd-plain", accumulate=3)
    one, many = run(whole, [batch(3)]), run(parts, [batch(3)])
    assert difference(whole.detector, parts.detector) < 1e-5
    assert many[0].loss == pytest.approx(one[0].loss, rel=1e-5)


@given(st.integers(1, 40), st.integers(1, 50))
def test_pieces_of_a_batch_hold_each_image_once(images: int, pieces: int) -> None:
    whole = batch(images, 32, empty=0)
    parts = cut(whole, pieces)
    assert [image for part in parts for image in part.ids] == list(range(images))
    assert [seed for part in parts for seed in part.seeds] == list(whole.seeds)
    assert [len(part.annotations) for part in parts] == [len(part.images) for part in parts]
    assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
    assert len(parts) == min(pieces, images)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fp16_has_a_scale_and_learns() -> None:
    made = loop(precision="fp16")
    before = [p.detach().clone() for p in made.detector.parameters()]
    records = run(made, [batch(4)] * 6)
    assert all(math.isfinite(record.loss) for record in records)
    assert records[0].extra["scale"] == 65536.0
    assert any(not torch.equal(a, b) for a, b in zip(before, made.detector.parameters(), strict=True))
    state = made.state()
    again = loop(precision="fp16")
    again.restore(state, made.leg)
    assert again.state()["scaler"] == state["scaler"]
    assert run(again, [batch(4, seed=7)])[0].loss == run(made, [batch(4, seed=7)])[0].loss


def test_when_memory_runs_out_the_step_is_done_in_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loop(frozen_norms=True)
    tight = loop(frozen_norms=True, averaged=None)
    original = type(tight.detector).loss

    def greedy(self: Detector, raw: Any, truths: Any) -> Any:
        if self is tight.detector and len(truths) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return original(self, raw, truths)

    monkeypatch.setattr(type(tight.detector), "loss", greedy)
    expected, got = run(plain, [batch(6), batch(6, seed=1)]), run(tight, [batch(6), batch(6, seed=1)])
    assert difference(plain.detector, tight.detector) < 1e-5
    assert [record.extra.get("accumulate") for record in got] == [4, None]
    assert got[1].loss == pytest.approx(expected[1].loss, rel=1e-5)
    assert tight.state()["accumulate"] == 4


def test_memory_that_does_not_suffice_for_one_image_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loop()

    def greedy(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(type(made.detector), "loss", greedy)
    with pytest.raises(MemoryError):
        run(made, [batch(2)])


class Says:
    """Says one word about one step."""

    def __init__(self, step: int, word: Action) -> None:
        self.step, self.word = step, word

    def before(self, step: int, epoch: int, batch: Batch, detector: Detector) -> Action:
        return "go"

    def examine(self, evidence: Evidence, detector: Detector) -> Action:
        return self.word if evidence.step == self.step else "go"

    def done(self, evidence: Evidence, seconds: Mapping[str, float]) -> None:
        pass

    def error(self) -> DivergedError:
        return DivergedError("as told")


def states(made: Loop) -> Iterator[torch.Tensor]:
    yield from made.detector.state_dict().values()
    if made.averaged is not None:
        yield from made.averaged.model.state_dict().values()


def test_a_skipped_step_changes_nothing_but_the_count() -> None:
    made = loop(observer=Says(2, "skip"))
    made.averaged = Averaged(made.detector, 0.9)
    run(made, [batch(4)])
    before = [tensor.clone() for tensor in states(made)]
    records = run(made, [batch(4, seed=1)])
    assert all(torch.equal(a, b) for a, b in zip(before, states(made), strict=True))
    assert records[0].extra["skipped"] is True
    assert made.step == 2


@pytest.mark.parametrize(("word", "error"), [("stop", DivergedError), ("rollback", RollBack)])
def test_a_step_that_is_refused_leaves_the_state_before_it(word: Action, error: type[Exception]) -> None:
    made = loop(observer=Says(1, word))
    before = [tensor.clone() for tensor in states(made)]
    with pytest.raises(error):
        run(made, [batch(4)])
    assert all(torch.equal(a, b) for a, b in zip(before, states(made), strict=True))
    assert made.step == 0


def test_every_tenth_step_tells_more() -> None:
    records = run(loop(), [batch(2, empty=0)] * 10)
    assert [("update_norm" in record.extra) for record in records] == [False] * 9 + [True]
    last = records[-1]
    assert 0 < last.extra["update_norm"] < 1
    assert set(last.extra["grad_norms"]) >= {"backbone", "heads"}
    together = math.hypot(*(last.extra["grad_norms"][name] for name in ("backbone", "neck", "heads")))
    assert together == pytest.approx(last.grad_norm, rel=1e-4)


def test_what_a_stage_freezes_leaves_the_gradient_norm() -> None:
    """Parameters frozen on the way keep no gradient of the stage before, which would be clipped and summed on."""
    made, fresh = loop(), loop()
    run(made, [batch(4)])
    heads = dataclasses.replace(made.leg, index=1, freeze=("all-but-heads",))
    fresh.restore(made.state(), fresh.leg)
    made.enter(heads)
    fresh.enter(heads)
    one, other = (run(each, [batch(4, seed=1)])[0] for each in (made, fresh))
    assert one.grad_norm == other.grad_norm
    learning = [p.grad for p in made.detector.parameters() if p.grad is not None]
    assert len(learning) == sum(p.requires_grad for p in made.detector.parameters())
