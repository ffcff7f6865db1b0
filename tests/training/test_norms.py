"""Norms over two processes are those of one with the whole batch: outputs, statistics, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import Pair

from onestage.training.norms import SynchronisedNorm, norms_of, synchronise
from onestage.training.ranks import Ranks


def _net(kind: torch.dtype, momentum: float | None, affine: bool) -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(5, momentum=momentum, affine=affine), nn.BatchNorm2d(4, affine=True)]
    net = nn.Sequential(nn.Conv2d(3, 5, 3), norms[0], nn.ReLU(), nn.Conv2d(5, 4, 3), norms[1])
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.3)
    return net.to(kind)


def _images(kind: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(7, 3, 9, 8, generator=generator, dtype=torch.float64) * 2 + 1).to(kind)


def _passes(net: nn.Sequential, images: Tensor, sums: Any = None) -> dict[str, Tensor]:
    """Two training passes; outputs and gradients of the second, and the state after it."""
    for _ in range(2):
        given = images.clone().requires_grad_()
        net.zero_grad()
        answer = net(given)
        (answer**3 + answer).sum().backward()
    gradients = {f"grad {name}": parameter.grad for name, parameter in net.named_parameters()}
    if sums is not None:
        sums(gradients.values())
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return {"answer": answer.detach(), "for images": given.grad, **gradients, **state}


def _share(ranks: Ranks, kind: torch.dtype, momentum: float | None, affine: bool, cut: int) -> dict[str, Tensor]:
    net = _net(kind, momentum, affine)
    synchronise(net)
    assert [type(norm) for norm in norms_of(net)] == [SynchronisedNorm] * 2
    images = _images(kind)
    return _passes(net, images[:cut] if ranks.is_first else images[cut:], ranks.sum_in_place)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("momentum", "affine", "cut"), [(0.1, True, 3), (None, False, 1), (0.1, True, 7)])
def test_two_processes_give_what_one_gives(
    pair: Pair, kind: torch.dtype, tolerance: float, momentum: float | None, affine: bool, cut: int
) -> None:
    whole = _passes(_net(kind, momentum, affine), _images(kind))
    first, second = pair(_share, kind, momentum, affine, cut)
    for name, expected in whole.items():
        if name in ("answer", "for images"):
            torch.testing.assert_close(torch.cat([first[name], second[name]]), expected, rtol=tolerance, atol=tolerance)
        else:
            scale = max(float(expected.abs().max()), 1)
            torch.testing.assert_close(
                first[name], expected, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: n + m
            )
            assert torch.equal(first[name], second[name]), name
