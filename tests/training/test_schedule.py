"""Learning rates by step, parameter groups and freezing."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onestage import models
from onestage.errors import RecipeError
from onestage.models.detector import Detector
from onestage.training.optimiser import build_optimiser, freeze, parameter_groups, set_learning_rates, set_training
from onestage.training.schedule import SCHEDULE_KEYS, Optimiser, Schedule


def light() -> Detector:
    return models.build("ssd-lite0", 1, (64, 64))


def test_cosine_rises_linearly_and_ends_at_its_final_share() -> None:
    schedule = Schedule(name="cosine", warmup=10, final=0.1, start=0.001).completed(100)
    shares = [schedule.share(step, 100) for step in range(101)]
    assert shares[0] == pytest.approx(0.1009, abs=1e-3)
    assert max(shares) == pytest.approx(shares[10], abs=0.03)
    assert shares[100] == pytest.approx(0.1)
    assert all(b <= a for a, b in itertools.pairwise(shares[10:]))


def test_step_falls_at_its_milestones() -> None:
    # Liu et al. 2016: 1e-3 for 80k iterations of 120k, 1e-4 for 20k, 1e-5 for 20k.
    schedule = Schedule(name="multi-step", warmup=0).completed(120_000)
    found = {step: schedule.share(step, 120_000) for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999)}
    assert list(found.values()) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@given(st.sampled_from(sorted(SCHEDULE_KEYS)), st.integers(1, 2000), st.integers(0, 2000))
def test_shares_are_positive_and_at_most_one(name: str, steps: int, step: int) -> None:
    schedule = Schedule(name=name).completed(steps)  # type: ignore[arg-type]
    assert 0 < schedule.share(min(step, steps - 1), steps) <= 1


def test_norms_and_biases_do_not_decay_and_the_backbone_has_its_own_rate() -> None:
    detector = light()
    groups = {g["name"]: g for g in parameter_groups(detector, Optimiser(lr=0.01, backbone=0.1, decay=0.3))}
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "backbone": (pytest.approx(0.001), 0.3), "backbone.no_decay": (pytest.approx(0.001), 0.0),
        "heads": (0.01, 0.3), "heads.no_decay": (0.01, 0.0),
    }  # fmt: skip
    assert all(p.ndim > 1 for name in ("backbone", "heads") for p in groups[name]["params"])
    counted = sum(p.numel() for g in groups.values() for p in g["params"])
    assert counted == sum(p.numel() for p in detector.parameters())


def test_rates_are_set_from_the_highest() -> None:
    optimiser = build_optimiser(light(), Optimiser(lr=0.01, backbone=0.5))
    for _ in range(3):
        rates = set_learning_rates(optimiser, 0.1)
    assert rates["heads"] == pytest.approx(0.001)
    assert rates["backbone"] == pytest.approx(0.0005)


def test_frozen_parts_keep_weights_and_statistics() -> None:
    torch.manual_seed(0)
    detector = light()
    frozen = freeze(detector, ["stem"])
    optimiser = build_optimiser(detector, Optimiser(lr=0.1))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    set_training(detector, frozen)
    raw = detector(torch.randint(0, 256, (2, 3, 64, 64)))
    (raw.logits.sum() + raw.offsets.sum()).backward()
    optimiser.step()
    after = detector.state_dict()
    stem = ("backbone.stem.", "backbone.blocks.0.", "backbone.blocks.1.", "backbone.blocks.2.")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(stem)]
    assert "backbone.blocks.3.expand.0.weight" in moved
    assert "backbone.blocks.3.expand.1.running_mean" in moved


def test_unknown_and_exhaustive_freezing_are_refused() -> None:
    detector = light()
    with pytest.raises(RecipeError, match="did you mean 'backbone'"):
        freeze(detector, ["backbones"])
    freeze(detector, ["backbone", "neck", "heads"])
    with pytest.raises(RecipeError, match="frozen"):
        build_optimiser(detector, Optimiser())
