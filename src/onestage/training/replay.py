"""One step of a run done again, bit for bit, from the nearest saved state or from the start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from onestage.errors import DivergedError, ModelError, UsageError
from onestage.experiments.run import Run
from onestage.experiments.segments import done_by, facts, inexact
from onestage.models.detector import Detector
from onestage.records import Batch, ImageId
from onestage.training.contributions import Contributions, contributions
from onestage.training.devices.machine import choose_device, environment
from onestage.training.loop.evidence import Action, Evidence
from onestage.training.loop.loop import RollBack
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import Plan, make_plan
from onestage.training.saving.state import load_state
from onestage.training.saving.stretches import Stretch, stretches
from onestage.training.session import Session
from onestage.training.watcher import Watcher

# Rows of steps.jsonl hold these too; they are the clock's and the machine's, not the step's.
UNLIKE = ("time", "seconds", "memory", "disk_free")
Progress = Callable[[int, int], None]


@dataclass
class Replayed:
    """A step done again: the row it gives now, the one recorded, how they differ, and what the step was made of.

    `start` is the step after which the state lay that was gone on from (0: the start of the run). `differences` is
    empty where every recorded value came again, bit for bit; `reasons` say why it need not have. `batches` are the
    micro-batches as the network saw them; `files` gives each image's path, `detector` is the model before the step.
    """

    step: int
    epoch: int
    start: int
    row: dict[str, Any]
    recorded: dict[str, Any] | None
    contributions: Contributions
    batches: list[Batch]
    detector: Detector
    classes: tuple[str, ...]
    files: dict[ImageId, Path]
    differences: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether the step is the original one, bit for bit, as far as it was recorded."""
        return self.recorded is not None and not self.differences

    def as_dict(self) -> dict[str, Any]:
        """As replay.json keeps it."""
        told = self.contributions.as_dict()
        for image in told["images"]:
            image["file"] = str(self.files[image["id"]])
        return {
            "step": self.step, "epoch": self.epoch, "from_step": self.start, "identical": self.identical,
            "differences": self.differences, "reasons": self.reasons, "row": self.row, "recorded": self.recorded,
            **told,
        }  # fmt: skip


def replay(run: Run, step: int, progress: Progress | None = None) -> Replayed:
    """Do step `step` (from 1) of the run again and take it apart; nothing of the run is changed.

    `progress(done, total)` is told how many steps on the way are done. UsageError where the run never did that step.
    """
    recorded = next((row for row in run.steps if row["step"] == step), None)
    _refuse_undone(run, step, recorded)
    segment = done_by(run.info, step)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(segment.get("threads") or threads))
    try:
        return _replayed(run, step, recorded, segment, progress)
    finally:
        torch.set_num_threads(threads)


def _replayed(
    run: Run, step: int, recorded: dict[str, Any] | None, segment: Mapping[str, Any], progress: Progress | None
) -> Replayed:  # fmt: skip
    try:
        saved = load_state(run, at_most=step - 1)
    except ModelError:  # no state is whole: the start of the run needs none
        saved = None
    start = 0 if saved is None else saved.step
    pieces = {row["step"]: int(row["accumulate"]) for row in run.steps if "accumulate" in row}
    state: Mapping[str, Any] | None = None if saved is None else saved.state
    for stretch in stretches(run, start, step):
        session = _opened(run, stretch, state)
        witness = _Witness(session, step, pieces)
        try:
            for record in steps(session, stretch.last):
                if progress is not None:
                    progress(record.step - start, step - start)
        except RollBack:
            raise UsageError(
                f"the run went back to an earlier state after step {session.loop.step}, which a replay cannot follow",
                hint="replay the step that was reported, or one after the next saved state",
            ) from None
        finally:
            session.feed.close()
            session.judge.close()
        state = {"loop": session.loop.state(), "recorder": session.recorder.state()}
    return _told(start, record, recorded, session.plan, witness, segment)


def steps(session: Session, until: int) -> Iterator[StepRecord]:
    """The steps of a session up to and with `until`, judging and saving nothing."""
    while session.loop.step < until:
        epoch, done = divmod(session.loop.step, session.plan.steps_per_epoch)
        for record in session.epoch(epoch, done):
            session.complete(record)
            yield record
            if record.step >= until:
                return


def _refuse_undone(run: Run, step: int, recorded: Mapping[str, Any] | None) -> None:
    done = run.steps
    last = int(done[-1]["step"]) if done else 0
    if step < 1 or (recorded is None and step > last + 1):
        raise UsageError(
            f"run {run.name} has no step {step}: {f'its steps are 1 to {last}' if last else 'it did none'}",
            hint="the step as steps.jsonl, the report or an incident names it",
        )


def _opened(run: Run, stretch: Stretch, state: Mapping[str, Any] | None) -> Session:
    """A session at the stretch's first step; it writes nothing."""
    recipe = stretch.recipe.changed({"workers": 0})
    try:
        choose_device(recipe.device)
    except UsageError:  # replayed on another machine
        recipe = recipe.changed({"device": None})
    session = Session(run, make_plan(recipe, weights=state is None), Watcher())
    session.recorder.folder = None  # its reports are written already
    if state is None:
        session.loop.enter(session.legs[0])
    else:
        session.loop.restore(state["loop"], session.legs[state["loop"]["leg"]])
        session.lookout.enter(session.plan.detector, session.loop.frozen)
        session.recorder.restore(state["recorder"])
    if session.loop.step != stretch.first:
        raise ModelError(f"run {run.name} has no state to come to step {stretch.last} from", hint="replay a later step")
    return session


class _Witness:
    """Looks at one step for the replay and lets the loop's own observer decide; a stop there ends nothing."""

    def __init__(self, session: Session, step: int, pieces: Mapping[int, int]) -> None:
        self.loop, self.step, self.inner = session.loop, step, session.loop.observer
        self.pieces = pieces  # steps at which memory had run out, and into how many micro-batches they were cut
        self.went_back = False  # so did the run after this step
        self.seen = Contributions((), (), {})
        self.batches: list[Batch] = []
        session.loop.observer = self

    def before(self, step: int, epoch: int, batch: Batch, detector: Detector) -> Action:
        self.loop.accumulate = self.pieces.get(step, self.loop.accumulate)
        if step == self.step:
            self.batches = [batch]
        return self._softened(self.inner.before(step, epoch, batch, detector), step)

    def examine(self, evidence: Evidence, detector: Detector) -> Action:
        if evidence.step == self.step:
            self.batches = [one.batch for one in evidence.passes]
            self.seen = contributions(evidence, detector, self.loop.engine, self.loop.weights)
        return self._softened(self.inner.examine(evidence, detector), evidence.step)

    def _softened(self, action: Action, step: int) -> Action:
        self.went_back = action == "rollback"
        return "skip" if step == self.step and action != "go" else action

    def done(self, evidence: Evidence, seconds: Mapping[str, float]) -> None:
        self.inner.done(evidence, seconds)

    def error(self) -> DivergedError:
        return self.inner.error()


def _told(
    start: int, record: StepRecord, recorded: dict[str, Any] | None, plan: Plan, witness: _Witness,
    segment: Mapping[str, Any],
) -> Replayed:  # fmt: skip
    row = record.as_row(0.0)
    now = facts(environment(plan.device, str(plan.recipe.precision), {}))
    differences = [] if recorded is None else differing(recorded, row)
    reasons = inexact(segment, now)
    if witness.went_back:
        reasons.append(
            "after this step the run went back to an earlier state and did it again, as recorded; shown is the step it "
            "went back from"
        )
    return Replayed(
        record.step, record.epoch, start, {key: row[key] for key in row if key not in UNLIKE}, recorded, witness.seen,
        witness.batches, plan.detector, tuple(plan.opened.classes),
        {image.id: image.path for image in plan.opened.train.images}, differences,
        reasons if differences else [],
    )  # fmt: skip


def differing(recorded: Mapping[str, Any], row: Mapping[str, Any], path: str = "") -> list[str]:
    """Which values of a row of steps.jsonl are not those of another, with both; the clock's and the machine's apart."""
    found = []
    for key in [*recorded, *(key for key in row if key not in recorded)]:
        before, now = recorded.get(key), row.get(key)
        if not path and key in UNLIKE:
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differing(before, now, f"{path}{key}.")
        elif not _same(before, now):
            found.append(f"{path}{key}: {before} recorded, {now} now")
    return found


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)
