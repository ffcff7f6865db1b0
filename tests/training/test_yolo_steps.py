"""A step of a YOLO network is the same however it is cut, with each loss; what it tells is of the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_ranks_update import share
from two_processes import Pair

from onestage import models
from onestage.records import Annotations, Batch, ImageTransform
from onestage.training.contributions import contributions
from onestage.training.devices.machine import engine
from onestage.training.devices.ranks import Ranks
from onestage.training.loop.evidence import Evidence
from onestage.training.loop.loop import Loop
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Leg
from toy_cfg import TOY

SIZE = (96, 64)
LOSSES = ("darknet", "ratio", "per-scale")


def batch(images: int, seed: int) -> Batch:
    """Small objects in the first half, large ones in the second, so that levels are empty in parts; some ignored."""
    rng = np.random.default_rng(seed)
    truths = []
    for i in range(images):
        count = 0 if i in (1, images - 1) else 4
        centre = rng.uniform(0, 1, (count, 2)) * SIZE
        side = np.exp(rng.uniform(*((1.3, 2.6) if i < images // 2 else (3.0, 4.2)), (count, 2)))
        boxes = np.concatenate([centre - side / 2, centre + side / 2], 1).clip(0, [*SIZE, *SIZE])
        truths.append(Annotations(boxes, rng.integers(0, 3, count), ignore=np.arange(count) == 3))
    pixels = rng.integers(0, 256, (images, SIZE[1], SIZE[0], 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    return Batch(pixels, truths, [ImageTransform()] * images, list(range(images)), list(range(images)))


def made(loss: str, ranks: Ranks, **keys: Any) -> Loop:
    """A loop in double precision, at whose steps nothing but what is summed in another order can differ."""
    torch.manual_seed(0)
    detector = models.build("darknet", 3, cfg=TOY, loss=loss).double()
    loop = Loop(engine("cpu", "fp32"), detector, weights=dict(detector.default_weights), ranks=ranks, **keys)
    sgd = Optimiser(name="sgd", lr=0.002, decay=5e-4)
    loop.enter(Leg(0, "all", 0, 1, 0, 10, (), sgd, Schedule(name="constant", warmup=0), 10.0))
    return loop


def steps(ranks: Ranks, loss: str, images: int, keys: dict[str, Any]) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Two steps: their rows, and the weights and statistics after them."""
    loop = made(loss, ranks, **keys)
    shares = [share(batch(images, seed), ranks.rank, ranks.count) for seed in range(2)]
    rows = [record.as_row(0) for record in loop.epoch(0, iter(shares), images)]
    return rows, {name: value.clone() for name, value in loop.detector.state_dict().items()}


def same(one: Any, other: Any) -> None:
    """Rows to the sixth digit, which they are rounded to, weights to nearly all of them."""
    for mine, theirs in zip(one[0], other[0], strict=True):
        for key in ("images", "truths", "positives_per_level", "unanswered", "rewritten"):
            assert mine[key] == theirs[key], key
        for key in ("loss", "raw", "grad_norm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6), key
        assert mine.get("cost", 0) == pytest.approx(theirs.get("cost", 0), rel=1e-6)
        for a, b in zip(mine["scales"], theirs["scales"], strict=True):
            assert a == pytest.approx(b, abs=2e-6)
    for name, value in one[1].items():
        torch.testing.assert_close(value, other[1][name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_is_the_same_however_it_is_cut(loss: str) -> None:
    whole = steps(Ranks(), loss, 7, {"norms": "frozen"})
    assert all(level["count"] for row in whole[0] for level in row["scales"])
    for pieces in (2, 7):
        same(whole, steps(Ranks(), loss, 7, {"norms": "frozen", "accumulate": pieces}))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("keys", [{"norms": "frozen", "accumulate": 2}, {"norms": "synchronised"}])
def test_two_processes_take_the_step_of_one(pair: Pair, loss: str, keys: dict[str, Any]) -> None:
    first, second = pair(steps, loss, 7, keys)
    same(steps(Ranks(), loss, 7, {"norms": keys["norms"]}), first)
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())


def test_truths_of_a_step_are_those_that_count() -> None:
    rows, _ = steps(Ranks(), "darknet", 5, {"norms": "frozen"})
    assert [row["truths"] for row in rows] == [9, 9]  # three images with four rows each, of which one is to ignore
    assert sum(level["count"] for level in rows[0]["scales"]) + rows[0]["unanswered"] == 9


class Apart:
    """Takes each step apart before the weights move."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.seen = loop, []

    def before(self, *_: Any) -> str:
        return "go"

    def examine(self, evidence: Evidence, detector: Any) -> str:
        self.seen.append(contributions(evidence, detector, self.loop.engine, self.loop.weights))
        return "go"

    def done(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("loss", LOSSES)
def test_shares_and_terms_are_of_the_whole_batch_not_of_the_micro_batch(loss: str) -> None:
    loop = made(loss, Ranks(), norms="frozen", accumulate=3)
    loop.observer = apart = Apart(loop)  # type: ignore[assignment]
    (record,) = loop.epoch(0, iter([batch(6, 0)]), 6)
    (told,) = apart.seen
    assert sum(image.loss for image in told.images) == pytest.approx(record.loss, rel=1e-6)
    for prior in told.priors:
        for name, part in prior.parts.items():  # terms end with the parts of a sum over images
            assert prior.terms[name] == pytest.approx(6 * part, rel=1e-4, abs=1e-7)
