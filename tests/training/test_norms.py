"""Norms over two processes are those of one with the whole batch: outputs, statistics, gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import Pair

from onestage import models
from onestage.models.darknet.network import DarknetNorm
from onestage.training.devices.ranks import Ranks
from onestage.training.loop.norms import SynchronisedNorm, batch_norms, synchronise


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
    assert [type(norm) for norm in batch_norms(net)] == [SynchronisedNorm] * 2
    images = _images(kind)
    return _passes(net, images[:cut] if ranks.is_first else images[cut:], ranks.sum_in_place)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
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


def _one_norm(ranks: Ranks) -> dict[str, Tensor]:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    synchronise(norm)
    return _passes(norm, _images(torch.float32)[ranks.rank :: 2], ranks.sum_in_place)


def test_one_norm_in_single_precision(pair: Pair) -> None:
    whole = _passes(nn.Sequential(nn.BatchNorm2d(3)), _images(torch.float32))
    for rank, found in enumerate(pair(_one_norm)):
        for name, expected in whole.items():
            part = expected[rank::2] if name in ("answer", "for images") else expected
            scale = max(float(expected.abs().max()), 1)
            tolerance = 1e-4 if name.startswith("grad") else 2e-6  # these gradients are sums of hundreds that cancel
            torch.testing.assert_close(found[name], part, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: n + m)


def _far_from_zero(ranks: Ranks, cut: int) -> tuple[Tensor, Tensor]:
    norm = nn.BatchNorm2d(2, momentum=1.0)
    box = nn.Sequential(norm)
    synchronise(box)
    values = _far()
    box(values[:cut] if ranks.is_first else values[cut:])
    return norm.running_mean, norm.running_var  # type: ignore[return-value]


def _far() -> Tensor:
    return torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(3)) * 0.1 + 1000


def test_the_variance_of_values_far_from_zero_does_not_cancel(pair: Pair) -> None:
    exact = _far().double()
    for mean, variance in pair(_far_from_zero, 2):
        torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
        torch.testing.assert_close(variance.double(), exact.var((0, 2, 3)), rtol=1e-4, atol=0)


def _half_precision(ranks: Ranks) -> Any:
    net = _net(torch.float32, 0.1, True).to(memory_format=torch.channels_last)
    synchronise(net)
    given = _images(torch.float32)[ranks.rank :: 2].to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        answer = net(given)
    answer.float().square().sum().backward()
    return answer.detach(), given.grad, answer.is_contiguous(memory_format=torch.channels_last)


def test_mixed_precision_and_the_layout_in_memory_are_kept(pair: Pair) -> None:
    net = _net(torch.float32, 0.1, True)
    whole = _images(torch.float32).requires_grad_()
    net(whole).square().sum().backward()
    for rank, (answer, gradient, channels_last) in enumerate(pair(_half_precision)):
        assert answer.dtype == torch.bfloat16
        assert channels_last
        torch.testing.assert_close(answer.float(), net(whole)[rank::2], rtol=0.1, atol=0.1)
        assert gradient.isfinite().all()


def test_conversion_keeps_parameters_names_and_answers() -> None:
    detector = models.build("ssd-lite0", 2, (64, 64)).train()
    names, parameters = list(detector.state_dict()), {id(parameter) for parameter in detector.parameters()}
    norms = batch_norms(detector)
    norms[0].eval()
    image = torch.rand(2, 3, 64, 64) * 255
    expected = detector.eval()(image)
    norms[1].train()
    synchronise(detector)
    assert {type(norm) for norm in batch_norms(detector)} == {SynchronisedNorm}
    assert [norm.training for norm in batch_norms(detector)] == [norm.training for norm in norms]
    assert list(detector.state_dict()) == names
    assert {id(parameter) for parameter in detector.parameters()} == parameters
    for ours, theirs in zip(detector.eval()(image), expected, strict=True):
        assert torch.equal(ours, theirs)
    detector.train()(image)  # alone, its statistics are its own
    assert all(
        torch.equal(one.running_mean, other.running_mean)
        for one, other in zip(norms, batch_norms(detector), strict=True)
    )  # type: ignore[arg-type]
    other = models.build("ssd-lite0", 2, (64, 64))
    synchronise(other, "cuda")
    assert {type(norm) for norm in batch_norms(other)} == {nn.SyncBatchNorm}
    assert list(other.state_dict()) == names


def _darknets_norm(ranks: Ranks) -> dict[str, Tensor]:
    net = nn.Sequential(DarknetNorm(3, inside=1e-5), nn.Conv2d(3, 3, 1), DarknetNorm(3))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    if not ranks.alone:
        synchronise(net)
        assert all(isinstance(norm, SynchronisedNorm) for norm in batch_norms(net))
    passes = _passes(net.double(), _images(torch.float64)[ranks.rank :: ranks.count], ranks.sum_in_place)
    return passes | {"judged": net.eval()(_images(torch.float64)).detach()}


def test_darknets_norm_is_synchronised_in_training_and_its_own_in_evaluation(pair: Pair) -> None:
    whole = _darknets_norm(Ranks())
    for rank, found in enumerate(pair(_darknets_norm)):
        for name, expected in whole.items():
            part = expected[rank::2] if name in ("answer", "for images") else expected
            torch.testing.assert_close(found[name], part, rtol=1e-11, atol=1e-11, msg=lambda m, n=name: n + m)
    norm = DarknetNorm(2)
    norm.get_buffer("running_var").fill_(1e-9)  # sqrt(variance) + 1e-6 is far from sqrt(variance + 1e-12) here
    plain, x = copy.deepcopy(norm).eval(), torch.rand(1, 2, 3, 3)
    for device in ("cpu", "cuda"):
        box = nn.Sequential(copy.deepcopy(norm)).eval()
        synchronise(box, device)
        assert isinstance(box[0], SynchronisedNorm)
        assert isinstance(box[0], DarknetNorm)
        assert torch.equal(copy.deepcopy(box)(x), plain(x))
        assert torch.equal(box[0].settled()(x), norm.settled()(x))
