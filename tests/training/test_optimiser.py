"""Parameter groups and optimisers: against torch's own over the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onestage import models
from onestage.errors import RecipeError
from onestage.models.detector import Detector
from onestage.training.loop.freezing import freeze, set_training
from onestage.training.loop.optimiser import build_optimiser, parameter_groups, set_learning_rates
from onestage.training.recipe.schedule import Optimiser


def light() -> Detector:
    return models.build("ssd-lite0", 1, (64, 64))


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


def test_rates_by_part_module_and_pattern_replace_each_other_in_order() -> None:
    detector = light()
    rates = {"backbone.blocks.0*": 0.5, "neck": 3.0, "neck.lateral": 2.0}
    groups = {g["name"]: g for g in parameter_groups(detector, Optimiser(lr=0.01, backbone=0.1, rates=rates))}
    assert {name: pytest.approx(g["lr"]) for name, g in groups.items() if not name.endswith(".no_decay")} == {
        "backbone": 0.001, "backbone.blocks.0*": 0.005, "neck": 0.03, "neck.lateral": 0.02, "heads": 0.01,
    }  # fmt: skip
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    assert all(names[id(p)].startswith("neck.lateral.") for p in groups["neck.lateral"]["params"])
    assert sum(len(g["params"]) for g in groups.values()) == len(names)
    rates = set_learning_rates(build_optimiser(detector, Optimiser(lr=0.01, rates={"neck": 3.0})), 0.5)
    assert rates["neck"] == pytest.approx(0.015)


OURS: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "sgd": ({"momentum": 0.8, "decay": 0.01}, torch.optim.SGD, {"momentum": 0.8}),
    "sgd-nesterov": ({"momentum": 0.8, "nesterov": True, "decay": 0.0}, torch.optim.SGD,
                     {"momentum": 0.8, "nesterov": True}),
    "adam": ({"decay": 0.01, "eps": 1e-3, "beta2": 0.9}, torch.optim.Adam, {"betas": (0.9, 0.9), "eps": 1e-3}),
    "adamw": ({}, torch.optim.AdamW, {}),
    "nadam": ({"momentum": 0.7}, torch.optim.NAdam, {"betas": (0.7, 0.999)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", OURS)
def test_updates_are_those_of_torchs_plain_form(kind: str) -> None:
    keys, theirs, options = OURS[kind]
    updated = []
    for ours in (True, False):
        torch.manual_seed(0)
        detector = light()
        asked = Optimiser.model_validate({"name": kind.partition("-")[0], "lr": 0.01, **keys})
        groups = parameter_groups(detector, asked)
        optimiser = build_optimiser(detector, asked) if ours else theirs(groups, foreach=False, **options)
        for _ in range(3):
            for number, parameter in enumerate(detector.parameters()):
                parameter.grad = torch.sin(torch.arange(parameter.numel()) + number).view_as(parameter)
            optimiser.step()
        updated.append(torch.cat([parameter.detach().flatten() for parameter in detector.parameters()]))
    torch.testing.assert_close(*updated, rtol=1e-5, atol=1e-6)
