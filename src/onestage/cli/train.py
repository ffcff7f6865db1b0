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
    from onestage.training.watcher import Watcher

EXAMPLES = (
    ("train data=trees", "train the default model on the sample data set, with defaults for all else"),
    ("train data=photos/ model=ssd300 epochs=40 optimiser.lr=5e-4", "your own folder: VOC, COCO or YOLO annotations"),
    ("train data=obj.data model=yolov3-custom.cfg", "a cfg of darknet, as its [net] says"),
    ("train recipe.yaml seed=1 name=second-try", "a recipe file, with changes"),
    ("train data=photos/ --dry-run", "what it would do and take, and its first batch as a picture; trains nothing"),
    ("train --resume ssd-lite0-trees-001", "go on with a run that was stopped or killed, from its last saved state"),
    ("train --resume ssd-lite0-trees-001 epochs=60", "make a run longer, finished or not; recorded in run.json"),
)
AFTER = (
    "A model may set other defaults for these keys; --dry-run shows what would run. Interrupting (Ctrl-C, SIGTERM) "
    "saves the state after the step and exits with 1; the run's status is then `stopped`. A run killed at any moment "
    "goes on with --resume as if nothing had happened; docs/resume.md says which keys may change then. Runs go to "
    "./runs or $ONESTAGE_RUNS."
)


def _keys() -> list[tuple[str, str, str]]:
    from onestage.training.recipe import describe_keys

    return describe_keys()


Words = Annotated[
    list[str] | None, typer.Argument(metavar="[RECIPE.yaml] data=… [key=value …]", show_default=False)
]  # fmt: skip
Resume = Annotated[
    str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run; key=value changes it from here on.")
]  # fmt: skip
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the recipe, the time, memory and disk it takes, and the first batch.")
]  # fmt: skip
Picture = Annotated[
    str | None,
    typer.Option("--picture", metavar="PATH", help="With --dry-run: where its picture goes. [default: dry-run.png]"),
]  # fmt: skip


@verb(EXAMPLES, _keys, AFTER)
def train(
    words: Words = None, resume: Resume = None, dry_run: DryRun = False, picture: Picture = None, as_json: Json = False
) -> None:  # fmt: skip
    """Train a detector and judge it: a recipe in, a run folder with weights, scores and report.html out."""
    from onestage.cli.following import follow
    from onestage.cli.terminal import Terminal
    from onestage.training.devices.launch import placed

    terminal = Terminal(as_json)
    _fit_together(resume, dry_run, picture)
    place = placed()
    if place is not None and place.rank > 0:  # one of several processes, of which the first speaks
        if not dry_run:
            follow(words, resume, place.rank)
        return
    if resume is not None:
        _resume(terminal, resume, words)
        return
    keys = recipe_keys(words)
    if dry_run:
        from onestage.cli.dry_run import show_plan

        show_plan(terminal, keys, picture)
        return
    run = train_and_report(terminal, keys)
    terminal.result(summary(run))


def _fit_together(resume: str | None, dry_run: bool, picture: str | None) -> None:
    """UsageError for options that say nothing together."""
    from onestage.errors import UsageError

    if dry_run and resume is not None:
        raise UsageError(
            "--dry-run shows a run that is to begin, --resume goes on with one", hint="one of them at a time"
        )
    if picture is not None and not dry_run:
        raise UsageError("--picture is of the first batch that --dry-run shows", hint="--dry-run --picture PATH")


def recipe_keys(words: Sequence[str] | None) -> dict[str, Any]:
    """The recipe that a command line names: a file's keys, then those of the line."""
    from onestage.cli.words import at_most, split_words
    from onestage.training.recipe.keys import read_recipe

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
    from onestage.cli.words import split_words
    from onestage.errors import UsageError
    from onestage.experiments.run import Run

    places, keys = split_words(words)
    if places:
        raise UsageError(
            f"--resume takes one run, and keys: got {', '.join(map(repr, places))} besides",
            hint=f"onestage train --resume {name} key=value; a recipe file starts a new run",
        )
    run = Run.open(name)
    if run.info.get("status") == "finished" and not keys:
        _tell_finished(terminal, run)
        return
    with terminal.waiting("loading torch"):
        from onestage.training.fit import resume

    terminal.result(summary(_watched(terminal, lambda watcher: resume(run, keys, watcher=watcher))))


def _tell_finished(terminal: Terminal, run: Run) -> None:
    """A run that is done: its scores, and how it can be made longer."""
    from onestage.cli.scores import show_scores

    unit = "steps" if run.recipe.get("steps") else "epochs"
    length = run.recipe.get(unit)
    terminal.say(
        f"run {run.name} is finished: nothing to go on with. To make it longer: "
        f"onestage train --resume {run.name} {unit}={2 * length if isinstance(length, int) else 'MORE'}"
    )
    terminal.say()
    show_scores(terminal, run.metrics)
    terminal.facts([("run", str(run.folder)), ("report", str(run.report_path))])
    terminal.result(summary(run))


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
        from onestage.training.saving.state import saved_steps

        saved = max(saved_steps(watcher.run), default=0)
        kept = "the state is saved" if saved == watcher.step else f"the state after step {saved} is saved"
        raise KeyboardInterrupt(
            f"stopped after step {watcher.step}; {kept}. Go on with: onestage train --resume {watcher.run.name}"
        ) from None


def _report(run: Run) -> Path:
    from onestage.report.page import write_report

    return write_report(run)


def summary(run: Run) -> dict[str, Any]:
    """A finished run for machines: where it lies and every metric, without the curves."""
    metrics = {key: value for key, value in run.metrics.items() if key != "curves"}
    info = run.info
    return {
        "name": run.name, "folder": str(run.folder), "report": str(run.report_path), "status": info.get("status"),
        "best": info.get("best"), "seconds": info.get("seconds"), "metrics": metrics,
    }  # fmt: skip
