"""What the tests of training share: two processes that stay for the session, runs in processes that are killed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import small_model
from two_processes import Pair


from onestage import models


@pytest.fixture(scope="session", autouse=True)
def _small() -> Iterator[None]:
    """`ssd-small` among the models."""
    models.MODELS["ssd-small"] = small_model.WORDS
    yield
    del models.MODELS["ssd-small"]


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="session")
def kills() -> ModuleType:
    """The module benchmarks/kills.py."""
    place = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
