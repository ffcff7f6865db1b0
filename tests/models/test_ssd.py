"""SSD300 and SSD512: counts, names, priors, layers; and SSD heads on any backbone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from onestage.boxes.priors import ssd_priors
from onestage.errors import ModelError
from onestage.models import build
from onestage.models.detector import Truth
from onestage.models.multibox import MultiboxOptions
from onestage.models.ssd import SSDLite
from onestage.models.vgg import EXTRAS_512, L2Norm, ReducedVGG

# Counts of the published configurations of lufficc/SSD, background included in their class count.
COUNTS = [
    ("ssd300", 20, 26_285_486),
    ("ssd512", 20, 27_188_676),
    ("ssd300", 80, 34_305_206),
    ("ssd512", 80, 36_038_196),
]
VGG_INDICES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]


def ssd(name: str, classes: int, **options: object) -> nn.Module:
    """On the meta device: shapes and names without the cost of 26 million random numbers."""
    with torch.device("meta"):
        return build(name, classes, **options)


@pytest.mark.parametrize(("name", "classes", "count"), COUNTS)
def test_parameter_counts(name, classes, count):
    assert sum(p.numel() for p in ssd(name, classes).parameters()) == count


def test_parameter_counts_by_part():
    parts = {key: sum(p.numel() for p in part.parameters()) for key, part in ssd("ssd300", 20).parts().items()}
    assert parts == {"backbone": 20_483_904, "neck": 2_459_520 + 512, "heads": 2_806_902 + 534_648}


@pytest.mark.parametrize(("name", "extras", "levels"), [("ssd300", 8, 6), ("ssd512", 10, 7)])
def test_state_dict_has_the_names_of_lufficc(name, extras, levels):
    layers = [f"backbone.vgg.{i}" for i in VGG_INDICES] + [f"backbone.extras.{i}" for i in range(extras)]
    for kind in ("cls_headers", "reg_headers"):
        layers += [f"box_head.predictor.{kind}.{i}" for i in range(levels)]
    names = {f"{layer}.{what}" for layer in layers for what in ("weight", "bias")} | {"backbone.l2_norm.weight"}
    state = ssd(name, 20).state_dict()
    assert set(state) == names
    anyone = {key: torch.zeros(value.shape) for key, value in state.items()}
    build(name, 20).load_state_dict(anyone, strict=True)


def test_shapes_of_some_tensors():
    state = {key: tuple(value.shape) for key, value in ssd("ssd300", 20).state_dict().items()}
    assert state["backbone.vgg.31.weight"] == (1024, 512, 3, 3)
    assert state["backbone.extras.1.weight"] == (512, 256, 3, 3)
    assert state["backbone.l2_norm.weight"] == (512,)
    assert state["box_head.predictor.cls_headers.0.weight"] == (4 * 21, 512, 3, 3)
    assert state["box_head.predictor.reg_headers.1.weight"] == (6 * 4, 1024, 3, 3)
    assert tuple(ssd("ssd512", 20).state_dict()["backbone.extras.9.weight"].shape) == (256, 128, 4, 4)


@pytest.mark.parametrize(("name", "count", "first"), [("ssd300", 8732, 30.0), ("ssd512", 24564, 35.84)])
def test_priors_of_the_model(name, count, first):
    model = build(name, 1)
    assert model.priors.shape == (count, 4)
    assert sum(model.levels) == count
    torch.testing.assert_close(model.priors[0], torch.tensor([4.0, 4.0, first, first]))
    assert "priors" not in model.state_dict()


def test_coco_priors_start_smaller():
    model = build("ssd300", 80, priors="coco")
    sizes = [21, 45, 99, 153, 207, 261, 315]
    ratios, strides = [[2], [2, 3], [2, 3], [2, 3], [2], [2]], [8, 16, 32, 64, 100, 300]
    expected = ssd_priors([38, 19, 10, 5, 3, 1], 300, sizes[:-1], sizes[1:], ratios, strides) * 300
    torch.testing.assert_close(model.priors, torch.tensor(expected).float())


def test_layers_of_vgg():
    vgg = ssd("ssd300", 20).backbone.vgg
    assert isinstance(vgg[22], nn.ReLU)
    assert vgg[16].ceil_mode
    assert not vgg[23].ceil_mode
    assert (vgg[30].kernel_size, vgg[30].stride, vgg[30].padding) == (3, 1, 1)
    assert (vgg[31].dilation, vgg[31].padding) == ((6, 6), (6, 6))


def test_map_sizes_of_ssd512():
    with torch.device("meta"):
        maps = ReducedVGG(EXTRAS_512)(torch.zeros(1, 3, 512, 512))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (512, 64, 64), (1024, 32, 32), (512, 16, 16), (256, 8, 8), (256, 4, 4), (256, 2, 2), (256, 1, 1),
    ]  # fmt: skip


def test_the_mean_is_taken_off_and_nothing_divided():
    images = torch.tensor([123.0, 117, 104]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    with torch.device("cpu"):
        assert build("ssd300", 1).normalise(images + 7).unique().tolist() == [7.0]


def test_l2_norm_by_hand_and_at_zero():
    norm = L2Norm(2)
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]], requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y.detach(), torch.tensor([[[[12.0, 0.0]], [[16.0, 0.0]]]]))
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_wrong_arguments_are_named():
    with pytest.raises(ModelError, match="ssd300: expected input size 300x300, got 320x240"):
        build("ssd300", 20, size=(320, 240))
    with pytest.raises(ModelError, match="'voc' or 'coco', got 'kitti'"):
        build("ssd300", 20, priors="kitti")
    with pytest.raises(ModelError, match=r"'clas_loss' .did you mean 'class_loss'"):
        build("ssd300", 20, clas_loss="focal")
    assert build("ssd300", 20, size=(300, 300), threshold=0.4).options.threshold == 0.4


def test_naming_models_imports_no_torch():
    code = "import sys, onestage.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Pyramid(nn.Module):
    """Two maps, of stride 8 and 16, for images of any size."""

    channels = (8, 16)
    strides = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*[nn.Conv2d(c, 8, 3, 2, 1) for c in (3, 8, 8)])
        self.down = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        return [x, self.down(x)]


class Doubled(nn.Module):
    """A neck that changes channels."""

    channels = (16, 32)
    strides = (8, 16)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [torch.cat([m, m], 1) for m in maps]


def lite(size=(100, 68), **options) -> SSDLite:
    plan = {"sizes": [[16, 24], [48]], "ratios": [[1, 2, 0.5], [1]], "mean": (127,) * 3, "std": (128,) * 3}
    return SSDLite(3, size, Pyramid(), **{**plan, **options})


@pytest.mark.parametrize("options", [MultiboxOptions(), MultiboxOptions(class_loss="focal", box_loss="giou")])
@pytest.mark.parametrize("neck", [None, Doubled()])
def test_ssd_heads_on_any_backbone_learn_one_image(options, neck):
    torch.manual_seed(0)
    model = lite(options=options, neck=neck)
    # 100 / 8 and 68 / 8 round up: 13 x 9 cells of six priors, then 7 x 5 of one
    assert model.levels == [13 * 9 * 6, 7 * 5]
    assert list(model.parts()) == (["backbone", "heads"] if neck is None else ["backbone", "neck", "heads"])
    images = torch.randint(0, 256, (2, 3, 68, 100), dtype=torch.uint8)
    truths = [
        Truth(torch.tensor([[10.0, 10, 40, 34]]), torch.tensor([2]), torch.tensor([False])),
        Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)),
    ]
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = model.loss(model(images), truths).total(model.default_weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    boxes, scores = model.decode(model(images))
    best = scores[0].flatten().argmax().item()
    assert best % 3 == 2
    torch.testing.assert_close(boxes[0, best // 3], truths[0].boxes[0], rtol=0, atol=6)
    assert scores[1].max() < scores[0].max()


def test_an_average_of_the_weights_keeps_its_own_size():
    detector = lite((96, 64))
    averaged = torch.optim.swa_utils.AveragedModel(detector, use_buffers=True)
    there = averaged.module.priors.clone()
    detector.resized((64, 128))
    averaged.update_parameters(detector)
    averaged.update_parameters(detector)
    assert averaged.module.size == (96, 64)
    assert torch.equal(averaged.module.priors, there)
    assert detector.priors.shape != there.shape
    known = detector.priors
    detector.resized((96, 64))
    assert torch.equal(detector.priors, there)
    detector.resized((64, 128))
    assert detector.priors is known  # made once
    with pytest.raises(ModelError, match="at least one pixel, got 0x64"):
        detector.resized((0, 64))
    assert detector.size == (64, 128)
    assert detector.half().priors.dtype == torch.float16


def test_focal_scores_start_low():
    model = lite(options=MultiboxOptions(class_loss="focal"), separable=False)
    _, scores = model.decode(model(torch.full((1, 3, 68, 100), 127.0)))
    assert scores.median().item() == pytest.approx(0.01, abs=0.005)
