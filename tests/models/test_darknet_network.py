"""Layers as darknet computes them, and the detectors made of them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onestage.errors import ModelError
from onestage.models import build
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.network import DarknetNorm, answers, pooled, units
from onestage.models.darknet.plans import plan
from toy_cfg import TOY


def pool_by_hand(x: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """The loops of darknet's maxpool, on one map."""
    rows, columns = ((side + padding - size) // stride + 1 for side in x.shape)
    found = np.full((rows, columns), -np.inf)
    for i in range(rows):
        for j in range(columns):
            for n in range(size):
                for m in range(size):
                    y, z = i * stride + n - padding // 2, j * stride + m - padding // 2
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        found[i, j] = max(found[i, j], x[y, z])
    return found


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 4), st.integers(0, 99)
)  # fmt: skip
def test_pools_pad_with_minus_infinity(rows, columns, size, stride, padding, seed):
    if padding >= 2 * size or min(rows, columns) + padding < size:
        return
    x = np.random.default_rng(seed).normal(-3, 1, (rows, columns))
    wanted = pool_by_hand(x, size, stride, padding)
    if np.isinf(wanted).any():
        return  # a window that sees nothing: darknet gives -FLT_MAX
    found = pooled(torch.from_numpy(x)[None, None], size, stride, padding)[0, 0].numpy()
    np.testing.assert_array_equal(found, wanted)


def test_the_pool_of_stride_1_is_not_padded_with_zeros():
    """As both PyTorch peers do: on values below 0 the last row and column would be 0."""
    x = torch.full((1, 1, 13, 13), -1.0)
    assert (pooled(x, 2, 1, 1) == -1).all()


def test_norms_divide_as_darknet():
    """normalize_cpu: (x - mean) / (sqrt(variance) + .000001f), then scale and bias; seen where the variance is tiny."""
    norm = DarknetNorm(3)
    norm.running_mean[:] = torch.tensor([1.0, -2.0, 0.5])  # type: ignore[index]
    norm.running_var[:] = torch.tensor([1e-12, 4.0, 0.0])  # type: ignore[index]
    with torch.no_grad():
        norm.weight[:], norm.bias[:] = torch.tensor([2.0, 3.0, 1e-6]), torch.tensor([0.0, 1.0, 5.0])
    x = torch.tensor([1.000001, 2.0, 1.5]).view(1, 3, 1, 1)
    expected = [2 * (float(x[0, 0]) - 1) / 2e-6, 3 * 4 / (2 + 1e-6) + 1, 1e-6 * 1.0 / 1e-6 + 5]
    assert norm.eval()(x).flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert norm.settled()(x).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_norms_learn_statistics_as_darknet():
    """.99 and .01, the variance divided by n - 1; what is normalised in training is near torch's own."""
    norm, x = DarknetNorm(2), torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    shown = norm.train()(x)
    assert norm.running_mean.tolist() == pytest.approx((0.01 * x.mean((0, 2, 3))).tolist())  # type: ignore[union-attr]
    var = x.transpose(0, 1).flatten(1).var(1)
    assert norm.running_var.tolist() == pytest.approx((0.99 + 0.01 * var).tolist())  # type: ignore[union-attr]
    torch.testing.assert_close(shown, nn.BatchNorm2d(2).train()(x), rtol=1e-4, atol=1e-4)


def test_a_constant_channel_stays_finite_in_training():
    norm, x = DarknetNorm(1).train(), torch.full((2, 1, 2, 2), 3.0, requires_grad=True)
    norm(x).sum().backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


def test_each_layer_of_the_toy_network():
    """The network against the same layers written out one by one."""
    net = architecture(parse(TOY))
    torch.manual_seed(0)
    layers = units(net).eval()
    x = torch.randn(2, 3, 64, 96)
    leaky, f = torch.nn.LeakyReLU(0.1), {int(name): unit for name, unit in layers.items()}

    def conv(i: int, x: torch.Tensor) -> torch.Tensor:
        x = f[i].conv(x)
        return f[i].bn(x) if hasattr(f[i], "bn") else x

    with torch.no_grad():
        two = leaky(conv(2, torch.nn.functional.max_pool2d(leaky(conv(0, x)), 2)))
        three = conv(3, two)
        four = two + three * torch.tanh(torch.log1p(torch.exp(three)))
        five = torch.nn.functional.max_pool2d(four, 2)
        wide = torch.nn.functional.pad(five, (0, 1, 0, 1), value=-math.inf)
        seven = leaky(conv(7, torch.nn.functional.max_pool2d(wide, 2, 1)))
        first = conv(8, seven)
        up = leaky(conv(11, seven)).repeat_interleave(2, 2).repeat_interleave(2, 3)
        second = conv(14, torch.cat([up, four], 1))
        found = answers(net, layers, x)
    torch.testing.assert_close(found[0], first)
    torch.testing.assert_close(found[1], second)


def test_groups_of_a_route_and_unequal_shortcuts():
    text = """[net]
width=32
height=32
[convolutional]
filters=6
size=1
activation=linear
[route]
layers=-1
groups=2
group_id=1
[convolutional]
filters=4
size=1
activation=linear
[shortcut]
from=0
activation=linear
[shortcut]
from=1
activation=leaky
[convolutional]
filters=6
size=1
activation=linear
[yolo]
mask=0
anchors=4,4
num=1
classes=1
"""
    net = architecture(parse(text))
    layers = units(net)
    f = {int(name): unit for name, unit in layers.items()}
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        zero = f[0](x)
        one = zero[:, 3:]
        two = f[2](one)
        three = two + zero[:, :4]
        four = torch.cat([three[:, :3] + one, three[:, 3:]], 1)
        wanted = f[5](torch.where(four > 0, four, 0.1 * four))
        torch.testing.assert_close(answers(net, layers, x)[0], wanted)


def test_first_weights_are_darknets():
    torch.manual_seed(0)
    layers = units(architecture(plan("yolov3-tiny", 2)))
    weight = layers["12"].conv.weight  # type: ignore[union-attr]
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("yolov3", 61_949_149), ("yolov3-spp", 62_998_749), ("yolov3-tiny", 8_852_366), ("yolov4-tiny", 6_056_606),
     ("yolov2-tiny", 11_232_057)],
)  # fmt: skip
def test_the_named_networks_have_as_many_parameters_as_the_released_ones(name, parameters):
    with torch.device("meta"):
        detector = build(name, 80)
    assert sum(p.numel() for p in detector.parameters()) == parameters
    assert detector.classes == 80


def toy(**options: object) -> Darknet:
    torch.manual_seed(0)
    return Darknet(3, cfg=TOY, **options).eval()  # type: ignore[arg-type]


def test_boxes_are_ordered_by_head_row_column_anchor():
    detector = toy()
    at = detector.boxes
    assert at.count == 6 * 4 * 3 + 12 * 8 * 3
    index = at.levels[1].first + (2 * 12 + 5) * 3 + 1
    assert at.cells[index].tolist() == [40, 16]
    assert at.sides[index].tolist() == [12, 8]
    assert at.priors[index].tolist() == [44 - 6, 20 - 4, 44 + 6, 20 + 4]
    assert (at.level == 1).sum() == 12 * 8 * 3
    assert at.owner == (None, 1, 1, 1, 0, 0, 0)


def test_raw_answers_are_the_maps_of_the_heads():
    detector = toy()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = detector(images)
        maps = answers(detector.architecture, detector.layers, images.float() / 255)
    a, row, column = 2, 3, 7
    index = detector.boxes.levels[1].first + (row * 12 + column) * 3 + a
    wanted = maps[1][1, a * 8 : (a + 1) * 8, row, column]
    torch.testing.assert_close(torch.cat([raw.offsets[1, index], raw.logits[1, index]]), wanted)


def test_decoding_by_hand():
    """Redmon and Farhadi 2018, section 2.1, and AlexeyAB's scale_x_y."""
    detector = toy()
    at = detector.boxes
    index = at.levels[1].first + (2 * 12 + 5) * 3 + 1
    offsets = torch.zeros(1, at.count, 4)
    offsets[0, index] = torch.tensor([0.3, -0.7, 0.2, -0.4])
    logits = torch.zeros(1, at.count, 4)
    logits[0, index] = torch.tensor([1.0, 2.0, -1.0, 0.0])
    boxes, scores = detector.decode(type(detector(torch.zeros(1, 3, 64, 96)))(offsets, logits))
    x, y = ((5 + 1.1 / (1 + math.exp(-0.3)) - 0.05) * 8, (2 + 1.1 / (1 + math.exp(0.7)) - 0.05) * 8)
    w, h = 12 * math.exp(0.2), 8 * math.exp(-0.4)
    assert boxes[0, index].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], rel=1e-6)
    sigma = [1 / (1 + math.exp(-v)) for v in (1.0, 2.0, -1.0, 0.0)]
    assert scores[0, index].tolist() == pytest.approx([sigma[0] * s for s in sigma[1:]], rel=1e-6)


@settings(max_examples=10)
@given(st.integers(1, 8), st.integers(1, 8))
def test_any_multiple_of_the_stride_and_back(columns, rows):
    detector = toy()
    detector.resized((columns * 16, rows * 16))
    assert detector.boxes.count == columns * rows * 3 * 5
    assert detector(torch.zeros(1, 3, rows * 16, columns * 16)).offsets.shape[1] == detector.boxes.count
    assert (
        (detector.boxes.sides == toy().boxes.sides.unique(dim=0)[:, None]).all(-1).any(0).all()
    )  # anchors stay pixels


def test_a_size_between_is_refused_and_nothing_changes():
    detector = toy()
    with pytest.raises(ModelError, match="multiples of 16"):
        detector.resized((100, 64))
    assert detector.size == (96, 64)


def test_copies_have_boxes_of_their_own():
    detector = toy()
    copied = copy.deepcopy(detector)
    copied.resized((48, 32))
    assert detector.boxes.count != copied.boxes.count


def test_boxes_made_while_judging_serve_in_training():
    detector = toy()
    detector.resized((48, 32))
    with torch.inference_mode():
        detector.decode(detector(torch.zeros(1, 3, 32, 48)))
    raw = detector(torch.zeros(1, 3, 32, 48))
    detector.boxes.decode(raw.offsets).sum().backward()


@pytest.mark.parametrize(("classes", "second"), [(80, (1, 2, 3)), (2, (0, 1, 2)), (81, (0, 1, 2))])
def test_yolov4_tiny_answers_for_small_objects_unless_it_is_cocos(classes, second):
    assert build("yolov4-tiny", classes).architecture.heads[1].mask == second  # type: ignore[union-attr]


@pytest.mark.parametrize(("steps", "momentum"), [(10, 0.1), (200, 0.05), (1000, 0.01), (50_000, 0.01)])
def test_norms_forget_within_a_tenth_of_a_short_run(steps, momentum):
    detector = toy()
    detector.hasten(steps)
    norms = [module for module in detector.modules() if isinstance(module, DarknetNorm)]
    assert [norm.momentum for norm in norms] == [momentum] * 5


def test_the_parts_are_the_network():
    detector = toy()
    parts = detector.parts()
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()} == {
        "backbone": 3 * 4 * 9 + 8 + 4 * 8 * 9 + 16 + 8 * 4 * 9 + 16, "neck": 8 * 6 + 12 + 6 * 4 + 8,
        "heads": (6 + 1 + 12 + 1) * 24,
    }  # fmt: skip
    assert sum(p.numel() for part in parts.values() for p in part.parameters()) == sum(
        p.numel() for p in detector.parameters()
    )


def test_new_heads_begin_at_the_objectness_asked_for():
    for start in (0.01, 0.5):
        bias = toy(start=start).layers["14"].conv.bias.detach()  # type: ignore[union-attr, operator]
        assert torch.sigmoid(bias[[4, 12, 20]]).tolist() == pytest.approx([start] * 3)
        assert (bias != 0).sum() == (3 if start == 0.01 else 0)


def test_options_of_the_cfg_and_of_the_user():
    assert toy().options.ignore == 0.6
    assert toy(ignore=0.5).options.ignore == 0.5
    assert build("yolov4-tiny", 3).options.box == "ciou"  # type: ignore[union-attr]
    assert build("yolov2-tiny", 3).options.ignore == 0.6  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ignroe": 0.5}, "did you mean 'ignore'"), ({"loss": "darkent"}, "did you mean 'darknet'"),
        ({"ignore": 2}, "expected 0 to 1"), ({"most": 1.5}, "whole number"), ({"start": 1}, "between 0 and 1"),
        ({"box": "l1"}, "expected one of mse"), ({"anchors": [[1, 2]]}, "at least 2 pairs"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(options, words):
    with pytest.raises(ModelError) as caught:
        toy(**options)
    assert words in "\n".join([caught.value.message, *caught.value.problems])


def test_a_cfg_is_needed_and_may_be_a_file(tmp_path):
    with pytest.raises(ModelError, match="cfg is needed"):
        build("darknet", 3)
    file = tmp_path / "toy.cfg"
    file.write_text(TOY)
    detector = build(str(file), 5)
    assert (detector.name, detector.classes, detector.size) == ("darknet", 5, (96, 64))
    kept = Darknet.resolved({"cfg": str(file), "ignore": 0.4})
    assert kept["ignore"] == 0.4
    assert build("darknet", 5, **kept).state_dict().keys() == detector.state_dict().keys()


@pytest.mark.parametrize("activation", ["leaky", "linear", "logistic", "mish", "swish"])
def test_pooling_before_or_after_the_activation_is_the_same(activation):
    """Where another layer asks for the unpooled map, the pool is a layer of its own; the numbers are the same."""
    text = (
        "[net]\nwidth=32\nheight=32\n[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\n"
        f"activation={activation}\n[maxpool]\nsize=2\nstride=2\n[convolutional]\nfilters=6\nsize=1\n"
        "activation=linear\n[yolo]\nmask=0\nanchors=9,9\nnum=1\nclasses=1\n"
    )
    apart = text.replace(
        "[convolutional]\nfilters=6", "[route]\nlayers=0\n[route]\nlayers=-2\n[convolutional]\nfilters=6"
    )
    one, other = Darknet(1, None, text), Darknet(1, None, apart)
    assert other.architecture.saved == {0, 1}
    other.load_state_dict({name.replace("layers.2", "layers.4"): value for name, value in one.state_dict().items()})
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for a, b in zip(one.train()(images), other.train()(images), strict=True):
        torch.testing.assert_close(a, b)
    one(images).offsets.square().sum().backward()
    other(images).offsets.square().sum().backward()
    torch.testing.assert_close(one.layers["0"].conv.weight.grad, other.layers["0"].conv.weight.grad)


def test_pixels_under_autocast_are_the_rounded_ones():
    detector = Darknet(1, None, TOY)
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        halved = detector.normalise(images)
    assert halved.dtype == torch.bfloat16
    assert torch.equal(halved, detector.normalise(images).bfloat16())
    assert detector.normalise(images.float()).dtype == torch.float32
