"""From a cfg to layers with shapes; what is not supported is refused with its name and line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onestage.errors import ModelError, did_you_mean
from onestage.models.darknet.cfg import Cfg, Section
from onestage.models.darknet.layers import (
    Architecture,
    Convolution,
    Head,
    Layer,
    MaxPool,
    Route,
    Shape,
    Shortcut,
    Upsample,
)
from onestage.models.darknet.section_keys import CONV_OFF, POOL_OFF, SHORTCUT_OFF, unknown

ACTIVATIONS = ("leaky", "linear", "relu", "mish", "swish", "logistic")
# Layers that darknet has besides: none of them is a misspelt one of ours.
_OTHERS = ("activation", "avgpool", "connected", "cost", "crnn", "crop", "deconvolutional", "detection", "dropout",
           "gru", "iseg", "l2norm", "local", "local_avgpool", "logistic", "lstm", "normalization", "reorg", "reorg3d",
           "rnn", "sam", "scale_channels", "softmax")  # fmt: skip
LARGEST = 4096  # pixels of a side of the input, as of a recipe's size
MOST = 1_000_000_000  # numbers in a network: 4 GB, sixteen times yolov3's


def architecture(cfg: Cfg) -> Architecture:
    """The network of a cfg. Raises ModelError that lists every layer it cannot build, with line and reason."""
    channels = cfg.net.number("channels", 3)
    size = cfg.net.number("width", 416), cfg.net.number("height", 416)
    layers: list[Layer] = []
    problems = []
    problems += [
        f"{cfg.net.at(key)}: expected 32 to {LARGEST} pixels, got {side}"
        for key, side in zip(("width", "height"), size, strict=True) if not 32 <= side <= LARGEST
    ]  # fmt: skip
    if channels != 3:
        problems.append(f"{cfg.net.at('channels')}: expected 3, RGB, got {channels}")
    for section in cfg.layers:
        index = len(layers)
        problems += unknown(section)
        try:
            if section.kind not in _BUILDERS:
                near = "" if section.kind in _OTHERS else did_you_mean(section.kind, _BUILDERS)
                raise ModelError(
                    f"{section.title}: layers of this kind are not supported{near}; there are: "
                    f"{', '.join(sorted(_BUILDERS))}"
                )
            before = layers[-1].shape if layers else Shape(channels, 1)
            layers.append(_BUILDERS[section.kind](section, index, before, layers))
        except ModelError as error:
            problems.append(error.message + (f" ({error.hint})" if error.hint else ""))
            layers.append(Layer(index, section, layers[-1].shape if layers else Shape(channels, 1)))
    heads = [layer for layer in layers if isinstance(layer, Head)]
    if not heads and not problems:
        problems.append("no [yolo] and no [region] layer: this network finds no boxes")
    if len({head.anchors for head in heads}) > 1:
        problems.append("the heads list different anchors: each [yolo] must list all, and choose by mask")
    if len({head.classes for head in heads}) > 1:
        problems.append(f"the heads have different classes: {', '.join(str(head.classes) for head in heads)}")
    problems += _too_large(layers)
    if problems:
        raise ModelError(f"{cfg.source} cannot be built", problems=problems)
    asked = {at for layer in layers if isinstance(layer, Route) for at in layer.layers}
    asked |= {layer.source for layer in layers if isinstance(layer, Shortcut)}
    return Architecture(cfg, size, tuple(layers), frozenset(asked))


def _too_large(layers: list[Layer]) -> list[str]:
    """The convolution by which a network has more numbers than any machine trains, in words; nothing where none has."""
    total = 0
    for layer in layers:
        total += layer.floats if isinstance(layer, Convolution) else 0
        if total > MOST:
            return [
                f"{layer.section.title}: expected a network of {MOST:,} numbers at most, got {total:,} up to this layer"
            ]
    return []


def _convolution(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    _refuse(section, CONV_OFF)
    _one_stride(section)
    filters, size = section.number("filters", 1), section.number("size", 1)
    stride, groups = section.number("stride", 1), section.number("groups", 1)
    pad = size // 2 if section.number("pad", 0) else section.number("padding", 0)
    if min(filters, size, stride, groups) < 1 or not 0 <= pad <= size:
        raise ModelError(
            f"{section.title}: filters, size, stride and groups must be at least 1, padding from 0 to size; got "
            f"filters={filters} size={size} stride={stride} groups={groups} padding={pad}"
        )
    if before.channels % groups or filters % groups:
        raise ModelError(f"{section.at('groups')}: {before.channels} channels and {filters} filters in {groups} groups")
    return Convolution(
        index, section, Shape(filters, before.stride * stride), before.channels, size, stride, pad, groups,
        section.number("batch_normalize", 0) != 0, section.word("activation", "logistic", ACTIVATIONS),
    )  # fmt: skip


def _refuse(section: Section, off: Mapping[str, str]) -> None:
    """ModelError for a key that would change what the layer computes."""
    for key, value in off.items():
        if section.options.get(key, value) != value:
            raise ModelError(f"{section.at(key)}: {key}={section.options[key]} is not supported")


def _one_stride(section: Section) -> None:
    if section.options.get("stride_x") or section.options.get("stride_y"):
        raise ModelError(f"{section.title}: one stride for both sides is supported, no stride_x or stride_y")


def _maxpool(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    stride = section.number("stride", 1)
    size = section.number("size", stride)
    padding = section.number("padding", size - 1)
    _refuse(section, POOL_OFF)
    _one_stride(section)
    if min(stride, size) < 1 or padding < 0 or padding >= 2 * size:
        raise ModelError(f"{section.title}: expected a size and stride of at least 1 and a padding below two sizes")
    return MaxPool(index, section, Shape(before.channels, before.stride * stride), size, stride, padding)


def _upsample(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    factor = section.number("stride", 2)
    if factor < 1 or section.real("scale", 1) != 1:
        raise ModelError(f"{section.title}: expected a stride of at least 1 and scale=1")
    return Upsample(index, section, Shape(before.channels, before.stride / factor), factor)


def _route(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    named = section.numbers("layers")
    if not named:
        raise ModelError(f"{section.title}: layers= is missing")
    wanted = tuple(_absolute(section, "layers", at, index) for at in named)
    groups, group = section.number("groups", 1), section.number("group_id", 0)
    shapes = [layers[at].shape for at in wanted]
    if len({shape.stride for shape in shapes}) > 1:
        told = ", ".join(f"{at}: stride {shape.stride:g}" for at, shape in zip(wanted, shapes, strict=True))
        raise ModelError(f"{section.at('layers')}: layers of one stride can be put side by side, got {told}")
    if not 0 <= group < groups or any(shape.channels % groups for shape in shapes):
        raise ModelError(
            f"{section.title}: group {group} of {groups} of {[shape.channels for shape in shapes]} channels"
        )
    channels = sum(shape.channels for shape in shapes) // groups
    return Route(index, section, Shape(channels, shapes[0].stride), wanted, groups, group)


def _shortcut(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    _refuse(section, SHORTCUT_OFF)
    named = section.numbers("from")
    if len(named) != 1 or section.options.get("weights_type", "none") != "none":
        raise ModelError(f"{section.title}: a shortcut from one layer without weights is supported")
    source = _absolute(section, "from", named[0], index)
    if layers[source].shape.stride != before.stride:
        told = f"{layers[source].shape.stride:g} and {before.stride:g}"
        raise ModelError(f"{section.at('from')}: layers of one stride can be added, got {told}")
    return Shortcut(index, section, before, source, section.word("activation", "linear", ACTIVATIONS))


def _absolute(section: Section, key: str, at: int, index: int) -> int:
    """The index of a layer named absolutely or, below 0, counted backwards from the layer that names it."""
    found = at if at >= 0 else index + at
    if not 0 <= found < index:
        raise ModelError(f"{section.at(key)}: {at} names no layer before this one")
    return found


def _yolo(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    if section.number("new_coords", 0):
        raise ModelError(f"{section.at('new_coords')}: new_coords=1 (scaled YOLOv4) is not supported")
    values = section.reals("anchors")
    anchors = tuple(zip(values[::2], values[1::2], strict=False))
    count = section.number("num", 1)
    if len(values) % 2 or len(anchors) != count:
        raise ModelError(f"{section.at('anchors')}: expected {count} pairs (num={count}), got {len(values)} numbers")
    mask = section.numbers("mask") or tuple(range(count))
    if wrong := [at for at in mask if not 0 <= at < count]:
        raise ModelError(f"{section.at('mask')}: {', '.join(map(str, wrong))} is none of the {count} anchors")
    return _head(section, index, before, layers, anchors, mask, _scale_xy(section), False)


def _scale_xy(section: Section) -> float:
    scale = section.real("scale_x_y", 1.0)
    if not 1 <= scale <= 10:
        raise ModelError(f"{section.at('scale_x_y')}: expected a number from 1 to 10, got {scale:g}")
    return scale


def _region(section: Section, index: int, before: Shape, layers: list[Layer]) -> Layer:
    """YOLOv2's last layer: anchors are in cells there, and there is no mask."""
    for key in ("tree", "map", "background"):
        if section.options.get(key, "0") != "0":
            raise ModelError(f"{section.at(key)}: {key} is not supported")
    if section.number("coords", 4) != 4:
        raise ModelError(f"{section.at('coords')}: expected 4, got {section.options['coords']}")
    values = section.reals("anchors") or (0.5, 0.5) * section.number("num", 1)
    anchors = tuple((w * before.stride, h * before.stride) for w, h in zip(values[::2], values[1::2], strict=False))
    count = section.number("num", 1)
    if len(values) != 2 * count:
        raise ModelError(f"{section.at('anchors')}: expected {count} pairs (num={count}), got {len(values)} numbers")
    softmax = section.number("softmax", 0) != 0
    return _head(section, index, before, layers, anchors, tuple(range(count)), 1.0, softmax)


def _head(
    section: Section, index: int, before: Shape, layers: list[Layer], anchors: tuple[tuple[float, float], ...],
    mask: tuple[int, ...], scale_xy: float, softmax: bool,
) -> Head:  # fmt: skip
    classes = section.number("classes", 20)
    if classes < 1 or not mask or len(set(mask)) < len(mask):
        raise ModelError(
            f"{section.title}: expected classes from 1 on and anchors, each once, got classes={classes} and anchors "
            f"{', '.join(map(str, mask)) or 'none'}"
        )
    wanted = len(mask) * (5 + classes)
    last = layers[-1] if layers else None
    if not isinstance(last, Convolution):
        raise ModelError(f"{section.title}: expected a [convolutional] layer before it")
    if before.channels != wanted:
        raise ModelError(
            f"{last.section.at('filters')}: expected {wanted}, {len(mask)} anchors x (5 + {classes} classes) of "
            f"[{section.kind}] in line {section.line}, got {before.channels}"
        )
    if last.normalised or last.activation != "linear":
        raise ModelError(f"{last.section.title}: the layer before [{section.kind}] must be linear and without a norm")
    if min(min(pair) for pair in anchors) <= 0 or before.stride != int(before.stride):
        raise ModelError(f"{section.title}: expected anchors above 0 and a whole stride, got {before.stride:g}")
    layers[-1] = Convolution(**{**last.__dict__, "head": True})
    return Head(index, section, before, classes, anchors, mask, scale_xy, softmax)


_BUILDERS: dict[str, Callable[[Section, int, Shape, list[Layer]], Layer]] = {
    "convolutional": _convolution, "conv": _convolution, "maxpool": _maxpool, "max": _maxpool, "upsample": _upsample,
    "route": _route, "shortcut": _shortcut, "yolo": _yolo, "region": _region,
}  # fmt: skip
