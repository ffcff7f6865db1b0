"""The contract that every model named in MODELS keeps."""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from onestage.errors import ModelError
from onestage.models import MODELS, build, model_class
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.plans import Plan
from onestage.models.detector import Detector, Raw, Truth
from toy_cfg import TOY

SMALL = (160, 128)  # width, height: not square, so that the two cannot be confused
SLOW = {"ssd512"}
# Tracing 75 layers takes long, and `darknet`, yolov4-tiny and yolov2-tiny have a layer of every kind.
TRACED_AS_OTHERS = {"yolov3", "yolov3-spp", "yolov3-tiny"}
NARROW = 8  # the YOLO networks have all their layers here, and an eighth of their filters
OPTIONS: dict[str, dict[str, str]] = {"darknet": {"cfg": TOY}}
CLASSES = 3


def models_but(*others: str) -> pytest.MarkDecorator:
    """A test of all other models by name."""
    names = [name for name in MODELS if name not in others]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]
    )


every_model = models_but()


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Plan.conv
    monkeypatch.setattr(Plan, "conv", lambda plan, filters, *rest: conv(plan, filters // NARROW, *rest))


@cache
def model(name: str) -> Detector:
    """The model as it starts, at a small input where it takes one."""
    torch.manual_seed(0)
    try:
        detector = build(name, CLASSES, size=SMALL, **OPTIONS.get(name, {}))
    except ModelError:
        detector = build(name, CLASSES, **OPTIONS.get(name, {}))
    return settled(detector) if is_yolo(name) else detector.eval()


def is_yolo(name: str) -> bool:
    """Whether a model is a network of a darknet cfg."""
    return issubclass(model_class(name), Darknet)


def settled(detector: Detector) -> Detector:
    """The detector with norms that know what passes through them: a hundred random layers would blow it up else."""
    width, height = detector.size
    pixels = torch.randint(0, 256, (4, 3, height, width), generator=torch.Generator().manual_seed(2))
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        detector.train()(pixels.byte())
    for norm in norms:
        norm.momentum = 0.01
    return detector.eval()


@cache
def images(name: str) -> Tensor:
    """Two noisy images, uint8, channels last in memory as the loader gives them."""
    width, height = model(name).size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, height, width, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)


@cache
def answer(name: str) -> Raw:
    with torch.no_grad():
        return model(name)(images(name))


def raw(name: str) -> Raw:
    """A copy that gradients can be taken of."""
    return Raw(*(part.clone().requires_grad_() for part in answer(name)))


def truth(name: str, *rows: tuple[float, float, float, float], ignore: bool = False) -> Truth:
    """Boxes given in shares of the input."""
    width, height = model(name).size
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4) * torch.tensor([width, height, width, height])
    return Truth(boxes, torch.arange(len(rows)) % CLASSES, torch.full((len(rows),), ignore))


def two(name: str) -> Truth:
    return truth(name, (0.1, 0.1, 0.5, 0.6), (0.3, 0.2, 0.9, 0.95))


@every_model
def test_raw_and_decoded_shapes(name):
    detector, result = model(name), answer(name)
    boxes, scores = detector.decode(result)
    count = result.offsets.shape[1]
    assert result.offsets.shape == (2, count, 4)
    assert result.logits.shape[:2] == (2, count)
    assert boxes.shape == (2, count, 4)
    assert scores.shape == (2, count, CLASSES)
    assert torch.isfinite(boxes).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


@every_model
def test_no_images(name):
    boxes, scores = model(name).decode(Raw(answer(name).offsets[:0], answer(name).logits[:0]))
    assert boxes.shape[0] == scores.shape[0] == 0


@every_model
def test_uint8_and_float_images_give_the_same(name):
    with torch.no_grad():
        result = model(name)(images(name)[:1].float())
    torch.testing.assert_close(result.logits, answer(name).logits[:1], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(result.offsets, answer(name).offsets[:1], rtol=1e-4, atol=1e-3)


@every_model
def test_loss_parts_are_named_finite_and_per_image(name):
    detector = model(name)
    loss = detector.loss(raw(name), [two(name), truth(name)])
    assert set(loss.parts) == set(detector.default_weights)
    assert loss.positives.shape[0] == 2
    assert loss.positives[0].sum() > 0
    assert loss.positives[1].sum() == 0
    assert loss.normaliser.shape == (2,)
    for part in loss.parts.values():
        assert part.shape == (2,)
        assert part.requires_grad
        assert torch.isfinite(part).all()


@every_model
def test_loss_of_two_images_is_that_of_each_alone(name):
    both, truths = raw(name), [two(name), truth(name)]
    together = model(name).loss(both, truths)
    for i in range(2):
        alone = model(name).loss(Raw(both.offsets[i : i + 1], both.logits[i : i + 1]), truths[i : i + 1])
        for part, value in alone.parts.items():
            torch.testing.assert_close(together.parts[part][i], value[0])
        assert together.positives[i].tolist() == alone.positives[0].tolist()
        assert together.normaliser[i] == alone.normaliser[0]


@every_model
def test_objects_reach_the_backbone_and_absence_the_heads(name):
    detector = model(name)
    for truths, part in (([two(name)], "backbone"), ([truth(name)], "heads")):
        detector.zero_grad()
        total = detector.loss(detector(images(name)[:1]), truths).total(detector.default_weights)
        total.backward()
        assert torch.isfinite(total)
        gradients = [p.grad for p in detector.parts()[part].parameters() if p.grad is not None]
        assert all(torch.isfinite(g).all() for g in gradients)
        assert sum(g.abs().sum() for g in gradients) > 0
    detector.zero_grad()


@every_model
def test_a_region_to_ignore_is_no_object(name):
    loss = model(name).loss(raw(name), [truth(name, (0.1, 0.1, 0.9, 0.9), ignore=True), two(name)])
    assert loss.positives[0].sum() == 0
    assert all(torch.isfinite(part).all() for part in loss.parts.values())


@every_model
def test_boxes_without_area_give_a_finite_loss_and_gradient(name):
    start = raw(name)
    loss = model(name).loss(start, [truth(name, (0.5, 0.5, 0.5, 0.5), (0.6, 0.6, 0.2, 0.2)), two(name)])
    loss.total(model(name).default_weights).backward()
    assert all(torch.isfinite(part).all() for part in loss.parts.values())
    assert torch.isfinite(start.offsets.grad).all()
    assert torch.isfinite(start.logits.grad).all()


@every_model
def test_losses_of_priors_sum_to_the_loss(name):
    truths = [two(name), truth(name)]
    loss = model(name).loss(raw(name), truths)
    parts = model(name).prior_losses(raw(name), truths)
    assert set(parts) == set(loss.parts)
    for part, values in parts.items():
        assert values.shape == answer(name).offsets.shape[:2]
        assert torch.equal(values.sum(1), loss.parts[part])


@every_model
def test_the_assignment_is_that_of_the_loss(name):
    truths = [two(name), truth(name)]
    loss, assignment = model(name).loss(raw(name), truths), model(name).assign(truths)
    match, level = assignment.match, assignment.level
    assert match.shape == answer(name).offsets.shape[:2]
    assert set(match[0][match[0] >= 0].tolist()) == {0, 1}
    assert (match[1] < 0).all()
    for number, count in enumerate(loss.positives[0].tolist()):
        assert int((match[0, level == number] >= 0).sum()) == count
    assert (assignment.boxes[:, 2:] > assignment.boxes[:, :2]).all()
    # a box that is a prior's is that prior's
    own = int(torch.nonzero((level == level.max()) & (match[0] < 0)).flatten()[0])
    alone = Truth(assignment.boxes[own][None], torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
    assert model(name).assign([alone]).match[0, own] == 0


@every_model
def test_terms_are_finite_and_hold_the_losses_of_the_prior(name):
    truths = [two(name), truth(name)]
    match = model(name).assign(truths).match
    parts = model(name).prior_losses(answer(name), truths)
    positive = int(torch.nonzero(match[0] >= 0).flatten()[0])
    background = int(parts["cls"][1].argmax())
    for image, prior, names in ((0, positive, ("cls", "box")), (1, background, ("cls",))):
        terms = model(name).terms(answer(name), truths, image, prior)
        assert all(isinstance(value, float) and math.isfinite(value) for value in terms.values())
        if image == 0:
            assert terms["w"] == pytest.approx(
                float(truths[0].boxes[match[0, prior], 2] - truths[0].boxes[match[0, prior], 0])
            )
        if is_yolo(name):  # their formulas have a test of their own
            continue
        sums = sum_of_cls(terms)
        assert sums == pytest.approx(float(parts["cls"][image, prior]), rel=1e-4)
        if "box" in names:
            own = [value for key, value in terms.items() if key == "box" or key.startswith(("1 - GIoU", "smooth-l1"))]
            assert own == pytest.approx([float(parts["box"][image, prior])], rel=1e-4)


def sum_of_cls(terms: dict[str, float]) -> float:
    """The class loss from its terms: YOLO names the part, softmax has one term, focal two: of the class, of others."""
    if "cls" in terms:
        return terms["cls"]
    focal = [value for key, value in terms.items() if "focal term" in key]
    return sum(focal) if focal else next(value for key, value in terms.items() if key.startswith("-ln p("))


@every_model
def test_backbone_neck_and_heads_hold_every_parameter_once(name):
    detector = model(name)
    parts = detector.parts()
    assert {"backbone", "heads"} <= set(parts)
    every = sorted(id(p) for p in detector.parameters())
    main = [parts[part] for part in ("backbone", "neck", "heads") if part in parts]
    assert sorted(id(p) for part in main for p in part.parameters()) == every
    # any further part names some of the same parameters, for freezing
    assert {id(p) for part in parts.values() for p in part.parameters()} == set(every)


@every_model
def test_another_input_size_is_taken_or_refused_in_words(name):
    detector, first = model(name), model(name).size
    if name in ("ssd300", "ssd512"):
        detector.resized(first)
        with pytest.raises(ModelError, match="has one input size") as caught:
            detector.resized((320, 320))
        assert "320x320" in str(caught.value)
        assert detector.size == first
        return
    options = OPTIONS.get(name, {})
    detector = copy.deepcopy(model(name))
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    if is_yolo(name):
        with pytest.raises(ModelError, match="multiples of"):
            detector.resized((100, 68))
    nothing = [Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))]
    for size in ((96, 224), (128, 64) if is_yolo(name) else (100, 68), (32, 32), first):
        detector.resized(size)
        width, height = detector.size
        assert (width, height) == size
        one = torch.full((1, 3, height, width), 90, dtype=torch.uint8)
        truths = [Truth(torch.tensor([[4.0, 4, 30, 28]]), torch.tensor([1]), torch.tensor([False]))]
        with torch.no_grad():
            result = detector(one)
            loss, (boxes, _) = detector.loss(result, truths), detector.decode(result)
        priors, fresh = detector.assign(nothing), build(name, CLASSES, size=size, **options).assign(nothing)
        assert result.offsets.shape[1] == len(priors.boxes) == len(priors.level) == boxes.shape[1]
        torch.testing.assert_close(priors.boxes, fresh.boxes, rtol=0, atol=0)
        assert torch.equal(priors.level, fresh.level)
        assert loss.positives.sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(detector(images(name)).logits, answer(name).logits, rtol=0, atol=0)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


class Whole(nn.Module):
    """Images in, boxes and scores out: what is exported."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.detector.decode(self.detector(images))


@models_but(*TRACED_AS_OTHERS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_forward_and_decode_can_be_exported(name):
    batch = images(name)[:1].float().contiguous()
    with torch.no_grad():
        program = torch.export.export(Whole(model(name)), (batch,))
        boxes, scores = program.module()(batch)
    expected_boxes, expected_scores = model(name).decode(answer(name))
    torch.testing.assert_close(boxes, expected_boxes[:1], rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(scores, expected_scores[:1], rtol=1e-3, atol=1e-4)


def test_an_unknown_model_is_named_with_the_nearest():
    with pytest.raises(ModelError, match=r"unknown model 'ssd30' .did you mean 'ssd300'"):
        build("ssd30", 3)
