"""Light backbones: shapes, names of released weights, depthwise gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.models.depthwise import DepthwiseConv2d
from onestage.models.lite import PRIOR_SIZES, STRIDES, SSDLite0
from onestage.models.mobile import (
    Classifier,
    ConvNorm,
    efficientnet_lite0,
    lite0_names,
    mobilenet_names,
    mobilenet_v2,
)


@given(
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    padded=st.booleans(),
    height=st.integers(5, 13),
    width=st.integers(5, 13),
)
@settings(max_examples=60, deadline=None)
def test_depthwise_gradients_are_the_librarys(kernel: int, stride: int, padded: bool, height: int, width: int) -> None:
    torch.manual_seed(0)
    padding = kernel // 2 if padded else 0
    ours = DepthwiseConv2d(3, kernel, stride, padding).double()
    x = torch.randn(2, 3, height, width, dtype=torch.double, requires_grad=True)
    out = ours(x)
    grad = torch.randn_like(out)
    out.backward(grad)
    assert x.grad is not None
    assert ours.weight.grad is not None
    to_x, to_weight = x.grad.clone(), ours.weight.grad.clone()
    x.grad, ours.weight.grad = None, None
    F.conv2d(x, ours.weight, None, stride, padding, 1, 3).backward(grad)
    torch.testing.assert_close(to_x, x.grad)
    torch.testing.assert_close(to_weight, ours.weight.grad)


def test_depthwise_under_autocast_gives_gradients_in_the_parameters_type() -> None:
    layer = DepthwiseConv2d(4, 5, 2, 2)
    x = torch.randn(2, 4, 12, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    exact = torch.randn_like(x).requires_grad_()
    with torch.no_grad():
        exact.copy_(x)
    F.conv2d(exact, layer.weight.detach(), None, 2, 2, 1, 4).sum().backward()
    torch.testing.assert_close(x.grad, exact.grad, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 1), (2, 2), (6, 1), (1, 4), (5, 5)])
def test_depthwise_gradients_do_not_read_beyond_their_input(
    dtype: torch.dtype, stride: int, kernel: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(40, kernel, stride, kernel // 2).to(dtype)
    x = among_nan(torch.randn(4, 40, height, width).to(dtype)).requires_grad_()
    out = layer(x)
    grad = torch.randn_like(out)
    out.backward(among_nan(grad))
    exact = torch.ops.aten.convolution_backward(
        grad.double(), x.detach().double(), layer.weight.detach().double(), None, [stride] * 2, [kernel // 2] * 2,
        [1, 1], False, [0, 0], 40, [True, True, False],
    )  # fmt: skip
    for ours, right in zip((x.grad, layer.weight.grad), exact[:2], strict=True):
        assert ours is not None
        torch.testing.assert_close(ours.double(), right, rtol=0.05, atol=0.05)


def among_nan(maps: torch.Tensor) -> torch.Tensor:
    """The same maps, channels last, in the middle of memory full of NaN."""
    count, channels, height, width = maps.shape
    memory = torch.full((maps.numel() + 4096,), float("nan"), dtype=maps.dtype)
    view = memory[2048 : 2048 + maps.numel()].view(count, height, width, channels).permute(0, 3, 1, 2)
    return view.copy_(maps)


def test_depthwise_state_dict_is_that_of_a_convolution() -> None:
    plain = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    ours = DepthwiseConv2d(6, 3, 1, 1)
    ours.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 6, 7, 7)
    torch.testing.assert_close(ours(x), plain(x))


def test_same_padding_is_tensorflows() -> None:
    # TensorFlow pads an even side of 8 for kernel 3 and stride 2 by 0 before and 1 after (its SAME rule).
    layer = ConvNorm(1, 1, 3, 2, linear=True, same=True).eval()
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[[[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]]]))
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    out = layer(image)
    assert out.shape == (1, 1, 4, 4)
    torch.testing.assert_close(out[0, 0], image[0, 0, ::2, ::2] / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize(("make", "channels"), [(efficientnet_lite0, (40, 112, 320)), (mobilenet_v2, (32, 96, 320))])
def test_features_have_strides_8_16_32(make: object, channels: tuple[int, ...]) -> None:
    backbone = make().eval()  # type: ignore[operator]
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 96, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 96 // s, 64 // s) for c, s in zip(channels, (8, 16, 32), strict=True)
    ]


def test_parameter_counts_are_the_published_ones() -> None:
    # The Lite release's table says 4.7 M for EfficientNet-Lite0; torchvision says 3,504,872 for MobileNetV2.
    assert sum(p.numel() for p in Classifier(mobilenet_v2()).parameters()) == 3_504_872
    assert sum(p.numel() for p in Classifier(efficientnet_lite0()).parameters()) == 4_652_008


def test_released_names_map_onto_every_tensor() -> None:
    lite = Classifier(efficientnet_lite0()).state_dict()
    released = {
        "_conv_stem.weight": "backbone.stem.0.weight", "_bn0.bias": "backbone.stem.1.bias",
        "_blocks.3._expand_conv.weight": "backbone.blocks.3.expand.0.weight",
        "_blocks.3._bn1.running_mean": "backbone.blocks.3.depthwise.1.running_mean",
        "_blocks.15._project_conv.weight": "backbone.blocks.15.project.0.weight",
        "_conv_head.weight": "head.0.weight", "_bn1.weight": "head.1.weight", "_fc.bias": "fc.bias",
    }  # fmt: skip
    renamed = lite0_names({name: torch.zeros(1) for name in released})
    assert list(renamed) == list(released.values())
    assert set(renamed) <= set(lite)
    mobile = Classifier(mobilenet_v2()).state_dict()
    block = "backbone.blocks"
    released = {
        "features.0.0.weight": "backbone.stem.0.weight",
        "features.1.conv.0.0.weight": f"{block}.0.depthwise.0.weight",
        "features.1.conv.1.weight": f"{block}.0.project.0.weight",
        "features.2.conv.0.1.bias": f"{block}.1.expand.1.bias",
        "features.2.conv.1.0.weight": f"{block}.1.depthwise.0.weight",
        "features.2.conv.3.bias": f"{block}.1.project.1.bias",
        "features.18.1.weight": "head.1.weight",
        "classifier.1.weight": "fc.weight",
    }
    renamed = mobilenet_names({name: torch.zeros(1) for name in released})
    assert list(renamed) == list(released.values())
    assert set(renamed) <= set(mobile)


def test_prior_sizes_leave_no_gap() -> None:
    sizes = sorted(size for level in PRIOR_SIZES for size in level)
    assert all(b / a <= 1.5 for a, b in itertools.pairwise(sizes))
    assert len(PRIOR_SIZES) == len(STRIDES)


def test_a_light_model_takes_any_size_and_names_its_parts() -> None:
    model = SSDLite0(2, (96, 160)).eval()
    with torch.no_grad():
        boxes, scores = model.decode(model(torch.zeros(1, 3, 160, 96, dtype=torch.uint8)))
    assert boxes.shape[:2] == scores.shape[:2]
    assert scores.shape[2] == 2
    assert set(model.parts()) == {"stem", "backbone", "neck", "heads"}
