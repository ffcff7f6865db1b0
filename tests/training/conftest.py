"""What the tests of training share: two processes that stay for the session, runs in processes that are killed."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import small_model
from two_processes import Pair

import forked
from onestage import models


@pytest.fixture(scope="session", autouse=True)
def _small() -> Iterator[None]:
    """`ssd-small` among the models."""
    small_model.register()
    yield
    del models.MODELS["ssd-small"]


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="session")
def kills() -> ModuleType:
    """The module benchmarks/kills.py; what it starts is forked, but for runs in peace, of another interpreter."""
    place = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    start = module.start

    def started(folder: Path, *words: str) -> Any:
        if "name=peace" in words:
            return start(folder, *words)
        own = {"ONESTAGE_RUNS": str(folder), "ONESTAGE_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return forked.onestage(("train", *words), {**os.environ, **own}, folder, before=small_model.register)

    module.start = started  # type: ignore[attr-defined]
    return module
