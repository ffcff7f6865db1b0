"""A training run on the terminal: one bar where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.status import Status
from rich.text import Text

from onestage.cli.findings import counted, explain_findings, show_findings
from onestage.cli.groups import how_many, show_groups
from onestage.cli.level_table import LevelTable
from onestage.cli.pace import Pace, clock
from onestage.cli.terminal import Terminal
from onestage.evaluation import Evaluation
from onestage.experiments.curves import line
from onestage.experiments.filtered import Filtered
from onestage.experiments.levels import levels_in
from onestage.experiments.run import Run
from onestage.records import Finding
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import Plan
from onestage.training.watcher import Watcher

# A plain line is written after so many steps, or so many seconds, whichever comes first.
LINE_STEPS, LINE_SECONDS = 20, 10.0


class TerminalWatcher(Watcher):
    """Tells a run's course on a terminal or into a log."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.run: Run | None = None
        self.step = 0
        self._live: Live | None = None
        self._status: Status | None = None

    def prepare(self) -> None:
        """Say that the run is being made ready, until it is planned."""
        what = "reading the data, building the model, trying precisions"
        if self.terminal.live:
            self._status = self.terminal.console.status(what)
            self._status.start()
        else:
            self.terminal.say(what)

    def planned(self, run: Run, plan: Plan, resumed_at: int) -> None:
        """Say what the data was taken for, what was chosen, where the run lies."""
        self.run, self.plan, self.step = run, plan, resumed_at
        recipe = plan.recipe
        epochs, every = int(recipe.epochs or 1), int(recipe.validation.every or 1)
        done = resumed_at // plan.steps_per_epoch
        judgements = sum((e + 1) % every == 0 or e + 1 == epochs for e in range(done, epochs))
        self.pace = Pace(plan.steps, judgements + 1, len(plan.opened.val))
        self.levels = LevelTable(levels_in(run.info))
        self._end_status()
        self._introduce(run, plan, resumed_at)
        self._since_line = self._stepped_at = time.perf_counter()
        if self.terminal.live:
            self._start_bar(resumed_at)

    def told(self, notes: Sequence[str]) -> None:
        """One line for each note, before the run goes on."""
        self._end_status()
        for note in notes:
            self.terminal.say(note, style="yellow")

    def stopping(self, by: str) -> None:
        """Say that the run stops soon."""
        what = "stopping after this step" if by == "SIGINT" else f"{by}: stopping after this step"
        self.terminal.say(f"{what}; once more to stop at once", style="yellow")

    def stepped(self, record: StepRecord, plan: Plan) -> None:
        """Count a step."""
        self.step = record.step
        self.pace.stepped(record)
        self.levels.add(record)
        if self.levels.is_due:
            self.levels.show(self.terminal)
        self._stepped_at = time.perf_counter()
        if self._live is not None:
            self._draw(record)
        elif self._line_is_due(record):
            self._since_line = self._stepped_at
            head = f"epoch {record.epoch + 1}/{plan.recipe.epochs} step {record.step}/{plan.steps}"
            self.terminal.say(f"{head}  {self._numbers(record)}  eta {clock(self.pace.seconds_left())}")

    def logged(self, lines: Sequence[str]) -> None:
        """The lines of another program's log, as they are."""
        for text in lines:
            self.terminal.say(text)

    def found(self, finding: Finding) -> None:
        """One line for what was found in the training."""
        self.terminal.say(line(finding), style="red" if finding.severity == "error" else "yellow")

    def judging(self, done: int, total: int) -> None:
        """Show how far the judging is."""
        if self._live is not None:
            self._details.plain = f"judging {done} of {total} validation images"

    def evaluated(self, row: Mapping[str, Any], best: bool) -> None:
        """One line per evaluation, and what the levels of the network did since the last."""
        self.pace.evaluated(time.perf_counter() - self._stepped_at)
        words = [f"epoch {row['epoch']}/{self.plan.recipe.epochs}"]
        names = dict.fromkeys(("mAP50", "mAP50-95", self.plan.recipe.validation.metric))
        words += [f"{name} {_number(row[f'metrics/{name}'])}" for name in names]
        words += [f"after {clock(row['time'])}", "best so far" if best else ""]
        self.terminal.say("evaluation  " + "  ".join(words).rstrip(), style="green" if best else None)
        self.levels.show(self.terminal)

    def finished(self, run: Run, evaluation: Evaluation) -> None:
        """Take the bar away; say what augmentation left out."""
        self.close()
        if filtered := run.info.get("filtered"):
            self.terminal.say(f"augmentation: {Filtered(**filtered)}")

    def close(self) -> None:
        """Take the bar away; may be called twice."""
        self._end_status()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _introduce(self, run: Run, plan: Plan, resumed_at: int) -> None:
        recipe, findings = plan.recipe, plan.opened.findings
        facts = [("data", plan.opened.described)]
        if findings:
            facts.append(("findings", f"{counted(findings)}; the list is in {run.folder / 'findings.json'}"))
        width, height = plan.detector.size
        parameters = sum(p.numel() for p in plan.detector.parameters()) / 1e6
        called = run.info.get("model", {}).get("cfg") or recipe.model
        start = f"weights of the state after step {resumed_at}" if resumed_at else f"{plan.report}"
        facts.append(("model", f"{called}, {parameters:.1f} M parameters, input {width}x{height}; {start}"))
        facts += weights_notes(plan)
        if any(level.layer is not None for level in self.levels.levels):
            facts += [("level", level.words) for level in self.levels.levels]
        facts += [("chosen", sentence) for sentence in choices(plan)]
        where = f"{run.folder}" + (f", going on after step {resumed_at}" if resumed_at else "")
        self.terminal.facts([*facts, ("run", where)])
        show_findings(self.terminal, [finding for finding in findings if finding.severity != "note"], most=5)
        show_groups(self.terminal, plan)
        explain_findings(self.terminal, plan.foresight)

    def _start_bar(self, resumed_at: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"),
            console=self.terminal.console, expand=True,
        )  # fmt: skip
        self._task = self._bar.add_task("epoch 1", total=self.plan.steps, completed=resumed_at, eta="")
        self._details = Text("", style="dim", no_wrap=True, overflow="ellipsis")
        self._live = Live(
            Group(self._bar, self._details), console=self.terminal.console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def _draw(self, record: StepRecord) -> None:
        self._bar.update(
            self._task, completed=record.step, description=f"epoch {record.epoch + 1}/{self.plan.recipe.epochs}",
            eta=f"eta {clock(self.pace.seconds_left())}",
        )  # fmt: skip
        self._details.plain = self._numbers(record)

    def _line_is_due(self, record: StepRecord) -> bool:
        waited = self._stepped_at - self._since_line
        return record.step % LINE_STEPS == 0 or waited >= LINE_SECONDS or record.step == self.plan.steps

    def _numbers(self, record: StepRecord) -> str:
        losses = " ".join(f"{name} {value:.3f}" for name, value in self.pace.losses.items())
        return (
            f"{losses}  {self.pace.positives:.0f} positives/image  lr {max(record.lr.values()):.2e}  "
            f"{self.pace.images_per_second:.1f} images/s  data wait {self.pace.data_share:.0%}"
        )


def weights_notes(plan: Plan) -> list[tuple[str, str]]:
    """What is to be known of the first weights, a sentence each; `onestage weights show` tells all of it."""
    return [("weights", note.partition(". ")[0]) for note in plan.report.notes]


def choices(plan: Plan) -> list[str]:
    """What the recipe left open and was chosen, in words."""
    recipe = plan.recipe
    seen = plan.steps * min(recipe.batch, len(plan.opened.train))
    few = len(plan.opened.train) < recipe.batch
    words = [
        f"{how_many(recipe.epochs or 0, 'epoch')} of {how_many(plan.steps_per_epoch, 'step')}, {seen:,} images in all; "
        f"judged every {how_many(recipe.validation.every or 1, 'epoch')}"
    ]
    if few:
        words.append(f"batch={recipe.batch} is more than there are images: a step has {len(plan.opened.train)}")
    if plan.steps % plan.steps_per_epoch:
        words.append(f"the last epoch ends after {plan.steps} steps in all")
    measured = {name.removeprefix("step_"): seconds for name, seconds in plan.measured.items()}
    timed = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in measured.items())
    words.append(f"{recipe.precision} on {plan.device}" + (f" (a step took {timed})" if timed else ""))
    if recipe.freeze:
        words.append(f"frozen: {', '.join(recipe.freeze)}")
    return words


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) and value == value else "–"
