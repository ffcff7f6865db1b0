"""The runtimes' packages: imported when they are needed, and told in words when they are missing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from onestage.errors import ModelError

EXTRA = 'pip install "onestage[export]"'


def package(name: str, purpose: str) -> Any:
    """The package of that name; ModelError where it is not installed, saying what it was for and how to get it."""
    if name == "openvino":
        _keep_silent()
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"{purpose} needs the package {name}, which cannot be imported: {error}", hint=EXTRA) from None


def _keep_silent() -> None:
    """OpenVINO reports its use to a server when it reads a model, if it finds the package for it: it shall find none.

    Where someone imported OpenVINO before, that is theirs to decide.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
