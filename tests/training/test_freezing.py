"""Freezing: what words mean, what must not move and does not, and that a stage can undo it."""

from __future__ import annotations

import pytest
import torch

from onestage import models
from onestage.errors import RecipeError
from onestage.models.detector import Detector
from onestage.training.lookout import Still
from onestage.training.loop.freezing import freeze, parameters_of, problems_with, set_training
from onestage.training.loop.groups import groups_table
from onestage.training.loop.norms import batch_norms
from onestage.training.loop.optimiser import build_optimiser
from onestage.training.recipe import build
from onestage.training.recipe.schedule import Optimiser
from onestage.training.recipe.stages import legs


def light() -> Detector:
    torch.manual_seed(0)
    return models.build("ssd-lite0", 1, (64, 64))


def learn(detector: Detector, frozen: list[torch.nn.Module], norms: str = "own", steps: int = 2) -> set[str]:
    """Train a little with weight decay and momentum; the names of what moved, buffers included."""
    optimiser = build_optimiser(detector, Optimiser(lr=0.1))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    for _ in range(steps):
        set_training(detector, frozen, norms)
        raw = detector(torch.randint(0, 256, (2, 3, 64, 64)))
        optimiser.zero_grad()
        (raw.logits.sum() + raw.offsets.sum()).backward()
        optimiser.step()
    return {name for name, tensor in detector.state_dict().items() if not torch.equal(before[name], tensor)}


def named(detector: Detector, word: str) -> set[str]:
    ids = parameters_of(detector, word)
    return {name for name, parameter in detector.named_parameters() if id(parameter) in ids}


def test_words_mean_parts_modules_parameters_and_patterns() -> None:
    detector = light()
    every = {name for name, _ in detector.named_parameters()}
    assert named(detector, "backbone") == {name for name in every if name.startswith("backbone.")}
    assert named(detector, "all-but-heads") == {name for name in every if not name.startswith("heads.")}
    assert named(detector, "all-but-backbone.stem") == {n for n in every if not n.startswith("backbone.stem.")}
    assert named(detector, "backbone.blocks.1") == {n for n in every if n.startswith("backbone.blocks.1.")}
    tens = named(detector, "backbone.blocks.1*")
    assert tens >= named(detector, "backbone.blocks.1") | named(detector, "backbone.blocks.10")
    assert named(detector, "*.bias") == {name for name in every if name.endswith(".bias")}
    assert named(detector, next(iter(sorted(every)))) == {min(every)}
    assert named(detector, "backbone.blokcs.1") == set()
    assert named(detector, "all-but-backbon") == set()


@pytest.mark.parametrize(
    ("word", "meant"),
    [("backbones", "'backbone'"), ("all-but-head", "'all-but-heads'"), ("backbone.blokcs.1", "'backbone.blocks.1"),
     ("nothing.*", "there are: "), ("nones", "'none'")],
)  # fmt: skip
def test_a_word_that_names_nothing_is_told_with_what_was_meant(word: str, meant: str) -> None:
    (problem,) = problems_with(light(), [word], "stages[1].freeze")
    assert problem.startswith(f"stages[1].freeze: no part {word!r}")
    assert meant in problem
    with pytest.raises(RecipeError):
        freeze(light(), [word])


@pytest.mark.parametrize("words", [["stem"], ["all-but-heads"], ["backbone.blocks.1*", "neck"], ["*.weight"]])
def test_what_is_frozen_does_not_move_and_the_rest_does(words: list[str]) -> None:
    detector = light()
    frozen = freeze(detector, words)
    still = set().union(*(named(detector, word) for word in words))
    still_there = Still(detector, frozen)
    moved = learn(detector, frozen)
    assert not moved & still
    learning = {name for name, _ in detector.named_parameters()} - still
    assert len(moved & learning) > 0.9 * len(learning)  # the heads of a level may happen to have no gradient
    assert still_there.moved() == {}
    kept = {
        name
        for name, module in detector.named_modules()
        if any(module is inner for m in frozen for inner in m.modules())
    }
    for name, module in detector.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            affine = {f"{name}.weight", f"{name}.bias"}
            assert (f"{name}.running_mean" in moved) == (not affine <= still), name
            assert (name in kept) == (affine <= still)


def test_frozen_norms_keep_their_statistics_and_learn_their_weights() -> None:
    moved = learn(light(), [], norms="frozen")
    assert not [name for name in moved if "running" in name]
    assert "backbone.blocks.3.expand.1.weight" in moved


def test_the_next_stage_lets_learn_what_the_last_one_froze() -> None:
    detector = light()
    freeze(detector, ["all-but-heads"])
    frozen = freeze(detector, ["stem"])
    assert all(p.requires_grad == (id(p) not in parameters_of(detector, "stem")) for p in detector.parameters())
    set_training(detector, frozen)
    assert not any(norm.training for norm in batch_norms(detector.parts()["stem"]))
    assert freeze(detector, ["none"]) == freeze(detector, []) == []
    assert all(p.requires_grad for p in detector.parameters())


@pytest.mark.parametrize("what", ["backbone.stem.0.weight", "backbone.stem.1.running_var"])
def test_a_frozen_value_that_moves_by_one_bit_is_noticed(what: str) -> None:
    detector = light()
    frozen = freeze(detector, ["stem"])
    still = Still(detector, frozen)
    tensor = detector.state_dict()[what].flatten()
    tensor[:1].copy_(torch.nextafter(tensor[:1], torch.tensor([9.0])))
    assert list(still.moved()) == [what]


def rows_of(detector: Detector, norms: str = "own", **keys: object) -> dict[str, tuple[object, ...]]:
    (leg,) = legs(build({"data": "x", "epochs": 1, **keys}), 10)
    rows = groups_table(detector, leg, norms)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in detector.parameters())
    assert sum(row.tensors for row in rows) == len(list(detector.parameters()))
    return {row.group: (row.trainable, row.lr, row.decay, row.norms) for row in rows}


def test_the_table_has_every_parameter_once_with_what_happens_to_it() -> None:
    detector = light()
    assert rows_of(detector, freeze=["stem"], **{"optimiser.backbone": 0.1, "optimiser.rates": {"neck": 2}}) == {
        "backbone": (True, pytest.approx(1e-4), 0.05, "-"),
        "backbone.no_decay": (True, pytest.approx(1e-4), 0, "updated"),
        "neck": (True, 2e-3, 0.05, "-"), "neck.no_decay": (True, 2e-3, 0, "updated"),
        "heads": (True, 1e-3, 0.05, "-"), "heads.no_decay": (True, 1e-3, 0, "updated"),
        "stem (frozen)": (False, None, None, "kept"),
    }  # fmt: skip
    assert all(p.requires_grad for p in detector.parameters())  # looking changes nothing


def test_the_table_tells_what_norms_do() -> None:
    assert {row[3] for row in rows_of(light(), norms="frozen", freeze=[]).values()} == {"-", "kept"}
    assert {row[3] for row in rows_of(light(), norms="synchronised", freeze=["stem"]).values()} == {
        "-", "kept", "synchronised",
    }  # fmt: skip
    assert {row[3] for row in rows_of(models.build("ssd300", 2), freeze=["backbone"]).values()} == {"-"}  # has none
    weights_alone = rows_of(light(), freeze=["*.weight"])  # biases of norms still learn, so their statistics do
    assert weights_alone["backbone (frozen)"][3] == "updated"


def test_the_table_agrees_with_the_optimiser() -> None:
    detector = light()
    (leg,) = legs(build({"data": "x", "epochs": 1, "freeze": ["all-but-neck"], "optimiser.rates.neck.*": 0.5}), 10)
    table = {row.group: (row.tensors, row.lr, row.decay) for row in groups_table(detector, leg) if row.trainable}
    freeze(detector, leg.freeze)
    groups = build_optimiser(detector, leg.optimiser).param_groups
    assert table == {g["name"]: (len(g["params"]), g["highest"], g["weight_decay"]) for g in groups}
