"""The command line called in this process, and in one of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Answer, Command, discs, environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`here("runs", "ls")` is `onestage runs ls` within this process; runs go to tmp_path/runs."""
    from onestage.cli import run

    for key, value in environment(tmp_path / "runs").items():
        monkeypatch.setenv(key, value)

    def call(*words: str | Path) -> Answer:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of discs; not to be changed."""
    return discs(tmp_path_factory.mktemp("data") / "discs")
