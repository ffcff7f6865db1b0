"""The runtimes' packages: imported when they are needed, and told in words when they are missing."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from onestage.errors import ModelError

EXTRA = 'pip install "onestage[export]"'


def package(name: str, purpose: str) -> Any:
    """The package of that name; ModelError where it is not installed, saying what it was for and how to get it."""
    _keep_silent()
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"{purpose} needs the package {name}, which cannot be imported: {error}", hint=EXTRA) from None


def _keep_silent() -> None:
    """Both runtimes report their use to a server if they are let: see that they are not, before they are imported.

    OpenVINO does when it reads a model and finds the package for it: it shall find none. onnxruntime (1.31, on Linux
    too) does unless the environment says otherwise, and its function to switch it off comes too late. Where someone
    imported one of them before, or set the variable, that is theirs to decide.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
