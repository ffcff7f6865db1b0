"""Failures as people see them: a sentence, every problem, what to try; never a traceback."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from onestage.errors import OnestageError

INTERRUPTED = 1
_FOLDER = "onestage_folder"


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its failures told on stderr and turned into exit codes; with --json, on stdout as JSON too.

    OnestageError gives its own exit code. An interrupted command gives 1. Anything else is a fault of ours: one line
    that says where the traceback was written, and 1; with ONESTAGE_DEBUG=1 the traceback itself.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except OnestageError as error:
            raise typer.Exit(show(error, as_json)) from None
        except KeyboardInterrupt as error:
            show(OnestageError(str(error) or "interrupted"), as_json)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            raise typer.Exit(show(_explained(error), as_json)) from None

    return run


def show(error: OnestageError, as_json: bool = False) -> int:
    """Tell an error on stderr, and as JSON on stdout where that is asked for; its exit code."""
    red, plain = ("\033[1;31m", "\033[0m") if _coloured() else ("", "")
    lines = [f"{red}error:{plain} {error.message}", *(f"  - {problem}" for problem in error.problems)]
    if error.hint:
        lines.append(f"  try: {error.hint}")
    print("\n".join(lines), file=sys.stderr, flush=True)
    if _debugging() and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    if as_json:
        said = {"message": error.message, "problems": list(error.problems), "hint": error.hint}
        print(json.dumps({"error": said, "exit_code": error.exit_code}, ensure_ascii=False), flush=True)
    return error.exit_code


def show_usage_error(error: Any, words: Sequence[str]) -> int:
    """Tell what was wrong with the command line itself; 2. A bare `onestage` has shown its page, and that is all."""
    if not error.format_message():
        return 2
    verb = next((word for word in words if not word.startswith("-")), "")
    context = getattr(error, "ctx", None)
    known = verb if context is not None and context.info_name == verb else ""
    message = error.format_message().rstrip(".")
    told = OnestageError(message[:1].lower() + message[1:], hint=" ".join(f"onestage {known} --help".split()))
    show(told, False)
    if "--json" in words:
        said: dict[str, Any] = {"message": told.message, "problems": [], "hint": told.hint}
        print(json.dumps({"error": said, "exit_code": 2}, ensure_ascii=False))
    return 2


def belongs_to(error: BaseException, folder: Path) -> None:
    """Name the folder where the traceback of an unexpected error is to be written."""
    setattr(error, _FOLDER, folder)


def _explained(error: Exception) -> OnestageError:
    """An error nobody foresaw as one line; a missing part of the installation and a full disk are named."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ("torch", "lightning_fabric"):
        told = OnestageError(
            f"this needs {(error.name or '').partition('.')[0]}, which is not installed",
            hint="pip install 'onestage[train]'",
        )
    elif isinstance(error, MemoryError):
        told = OnestageError("the memory of this machine is exhausted", hint="a smaller batch or size, or cache=false")
    else:
        told = OnestageError(
            f"an unforeseen {type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else 'no message'}",
            hint=f"the traceback is in {_write_traceback(error)}; please report it",
        )
    told.__cause__ = error
    return told


def _write_traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    for folder in (getattr(error, _FOLDER, None), Path(tempfile.gettempdir())):
        if folder is None:
            continue
        try:
            descriptor, name = tempfile.mkstemp(prefix="traceback-", suffix=".txt", dir=folder)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return name
    return "no file, for none could be written; ONESTAGE_DEBUG=1 shows it"


def _debugging() -> bool:
    return os.environ.get("ONESTAGE_DEBUG", "") not in ("", "0")


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
