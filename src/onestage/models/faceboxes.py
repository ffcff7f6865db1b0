"""FaceBoxes: a face detector fast enough for a CPU, for any input size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onestage.boxes.densified import LAYOUTS, densified_priors, priors_per_cell
from onestage.errors import ModelError, did_you_mean
from onestage.models.detector import Raw
from onestage.models.faceboxes_files import adapted, options_of
from onestage.models.multibox import MultiboxOptions, said_of
from onestage.models.served import Served
from onestage.models.ssd import Multibox

Variant = Literal["zisianw", "lxg2015"]
# What is taken off and divided by, RGB in 0 … 255.
PIXELS = {"zisianw": ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0)), "lxg2015": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))}


class FaceBoxes(Multibox):
    """FaceBoxes of Zhang et al. 2017 in its two PyTorch forms, 1,007,330 or 1,008,810 parameters with one class.

    `variant` "zisianw" has no bias beside its norms, an average pool in each Inception block and a mean taken off;
    "lxg2015" has biases, a maximum pool, and pixels in 0 … 1. `layout` places the priors, see `boxes.densified`:
    "zisianw", "caffe" or "symmetric". `loss` are fields of MultiboxOptions; the defaults are threshold 0.35, every
    face forced to its best prior (`floor=0.2` leaves out those that fit none, as zisianw does), seven negatives per
    positive, the box part weighing 2, and priors near ignored faces left alone. Any input size from 1x1 on; the
    smallest priors are of 32 pixels at each. Raises ModelError for unknown options.

    Names and values of the tensors are those of zisianw/FaceBoxes.PyTorch, whose files load strictly; files of
    lxg2015/faceboxes are renamed, see `adapt`. Those networks take BGR: the first convolution turns its weights round
    on the way, as ours takes RGB.

    Source: Zhang et al. 2017, sections 3.1 to 3.3; zisianw/FaceBoxes.PyTorch and lxg2015/faceboxes (July 2018) for
    what the paper leaves open. Ours matches best pair first (`bipartite="last"` is theirs) and encodes positives only.
    """

    name = "faceboxes"
    default_weights: Mapping[str, float] = {"cls": 1.0, "box": 2.0}
    default_classes = ("face",)
    default_fit = "native"
    # AdamW, the usual default, learns faster from random weights than the paper's SGD: after 200 steps of 16 images at
    # 256x256 from 110 photographs the class loss is 2.3, not 2.7. For 120,000 steps see recipes/faceboxes-wider.yaml.
    # Suppression and what goes into it are those of zisianw's test.py.
    recipe_defaults = {  # noqa: RUF012
        "weights": None, "augmentation.policy": "faceboxes", "validation.fit": "native", "validation.iou": 0.3,
        "validation.candidates": 5000, "validation.most": 750,
    }  # fmt: skip
    # Weights that are good already: small steps, and the statistics that they were trained with.
    tuning_defaults = {  # noqa: RUF012
        "batch": 8, "optimiser.name": "sgd", "optimiser.lr": 2e-5, "optimiser.decay": 5e-4, "norms": "frozen",
        "clip": 100.0,
    }  # fmt: skip

    def __init__(
        self,
        classes: int,
        size: tuple[int, int] | None = None,
        variant: Variant = "zisianw",
        layout: str = "zisianw",
        **loss: Any,
    ) -> None:
        _check(variant=(variant, get_args(Variant)), layout=(layout, LAYOUTS))
        options = MultiboxOptions.of({"threshold": 0.35, "negatives": 7, "near": 0.5} | loss, ("variant", "layout"))
        self.layout, self.variant = layout, variant
        first = size or (1024, 1024)
        super().__init__(classes, first, *PIXELS[variant], *self.priors_at(first), options)
        pool = F.max_pool2d if variant == "lxg2015" else F.avg_pool2d
        bias = variant == "lxg2015"
        self.conv1 = CReLU(3, 24, 7, stride=4, bias=bias, bgr=True)
        self.conv2 = CReLU(48, 64, 5, stride=2, bias=bias)
        self.inception1, self.inception2, self.inception3 = (Inception(pool, bias) for _ in range(3))
        self.conv3_1, self.conv3_2 = Unit(128, 128, 1, bias=bias), Unit(128, 256, 3, stride=2, bias=bias)
        self.conv4_1, self.conv4_2 = Unit(256, 128, 1, bias=bias), Unit(128, 256, 3, stride=2, bias=bias)
        heads = list(zip((128, 256, 256), priors_per_cell(), strict=True))
        self.columns = options.columns(classes)
        self.loc = nn.Sequential(*(nn.Conv2d(width, 4 * priors, 3, padding=1) for width, priors in heads))
        self.conf = nn.Sequential(*(nn.Conv2d(width, self.columns * priors, 3, padding=1) for width, priors in heads))
        if variant == "zisianw":
            self._initialise()
        if (start := options.start_bias()) is not None:
            for head in self.conf:
                nn.init.constant_(head.bias, start)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Raw:
        """Raw predictions for RGB images (B, 3, H, W) in 0 … 255."""
        x = F.max_pool2d(self.conv1(self.normalise(images)), 3, stride=2, padding=1)
        x = F.max_pool2d(self.conv2(x), 3, stride=2, padding=1)
        maps = [self.inception3(self.inception2(self.inception1(x)))]
        maps.append(self.conv3_2(self.conv3_1(maps[-1])))
        maps.append(self.conv4_2(self.conv4_1(maps[-1])))
        return Raw(said_of(self.loc, maps, 4), said_of(self.conf, maps, self.columns))

    def priors_at(self, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
        """The priors (P, 4) at another input size, their sides in pixels unchanged, and how many each level has."""
        if min(size) < 1:
            raise ModelError(f"{self.name}: expected an input of at least one pixel, got {size[0]}x{size[1]}")
        priors, level = densified_priors((int(size[0]), int(size[1])), self.layout)
        return torch.from_numpy(priors).float(), torch.bincount(torch.from_numpy(level), minlength=3).tolist()

    def parts(self) -> dict[str, nn.Module]:
        """`stem` is the rapidly digested layers up to stride 32, `backbone` all but the `heads`, the stem included."""
        stem = [self.conv1, self.conv2]
        inception = [self.inception1, self.inception2, self.inception3]
        rest = [self.conv3_1, self.conv3_2, self.conv4_1, self.conv4_2]
        return {
            "backbone": nn.ModuleList([*stem, *inception, *rest]), "heads": nn.ModuleList([self.loc, self.conf]),
            "stem": nn.ModuleList(stem),
        }  # fmt: skip

    def served(self) -> Served:
        """The network for inference; see `faceboxes_served`."""
        from onestage.models.faceboxes_served import ServedFaceBoxes

        return ServedFaceBoxes(self).eval()

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The variant and layout of a file of another program, known by its tensors' names."""
        return options_of(state)

    def adapt(self, state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """A file's tensors under our names and for our layout; see `faceboxes_files.adapted`."""
        return adapted(state, self.variant, self.layout, options)

    def _initialise(self) -> None:
        """First weights as zisianw's: Xavier-normal heads with bias 0.02, N(0, 0.01) elsewhere."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_normal_(module.weight)
                nn.init.constant_(module.bias, 0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.01)


class BGRConv2d(nn.Conv2d):
    """A convolution with weights for BGR that takes RGB: its input channels are turned round on the way."""

    turns = True

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        return F.conv2d(x, self.weight.flip(1), self.bias, self.stride, self.padding)


class Unit(nn.Module):
    """Convolution, norm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → (B, out, H / stride, W / stride), rounded up."""
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True)


class CReLU(nn.Module):
    """Convolution, norm, and the ReLU of both x and -x (Shang et al. 2016): twice `out` channels."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, bias: bool, bgr: bool = False) -> None:
        super().__init__()
        kind = BGRConv2d if bgr else nn.Conv2d
        self.conv = kind(width, out, kernel, stride, kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → (B, 2 out, H / stride, W / stride), rounded up."""
        x = self.bn(self.conv(x))
        return F.relu(torch.cat([x, -x], 1), inplace=True)


class Inception(nn.Module):
    """Four branches of several fields of view side by side, 128 channels in and out; names are zisianw's."""

    def __init__(self, pool: Callable[..., Tensor], bias: bool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Unit(128, 32, 1, bias=bias)
        self.branch1x1_2 = Unit(128, 32, 1, bias=bias)
        self.branch3x3_reduce = Unit(128, 24, 1, bias=bias)
        self.branch3x3 = Unit(24, 32, 3, bias=bias)
        self.branch3x3_reduce_2 = Unit(128, 24, 1, bias=bias)
        self.branch3x3_2 = Unit(24, 32, 3, bias=bias)
        self.branch3x3_3 = Unit(32, 32, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 128, H, W) → (B, 128, H, W)."""
        pooled = self.branch1x1_2(self.pool(x, 3, stride=1, padding=1))
        near = self.branch3x3(self.branch3x3_reduce(x))
        wide = self.branch3x3_3(self.branch3x3_2(self.branch3x3_reduce_2(x)))
        return torch.cat([self.branch1x1(x), pooled, near, wide], 1)


def _check(**options: tuple[Any, Any]) -> None:
    """ModelError naming each option whose value is not among those it may have."""
    problems = [
        f"{name}: expected one of {', '.join(allowed)}, got {value!r}{did_you_mean(str(value), allowed)}"
        for name, (value, allowed) in options.items()
        if value not in allowed
    ]
    if problems:
        raise ModelError("faceboxes cannot be built so", problems=problems)
