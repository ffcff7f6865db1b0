"""The layers of a network of darknet's, with their shapes."""

from __future__ import annotations

from dataclasses import dataclass, field

from onestage.errors import ModelError
from onestage.models.darknet.cfg import Cfg, Section


@dataclass(frozen=True)
class Shape:
    """What a layer gives: channels, and the stride of its cells in pixels of the input (x and y alike)."""

    channels: int
    stride: float


@dataclass(frozen=True)
class Layer:
    """One layer: `index` as darknet counts, `section` where it stands, `shape` what it gives."""

    index: int
    section: Section
    shape: Shape


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution, its norm and activation; `head` where its output goes straight into a [yolo] or [region]."""

    inputs: int
    size: int
    stride: int
    pad: int
    groups: int
    normalised: bool
    activation: str
    head: bool = False

    @property
    def floats(self) -> int:
        """How many numbers a .weights file holds of it: biases, with a norm three more rows, and the kernels."""
        return self.shape.channels * (4 if self.normalised else 1) + self.kernel_floats

    @property
    def kernel_floats(self) -> int:
        """The numbers of its kernels, (out, in / groups, size, size)."""
        return self.shape.channels * (self.inputs // self.groups) * self.size * self.size


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over `size` x `size`, padded with minus infinity: `padding` in all, half of it (rounded down) before."""

    size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Upsample(Layer):
    """Each cell repeated `factor` times along x and y."""

    factor: int


@dataclass(frozen=True)
class Route(Layer):
    """The outputs of `layers` side by side, of each only part `group` of `groups` equal ones."""

    layers: tuple[int, ...]
    groups: int = 1
    group: int = 0


@dataclass(frozen=True)
class Shortcut(Layer):
    """The layer before plus layer `source`, of which as many channels as both have."""

    source: int
    activation: str = "linear"


@dataclass(frozen=True)
class Head(Layer):
    """A [yolo] or [region]: what its input means.

    `anchors` (width, height) are in pixels of the input, all that the cfg lists; `mask` says which of them this layer
    answers with. `scale_xy` stretches the centre beyond its cell. `softmax`: classes exclude each other. Settings of
    training as the cfg has them stay in `section`.
    """

    classes: int
    anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    scale_xy: float = 1.0
    softmax: bool = False

    @property
    def own(self) -> tuple[tuple[float, float], ...]:
        """The anchors it answers with."""
        return tuple(self.anchors[i] for i in self.mask)


@dataclass(frozen=True)
class Architecture:
    """A whole network: input `size` (width, height) as the cfg has it, and its layers.

    `classes` are those of every head.
    """

    cfg: Cfg
    size: tuple[int, int]
    layers: tuple[Layer, ...]
    saved: frozenset[int] = field(default_factory=frozenset)  # layers whose outputs later ones ask for

    @property
    def heads(self) -> tuple[Head, ...]:
        """The layers that answer, in the cfg's order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Head))

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All layers that have weights, in the order of a .weights file."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    @property
    def classes(self) -> int:
        """How many classes its heads tell apart."""
        return self.heads[0].classes

    @property
    def trunk(self) -> int:
        """How many layers are the backbone: up to the last shortcut, or the convolution after the last pool.

        Those before the first head count: 75 of yolov3 (darknet53.conv.74 holds them), 13 of yolov3-tiny, 27 of
        yolov4-tiny.
        """
        first = next(layer.index for layer in self.layers if isinstance(layer, Head))
        before = self.layers[: first - 1]
        shortcuts = [layer.index for layer in before if isinstance(layer, Shortcut)]
        pools = [layer.index + 1 for layer in before if isinstance(layer, MaxPool)]
        return min((shortcuts or pools or [first // 2])[-1] + 1, first - 1)

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """The cells (columns, rows) of each head at input `size` (width, height).

        Raises ModelError where a side is no multiple of the coarsest stride, and where maps would differ in size.
        """
        stride = int(max(head.shape.stride for head in self.heads))
        if size[0] % stride or size[1] % stride or min(size) < stride:
            raise ModelError(
                f"{self.cfg.source}: expected sides that are multiples of {stride}, got {size[0]}x{size[1]}",
                hint=f"size={max(size[0] // stride, 1) * stride} or {(size[0] // stride + 1) * stride}",
            )
        sides: list[tuple[int, int]] = []
        for layer in self.layers:
            before = sides[-1] if sides else size
            of = before
            if isinstance(layer, Convolution):
                of = tuple((side + 2 * layer.pad - layer.size) // layer.stride + 1 for side in before)  # type: ignore[assignment]
            elif isinstance(layer, MaxPool):
                of = tuple((side + layer.padding - layer.size) // layer.stride + 1 for side in before)  # type: ignore[assignment]
            elif isinstance(layer, Upsample):
                of = before[0] * layer.factor, before[1] * layer.factor
            others = layer.layers if isinstance(layer, Route) else ()
            others = (layer.index - 1, layer.source) if isinstance(layer, Shortcut) else others
            found = {sides[at] for at in others} or {of}
            if len(found) > 1 or min(of) < 1:
                told = ", ".join(f"{at}: {sides[at][0]}x{sides[at][1]}" for at in others) or f"{of[0]}x{of[1]}"
                raise ModelError(f"{layer.section.title}: maps of one size are needed, got {told}")
            sides.append(found.pop())
        return [sides[head.index] for head in self.heads]
