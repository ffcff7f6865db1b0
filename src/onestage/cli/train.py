"""`onestage train`: a recipe in, a judged run folder out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.failures import belongs_to
from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.experiments.run import Run
    from onestage.training.fit import Watcher

EXAMPLES = (
    ("train data=trees", "train the default model on the sample data set, with defaults for all else"),
    ("train data=photos/ model=ssd300 epochs=40 optimiser.lr=5e-4", "your own folder: VOC, COCO or YOLO annotations"),
    ("train recipe.yaml seed=1 name=second-try", "a recipe file, with changes"),
    ("train data=photos/ --dry-run", "the complete recipe and the number of steps, without training"),
    ("train --resume ssd-lite0-trees-001", "go on with a run that was stopped, from its last saved state"),
)
AFTER = (
    "A model may set other defaults for these keys; --dry-run shows what would run. Interrupting (Ctrl-C) saves the "
    "state after the step and exits with 1; the run's status is then `stopped`. Runs go to ./runs or $ONESTAGE_RUNS."
)


def _keys() -> list[tuple[str, str, str]]:
    from onestage.training.recipe import describe_keys

    return describe_keys()


Words = Annotated[
    list[str] | None, typer.Argument(metavar="[RECIPE.yaml] data=… [key=value …]", show_default=False)
]  # fmt: skip
Resume = Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with a stopped run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the complete recipe and the steps; train nothing.")]


@verb(EXAMPLES, _keys, AFTER)
def train(words: Words = None, resume: Resume = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Train a detector and judge it: a recipe in, a run folder with weights, scores and report.html out."""
    from onestage.cli.terminal import Terminal

    terminal = Terminal(as_json)
    if resume is not None:
        _resume(terminal, resume, words)
        return
    keys = recipe_keys(words)
    if dry_run:
        _show_plan(terminal, keys)
        return
    run = train_and_report(terminal, keys)
    terminal.result(summary(run))


def recipe_keys(words: Sequence[str] | None) -> dict[str, Any]:
    """The recipe that a command line names: a file's keys, then those of the line."""
    from onestage.cli.words import at_most, split_words
    from onestage.training.keys import read_recipe

    places, keys = split_words(words)
    at_most("train", places, 1, "recipe file")
    return {**(read_recipe(Path(places[0])) if places else {}), **keys}


def train_and_report(terminal: Terminal, keys: Mapping[str, Any], prefix: str | None = None) -> Run:
    """Train with progress on the terminal, print the scores, write the report."""
    from onestage.training.recipe import build

    build(keys)  # a misspelt key is told before torch is loaded
    with terminal.waiting("loading torch"):
        from onestage.training.fit import fit

    return _watched(terminal, lambda watcher: fit(keys, watcher=watcher, prefix=prefix))


def _resume(terminal: Terminal, name: str, words: Sequence[str] | None) -> None:
    from onestage.errors import UsageError
    from onestage.experiments.run import Run

    if words:
        raise UsageError(
            "--resume takes no further words: a run goes on as its recipe says", problems=[repr(w) for w in words],
            hint="to change something, start a new run: onestage train "
            f"{Run.open(name).folder / 'recipe.yaml'} {' '.join(words)}",
        )  # fmt: skip
    run = Run.open(name)
    with terminal.waiting("loading torch"):
        from onestage.training.fit import resume

    terminal.result(summary(_watched(terminal, lambda watcher: resume(run, watcher=watcher))))


def _watched(terminal: Terminal, work: Callable[[Watcher], Run]) -> Run:
    from onestage.cli.scores import show_scores
    from onestage.cli.watcher import TerminalWatcher

    watcher = TerminalWatcher(terminal)
    watcher.prepare()
    try:
        with _stoppable(watcher):
            run = work(watcher)
    except Exception as error:
        if watcher.run is not None:
            belongs_to(error, watcher.run.folder)
            with contextlib.suppress(Exception):  # the first error is what must be told
                _report(watcher.run)
                terminal.say(f"the run up to here: {watcher.run.report_path}")
        raise
    finally:
        watcher.close()
    terminal.say()
    show_scores(terminal, run.metrics)
    page = _report(run)
    terminal.facts([("run", str(run.folder)), ("report", str(page))])
    return run


@contextlib.contextmanager
def _stoppable(watcher: Any) -> Iterator[None]:
    """An interrupt told with the way to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if watcher.run is None:
            raise KeyboardInterrupt("stopped before the first step; nothing was saved") from None
        raise KeyboardInterrupt(
            f"stopped after step {watcher.step}; the state is saved. Go on with: "
            f"onestage train --resume {watcher.run.name}"
        ) from None


def _report(run: Run) -> Path:
    from onestage.report.page import write_report

    return write_report(run)


def _show_plan(terminal: Terminal, keys: Mapping[str, Any]) -> None:
    import yaml

    from onestage.training.recipe import build

    build(keys)
    from onestage.cli.groups import show_groups
    from onestage.cli.watcher import choices
    from onestage.training.plan import ask, make_plan

    plan = make_plan(ask(keys))
    terminal.facts([("data", plan.opened.described), *(("chosen", words) for words in choices(plan))])
    terminal.say()
    terminal.say(yaml.safe_dump(plan.recipe.as_dict(), sort_keys=False, allow_unicode=True).rstrip())
    terminal.say()
    show_groups(terminal, plan)
    terminal.say(f"{plan.steps} steps, {plan.steps_per_epoch} in each of {plan.recipe.epochs} epochs; nothing was run")
    findings = [finding.as_dict() for finding in plan.opened.findings]
    terminal.result({
        "recipe": plan.recipe.as_dict(), "steps": plan.steps, "steps_per_epoch": plan.steps_per_epoch,
        "data": plan.opened.described, "findings": findings, "weights": plan.report.as_dict(),
        "measured": plan.measured, "foresight": [finding.as_dict() for finding in plan.foresight],
        "groups": [{"stage": leg.name, "groups": [row.as_dict() for row in rows]} for leg, rows in plan.groups],
    })  # fmt: skip


def summary(run: Run) -> dict[str, Any]:
    """A finished run for machines: where it lies and every metric, without the curves."""
    metrics = {key: value for key, value in run.metrics.items() if key != "curves"}
    info = run.info
    return {
        "name": run.name, "folder": str(run.folder), "report": str(run.report_path), "status": info.get("status"),
        "best": info.get("best"), "seconds": info.get("seconds"), "metrics": metrics,
    }  # fmt: skip
