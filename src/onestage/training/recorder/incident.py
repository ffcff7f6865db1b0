"""The report of a step that went wrong: JSON for programs, Markdown for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.errors import DivergedError
from onestage.experiments.spikes import Spike
from onestage.experiments.storage import as_json, plain, read_json, write_bytes
from onestage.records import Finding
from onestage.training.loop.evidence import Action
from onestage.training.recorder.causes import Diagnosis, Kind
from onestage.training.recorder.culprit import Cause, Scene
from onestage.training.recorder.ring import Entry

DOCS = "docs/flight-recorder.md"
_SHOWN_STEPS = 20
_SPOKEN = 20  # causes that the error's text names besides the first; the report and the finding name all
_MIXED = "the sample is a mosaic of several pictures: the truth may be of another than the one named, see the replay"
_DONE = {
    "stop": "the run was stopped", "skip": "the step was skipped: weights are as before it",
    "rollback": "the run goes back to the last good state, with lower learning rates",
    "go": "reported only: the step was done",
}  # fmt: skip


@dataclass
class Incident:
    """One step that went wrong, what it was, its causes, and what was done about it."""

    step: int
    epoch: int
    kind: Kind
    diagnosis: Diagnosis
    decision: Action
    entry: Entry
    before: Sequence[Entry]
    files: Mapping[Any, str | None] = field(default_factory=dict)
    spikes: Sequence[Spike] = ()
    run: str = "RUN"
    folder: Path | None = None
    mixed: bool = False
    rank: int = 0
    seconds: float = 0.0
    turn: int = 1

    @property
    def culprit(self) -> Cause:
        """The first cause."""
        return self.diagnosis.culprit

    def headline(self) -> str:
        """What happened, in one sentence."""
        place = f"at step {self.step} (epoch {self.epoch + 1})"
        if self.kind == "spike":
            said = "; ".join(_spike(spike) for spike in self.spikes)
            return f"a spike {place}: {said}"
        words = {
            "nan-loss": "the loss is not a finite number", "nan-gradient": "the gradient is not a finite number",
            "overflow": "fp16 gradients overflow step after step", "batch": "the batch is wrong",
            "odd-batch": "the batch is odd", "statistics": "running statistics are not finite",
        }  # fmt: skip
        return f"{words[self.kind]} {place}"

    def finding(self) -> Finding:
        """The incident as one finding; its code is that of the culprit."""
        evidence = {
            "incident": self.kind, "decision": self.decision, "sure": self.culprit.sure, "prior": None,
            "formula": self.culprit.formula, "row": self.culprit.row, "report": f"recorder/{self.stem}.md",
            "also": self._also() or None,
        }  # fmt: skip
        if self.culprit.prior is not None:
            evidence["prior"] = self.culprit.as_dict()["prior"]
        return self.culprit.finding(self.step, {key: value for key, value in evidence.items() if value is not None})

    def _also(self) -> list[dict[str, Any]]:
        """The other truths of the batch with the culprit's fault, each by its image, row and box."""
        same = [cause for cause in self.diagnosis.causes[1:] if cause.code == self.culprit.code]
        return [
            {"image": cause.image, "file": cause.file, "row": cause.row, "box": cause.box}
            for cause in same if cause.row is not None
        ]  # fmt: skip

    def error(self) -> DivergedError:
        """The failure that ends the run: names image, box, prior and formula; the hint is the remedy."""
        rest = [f"consequence: {self.culprit.consequence}"] if self.culprit.consequence else []
        others = self.diagnosis.causes[1:]
        rest += [f"{cause.code}: {cause.sentence()}" for cause in others[:_SPOKEN]]
        rest += [f"and {len(others) - _SPOKEN} more, which the report names"] if len(others) > _SPOKEN else []
        rest += [_MIXED] if self.mixed and self.culprit.row is not None else []
        rest += [f"note: {note}" for note in self.diagnosis.notes]
        rest += [f"report: {self.path}"] if self.folder else []
        message = f"{self.headline()}: {self.culprit.sentence()}"
        return DivergedError(message, problems=rest, hint=self.culprit.remedy or None)

    @property
    def path(self) -> Path:
        """The report for people."""
        return (self.folder or Path("recorder")) / f"{self.stem}.md"

    @property
    def stem(self) -> str:
        """The name of its files, without the ending."""
        rank, turn = f"-rank{self.rank}" if self.rank else "", f"-{self.turn}" if self.turn > 1 else ""
        return f"step-{self.step:06d}{rank}{turn}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "step": self.step, "epoch": self.epoch, "incident": self.kind, "headline": self.headline(),
            "decision": self.decision, "done": _DONE[self.decision],
            "spikes": [spike.as_dict() for spike in self.spikes],
            "causes": [cause.as_dict() for cause in self.diagnosis.causes], "notes": list(self.diagnosis.notes),
            "batch": {**self.entry.as_row(), "images": self._images()},
            "before": [entry.as_row() for entry in self.before[-_SHOWN_STEPS:]],
            "replay": f"onestage replay {self.run} --step {self.step}", "diagnosis_seconds": round(self.seconds, 3),
        }  # fmt: skip

    def _images(self) -> list[dict[str, Any]]:
        return [{**row, "file": self.files.get(row["image"])} for row in self.entry.images()]

    def markdown(self) -> str:
        """The report for people."""
        cause, lines = self.culprit, [f"# {_upper(self.headline())}", ""]
        lines += [f"**{_upper(cause.what)}** ({cause.code}, {cause.sure}).", ""]
        facts = [
            ("Where", cause.place()), ("Note", _MIXED if self.mixed and cause.row is not None else ""),
            ("Formula", f"`{cause.formula}`" if cause.formula else ""),
            ("Consequence", cause.consequence), ("Remedy", cause.remedy), ("Done", _DONE[self.decision]),
            ("Tensors", ", ".join(cause.names[:20])),
            ("See it again", f"`onestage replay {self.run} --step {self.step}`"),
        ]  # fmt: skip
        lines += [f"- {name}: {value}" for name, value in facts if value]
        if cause.numbers:
            rows = ((f"`{name}`", value) for name, value in cause.numbers.items())
            lines += ["", "## The terms", "", *table(("formula", "value"), rows)]
        if len(self.diagnosis.causes) > 1:
            lines += ["", "## Also found", ""]
            lines += [f"- {other.code} ({other.sure}): {other.sentence()}" for other in self.diagnosis.causes[1:]]
        if self.diagnosis.notes:
            lines += ["", "## Notes", "", *(f"- {note}" for note in self.diagnosis.notes)]
        lines += ["", "## The images of the batch", "", *self._image_table()]
        lines += ["", f"## The step and the {len(self.before[-_SHOWN_STEPS:])} before it", "", *self._step_table()]
        return "\n".join([*lines, "", f"What these columns mean: {DOCS}", ""])

    def _image_table(self) -> list[str]:
        names = list(self.entry.parts)
        rows = (
            (row["file"] or row["image"], row["truths"], " ".join(map(str, row["positives_per_level"])),
             *(row["loss"][name] for name in names), row["seed"])
            for row in self._images()
        )  # fmt: skip
        return table(("image", "truths", "positives per level", *(f"{n} loss (sum)" for n in names), "seed"), rows)

    def _step_table(self) -> list[str]:
        names = ("step", "loss", "grad_norm", "update_norm", "lr", "truths", "positives", "scale", "decision")
        rows = [entry.as_row() for entry in [*self.before[-_SHOWN_STEPS:], self.entry]]
        shown = [name for name in names if any(row[name] is not None for row in rows)]
        return table(shown, ([row[name] for name in shown] for row in rows))

    def keep_apart(self, folder: Path) -> None:
        """Take another name where another incident of this step is in `folder`: after a rollback a step comes again.

        The same incident, told again by a resumed run, takes its own place.
        """
        while self.turn < 1000 and (path := folder / f"{self.stem}.json").exists():
            try:
                told = read_json(path)
            except (OSError, ValueError):
                return
            if isinstance(told, dict) and told.get("causes") == plain(self.as_dict()["causes"]):
                return
            self.turn += 1

    def write(self, folder: Path) -> Path:
        """Put step-000123.json and .md into `folder`, each whole or not at all; raises StorageError."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.stem}.md"
        write_bytes(folder / f"{self.stem}.json", as_json(self.as_dict()).encode())
        write_bytes(path, self.markdown().encode())
        return path


def _spike(spike: Spike) -> str:
    """One spike in words."""
    far = f"{spike.sigmas:.0f} robust deviations" if math.isfinite(spike.sigmas) else "out of all proportion"
    return f"{spike.what} {spike.value:.4g}, expected {spike.expected:.4g} ({far})"


def files_of(scene: Scene) -> dict[Any, str | None]:
    """The files of all images of the step."""
    return {image_id: scene.file(image_id) for batch in scene.batches for image_id in batch.ids}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else f"**{value}**"
    return "" if value is None else str(value).replace("|", "\\|")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
