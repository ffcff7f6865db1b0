"""What a weights file is, and what would become of every tensor of it in a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage import models
from onestage.errors import ModelError
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.files import guesses
from onestage.models.darknet.header import Header, is_weights, refuse_others
from onestage.models.detector import Detector
from onestage.models.load_report import Report
from onestage.models.weights import start_from
from onestage.models.weights_files import card_of


@dataclass(frozen=True)
class Inspection:
    """A file beside a detector: `held` classes the file tells apart (None: it does not say), `report` on each tensor.

    `header` is that of a .weights file of darknet.
    """

    path: Path
    detector: Detector
    held: int | None
    report: Report
    header: Header | None

    def rows(self) -> list[dict[str, Any]]:
        """`Report.rows` with the layer of darknet that each tensor belongs to, and its line in the cfg."""
        titles: dict[str, str] = {}
        if isinstance(self.detector, Darknet):
            for one in self.detector.architecture.convolutions:
                titles[str(one.index)] = f"{one.index} {'head' if one.head else 'conv'}"
        numbers = [row["tensor"].removeprefix("layers.").partition(".")[0] for row in self.report.rows()]
        return [{"layer": titles.get(at, ""), **row} for at, row in zip(numbers, self.report.rows(), strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """The inspection as JSON."""
        told = None
        if self.header is not None:
            told = {"version": self.header.version, "seen": self.header.seen}
        return {
            "file": str(self.path), "model": self.detector.name, "classes": self.detector.classes, "held": self.held,
            "size": list(self.detector.size), "header": told, **self.report.as_dict(), "tensors": self.rows(),
        }  # fmt: skip


def inspect(path: Path, model: str | None = None, classes: int | None = None) -> Inspection:
    """What training would make of a file's tensors as first weights of `model` for `classes` classes.

    By default the model is the file's own, told by its card or, of a .weights file, by its length; the classes are
    those that the file tells apart. Raises ModelError where neither the file nor the caller says what it is, and for a
    file that does not fit.
    """
    header = refuse_others(path) if path.suffix != ".safetensors" and is_weights(path) else None
    card = card_of(path)
    options: dict[str, Any] = {}
    if card is not None and model in (None, card["model"]):
        model, options, held = card["model"], card["options"], len(card["classes"])
        size = tuple(card["size"])
    else:
        model = model or _named_by_length(path, header)
        kind = models.model_class(model)
        options = kind.resolved({"cfg": model} if models.is_cfg(model) else {})
        held, size = kind.classes_in(path, options), None
        model = kind.name
    count = classes or held or _usual(models.model_class(model), options)
    if count is None:
        raise ModelError(f"{path.name} does not say how many classes it is for", hint="classes=NUMBER")
    detector = models.build(model, count, size, **options)
    return Inspection(path, detector, held, start_from(detector, str(path)), header)


def _usual(kind: type[Detector], options: dict[str, Any]) -> int | None:
    """How many classes a model is for where nobody says; None for most."""
    return kind.drawn(options).classes if issubclass(kind, Darknet) else len(kind.default_classes) or None


def _named_by_length(path: Path, header: Header | None) -> str:
    if header is None:
        raise ModelError(f"{path.name} does not say what model it belongs to", hint="model=NAME, or model=my.cfg")
    found = guesses(path)
    if len(found) != 1:
        known = "; ".join(f"{name}, {told}" for name, told in found) or "none that is known by name"
        raise ModelError(
            f"{path.name} does not say what network it is of; by its length: {known}",
            hint="model=my.cfg, or model=NAME",
        )
    return found[0][0]
