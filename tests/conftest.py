"""What all tests share: the folder of other people's data, skipped clearly where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing about whether it is right, least of all on a busy machine.
settings.register_profile("house", settings.default, deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that lies beside the checkout; the test is skipped where there is none."""
    found = _shared_data()
    if found is None:
        pytest.skip("real data is absent: no ../shared/data beside this checkout and ONESTAGE_TEST_DATA is not set")
    return found


def _shared_data() -> Path | None:
    named = os.environ.get("ONESTAGE_TEST_DATA")
    places = [Path(named)] if named else []
    places += [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    return next((place for place in places if (place / "README.md").is_file()), None)
