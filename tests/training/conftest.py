"""What the tests of training share: two processes that stay for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from two_processes import Pair


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()
