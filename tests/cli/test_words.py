"""Words of a command: places, keys in three spellings, and near misses."""

from __future__ import annotations

import pytest

from onestage.cli.words import known_only, split_words
from onestage.errors import UsageError


@pytest.mark.parametrize("words", [["epochs=3"], ["--epochs=3"], ["--epochs", "3"]])
def test_three_spellings_of_one_key(words: list[str]) -> None:
    assert split_words(["recipe.yaml", *words, "data=x"]) == (["recipe.yaml"], {"epochs": 3, "data": "x"})


def test_values_are_yaml() -> None:
    _, keys = split_words(["optimiser.lr=5e-4", "classes=[cat, dog]", "cache=false", "size=[320, 240]", "name=a=b"])
    assert keys == {
        "optimiser.lr": 5e-4,
        "classes": ["cat", "dog"],
        "cache": False,
        "size": [320, 240],
        "name": "a=b",
    }


def test_paths_with_an_equals_sign_stay_paths() -> None:
    assert split_words(["./lr=1/weights.pth", "runs/a=b"]) == (["./lr=1/weights.pth", "runs/a=b"], {})


def test_a_key_without_value_is_refused() -> None:
    with pytest.raises(UsageError, match="epochs"):
        split_words(["data=x", "--epochs"])


def test_unknown_keys_are_told_all_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        known_only("val", {"protcol": 1, "nonsense": 2, "data": 3}, ["protocol", "data"])
    assert caught.value.problems == ("protcol: unknown key (did you mean 'protocol'?)", "nonsense: unknown key")
