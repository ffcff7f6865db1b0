"""Faults planted in rates, precision, weights, network and loss of whole runs: each is named, and the guard obeyed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_runs import (
    QUIET,
    Told,
    data,
    small,
    spoil_batches,
    spoil_loss,
    spoil_model,
)  # fmt: skip
from safetensors.torch import save_file
from small_model import Small
from test_fit import shapes
from torch import Tensor, nn

import onestage.training.loop.loop as loop_module
from onestage.errors import DivergedError, ModelError
from onestage.models.detector import Loss, Raw
from onestage.records import Annotations

__all__ = ["data", "small"]


# Rates and precision


@pytest.mark.parametrize(
    ("rate", "name"), [(1e6, "adamw"), (1e9, "adamw"), (1e6, "sgd"), (1e9, "sgd")]
)  # fmt: skip
def test_a_learning_rate_that_blows_the_weights_up_is_named(rate: float, name: str, data: Path, tmp_path: Path) -> None:
    keys = {"optimiser.lr": rate, "optimiser.name": name, "schedule.warmup": 0}
    told = Told({"data": str(data), **keys}, tmp_path)
    assert isinstance(told.error, DivergedError)
    assert told.error.exit_code == 7
    assert told.run.info["status"] == "diverged"
    assert told.codes[0] == "lr-too-high"  # before the first step
    first, last = told.said("exploded-weights"), told.findings[-1]
    assert "weights have run away" in first["what"]
    assert f"lr {rate:.0e}"[:6] in first["what"].replace("e+0", "e+0")
    assert first["where"]["step"] <= 3
    assert last["code"] == "exploded-weights"
    assert "optimiser.lr" in last["remedy"]


def test_fp16_that_overflows_in_the_forward_pass_names_the_module(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(monkeypatch, lambda detector: detector.backbone.blocks[0][0].weight.mul_(1e6), 4)
    told = Told({"data": str(data), "precision": "fp16"}, tmp_path)
    finding = told.stopped("amp-overflow", 4)
    assert "fp16 overflows in backbone.blocks.0.0" in finding["what"]
    assert "precision=bf16" in finding["remedy"]


def test_fp16_whose_gradients_overflow_at_every_scale_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update(box=loss.parts["box"] * 1e30))
    finding = Told({"data": str(data), "precision": "fp16"}, tmp_path).stopped("amp-overflow", 10)
    assert "backward pass" in finding["what"]


# Weights


@pytest.mark.parametrize(("value", "ending"), [(math.nan, "safetensors"), (math.inf, "safetensors"), (math.nan, "pth")])
def test_a_poisoned_weights_file_is_refused_by_tensor(
    value: float, ending: str, data: Path, tmp_path: Path
) -> None:  # fmt: skip
    state = {name: tensor.clone() for name, tensor in Small(1).state_dict().items()}
    state["backbone.blocks.1.0.weight"][0, 0] = value
    path = tmp_path / f"poisoned.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    told = Told({"data": str(data), "weights": str(path)}, tmp_path)
    assert isinstance(told.error, ModelError)
    assert str(path) in told.error.message
    assert told.error.problems == ("backbone.blocks.1.0.weight: 9 of 1152 values",)
    assert not list(tmp_path.glob("planted*"))


@pytest.mark.parametrize("place", ["weight", "bias"])
def test_weights_poisoned_in_mid_run_are_named(
    place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(detector: nn.Module) -> None:
        getattr(detector.neck.coarser[0][1], place)[3] = math.nan

    spoil_model(monkeypatch, poison, 12)
    finding = Told({"data": str(data)}, tmp_path).stopped("non-finite-weight", 12)
    assert f"neck.coarser.0.1.{place}" in finding["what"]


def test_weights_poisoned_once_are_gone_back_from(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once: list[int] = []

    def poison(detector: nn.Module) -> None:
        if not once:
            once.append(1)
            detector.neck.coarser[0][0].weight[3, 2] = math.nan

    spoil_model(monkeypatch, poison, 12)
    keys = {"guard.nan": "rollback", "saving.seconds": 0, "schedule.name": "constant", "schedule.warmup": 0}
    told = Told({"data": str(data), **keys}, tmp_path)
    assert told.error is None
    assert told.run.info["status"] == "finished"
    assert told.said("non-finite-weight")["where"]["step"] == 12
    rates = [row["lr"]["heads"] for row in told.run.steps]
    assert len(rates) == 30
    assert rates[11] == pytest.approx(rates[10] / 2)


def test_poisoned_statistics_are_named_by_the_judgement_that_meets_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(monkeypatch, lambda detector: detector.neck.coarser[0][1].running_mean.fill_(math.nan), 12)
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.said("non-finite-weight")
    assert "running statistics are not finite: neck.coarser.0.1.running_mean" in finding["what"]
    assert "running_mean" in str(told.error)
    assert finding["where"]["step"] == 20


def test_an_image_that_overflows_in_the_judgement_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Small.forward

    def forward(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        if not self.training and len(images) > 1:
            raw.logits[1] = math.nan
        return raw

    monkeypatch.setattr(Small, "forward", forward)
    told = Told({"data": str(data), "epochs": 1}, tmp_path)
    finding = told.said("activation-overflow")
    assert Path(finding["where"]["file"]).is_file()
    assert "the output of the model (Small) is not finite" in finding["what"]


# Parts of the network


def kill(module: nn.Module) -> None:
    """Every ReLU behind the norms of a module is dead from now on."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.bias.fill_(-100)


@pytest.mark.parametrize(("what", "words"), [("all", "backbone has been 0"), ("first", "backbone.blocks.0.0.weight")])
def test_a_dead_part_is_named(
    what: str, words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_model(
        monkeypatch, lambda d: kill(d.backbone if what == "all" else d.backbone.blocks[0]), 5
    )  # fmt: skip
    told = Told({"data": str(data), "epochs": 7, **QUIET}, tmp_path)
    assert words in told.said("dead-part")["what"]


def test_a_gradient_cut_off_by_a_hook_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Small.__init__

    def cut(self: Small, *args: Any, **keys: Any) -> None:
        original(self, *args, **keys)
        for parameter in self.neck.parameters():  # type: ignore[union-attr]
            parameter.register_hook(lambda gradient: gradient * 0)

    monkeypatch.setattr(Small, "__init__", cut)
    told = Told({"data": str(data), "epochs": 6, **QUIET}, tmp_path)
    assert "the gradient of neck has been 0" in told.said("dead-part")["what"]


def test_a_frozen_weight_that_moves_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_model(monkeypatch, lambda detector: detector.backbone.blocks[1][0].weight.add_(1e-4), 15)
    told = Told({"data": str(data), "freeze": ["backbone"]}, tmp_path)
    finding = told.said("frozen-moved")
    assert finding["what"].startswith("backbone.blocks.1.0.weight is frozen, yet a value of it has moved by 0.0001")
    assert finding["where"]["step"] == 25


def test_frozen_norms_that_go_on_counting_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "set_training", lambda detector, frozen, norms: detector.train())
    told = Told({"data": str(data), "freeze": ["backbone"], "epochs": 1}, tmp_path)
    assert told.codes == ["frozen-moved"]
    assert "running_" in told.said("frozen-moved")["what"]


@pytest.mark.slow
def test_a_level_without_positives_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "sizes", ((12.0, 18.0), (400.0,), (26.0,)))
    told = Told({"data": str(data), "epochs": 40, **QUIET}, tmp_path)
    assert "level 2 of 3 has had no positive" in told.said("empty-level")["what"]


# Schedules, loss and curves


def test_a_rate_at_nothing_is_foreseen(data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "optimiser.lr": 1e-9, "epochs": 1}, tmp_path)
    assert told.codes == ["lr-at-nothing"]
    assert "adamw moves nothing below 3e-07" in told.said("lr-at-nothing")["what"]


@pytest.mark.slow
def test_a_rate_that_falls_to_nothing_unforeseen_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop_module.set_learning_rates
    count: list[int] = []

    def fallen(optimiser: Any, share: float) -> dict[str, float]:
        count.append(1)
        return original(optimiser, share * (1e-6 if len(count) > 40 else 1))

    monkeypatch.setattr(loop_module, "set_learning_rates", fallen)
    told = Told({"data": str(data), "epochs": 16, **QUIET}, tmp_path)
    finding = told.said("lr-at-nothing")
    assert 40 < finding["where"]["step"] <= 100
    assert "steps left" in finding["what"]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax-ohem", "focal"])
def test_a_head_that_sees_nothing_stands_at_chance_level(
    loss: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Small.forward

    def blind(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        bias = self.heads.cls_headers[1].bias  # the same answer for every prior of every image
        return Raw(raw.offsets, raw.logits * 0 + bias)

    monkeypatch.setattr(Small, "forward", blind)
    keys = {"options.class_loss": loss, "optimiser.lr": 0.03, "schedule.name": "constant", "schedule.warmup": 0}
    told = Told({"data": str(data), "epochs": 25, **keys, **QUIET}, tmp_path)
    finding = told.said("chance-level")
    if loss == "softmax-ohem":
        level = float(finding["what"].partition("chance level ")[2])
        last = told.run.steps[finding["where"]["step"] - 50 : finding["where"]["step"]]
        ratio = float(np.mean([row["negatives"] / row["positives"] for row in last]))
        assert 3 <= ratio < 3.1  # images of one positive have three negatives at least, those of none too
        assert level == pytest.approx((1 + ratio) * math.log(1 + ratio) - ratio * math.log(ratio), abs=2e-3)


def test_a_crowd_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = np.stack(np.meshgrid(np.arange(0, 56, 4.0), np.arange(0, 56, 4.0)), -1).reshape(-1, 2)
    crowd = Annotations(np.concatenate([corner, corner + 8], 1), np.zeros(len(corner), np.int64))
    spoil_batches(monkeypatch, lambda b: replace(b, annotations=[b.annotations[0], crowd, crowd, crowd]), 38)
    told = Told({"data": str(data), "epochs": 5, **QUIET}, tmp_path)
    assert told.codes == ["crowd-batch"]
    finding = told.said("crowd-batch")
    assert finding["where"]["step"] == 38
    assert f"from {len(corner)} truths" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


@pytest.mark.parametrize("guard", ["report", "skip", "stop"])
def test_the_spike_of_one_image_is_named(
    guard: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = torch.tensor([1.0, 1.0, 1e4, 1.0])
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update(box=loss.parts["box"] * factor[: len(raw.logits)]), 35)
    told = Told({"data": str(data), "epochs": 4, "guard.spike": guard, **QUIET}, tmp_path)
    finding = told.said("one-image")
    assert finding["where"]["step"] == 35
    assert "one image makes 100% of the loss" in finding["what"]
    assert Path(finding["where"]["file"]).is_file()
    assert (told.error is not None) == (guard == "stop")
    if guard != "stop":
        assert [row["step"] for row in told.run.steps if row.get("skipped")] == [35] * (guard == "skip")


def test_a_spike_that_stays_is_told_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_loss(
        monkeypatch, lambda loss, raw: loss.parts.update(box=loss.parts["box"] * 1e4), *range(34, 41)
    )  # fmt: skip
    told = Told({"data": str(data), "epochs": 5, "augmentation.rest": 0, **QUIET}, tmp_path)
    spikes = [found for found in told.findings if found["evidence"].get("incident") == "spike"]
    assert [found["where"]["step"] for found in spikes] == [34]


def divided(loss: Loss, raw: Raw) -> None:
    count = loss.positives.sum().float()
    loss.parts.update({name: part / count for name, part in loss.parts.items()})


@pytest.mark.parametrize("fault", ["division", "exp", "log", "sqrt"])
def test_the_formula_that_blew_is_named_in_any_loss(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shapes(tmp_path / "shapes", images=30, empty=20)

    def change(loss: Loss, raw: Raw) -> None:
        far = raw.offsets[..., 2] * 0 + torch.arange(raw.offsets.shape[1]) * 10.0
        extra = {"exp": far.exp(), "log": (far - 20).log(), "sqrt": (20 - far).sqrt()}[fault]
        loss.parts["box"] = loss.parts["box"] + extra.sum(1)

    spoil_loss(monkeypatch, divided if fault == "division" else change, *range(4, 99) if fault != "division" else ())
    told = Told({"data": str(data), "seed": 1}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.findings[-1]
    formula = finding["evidence"]["formula"]
    if fault == "division":
        assert finding["code"] == "no-positives"
        assert "/ 0 = " in formula
        return
    assert told.stopped("loss-formula", 4)
    expected = {"exp": ("exp(90) = inf", 9), "log": ("ln(-20) = nan", 0), "sqrt": ("sqrt(-10) = nan", 3)}
    words, prior = expected[fault]
    assert formula == words
    assert f"prior {prior} " in finding["what"]
    assert Path(finding["where"]["file"]).is_file()


def test_a_gradient_that_alone_is_not_finite_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(
        monkeypatch,
        lambda loss, raw: loss.parts.update(box=loss.parts["box"] + (raw.offsets * 0).abs().sqrt().sum((1, 2))), 3,
    )  # fmt: skip
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, DivergedError)
    finding = told.findings[-1]
    assert finding["code"] == "nan-gradient"
    assert finding["where"]["step"] == 3
    assert len(told.run.steps) == 2


@pytest.mark.slow
def test_loss_weights_that_leave_one_part_are_told(data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "epochs": 21, "loss.cls": 100, **QUIET}, tmp_path)
    assert "its weight is 100 against 1 of box" in told.said("one-part-loss")["what"]


def test_validation_that_is_far_easier_than_training_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, lambda loss, raw: loss.parts.update({n: p * 3 for n, p in loss.parts.items()}))
    told = Told({"data": str(data), "epochs": 5}, tmp_path)
    assert told.codes == ["val-better"]


@pytest.mark.slow
def test_validation_that_gets_worse_while_training_goes_on_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Small.forward, []

    def blurred(self: Small, images: Tensor) -> Raw:
        raw = original(self, images)
        if self.training:
            return raw
        calls.append(1)
        noise = torch.rand(raw.logits.shape, generator=torch.Generator().manual_seed(0))
        return Raw(raw.offsets, raw.logits + noise * max(0.0, len(calls) / 3 - 8) * 2)  # three batches a judgement

    monkeypatch.setattr(Small, "forward", blurred)
    told = Told({"data": str(data), "epochs": 16}, tmp_path)
    assert set(told.codes) == {"overfit"}
