"""Which layers' numbers a .weights file holds, by its length: whole, cut off, other classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onestage.errors import ModelError
from onestage.models.darknet.layers import Architecture, Convolution

_ANCHORS = (3, 5)  # of a head, in the cfgs that weights are published for
MOST_CLASSES = 10_000  # YOLO9000 told 9,418 apart


@dataclass(frozen=True)
class Slot:
    """A tensor of a .weights file: its name with us, its layer, its shape in the file, whether the file has it."""

    name: str
    layer: Convolution
    shape: tuple[int, ...]
    there: bool = True

    @property
    def count(self) -> int:
        """How many numbers it has."""
        product = 1
        for side in self.shape:
            product *= side
        return product


@dataclass(frozen=True)
class Layout:
    """What lies where in a file: `classes` of its heads, `layers` (None: all) whose numbers it holds.

    `extra` numbers stand before the first: 1 in files of PyTorch-YOLOv3, whose header has one more than its version.
    `filters`: those of each head, where it has another number of anchors than the network's; 0 else.
    """

    classes: int
    layers: int | None = None
    extra: int = 0
    filters: int = 0

    def unlike(self, network: Architecture) -> bool:
        """Whether its heads are not the network's."""
        return self.classes != network.classes or bool(self.filters)

    def slots(self, network: Architecture) -> tuple[Slot, ...]:
        """All tensors of the network in the order of a file, in the shapes they have there."""
        return tuple(
            Slot(name, layer, shape, self.layers is None or layer.index < self.layers)
            for layer in network.convolutions
            for name, shape in shapes(
                layer, self.filters if layer.head and self.filters else filters(network, layer, self.classes)
            )
        )


def shapes(layer: Convolution, filters: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a convolution in the order of a file, by their names with us."""
    at = f"layers.{layer.index}"
    if layer.normalised:
        for leaf in ("bias", "weight", "running_mean", "running_var"):
            yield f"{at}.bn.{leaf}", (filters,)
    else:
        yield f"{at}.conv.bias", (filters,)
    yield f"{at}.conv.weight", (filters, layer.inputs // layer.groups, layer.size, layer.size)


def filters(network: Architecture, layer: Convolution, classes: int) -> int:
    """The filters of a convolution where the heads tell so many classes apart."""
    if not layer.head:
        return layer.shape.channels
    return len(_mask(network, layer)) * (5 + classes)


def floats(network: Architecture, classes: int | None = None, layers: int | None = None) -> int:
    """How many numbers a file holds: of the whole network or its first `layers`, its heads for `classes`."""
    return sum(count for _, count in _counts(network, network.classes if classes is None else classes, layers))


def layout(
    network: Architecture, count: int, cut: int | None = None, padded: bool = False, anchors: bool = False
) -> Layout:
    """What a file of `count` numbers holds; `cut` is the number of layers its name tells, `padded` if one may precede.

    Tried in this order: the network as it is, its first layers, heads of other classes; with `anchors` whole files
    whose heads have another number of anchors too. Raises ModelError that says by how many numbers it differs, and in
    which layer it ends.
    """
    extras = (0, 1) if padded else (0,)
    if cut is not None:
        return _named(network, count, cut, extras)
    own = network.classes
    for extra in extras:
        if count - extra == floats(network):
            return Layout(own, None, extra)
    ends, total = [], 0
    for layer, number in _counts(network, own):
        total += number
        ends.append((layer.index + 1, total))
    for extra in extras:
        for layers, end in ends:
            if count - extra == end:
                return Layout(own, layers, extra)
    usual = all(len(head.mask) in _ANCHORS for head in network.heads)
    for extra in extras:
        classes, each = _classes(network, count - extra), _filters(network, count - extra) if anchors else 0
        if classes is not None and (usual or not each):
            return Layout(classes, None, extra)
        if each:
            return Layout(own, None, extra, each)
    raise _unfit(network, count)


def astray(network: Architecture, classes: int) -> tuple[int, Convolution]:
    """How many numbers a reader that goes by the cfg alone is behind after the first head, and the layer it then reads.

    The file's heads are for `classes`. Below 0 it has run ahead. ModelError never: a network has heads.
    """
    heads = [at for at, layer in enumerate(network.convolutions) if layer.head]
    first = network.convolutions[heads[0]]
    more = filters(network, first, classes) - first.shape.channels
    after = network.convolutions[min(heads[0] + 1, len(network.convolutions) - 1)]
    return more * (1 + first.kernel_floats // first.shape.channels), after


def _mask(network: Architecture, layer: Convolution) -> tuple[int, ...]:
    return next(head.mask for head in network.heads if head.index == layer.index + 1)


def _counts(network: Architecture, classes: int, layers: int | None = None) -> Iterator[tuple[Convolution, int]]:
    """Each convolution of the first `layers` and how many numbers a file has of it."""
    for layer in network.convolutions:
        if layers is None or layer.index < layers:
            per_filter = layer.floats // layer.shape.channels
            yield layer, filters(network, layer, classes) * per_filter


def _classes(network: Architecture, count: int, layers: int | None = None) -> int | None:
    """The classes with which the heads fill `count` numbers exactly; None where there are none."""
    none, one = (floats(network, classes, layers) for classes in (0, 1))
    found, rest = divmod(count - none, one - none) if one > none else (0, 1)
    return found if rest == 0 and 1 <= found <= MOST_CLASSES else None


def _filters(network: Architecture, count: int) -> int:
    """The filters, the same in every head, that fill `count` numbers exactly, for 3 or 5 anchors; 0: none."""
    per_filter = sum(layer.floats // layer.shape.channels for layer in network.convolutions if layer.head)
    rest = sum(layer.floats for layer in network.convolutions if not layer.head)
    found, left = divmod(count - rest, per_filter)
    return found if left == 0 and any(found % each == 0 and found // each > 5 for each in _ANCHORS) else 0


def _named(network: Architecture, count: int, cut: int, extras: tuple[int, ...]) -> Layout:
    """The layout of a file whose name tells how many layers it holds."""
    layers = None if cut >= len(network.layers) - 1 else cut
    for extra in extras:
        if count - extra == floats(network, layers=layers):
            return Layout(network.classes, layers, extra)
    for extra in extras:
        if (classes := _classes(network, count - extra, layers)) is not None:
            return Layout(classes, layers, extra)
    try:
        other = layout(network, count, padded=len(extras) > 1)
    except ModelError as error:
        fits, hint = error.problems[0], error.hint
    else:
        held = "all" if other.layers is None else f"the first {other.layers}"
        ending = ".weights" if other.layers is None else f".conv.{other.layers}"
        fits = f"so many have {held} of its layers" + (
            f", with heads of {other.classes} classes" if other.classes != network.classes else ""
        )
        hint = f"the ending {ending}"
    expected = floats(network, layers=layers)
    raise ModelError(
        f"its name says the first {cut} layers, which have {expected:,} numbers; it holds {count:,}, "
        f"{_difference(count, expected)}",
        problems=[fits], hint=hint,
    )  # fmt: skip


def _unfit(network: Architecture, count: int) -> ModelError:
    """The error for a number that nothing fits."""
    total, end = floats(network), 0
    where = ""
    for layer, number in _counts(network, network.classes):
        end += number
        if count < end:
            where = (
                f"it ends within {layer.section.title}: {count - end + number:,} of the layer's {number:,} are there"
            )
            break
    else:
        where = f"{count - total:,} are left over after {network.convolutions[-1].section.title}, the last with weights"
    step = floats(network, 1) - floats(network, 0)
    return ModelError(
        f"it holds {count:,} numbers, the network with {network.classes} classes takes {total:,}: "
        f"{_difference(count, total)}",
        problems=[where, f"no number of classes explains it: each changes the length by {step:,}"],
        hint="the cfg the weights were trained with, or the whole file where a download broke off",
    )  # fmt: skip


def _difference(count: int, expected: int) -> str:
    return f"{abs(count - expected):,} too {'many' if count > expected else 'few'}"
