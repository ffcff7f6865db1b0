"""A darknet .cfg as sections with line numbers: read, asked for typed values, written back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from onestage.errors import ModelError, did_you_mean

T = TypeVar("T")
# What only AlexeyAB's darknet knows: options of a section, and activations.
_ALEXEYS = {
    "beta_nms", "cls_normalizer", "cutmix", "dynamic_minibatch", "ema_alpha", "group_id", "iou_loss", "iou_normalizer",
    "iou_thresh", "label_smooth_eps", "letter_box", "max_delta", "mixup", "mosaic", "new_coords", "nms_kind",
    "obj_normalizer", "objectness_smooth", "resize", "scale_x_y",
}  # fmt: skip
_HIS_ACTIVATIONS = {"mish", "swish"}


def _whole(text: str) -> int:
    """The whole number that a text is to darknet too, which knows no 1_000, no digits but 0 to 9, and 32 bits."""
    found = int(_plain(text))
    if not -(2**31) <= found < 2**31:
        raise ValueError(text)
    return found


def _finite(text: str) -> float:
    found = float(_plain(text))
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return text


@dataclass(frozen=True)
class Section:
    """One `[kind]` of a cfg: its options as written, and where they stand.

    `line` is that of the header, from 1; `lines` those of the options; `index` is the layer's number as darknet counts
    them, from 0, None for the first section, `[net]`.
    """

    kind: str
    line: int
    index: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How an error calls it: "layer 13 [convolutional], line 102"."""
        named = f"[{self.kind}]" if self.index is None else f"layer {self.index} [{self.kind}]"
        return f"{named}, line {self.line}"

    def at(self, key: str) -> str:
        """How an error calls one of its options."""
        return f"{self.title.rpartition(', line ')[0]}, line {self.lines.get(key, self.line)}, {key}"

    def number(self, key: str, default: int) -> int:
        """A whole number; ModelError where something else is written."""
        return self._as(key, default, _whole, "a whole number of 32 bits")

    def real(self, key: str, default: float, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number from `least` to `most`; ModelError where something else is written."""
        found = self._as(key, default, _finite, "a number")
        if not least <= found <= most:
            to = "on" if most == math.inf else f"to {most:g}"
            raise ModelError(f"{self.at(key)}: expected a number from {least:g} {to}, got {found:g}")
        return found

    def word(self, key: str, default: str, allowed: Iterable[str] | None = None) -> str:
        """A word, one of those allowed; ModelError where another is written."""
        found = self.options.get(key, default)
        if allowed is not None and found not in allowed:
            known = sorted(allowed)
            raise ModelError(
                f"{self.at(key)}: expected one of {', '.join(known)}, got {found!r}{did_you_mean(found, known)}"
            )
        return found

    def numbers(self, key: str) -> tuple[int, ...]:
        """Whole numbers between commas, () where the option is absent."""
        return tuple(self._list(key, _whole, "whole numbers"))

    def reals(self, key: str) -> tuple[float, ...]:
        """Numbers between commas, () where the option is absent.

        A comma that is missing between two numbers is an error: darknet takes the first of them and shifts all others.
        """
        return tuple(self._list(key, _finite, "numbers"))

    def _as(self, key: str, default: T, kind: Callable[[str], T], what: str) -> T:
        text = self.options.get(key)
        if text is None:
            return default
        try:
            return kind(text)
        except ValueError:
            raise ModelError(f"{self.at(key)}: expected {what}, got {text!r}") from None

    def _list(self, key: str, kind: Callable[[str], T], what: str) -> list[T]:
        text = self.options.get(key, "").strip().rstrip(",")
        if not text:
            return []
        found = []
        for word in text.split(","):
            try:
                found.append(kind(word))
            except ValueError:
                hint = "a comma between the numbers" if len(word.split()) > 1 else None
                raise ModelError(
                    f"{self.at(key)}: expected {what} with commas between, got {word.strip()!r}", hint=hint
                ) from None
        return found


@dataclass(frozen=True)
class Cfg:
    """A whole cfg: `net` is its first section, `layers` all others; `source` is what errors call it.

    `notes` are lines that mean nothing, in words: an option that stands twice in a section counts as first written.
    """

    net: Section
    layers: tuple[Section, ...]
    source: str = "cfg"
    notes: tuple[str, ...] = ()

    @property
    def is_alexeys(self) -> bool:
        """Whether it is for AlexeyAB's darknet alone, by what pjreddie's does not know, such as scale_x_y and mish.

        His norms divide otherwise, which makes up to 0.002 of yolov4-tiny's raw outputs, and his jitter is another.
        """
        return any(
            not _ALEXEYS.isdisjoint(section.options) or section.options.get("activation") in _HIS_ACTIVATIONS
            for section in (self.net, *self.layers)
        )

    def text(self) -> str:
        """The cfg as text that `parse` reads to an equal one, options in the order they had; comments are not kept."""
        blocks = []
        for section in (self.net, *self.layers):
            rows = [f"[{section.kind}]", *(f"{key}={value}" for key, value in section.options.items())]
            blocks.append("\n".join(rows) + "\n")
        return "\n".join(blocks)


def read(source: str | Path) -> Cfg:
    """The cfg in a file, or in a text that has more than one line; ModelError names file, line and what is wrong."""
    text = str(source)
    if "\n" in text:
        return parse(text)
    path = Path(text)
    try:
        return parse(path.read_text(encoding="utf-8-sig", errors="replace"), path.name)
    except (OSError, ValueError) as error:  # a ValueError for a zero byte in a name
        raise ModelError(
            f"no cfg at {text[:200]!r}: {getattr(error, 'strerror', None) or error}",
            hint="a .cfg file of darknet, or a model by name: yolov3, yolov3-tiny",
        ) from None


def parse(text: str, source: str = "cfg") -> Cfg:
    """The cfg that a text holds. What follows # or a leading ; is a comment; blanks count for nothing, as in darknet.

    Raises ModelError listing every line that is neither a header nor key=value, and a text without [net].
    """
    sections: list[tuple[str, int, dict[str, str], dict[str, int]]] = []
    problems, notes = [], []
    for number, written in enumerate(text.splitlines(), 1):
        raw = written.partition("#")[0]
        line = "".join(raw.split())
        if not line or line[0] == ";":
            continue
        if line[0] == "[":
            sections.append((line.strip("[]"), number, {}, {}))
            if not line.endswith("]"):
                problems.append(f"line {number}: expected [name], got {raw.strip()!r}")
            continue
        key, equals, _ = line.partition("=")
        value = raw.partition("=")[2].strip()
        if not equals or not key or not sections:
            problems.append(
                f"line {number}: expected {'key=value' if sections else '[net] first'}, got {raw.strip()!r}"
            )
            continue
        _, _, options, lines = sections[-1]
        if options.setdefault(key, value) != value:
            notes.append(f"line {number}: {key}={value} has no effect: line {lines[key]} says {options[key]}")
        lines.setdefault(key, number)
    if sections and sections[0][0] not in ("net", "network"):
        problems.append(f"line {sections[0][1]}: expected [net] first, got [{sections[0][0]}]")
    if len(sections) < 2:
        problems.append("expected [net] and layers, got " + (f"[{sections[0][0]}] alone" if sections else "no section"))
    if problems:
        raise ModelError(f"{source} is no cfg that can be read", problems=problems)
    layers = tuple(
        Section(kind, line, index, options, lines) for index, (kind, line, options, lines) in enumerate(sections[1:])
    )
    name, header, settings, places = sections[0]
    return Cfg(Section(name, header, None, settings, places), layers, source, tuple(notes))
