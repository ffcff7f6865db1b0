"""The roof: one short command per file; parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from onestage.cli.failures import show, show_usage_error
from onestage.cli.verb import Listed, Verb
from onestage.errors import OnestageError

# Every verb in the order of the help page; `onestage.cli.<verb>` holds the function of the same name.
VERBS = ("demo", "train", "replay", "val", "compare", "predict", "runs", "data", "weights", "report")

app = typer.Typer(
    name="onestage", cls=Listed, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        from onestage import __version__

        typer.echo(f"onestage {__version__}")
        raise typer.Exit


@app.callback()
def _onestage(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Trains one-stage object detectors and tells why they work or fail."""


def _register() -> None:
    # Words that are no option reach the verb as they stand: key=value, --key value and --key=value are one thing.
    settings = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
    for verb in VERBS:
        function = getattr(import_module(f"onestage.cli.{verb}"), verb)
        app.command(verb, cls=Verb, context_settings=settings)(function)


_register()


def run(words: Sequence[str]) -> int:
    """Carry out one command line; its exit code. Raises nothing but SystemExit for shell completion."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(words), prog_name="onestage", standalone_mode=False)
    except KeyboardInterrupt:
        return 1
    except OnestageError as error:
        return show(error, "--json" in words)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return show_usage_error(error, words)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console entry `onestage`."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went: nothing is left to say, and the interpreter must not try again
        sys.stdout = None
    sys.exit(code)
