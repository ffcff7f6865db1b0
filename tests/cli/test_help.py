"""Help pages: what they tell, and what must not be loaded for them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import environment

from onestage.cli import VERBS, app
from onestage.cli.pages import print_page_end
from onestage.cli.train import EXAMPLES as TRAIN_EXAMPLES
from onestage.cli.val import EXAMPLES as VAL_EXAMPLES
from onestage.cli.val import KEYS as VAL_KEYS
from onestage.cli.words import split_words
from onestage.training.recipe import known_keys

HEAVY = ("torch", "lightning_fabric", "cv2", "numpy", "scipy", "plotly", "duckdb", "jinja2", "safetensors")
# Helped by the words: the recipe's own models tell its keys.
LIGHTER = (*HEAVY, "pydantic", "yaml")
REGISTERED = [command.name for command in app.registered_commands]


def loaded(words: str, modules: tuple[str, ...], tmp_path: Path) -> tuple[str, set[str]]:
    """What `onestage WORDS` prints, and which of `modules` it imported."""
    code = (
        "import sys\nfrom onestage.cli import run\n"
        f"code = run({words.split()!r})\nassert code == 0, code\n"
        f"print('LOADED', *(name for name in {modules!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    page, _, names = done.stdout.rpartition("LOADED")
    return page, set(names.split())


@pytest.mark.parametrize("words", ["--help", "--version"])
def test_the_first_answer_loads_nothing_heavy(words: str, tmp_path: Path) -> None:
    page, modules = loaded(words, LIGHTER, tmp_path)
    assert modules == set()
    assert "onestage" in page


@pytest.mark.parametrize("verb", REGISTERED)
def test_no_help_page_loads_anything_heavy(verb: str, tmp_path: Path) -> None:
    page, modules = loaded(f"{verb} --help", HEAVY, tmp_path)
    assert modules == set()
    assert f"onestage {verb}" in page
    assert "Examples" in page


@pytest.mark.parametrize("words", ["runs ls", "data ls"])
def test_tables_need_no_torch(words: str, tmp_path: Path) -> None:
    assert loaded(words, ("torch", "plotly", "duckdb"), tmp_path)[1] == set()


def test_all_verbs_are_listed_in_order(tmp_path: Path) -> None:
    page, _ = loaded("--help", (), tmp_path)
    places = [page.index(f"│ {verb} ") for verb in REGISTERED]
    assert places == sorted(places)
    assert tuple(REGISTERED) == VERBS


def test_trains_page_explains_every_key(tmp_path: Path) -> None:
    page, _ = loaded("train --help", (), tmp_path)
    for key in known_keys():
        assert f"│ {key} " in page, key


@pytest.mark.parametrize("example", [command for command, _ in (*TRAIN_EXAMPLES, *VAL_EXAMPLES)])
def test_examples_use_keys_that_exist(example: str) -> None:
    verb, *words = shlex.split(example)
    flags = ("--dry-run", "--resume", "--explain-protocol", "--details")
    _, keys = split_words([word for word in words if word not in flags])
    keys.pop("page", None)
    assert set(keys) <= {*known_keys(), *(key for key, _, _ in VAL_KEYS)}
    assert verb in VERBS


def test_examples_keep_their_indent_in_a_narrow_window(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    print_page_end([("train data=x", "a meaning that is longer than the window is wide, and breaks")], (), "")
    lines = [line.strip("│ ╭╮╰╯─\n") and line for line in capsys.readouterr().out.splitlines()]
    meaning = [line for line in lines if line and "onestage" not in line and "Examples" not in line]
    assert len(meaning) == 2
    assert all(line.startswith("│     ") for line in meaning)
