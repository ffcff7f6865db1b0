"""A cause as the diagnosis finds it: what, where, which formula, what follows, what helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from onestage.models.detector import Detector
from onestage.records import Batch, Finding, ImageId, Severity, Where
from onestage.training.loop.evidence import Evidence, Pass
from onestage.training.recorder.batch_checks import Fault
from onestage.training.recorder.ring import Entry

Sure = Literal["certain", "likely", "possible"]


class PriorPlace(NamedTuple):
    """A prior: its number, its box xyxy in pixels of the input, and its level."""

    number: int
    box: tuple[float, ...]
    level: int

    def __str__(self) -> str:
        return f"prior {self.number} {corners(self.box)} of level {self.level}"


@dataclass(frozen=True)
class Cause:
    """One finding of the diagnosis. `row` counts truths from 0; `box` is after augmentation, in pixels of the input.

    `numbers` are the terms by formula, `names` the tensors or modules concerned.
    """

    code: str
    what: str
    sure: Sure
    consequence: str = ""
    remedy: str = ""
    image: ImageId | None = None
    file: str | None = None
    row: int | None = None
    box: tuple[float, ...] | None = None
    label: str | None = None
    prior: PriorPlace | None = None
    formula: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    severity: Severity = "error"

    def place(self) -> str:
        """Where, in words: image, truth, prior; "" where there is no such place."""
        parts = [str(self.file)] if self.file else ([f"image {self.image}"] if self.image is not None else [])
        if self.row is not None:
            label = f" {self.label}" if self.label else ""
            parts.append(f"truth {self.row}{label}{f' {corners(self.box)}' if self.box else ''}")
        if self.prior is not None:
            parts.append(str(self.prior))
        return ", ".join(parts)

    def sentence(self) -> str:
        """Everything in one line."""
        place = self.place()
        formula = f": {self.formula}" if self.formula and self.formula not in self.what else ""
        return f"{place}{': ' if place else ''}{self.what}{formula}"

    def finding(self, step: int, evidence: Mapping[str, Any]) -> Finding:
        """The cause as a record."""
        box = None if self.box is None else tuple(self.box)
        where = Where(file=self.file, image=self.image, box=box, step=step)  # type: ignore[arg-type]
        return Finding(self.code, self.severity, where, self.sentence(), self.consequence, self.remedy, evidence)

    def as_dict(self) -> dict[str, Any]:
        """The cause as JSON."""
        found = {key: value for key, value in vars(self).items() if value not in (None, (), {}, "")}
        if self.prior is not None:
            found["prior"] = {"number": self.prior.number, "box": list(self.prior.box), "level": self.prior.level}
        return found


@dataclass
class Scene:
    """What the diagnosis looks at: the step, the model, faults of its batches, the steps before, names of things.

    `batches` are those of the passes, or of a step that came to no pass."""

    evidence: Evidence
    detector: Detector
    faults: Sequence[Fault] = ()
    history: Sequence[Entry] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    precision: str = "fp32"
    file_of: Callable[[ImageId], Path | str | None] | None = None
    classes: Sequence[str] = ()
    batches: Sequence[Batch] = ()

    def __post_init__(self) -> None:
        self.batches = self.batches or [one.batch for one in self.evidence.passes]

    def at(self, cause: Cause, part: int, image: int, row: int | None = None) -> Cause:
        """The cause with its image, its file, and its truth where `row` names one."""
        batch = self.batches[part]
        image_id = batch.ids[image]
        cause = replace(cause, image=image_id, file=self.file(image_id))
        if row is None or not 0 <= row < len(batch.annotations[image]):
            return cause
        annotations = batch.annotations[image]
        box = tuple(float(value) for value in annotations.boxes[row])
        return replace(cause, row=row, box=box, label=self.class_name(int(annotations.labels[row])))

    def file(self, image_id: ImageId) -> str | None:
        """Where the image lies, if that is known; what the lookup raises is not worth losing the report for."""
        try:
            found = None if self.file_of is None else self.file_of(image_id)
        except Exception:
            return None
        return None if found is None else str(found)

    def class_name(self, label: int) -> str:
        """The name of a class, or its number."""
        return self.classes[label] if 0 <= label < len(self.classes) else f"class {label}"

    def passes(self) -> list[tuple[int, Pass]]:
        """The micro-batches with their numbers."""
        return list(enumerate(self.evidence.passes))


def corners(box: Sequence[float]) -> str:
    """A box for people: (x1, y1, x2, y2)."""
    return f"({', '.join(f'{value:.6g}' for value in box)})"
