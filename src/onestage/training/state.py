"""What exact resume needs, saved whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from onestage.errors import ModelError
from onestage.experiments.run import Run

STATE = "state/last.pt"


def save_state(run: Run, state: dict[str, Any]) -> None:
    """Write the training state into the run folder; a crash or a full disk leaves the previous one usable."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    run.write_file(STATE, buffer.getvalue())


def load_state(run: Run) -> dict[str, Any]:
    """The state of `save_state`; tensors, numbers and text only. ModelError where there is none to go on from."""
    path = Path(run.folder) / STATE
    if not path.is_file():
        raise ModelError(f"run {run.name} has no saved state to go on from", hint="start it again under a new name")
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"{path} cannot be read: {reason}", hint="start the run again under a new name") from error
    return state
