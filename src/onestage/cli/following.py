"""What the further processes of a run do: train silently, and tell their failures in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from onestage.errors import OnestageError


def follow(words: Sequence[str] | None, resume: str | None, rank: int) -> None:
    """Take part in the run that the first process begins or, with `resume`, goes on with.

    Prints nothing but a failure of this process, with its rank; a failure of the first is told by the first. Raises
    typer.Exit with the failure's exit code.
    """
    from onestage.cli.train import recipe_keys
    from onestage.cli.words import split_words
    from onestage.experiments.onlooker import Onlooker
    from onestage.experiments.run import Run
    from onestage.training.devices.ranks import told_elsewhere
    from onestage.training.fit import fit
    from onestage.training.fit import resume as go_on

    try:
        if resume is None:
            fit(recipe_keys(words))
        else:
            try:
                run = Run.open(resume)
            except OnestageError:
                run = Onlooker(resume)  # the first process knows where it is, or tells that it is not
            go_on(run, split_words(words)[1])
    except OnestageError as error:
        if not told_elsewhere(error):
            print(f"rank {rank}: {error.message}", *error.problems[:1], sep="; ", file=sys.stderr, flush=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(1) from None
