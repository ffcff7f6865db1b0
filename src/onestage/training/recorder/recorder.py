"""The recorder itself: looks at every step, decides what becomes of a bad one, and counts."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from onestage.errors import DivergedError, OnestageError
from onestage.experiments.spikes import Spike, Spikes
from onestage.models.detector import Detector
from onestage.records import Batch, Finding, ImageId
from onestage.training.loop.evidence import Action, Evidence
from onestage.training.recipe import Guard, Recipe
from onestage.training.recipe.spans import in_steps
from onestage.training.recipe.stages import Leg
from onestage.training.recorder.batch_checks import Fault, check_batch, check_before
from onestage.training.recorder.causes import Kind, diagnose
from onestage.training.recorder.culprit import Scene
from onestage.training.recorder.incident import Incident, files_of
from onestage.training.recorder.judged import FileOf, broken_answers
from onestage.training.recorder.ring import BoxTable, Entry, Ring
from onestage.training.recorder.samples import Samples
from onestage.training.recorder.weight_checks import poisoned_statistics

# fp16: so many gradients in a row that are not finite are more than the scaler looking for its scale.
OVERFLOWS = 10
# Running statistics are looked at every so many steps; they only matter when the model is judged.
STATISTICS_EVERY = 50
# A loss so many times the usual is a spike however few steps there are to compare with.
SURGE = 1000.0
# Causes that lie in the batch: to go back and come to it again would be of no use.
IN_THE_DATA = {
    "broken-box", "label-out-of-range", "non-finite-pixel", "wrong-shape", "empty-batch", "no-positives", "outsize-box",
}  # fmt: skip
# Odd batches that stop nothing are told of so many times.
MOST_ODD = 10
# A run writes at most so many reports that did not stop it.
MOST_REPORTS = 100


class Recorder:
    """Watches the steps of one run as `guard` says; `examine` before the optimiser's step, `done` after it.

    `folder` is where reports go (the run's `recorder/`; None: nowhere), `run` its name for the replay line. `file_of`
    gives the file of an image id, `classes` names labels, `weights` scale the parts of the loss, `precision` is that
    of the forward pass. `spikes` replaces the watch on loss, gradient and positives. `mixed`: samples are mosaics.
    `samples`: the first ones are compared with their images on disk.
    `rank` is the number of this process where there are several. `size_of` gives the input size (width, height) of the
    step that follows so many others; without it that of the detector is right.

    Nothing it does changes weights, gradients, statistics or random states. Each process watches its own images:
    where there are several, the loop takes the gravest of their decisions.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        folder: Path | None = None,
        run: str = "RUN",
        file_of: Callable[[ImageId], Path | str | None] | None = None,
        classes: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        precision: str = "fp32",
        spikes: Spikes | None = None,
        mixed: bool = False,
        samples: bool = False,
        rank: int = 0,
        size_of: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        self.guard = guard or Guard()
        self.folder, self.run, self.file_of = folder, run, file_of
        self.classes, self.weights, self.precision = tuple(classes), dict(weights or {}), precision
        self.mixed, self.rank, self.size_of = mixed, rank, size_of
        self.spikes = spikes or Spikes(self.guard.sigmas)
        self.ring = Ring(self.guard.steps)
        self.losses: deque[float] = deque(maxlen=self.guard.steps)  # of the last steps, where they were finite
        self.incidents: list[Incident] = []
        self.unread: list[Finding] = []
        self.counts = {"skip": 0, "rollback": 0, "reports": 0, "overflows": 0}
        self.samples = Samples(file_of if samples else None)
        self._told: set[tuple[str, ImageId]] = set()

    def before(self, step: int, epoch: int, batch: Batch, detector: Detector) -> Action:
        """Look at a batch before the forward pass; anything but "go" says that it must not be made.

        Only labels and shapes count here, which would raise an error in the loss rather than make it nan; all else
        waits for `examine`, where the step tells what came of it.
        """
        size = detector.size if self.size_of is None else self.size_of(step - 1)
        faults = check_before(batch, detector.classes, size)
        if not faults:
            astray = self.samples.look(step, batch)
            self.unread += [astray] if astray else []
            return "go"
        evidence = Evidence(step, epoch, [], math.nan, {}, {}, [], len(batch), {}, None, _size(batch))
        scene = self._scene(evidence, detector, faults, [batch])
        entry = self.ring.add(evidence, [batch], [BoxTable.of(batch.annotations)])
        return self._incident(scene, entry, "batch")

    def examine(self, evidence: Evidence, detector: Detector) -> Action:
        """What becomes of a step: "go", or by the guard's word "skip", "stop" or "rollback"."""
        tables = [BoxTable.of(one.batch.annotations) for one in evidence.passes]
        entry = self.ring.add(evidence, [one.batch for one in evidence.passes], tables)
        faults = self._faults(evidence, detector, tables)
        kind = self._kind(evidence, detector, faults)
        spikes: list[Spike] = []
        if kind is None:
            spikes = self._spikes(entry, evidence)
            if self.guard.spike == "report" and self._goes_on(spikes):
                spikes = []
            kind = "spike" if spikes else ("odd-batch" if self._new(faults, evidence) else None)
        if kind is None:
            return "go"
        return self._incident(self._scene(evidence, detector, faults), entry, kind, spikes)

    def done(self, evidence: Evidence, seconds: Mapping[str, float]) -> None:
        """Take in what only shows after the step: its update norm and how long it took."""
        entry = self.ring.entries[-1] if self.ring.entries else None
        if entry is not None and entry.step == evidence.step:
            entry.update_norm = evidence.update_norm
            entry.seconds = {key: round(value, 6) for key, value in seconds.items()}

    def error(self) -> DivergedError:
        """The failure of the last incident, to be raised where `examine` said "stop"."""
        if not self.incidents:
            return DivergedError(
                "another process of the run met a step that went wrong", hint="see its report in recorder/"
            )
        error = self.incidents[-1].error()
        spent = self.counts["skip"] + self.counts["rollback"]
        if spent < self.guard.most:
            return error
        said = f"{spent} steps were skipped or rolled back before, guard.most is {self.guard.most}"
        return DivergedError(error.message, problems=[*error.problems, said], hint=error.hint)

    def judged(self, detector: Detector, batch: Batch, file_of: FileOf) -> DivergedError:
        """The failure of a judgement whose answers are not finite: names tensors, or the module, and the image."""
        cause = broken_answers(detector, batch, self.precision, file_of)
        step = max((entry.step for entry in self.ring.entries), default=0)
        self.unread.append(cause.finding(step, {"incident": "judgement", "sure": cause.sure}))
        message = f"the network's answers in validation are not finite numbers after step {step}: {cause.sentence()}"
        return DivergedError(message, problems=[f"consequence: {cause.consequence}"], hint=cause.remedy)

    def take_findings(self) -> list[Finding]:
        """The findings since the last call, for the terminal."""
        taken, self.unread = self.unread, []
        return taken

    def state(self) -> dict[str, Any]:
        """What an exact resume needs, as plain data; the ring itself starts empty."""
        told = [[code, image] for code, image in sorted(self._told, key=str)]
        return {
            "counts": dict(self.counts), "spikes": self.spikes.to_dict(), "told": told, "losses": list(self.losses),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], counts: bool = True) -> None:
        """Go on from `state`. After a rollback leave `counts` as they are, or it would never be the last.

        What the recipe says holds, should it have changed since: sigmas, the length of the warm-up and of calm.
        """
        recipe = {key: getattr(self.spikes, key) for key in ("sigmas", "warmup", "calm_epoch")}
        self.spikes = Spikes.from_dict({**state["spikes"], **recipe})
        self.losses = deque(state["losses"], maxlen=self.guard.steps)
        self._told = {(code, image) for code, image in state["told"]}
        if counts:
            self.counts = {**self.counts, **state["counts"]}

    def _faults(self, evidence: Evidence, detector: Detector, tables: Sequence[BoxTable]) -> list[Fault]:
        found: list[Fault] = []
        for part, (one, rows) in enumerate(zip(evidence.passes, tables, strict=True)):
            found += [
                fault._replace(part=part) for fault in check_batch(one.batch, detector.classes, evidence.size, rows)
            ]
        return found

    def _kind(self, evidence: Evidence, detector: Detector, faults: Sequence[Fault]) -> Kind | None:
        """What went wrong for sure, if anything."""
        if evidence.grad_norm is None or not math.isfinite(evidence.loss):
            return "nan-loss"
        if not math.isfinite(evidence.grad_norm):
            if evidence.scale is None:
                return "nan-gradient"
            self.counts["overflows"] += 1
            return "overflow" if self.counts["overflows"] >= OVERFLOWS or evidence.scale < 1 else None
        self.counts["overflows"] = 0
        if any(fault.severe for fault in faults):
            return "batch"
        due = evidence.step % STATISTICS_EVERY == 1 and poisoned_statistics(detector) is not None
        return "statistics" if due else None

    def _spikes(self, entry: Entry, evidence: Evidence) -> list[Spike]:
        row = {
            "step": evidence.step, "epoch": evidence.epoch, "loss": evidence.loss, "grad_norm": evidence.grad_norm,
            "positives": sum(evidence.positives_per_level), "images": evidence.images, "lr": evidence.lr,
            "size": list(evidence.size), "stage": evidence.stage,
        }  # fmt: skip
        found, before = self.spikes.look(row), list(self.losses)
        self.losses.append(evidence.loss)
        if found or evidence.loss <= SURGE:
            return found
        usual = statistics.median(before) if before else math.inf
        stays = bool(before) and before[-1] > SURGE * usual  # told of when it came
        return [Spike("loss", evidence.loss, usual, math.inf)] if evidence.loss > SURGE * usual and not stays else []

    def _goes_on(self, spikes: Sequence[Spike]) -> bool:
        """Whether these are the spikes of the step before, which were told, and not a new one."""
        rows = [self.spikes.in_a_row[spike.what] for spike in spikes]
        return any(row > 1 for row in rows) and all(row != 1 for row in rows)

    def _new(self, faults: Sequence[Fault], evidence: Evidence) -> bool:
        """Whether a fault that is not severe is told for the first time: of each image once, and of MOST_ODD in all."""
        told = {(fault.code, evidence.passes[fault.part].batch.ids[fault.image]) for fault in faults}
        new = not told <= self._told and len(self._told) < MOST_ODD
        self._told |= told if new else set()
        return new

    def _scene(
        self, evidence: Evidence, detector: Detector, faults: Sequence[Fault], batches: Sequence[Batch] = ()
    ) -> Scene:
        history = self.ring.last(len(self.ring.entries), before=evidence.step)
        return Scene(
            evidence, detector, faults, history, self.weights, self.precision, self.file_of, self.classes, batches
        )

    def _incident(self, scene: Scene, entry: Entry, kind: Kind, spikes: Sequence[Spike] = ()) -> Action:
        start = time.perf_counter()
        diagnosis = diagnose(scene, kind)
        word = self.guard.spike if kind in ("spike", "odd-batch") else self.guard.nan
        if word == "rollback" and diagnosis.culprit.code in IN_THE_DATA:
            diagnosis.notes.append("no rollback: it would come to the same batch again, which is skipped instead")
            word = "skip"
        entry.decision = decision = self._policy(word)
        return self._take(Incident(
            entry.step, entry.epoch, kind, diagnosis, decision, entry, scene.history, files_of(scene), spikes,
            self.run, self.folder, self.mixed, self.rank, time.perf_counter() - start,
        ))  # fmt: skip

    def _policy(self, word: Literal["report", "stop", "skip", "rollback"]) -> Action:
        """The guard's word as a decision; "stop" once skips and rollbacks are used up."""
        if word == "report":
            return "go"
        if word in ("skip", "rollback"):
            if self.counts["skip"] + self.counts["rollback"] >= self.guard.most:
                return "stop"
            self.counts[word] += 1
        return word

    def _take(self, incident: Incident) -> Action:
        """Keep, tell and write an incident; a report that cannot be written is no reason to lose the first error."""
        self.incidents.append(incident)
        if self.folder is not None:
            incident.keep_apart(self.folder)
        self.unread.append(incident.finding())
        self.counts["reports"] += 1
        if self.folder is not None and (incident.decision == "stop" or self.counts["reports"] <= MOST_REPORTS):
            try:
                incident.write(self.folder)
            except (OSError, OnestageError, ValueError) as error:
                incident.diagnosis.notes.append(f"the report could not be written: {error}")
        return incident.decision


def spikes_for(recipe: Recipe, first: Leg) -> Spikes:
    """The watch on spikes for a run: it knows the warm-up of the `first` leg and when augmentation becomes calm."""
    warmup = in_steps(first.schedule.warmup or 0, first.steps)
    return Spikes(recipe.guard.sigmas, warmup=warmup, calm_epoch=recipe.calm_from)


def _size(batch: Batch) -> tuple[int, int]:
    height, width = batch.images.shape[2:]
    return int(width), int(height)
