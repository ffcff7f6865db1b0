"""darknet's .weights: every number read to its layer or refused, and written byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestage.errors import ModelError
from onestage.models.darknet.header import Header, cut_of, refuse_others
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.layout import Layout, Slot, astray, floats, layout

Array = NDArray[np.float32]
_TOLD = 12  # problems of a kind that an error lists


@dataclass(frozen=True)
class WeightsFile:
    """What a .weights file holds for a network.

    `tensors` are those that fit it, under our names; `slots` all of the network's in the order of a file, with the
    shapes they have there; `skipped` why those of the file that are not in `tensors` were passed over, by name.
    """

    path: Path
    header: Header
    layout: Layout
    slots: tuple[Slot, ...]
    tensors: dict[str, Array]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


def look(path: Path, network: Architecture, anchors: bool = False) -> tuple[Header, Layout]:
    """What a file holds for this network, told by its header and length; ModelError for a file that does not fit.

    With `anchors` its heads may have another number of anchors.
    """
    header = refuse_others(path)
    padded = not header.wide
    count = (path.stat().st_size - len(header.as_bytes())) // 4
    if count == 0:
        raise ModelError(f"{path} holds a header and no numbers", hint="take the file again")
    try:
        found = layout(network, count, cut_of(path), padded, anchors)
    except ModelError as error:
        odd = _first_odd(path, header, network)
        problems = [*error.problems, *([f"its numbers cannot be this network's from {odd} on"] if odd else [])]
        raise ModelError(f"{path}: {error.message}", problems=problems, hint=error.hint) from None
    return header, found


def read_weights(path: Path, network: Architecture) -> WeightsFile:
    """The numbers of a file, each in its place; every one of them is accounted for.

    Heads of another number of classes or anchors are read at the file's size and passed over, so that what follows
    them is read aright. The arrays (float32) are views into one that holds the whole file. Raises ModelError for
    whatever is no .weights file, does not fit, or holds values that are not finite numbers or variances below 0.

    Source: darknet's parser (pjreddie and AlexeyAB), which reads as many numbers as its cfg asks for and says nothing
    where more or fewer are there.
    """
    header, found = look(path, network, anchors=True)
    start = len(header.as_bytes()) + 4 * found.extra
    numbers = np.fromfile(path, "<f4", offset=start).astype(np.float32, copy=False)
    slots, tensors, skipped, at = found.slots(network), {}, {}, 0
    other = found.unlike(network)
    odd: list[str] = []
    for slot in slots:
        if not slot.there:
            continue
        values = numbers[at : at + slot.count].reshape(slot.shape)
        at += slot.count
        odd += _wrong(slot, values)
        if other and slot.layer.head:
            skipped[slot.name] = (
                f"a head of {found.filters} filters, here {slot.layer.shape.channels}" if found.filters else
                f"a head of {found.classes} classes, here {network.classes}"
            )  # fmt: skip
        else:
            tensors[slot.name] = values
    if at != len(numbers):  # pragma: no cover - the layout was chosen by the length
        raise ModelError(f"{path}: {len(numbers) - at:,} numbers are left over")
    if odd:
        raise ModelError(
            f"{path} holds values that no trained network has, in {len(odd)} of {len(slots)} tensors",
            problems=_few(odd), hint="the cfg the weights were trained with, or an earlier file of the same training",
        )  # fmt: skip
    notes = _notes(network, header, found)
    if found.extra:  # its fifth number is part of no field that darknet knows
        header = replace(header, minor=2, major=0)
    return WeightsFile(path, header, found, slots, tensors, skipped, notes)


def weights_bytes(
    network: Architecture, tensors: Mapping[str, Any], header: Header | None = None, layers: int | None = None
) -> bytes:
    """The whole network, or its first `layers`, as a .weights file; `tensors` by our names, all else in them unused.

    What `read_weights` gave is written to the same bytes. A new header is that of recent darknets, 0.2.5: earlier ones
    give `seen` 4 bytes, and a file whose header says less than it has is read one number astray. Raises ModelError
    that lists absent, misshapen and not finite tensors, and for a cut that leaves no layer.
    """
    slots = [slot for slot in Layout(network.classes, layers).slots(network) if slot.there]
    if not slots or (layers is not None and layers > len(network.layers)):
        first = network.convolutions[0].index + 1
        raise ModelError(f"layers: expected {first} to {len(network.layers)}, got {layers}")
    problems, parts = [], [(Header() if header is None else header).as_bytes()]
    for slot in slots:
        if slot.name not in tensors:
            problems.append(f"{slot.name}: missing")
            continue
        values = np.ascontiguousarray(tensors[slot.name], "<f4")
        if values.shape != slot.shape:
            problems.append(f"{slot.name}: expected shape {slot.shape}, got {values.shape}")
        elif bad := int(np.count_nonzero(~np.isfinite(values))):
            problems.append(f"{slot.name}: {bad} of {values.size} values are not finite numbers")
        else:
            parts.append(memoryview(values).cast("B"))  # type: ignore[arg-type]
    if problems:
        raise ModelError(
            f"no .weights file can be made: {len(problems)} of {len(slots)} tensors are unfit", problems=_few(problems)
        )
    return b"".join(parts)


def _notes(network: Architecture, header: Header, found: Layout) -> tuple[str, ...]:
    """What a user should know of a file that was read: what it is, and what would have become of it elsewhere."""
    notes = []
    if found.extra:
        notes.append(
            f"its header says version {header.version} and has 20 bytes, as PyTorch-YOLOv3's save_darknet_weights "
            "writes it: darknet reads every number of it one place astray; it was read aright"
        )
    if found.layers is not None:
        notes.append(f"it holds the first {found.layers} of {len(network.layers)} layers; the others start afresh")
    if found.filters:
        notes.append(
            f"its heads have {found.filters} filters, these "
            + " and ".join(str(layer.shape.channels) for layer in network.convolutions if layer.head)
            + ", by other anchors: they were passed over"
        )
    elif found.classes != network.classes:
        notes.append(
            f"its heads are of {found.classes} classes, these of {network.classes}: they were passed over"
            + _elsewhere(network, found)
        )
    return tuple(notes)


def _elsewhere(network: Architecture, found: Layout) -> str:
    """What a reader would do with heads of other classes that goes by the cfg alone; "" where nothing follows them."""
    behind, layer = astray(network, found.classes)
    if found.layers is not None and layer.index >= found.layers:
        return ""
    unread = floats(network, found.classes, found.layers) - floats(network, layers=found.layers)
    end = f"leave {unread:,} unread" if unread > 0 else f"miss {-unread:,} at the end"
    return (
        f". A reader that goes by the cfg alone, as darknet and its PyTorch ports do, would be {abs(behind):,} floats "
        f"astray from {layer.section.title} on, and {end}, without a word"
    )


def _wrong(slot: Slot, values: Array) -> list[str]:
    """What is wrong with a tensor's values: not finite, or a variance below 0."""
    where = f"{slot.layer.section.title}: {slot.name}"
    if count := int(np.count_nonzero(~np.isfinite(values))):
        return [f"{where}: {count:,} of {values.size:,} values are not finite numbers"]
    if slot.name.endswith("running_var") and (count := int(np.count_nonzero(values < 0))):
        return [f"{where}: {count:,} of {values.size:,} variances are below 0"]
    return []


def _first_odd(path: Path, header: Header, network: Architecture) -> str | None:
    """The layer from which on a file that does not fit cannot be read as this network; None where it always could."""
    numbers = np.fromfile(path, "<f4", offset=len(header.as_bytes())).astype(np.float32, copy=False)
    at = 0
    for slot in Layout(network.classes).slots(network):
        values = numbers[at : at + slot.count]
        at += slot.count
        if len(values) < slot.count:
            return None
        if _wrong(slot, values):
            return slot.layer.section.title
    return None


def _few(problems: list[str]) -> list[str]:
    rest = len(problems) - _TOLD
    return [*problems[:_TOLD], f"… and {rest} more"] if rest > 0 else problems
