"""Every failure raised on purpose: one family tree, each with its exit code.

OnestageError                    1  run failed
├─ FetchError                    1  a download did not come, or was not what was promised
├─ StorageError                  1  the disk is full or a folder cannot be written
├─ LostRankError                 1  another process of the run has gone
├─ UsageError                    2  the command or a key was wrong
│  └─ RecipeError                2  the recipe does not add up; every problem listed
├─ DataError                     3  images or annotations cannot be used
├─ ModelError                    4  the model or its weights cannot be used
├─ ExportError                   5  an exported model could not be made or answers differently
├─ GateError                     6  a comparison was refused or a gate not passed
└─ DivergedError                 7  training left the finite numbers
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class OnestageError(Exception):
    """A failure a user can act on: what is wrong, every problem found, what to try.

    `message` is one sentence. `problems` are shown one per line beneath it. `hint` says what to try.
    """

    exit_code = 1

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class FetchError(OnestageError):
    """A file could not be fetched, or its hash was not the promised one."""


class StorageError(OnestageError):
    """A file could not be written: the disk is full or the folder is read-only."""


class LostRankError(OnestageError):
    """Another process of a run on many devices has gone, or does not answer."""


class UsageError(OnestageError):
    """The command line or an argument was wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe has unknown keys, values out of range, or keys that disable each other."""


class DataError(OnestageError):
    """A dataset is missing, empty, unreadable, or has lost more than the allowed share."""

    exit_code = 3


class ModelError(OnestageError):
    """A model name is unknown, or weights do not fit the model."""

    exit_code = 4


class ExportError(OnestageError):
    """A model could not be exported, or the export does not answer like the original."""

    exit_code = 5


class GateError(OnestageError):
    """A gate was not passed, or a comparison was refused because it would not be fair."""

    exit_code = 6


class DivergedError(OnestageError):
    """Training produced a loss, gradient or weight that is not a finite number."""

    exit_code = 7


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of an error message that names the nearest right words: ' (did you mean X?)' or ''."""
    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(choice.casefold(), choice)
    near = [folded[match] for match in difflib.get_close_matches(word.casefold(), folded, n=2, cutoff=0.6)]
    return f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""
