"""What the tests of training share: two processes that stay for the session, runs in processes that are killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import small_model
from drawn import benchmark
from two_processes import Pair

import forked
from onestage import models


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """`ssd-small` and `ssd-plain` among the models, while tests of this folder run."""
    with patch.dict(models.MODELS):
        small_model.register()
        yield


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="session")
def kills() -> ModuleType:
    """The module benchmarks/kills.py; what it starts is forked, but for runs in peace, of another interpreter."""
    module = benchmark("kills")
    start = module.start

    def started(folder: Path, *words: str) -> Any:
        if "name=peace" in words:
            return start(folder, *words)
        own = {"ONESTAGE_RUNS": str(folder), "ONESTAGE_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return forked.onestage(("train", *words), {**os.environ, **own}, folder, before=small_model.register)

    module.start = started  # type: ignore[attr-defined]
    return module
