"""What all commands share: the --json option, examples and keys on their help pages."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from onestage.cli.failures import guarded
from onestage.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout; all else goes to stderr.")]

# (key, default, meaning)
Key = tuple[str, str, str]
Examples = Sequence[tuple[str, str]]
Function = Callable[..., None]

_HELP = "_onestage_help"


def verb(
    examples: Examples = (), keys: Callable[[], Sequence[Key]] | Sequence[Key] = (), after: str = ""
) -> Callable[[Function], Function]:  # fmt: skip
    """Make a function a command: failures become exit codes, and its help page gets `examples`, `keys` and `after`.

    `examples` are (command, what it does); `keys` may be a function, called when the help page is asked for.
    """

    def decorate(function: Function) -> Function:
        command = guarded(function)
        setattr(command, _HELP, (examples, keys, after))
        return command

    return decorate


class Verb(TyperCommand):
    """A command whose help page ends with examples and the keys it takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As typer does, but a word that is nearly an option is an error, not a key; UsageError says which."""
        options = {name for parameter in self.params for name in (*parameter.opts, "--help") if name.startswith("--")}
        for word in args:
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name[2:], [option[2:] for option in options], n=1, cutoff=0.75)
            if name.startswith("--") and name not in options and near:
                raise UsageError(
                    f"{self.name} has no option {name} (did you mean --{near[0]}?)", hint=f"onestage {self.name} --help"
                )
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page to stdout."""
        super().format_help(ctx, formatter)
        examples, keys, after = getattr(self.callback, _HELP, ((), (), ""))
        from onestage.cli.pages import print_page_end

        print_page_end(examples, keys() if callable(keys) else keys, after)


class Listed(TyperGroup):
    """The verbs in the order they were registered."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in order."""
        return list(self.commands)
