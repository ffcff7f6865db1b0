"""FaceBoxes against the numbers of the programs it comes from; conversion between layouts; what it must refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from onestage import models
from onestage.boxes.densified import LAYOUTS, cell_priors
from onestage.errors import ModelError
from onestage.models.detector import Raw, Truth
from onestage.models.faceboxes import FaceBoxes
from onestage.models.faceboxes_files import from_lxg, to_lxg, with_layout
from onestage.models.weights import as_safetensors, load_detector, load_fitting, start_from
from onestage.models.weights_files import read_state

# What zisianw/FaceBoxes.PyTorch says of `pattern` with weights FaceBoxesProd.pth: prior, offsets, logits.
SAID = {
    0: ((1.010214, 0.774396, -1.053469, -0.175105), (2.436989, -1.835576)),
    7: ((0.290301, 1.560936, 0.369729, 0.144133), (1.886543, -2.273401)),
    20: ((0.684046, 1.947212, -1.388285, -0.310258), (2.235646, -1.914342)),
    300: ((0.320831, -0.689366, -0.699082, 2.027091), (2.668519, -2.110624)),
    735: ((1.483399, 1.675899, -1.213995, -0.916962), (2.187172, -2.094638)),
    740: ((0.819807, 1.380519, -0.891647, 0.289741), (2.974038, -2.657323)),
    744: ((0.330789, 0.728359, -0.752133, -0.408694), (2.287257, -1.845973)),
}
ABSOLUTE_SUMS = (2128.745902, 3652.099245)  # of all offsets, of all logits
# Five faces in it: two that a prior fits, one large, one at the border, and two that fit none (IoU .15 and .02).
FACES = [[10, 12, 38, 44], [60, 20, 130, 100], [100, 90, 112, 103], [150, 5, 199, 60], [5, 100, 9, 104]]


def pattern() -> Tensor:
    """An RGB picture (1, 3, 130, 200) of no special size."""
    y, x = np.mgrid[0:130, 0:200]
    image = np.stack([(x * 3 + y * 5) % 256, (x * 7 + y * 2) % 256, (x * y) % 256]).astype(np.uint8)
    return torch.from_numpy(image)[None]


def truth(rows: list[list[int]] = FACES, ignored: int = 0) -> Truth:
    """These faces, the last `ignored` of them to ignore."""
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return Truth(boxes, torch.zeros(len(rows), dtype=torch.int64), torch.arange(len(rows)) >= len(rows) - ignored)


def build(**options: object) -> FaceBoxes:
    torch.manual_seed(0)
    detector = models.build("faceboxes", 1, size=(200, 130), **options).eval()
    assert isinstance(detector, FaceBoxes)
    return detector


def seen(detector: FaceBoxes, image: Tensor) -> Raw:
    with torch.no_grad():
        return Raw(*detector(image))


@pytest.fixture(scope="module")
def weights(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    shared: Path = request.getfixturevalue("shared")
    return read_state(shared / "weights" / "FaceBoxesProd.pth")


@pytest.mark.parametrize(("variant", "parameters"), [("zisianw", 1_007_330), ("lxg2015", 1_008_810)])
def test_parameters_are_those_published(variant: str, parameters: int) -> None:
    assert sum(p.numel() for p in build(variant=variant).parameters()) == parameters


def test_raw_outputs_equal_the_original_network(weights: dict[str, Tensor]) -> None:
    detector = build()
    detector.load_state_dict(weights, strict=True)
    offsets, logits = seen(detector, pattern())
    for prior, (at, of) in SAID.items():
        assert offsets[0, prior].tolist() == pytest.approx(at, abs=1e-4)
        assert logits[0, prior].tolist() == pytest.approx(of, abs=1e-4)
    sums = [float(part.abs().double().sum()) for part in (offsets, logits)]
    assert sums == pytest.approx(ABSOLUTE_SUMS, rel=1e-5)


@pytest.mark.parametrize(("negatives", "cls"), [(7, 4.958649), (3, 4.915149)])
def test_the_loss_equals_the_original_one(weights: dict[str, Tensor], negatives: int, cls: float) -> None:
    """MultiBoxLoss(2, 0.35, True, 0, True, negatives, 0.35, False) on the above: loc 4.362157, 34 positives."""
    detector = build(negatives=negatives, floor=0.2, near=0.0, bipartite="last")
    detector.load_state_dict(weights)
    loss = detector.loss(seen(detector, pattern()), [truth()])
    assert loss.positives.tolist() == [[34, 0, 0]]
    assert float(loss.parts["box"].sum() / 34) == pytest.approx(4.362157, abs=1e-4)
    assert float(loss.parts["cls"].sum() / 34) == pytest.approx(cls, abs=1e-4)


# Of the same program in training, on `pattern` and its mirror image with FACES and two of them: sums of |gradients| of
# 2 loc + conf, and of |statistics| afterwards.
GRADIENTS = {
    "conv1.conv.weight": 488.6817634, "inception2.branch3x3_2.conv.weight": 723.4031353,
    "conv3_1.bn.weight": 0.07513707701, "conv4_2.conv.weight": 48.95250861, "loc.0.bias": 2.531918085,
    "conf.2.weight": 2.577268170,
}  # fmt: skip
STATISTICS = {"conv1.bn.running_mean": 127.5712508, "conv4_2.bn.running_var": 5.892811830,
              "inception3.branch1x1_2.bn.running_mean": 5.518554548}  # fmt: skip


def test_gradients_and_statistics_equal_those_of_the_original_training(weights: dict[str, Tensor]) -> None:
    detector = build(floor=0.2, near=0.0, bipartite="last")
    detector.load_state_dict(weights)
    detector.double().train()
    image = pattern().double()
    loss = detector.loss(detector(torch.cat([image, image.flip(3)])), [truth(), truth(FACES[1:3])])
    denominator = float(loss.normaliser.sum())
    means = {name: float(part.detach().sum()) / denominator for name, part in loss.parts.items()}
    assert means == pytest.approx({"box": 4.387088776, "cls": 4.922180653}, rel=1e-5)
    loss.total(detector.default_weights).backward()
    found = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in found.values()]).norm()
    assert float(norm) == pytest.approx(65.54599539, rel=1e-5)
    for name, expected in GRADIENTS.items():
        assert float(found[name].abs().sum()) == pytest.approx(expected, rel=1e-5), name
    buffers = dict(detector.named_buffers())
    for name, expected in STATISTICS.items():
        assert float(buffers[name].abs().sum()) == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize(("classes", "class_loss"), [(1, "focal"), (3, "softmax-ohem"), (2, "focal")])
def test_heads_of_any_width_are_turned_prior_by_prior(layout: str, target: str, classes: int, class_loss: str) -> None:
    torch.manual_seed(3)
    options = {"size": (70, 40), "class_loss": class_loss}
    one, other = (FaceBoxes(classes, layout=name, **options).eval() for name in (layout, target))  # type: ignore[arg-type]
    for parameter in one.parameters():
        if parameter.ndim == 1:  # biases too must be turned
            torch.nn.init.normal_(parameter, 0, 0.3)
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    other.load_state_dict(with_layout(state, layout, target))
    image = pattern()[..., :40, :70]
    answers = [detector.decode(seen(detector, image)) for detector in (one, other)]
    start = 0
    for given, wanted, count in zip(cell_priors(layout), cell_priors(target), one.levels, strict=True):
        # In each cell the k-th in side, y, x of the one is the k-th of the other.
        ranks = [sorted(range(len(cell)), key=lambda i, c=cell: c[i, [2, 1, 0]].tolist()) for cell in (given, wanted)]
        cells = [
            torch.cat([part[0, start : start + count].unflatten(0, (-1, len(given)))[:, ranks[i]] for part in found], 2)
            for i, found in enumerate(answers)
        ]
        assert torch.allclose(cells[0], cells[1], rtol=1e-6, atol=1e-4)
        start += count


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_another_layout_finds_the_same_boxes(layout: str, target: str) -> None:
    one, other = build(layout=layout), build(layout=target)
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    load_fitting(other, with_layout(state, layout, target), "converted")
    boxes, scores = zip(one.decode(seen(one, pattern())), other.decode(seen(other, pattern())), strict=True)
    # The same faces in another order: told apart by their boxes.
    rows = [torch.cat([box[0], score[0]], 1).double().numpy() for box, score in zip(boxes, scores, strict=True)]
    first, second = (found[np.lexsort(found.round(2).T)] for found in rows)
    assert np.abs(np.sort(first[:, 4]) - np.sort(second[:, 4])).max() < 1e-6
    assert np.abs(first.sum(0) - second.sum(0)).max() < 0.05
    back = with_layout(with_layout(state, layout, target), target, layout)
    assert max(float((back[name] - state[name]).abs().max()) for name in state if name.startswith("loc")) < 1e-6
    assert all(torch.equal(back[name], state[name]) for name in state if not name.startswith("loc"))


def test_boxes_of_a_converted_detector_are_the_same_one_by_one(weights: dict[str, Tensor]) -> None:
    one, other = build(), build(layout="symmetric")
    one.load_state_dict(weights)
    load_fitting(other, other.adapt(weights), "converted")
    best = []
    for detector in (one, other):
        boxes, scores = detector.decode(seen(detector, pattern()))
        best.append(boxes[0][scores[0, :, 0].argsort(descending=True, stable=True)[:40]])
    assert torch.allclose(best[0], best[1], atol=1e-3)


def test_lxg2015s_names_go_round() -> None:
    state = build(variant="lxg2015", layout="symmetric").state_dict()
    theirs = to_lxg(state)
    # lxg2015/faceboxes, networks.py.
    assert {"conv1.bias", "bn2.running_mean", "inception3.conv7.1.weight", "conv4_2.0.bias"} <= set(theirs)
    assert {"multilbox.loc_layers.0.weight", "multilbox.conf_layers.2.bias"} <= set(theirs)
    assert list(from_lxg(theirs)) == list(state)


def test_a_file_of_lxg2015_is_known_by_its_names(tmp_path: Path) -> None:
    detector = build(variant="lxg2015", layout="symmetric")
    file = tmp_path / "faceboxes.pt"
    torch.save(to_lxg(detector.state_dict()), file)
    loaded = load_detector(file, "faceboxes")
    assert (loaded.classes, loaded.fit) == (("face",), "native")
    assert loaded.options == {"variant": "lxg2015", "layout": "symmetric"}
    for ours, theirs in zip(seen(detector, pattern()), loaded.detector(pattern()), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ModelError, match="lxg2015 network"):
        start_from(build(), str(file))


def test_old_files_with_module_prefixes_and_without_counts_load_strictly(tmp_path: Path) -> None:
    """As in standup-face-recognition2 0.7: saved by torch 0.4.0 from a DataParallel network."""
    detector = build()
    state = {f"module.{k}": v for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "FaceBoxes.pth")
    loaded = load_detector(tmp_path / "FaceBoxes.pth", "faceboxes")
    assert torch.equal(loaded.detector(pattern()).offsets, detector(pattern()).offsets)
    del state["module.conv2.bn.running_var"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(ModelError, match=r"conv2\.bn\.running_var: missing"):
        load_detector(tmp_path / "cut.pth", "faceboxes")


def test_weights_of_a_run_are_turned_to_the_layout_asked_for(tmp_path: Path) -> None:
    one, other = build(layout="symmetric"), build(layout="zisianw")
    file = tmp_path / "best.safetensors"
    file.write_bytes(as_safetensors(one, ("face",), {"layout": "symmetric"}, "native"))
    start_from(other, str(file))
    first, second = (detector.decode(seen(detector, pattern())) for detector in (one, other))
    assert torch.allclose(first[0].sum((0, 1)), second[0].sum((0, 1)), rtol=1e-5)
    assert not torch.equal(one.loc[0].bias, other.loc[0].bias)


def test_faces_to_ignore_are_never_background() -> None:
    """The diary's loss jumped when faces under 20 px were dropped: mining took them for the hardest negatives."""
    small = [[64, 64, 74, 74]]
    near, far = build(), build(near=0.0)
    raw = seen(near, pattern())
    sharp = Raw(raw.offsets, torch.zeros_like(raw.logits))
    corners = near.assign([truth(small)]).boxes
    covers = (corners[:, 0] <= 66) & (corners[:, 1] <= 66) & (corners[:, 2] >= 72) & (corners[:, 3] >= 72)
    answering = covers & (corners[:, 2] - corners[:, 0] == 32)
    sharp.logits[0, answering, 1] = 9.0  # the network sees the face
    told = [float(d.loss(sharp, [truth(small, ignored=1)]).parts["cls"].sum()) for d in (near, far)]
    assert answering.any()
    assert told[0] < 3.0 < 20.0 < told[1]
    match = near.assign([truth(small, ignored=1)]).match[0]
    assert (match[answering] == -2).all()
    assert (match[corners[:, 2] - corners[:, 0] == 128] == -1).all()  # a large prior over a small face is background


def test_faces_under_the_floor_are_left_alone() -> None:
    detector = build(floor=0.2)
    match = detector.assign([truth([FACES[2], FACES[4]])]).match[0]
    assert not (match >= 0).any()
    assert (match == -2).any()
    assert (build().assign([truth([FACES[2], FACES[4]])]).match[0] >= 0).sum() == 2


@pytest.mark.parametrize("rows", [[], [[10, 10, 10, 10]], [[10, 10, 10, 30]], [[0, 0, 200, 130]], [[-50, -50, 5, 5]]])
def test_targets_are_finite_whatever_the_faces(rows: list[list[int]]) -> None:
    detector = build()
    loss = detector.loss(seen(detector, pattern()), [truth(rows)])
    assert all(bool(torch.isfinite(part).all()) for part in loss.parts.values())


def test_any_size_and_unknown_options() -> None:
    detector = build()
    for size in ((1, 1), (33, 31), (640, 480)):
        detector.resized(size)
        image = torch.zeros((1, 3, size[1], size[0]), dtype=torch.uint8)
        assert len(seen(detector, image).offsets[0]) == len(detector.priors) == sum(detector.levels)
    with pytest.raises(ModelError, match="did you mean 'symmetric'"):
        build(layout="symetric")
    with pytest.raises(ModelError, match="variant: expected one of zisianw, lxg2015"):
        build(variant="caffe")
    with pytest.raises(ModelError, match="did you mean 'threshold'"):
        build(treshold=0.4)
    with pytest.raises(ModelError, match="did you mean 'layout'"):
        build(layot="caffe")


@pytest.mark.parametrize("rows", [40, 85, 63])
def test_heads_of_other_priors_are_told_not_turned(tmp_path: Path, rows: int) -> None:
    """63 rows are 21 priors of three numbers, 85 a prior's four and one more: neither is a head of offsets."""
    state = to_lxg(build(variant="lxg2015", layout="symmetric").state_dict())
    kind = "conf" if rows == 40 else "loc"
    state[f"multilbox.{kind}_layers.0.weight"] = torch.zeros(rows, 128, 3, 3)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"{kind}\.0\.weight: expected shape .*, got \({rows}, 128, 3, 3\)"):
        load_detector(tmp_path / "other.pt", "faceboxes")
    report = start_from(build(variant="lxg2015", layout="caffe"), str(tmp_path / "other.pt"))
    assert report.skipped == (f"{kind}.0.weight",)


def test_a_layout_that_no_one_knows_is_told(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    file.write_bytes(as_safetensors(build(), ("face",), {"layout": "cafe"}, "native"))
    with pytest.raises(ModelError, match="did you mean 'caffe'"):
        start_from(build(), str(file))
