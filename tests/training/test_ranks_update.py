"""Two processes take the steps of one: weights, losses, norms, averages, what is left out, memory that runs out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import Says, batch, loop
from two_processes import Pair

from onestage.errors import DivergedError
from onestage.models.detector import Loss
from onestage.records import Batch
from onestage.training.devices.ranks import Ranks
from onestage.training.loop.averaging import Averaged
from onestage.training.loop.evidence import Action
from onestage.training.loop.loop import Loop


def share(whole: Batch, rank: int, count: int = 2) -> Batch:
    """What a process has of a batch, as the loader gives it."""
    part = slice(rank, None, count)
    return Batch(
        whole.images[part], whole.annotations[part], whole.transforms[part], whole.ids[part], whole.seeds[part]
    )


def steps(ranks: Ranks, images: int, keys: dict[str, Any], count: int = 3) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Three steps: what the rows say, and weights, norms' statistics and averages after them."""
    made = loop(ranks=ranks, **keys)
    if keys.get("norms") == "synchronised":
        made.detector.double()  # norms of random weights amplify rounding: permuted images alone make 1e-2 in 3 steps
    made.averaged = Averaged(made.detector, 0.9)
    batches = [batch(images, seed=seed, empty=2) for seed in range(count)]
    shares = [share(whole, ranks.rank, ranks.count) for whole in batches]
    rows = [record.as_row(0) for record in made.epoch(0, iter(shares), images)]
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows], state(made)


def state(made: Loop) -> dict[str, torch.Tensor]:
    assert made.averaged is not None
    own = {f"own {name}": value.clone() for name, value in made.detector.state_dict().items()}
    return own | {f"mean {name}": value.clone() for name, value in made.averaged.detector.state_dict().items()}


def same(alone: Any, first: Any, second: Any) -> None:
    """The processes agree to the bit, and with one process to 1e-5."""
    assert first[0] == second[0]
    for mine, row in zip(alone[0], first[0], strict=True):
        assert (row["step"], row["images"], row["positives"]) == (mine["step"], mine["images"], mine["positives"])
        assert row["positives_per_level"] == mine["positives_per_level"]
        assert row["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert row["raw"] == pytest.approx(mine["raw"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
    for name, expected in alone[1].items():
        assert torch.equal(first[1][name], second[1][name]), name
        torch.testing.assert_close(first[1][name], expected, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("images", "keys"),
    [
        (7, {"norms": "synchronised"}),
        (8, {"norms": "synchronised", "accumulate": 2}),
        (7, {"norms": "frozen"}),
        (7, {"norms": "frozen", "accumulate": 3}),
        (3, {"norms": "frozen"}),
    ],
)
def test_two_processes_take_the_steps_of_one(pair: Pair, images: int, keys: dict[str, Any]) -> None:
    count = 2 if keys["norms"] == "synchronised" else 3
    same(steps(Ranks(), images, keys, count), *pair(steps, images, keys, count, seconds=120))


def test_a_network_without_norms(pair: Pair) -> None:
    keys = {"model": "ssd-plain"}
    same(steps(Ranks(), 3, keys, 2), *pair(steps, 3, keys, 2))


def test_without_synchronised_norms_the_steps_differ(pair: Pair) -> None:
    alone, (first, second) = steps(Ranks(), 8, {"norms": "own"}), pair(steps, 8, {"norms": "own"})
    assert first[0] == second[0]  # what is summed is the same for both
    assert first[0][0]["loss"] != pytest.approx(alone[0][0]["loss"], rel=1e-4)
    names = [name for name in first[1] if "running_mean" in name]
    assert any(not torch.equal(first[1][name], second[1][name]) for name in names)
    assert all(torch.equal(first[1][n], second[1][n]) for n in first[1] if "running" not in n)


def _refused(ranks: Ranks, word: Action) -> Any:
    observer = Says(2, word if ranks.rank == 1 else "go")
    made = loop(ranks=ranks, observer=observer)
    made.averaged = Averaged(made.detector, 0.9)
    shares = [share(batch(6, seed=seed), ranks.rank) for seed in range(3)]
    before = {}
    records = []
    try:
        for record in made.epoch(0, iter(shares), 6):
            records.append(record.extra.get("skipped", False))
            if record.step == 1:
                before = state(made)
    except DivergedError as error:
        now = state(made)
        return error.message, made.step, [name for name in now if not torch.equal(now[name], before[name])]
    return records


def test_what_one_process_refuses_is_refused_by_all(pair: Pair) -> None:
    assert pair(_refused, "skip") == [[False, True, False]] * 2
    assert pair(_refused, "stop") == [("as told", 1, [])] * 2


def _not_finite(ranks: Ranks, accumulate: int, norms: str) -> Any:
    made = loop(ranks=ranks, accumulate=accumulate, norms=norms)
    original = made.detector.loss

    def spoilt(raw: Any, truths: Any) -> Loss:
        loss = original(raw, truths)
        if ranks.rank == 1 and len(calls) == 0:
            loss.parts["box"] = loss.parts["box"] * torch.tensor([math.nan] + [1.0] * (len(truths) - 1))
        calls.append(1)
        return loss

    calls: list[int] = []
    made.detector.loss = spoilt  # type: ignore[method-assign]
    try:
        list(made.epoch(0, iter([share(batch(8), ranks.rank)]), 8))
    except DivergedError as error:
        return error.message, error.problems, made.step


@pytest.mark.parametrize(("accumulate", "norms"), [(1, "own"), (2, "own"), (2, "synchronised")])
def test_an_image_of_the_other_process_is_named(pair: Pair, accumulate: int, norms: str) -> None:
    truth = len(batch(8).annotations[1])
    named = (f"image 1: box loss nan, {truth} boxes after augmentation",)
    message = "the loss is not a finite number at step 1 (epoch 1)"
    assert pair(_not_finite, accumulate, norms) == [(message, named, 0)] * 2


def _tight(ranks: Ranks) -> Any:
    made = loop(ranks=ranks, norms="frozen")
    original = made.detector.loss

    def greedy(raw: Any, truths: Any) -> Loss:
        if ranks.rank == 1 and len(truths) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(raw, truths)

    made.detector.loss = greedy  # type: ignore[method-assign]
    records = list(made.epoch(0, iter([share(batch(6, seed=s), ranks.rank) for s in range(2)]), 6))
    return [r.extra.get("accumulate") for r in records], [p.detach().clone() for p in made.detector.parameters()]


def test_memory_that_runs_out_in_one_process_makes_smaller_pieces_in_all(pair: Pair) -> None:
    made = loop(norms="frozen")
    list(made.epoch(0, iter([batch(6, seed=seed) for seed in range(2)]), 6))
    first, second = pair(_tight)
    assert first[0] == second[0] == [4, None]
    for mine, one, other in zip(made.detector.parameters(), first[1], second[1], strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, mine.detach(), rtol=1e-5, atol=1e-5)


def _resumed(ranks: Ranks) -> Any:
    """Six steps at once, and three and three with a state between."""
    shares = [share(batch(6, seed=seed), ranks.rank, ranks.count) for seed in range(6)]
    whole, half, rest = (loop(ranks=ranks, norms="synchronised") for _ in range(3))
    list(whole.epoch(0, iter(shares), 6))
    list(half.epoch(0, iter(shares[:3]), 6))
    rest.restore(half.state(), half.leg)
    list(rest.epoch(0, iter(shares[3:]), 6))
    digests = [
        np.concatenate([v.numpy().ravel() for v in made.detector.state_dict().values()]) for made in (whole, rest)
    ]
    return bool((digests[0] == digests[1]).all())


def test_a_resumed_run_takes_the_same_steps_to_the_bit(pair: Pair) -> None:
    assert pair(_resumed) == [True, True]


@pytest.mark.slow
def test_three_processes_too() -> None:
    """With more than two processes a sum depends on its order: it must be the same after a resume."""
    three = Pair(3, "forkserver")
    assert three(_resumed, seconds=90) == [True] * 3
    three.close()
