"""A step of SGD here is a step of darknet's: rate, momentum and decay mean the same, whatever the batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from onestage.models import build
from onestage.models.detector import Detector, Loss
from onestage.training.loop.optimiser import build_optimiser, set_learning_rates
from onestage.training.recipe.schedule import Optimiser
from toy_cfg import TOY

Arrays = dict[str, np.ndarray]


def darknets_update(
    weights: Arrays, updates: Arrays, deltas: Mapping[str, np.ndarray], batch: int, rate: float, momentum: float,
    decay: float,
) -> None:  # fmt: skip
    """update_convolutional_layer of darknet's convolutional_layer.c, which forward and backward of `batch` images
    precede: deltas, sums over the images of minus the gradient, are added to what momentum has left; kernels decay."""
    for name, weight in weights.items():
        updates[name] += deltas[name]
        if weight.ndim > 1:
            updates[name] += -decay * batch * weight
        weight += rate / batch * updates[name]
        updates[name] *= momentum


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(3)
    return build("darknet", 3, cfg=TOY).double()


@pytest.mark.parametrize("batch", [1, 6, 64])
def test_three_steps_with_momentum_decay_and_a_rate_that_changes(detector: Detector, batch: int) -> None:
    rng = np.random.default_rng(batch)
    keys = Optimiser(name="sgd", lr=0.01, momentum=0.9, decay=5e-4)
    optimiser = build_optimiser(detector, keys)
    named = dict(detector.named_parameters())
    theirs = {name: parameter.detach().numpy().copy() for name, parameter in named.items()}
    updates = {name: np.zeros_like(value) for name, value in theirs.items()}
    for share in (0.1, 1.0, 0.5):
        deltas = {name: rng.normal(0, 3, value.shape) for name, value in theirs.items()}
        for name, parameter in named.items():
            parameter.grad = torch.from_numpy(-deltas[name] / batch)  # the gradient of a mean over the images
        set_learning_rates(optimiser, share)
        optimiser.step()
        darknets_update(theirs, updates, deltas, batch, 0.01 * share, 0.9, 5e-4)
    for name, parameter in named.items():
        assert parameter.detach().numpy() == pytest.approx(theirs[name], rel=1e-12, abs=1e-14), name


def test_the_loss_of_a_batch_is_the_mean_over_its_images() -> None:
    parts = {"box": torch.tensor([1.0, 3.0, 8.0]), "obj": torch.tensor([2.0, 2.0, 2.0])}
    loss = Loss(parts, torch.zeros(3, 1), normaliser=torch.ones(3))
    assert float(loss.total({"box": 0.5})) == pytest.approx((0.5 * 12 + 6) / 3)
