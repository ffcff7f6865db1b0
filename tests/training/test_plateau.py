"""Diary 002's plateau: pixels moved by an affine map and boxes left alone are named, before a run or at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from planted_runs import QUIET, Told, small, spoil_batches
from test_fit import shapes

from onestage.data.augment import Zoom
from onestage.data.batches import Maker
from onestage.data.policy import Sample
from onestage.errors import RecipeError
from onestage.records import Batch

__all__ = ["small"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("plateau") / "shapes", images=50)


def affine(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """ImageBaseAug of commit 2a16cc3: moved by up to a tenth of a side and magnified by 1 … 2.5; pixels alone."""
    height, width = image.shape[:2]
    scale, (x, y) = rng.uniform(1.0, 2.5), rng.uniform(-0.1, 0.1, 2) * (width, height)
    matrix = np.array([[scale, 0, (1 - scale) * width / 2 + x], [0, scale, (1 - scale) * height / 2 + y]])
    return np.ascontiguousarray(cv2.warpAffine(np.ascontiguousarray(image), matrix, (width, height)), np.uint8)


def test_in_the_policy_it_is_refused_before_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Zoom.__call__

    def spoilt(self: Zoom, image: Any, truth: Any, rng: np.random.Generator, *rest: Any) -> Sample:
        sample = original(self, image, truth, rng, *rest)
        return sample._replace(image=affine(sample.image, rng))

    monkeypatch.setattr(Zoom, "__call__", spoilt)
    told = Told({"data": str(data)}, tmp_path)
    assert isinstance(told.error, RecipeError)
    assert "the augmentation moves the picture without its boxes" in str(told.error)
    assert not hasattr(told, "run")  # nothing was trained


def in_the_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Maker.sample

    def spoilt(self: Maker, index: int, seed: int, *rest: Any) -> Sample:
        sample = original(self, index, seed, *rest)
        return sample._replace(image=affine(sample.image, np.random.default_rng(seed)))

    monkeypatch.setattr(Maker, "sample", spoilt)


def in_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def spoilt(batch: Batch) -> Batch:
        images = np.stack([affine(image.transpose(1, 2, 0), rng) for image in batch.images])
        return replace(batch, images=images.transpose(0, 3, 1, 2))

    spoil_batches(monkeypatch, spoilt)


@pytest.mark.parametrize(
    ("plant", "policy"), [(in_the_maker, "zoom"), (in_the_batches, "mosaic"), (in_the_batches, "darknet")]
)
def test_behind_the_policy_it_is_told_in_the_first_epoch(
    plant: Callable[[pytest.MonkeyPatch], None],
    policy: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    told = Told({"data": str(data), "epochs": 1, "augmentation.policy": policy, **QUIET}, tmp_path)
    assert told.error is None
    finding = told.said("pixels-astray")
    assert finding["severity"] == "error"
    assert finding["where"]["step"] <= 6
    assert Path(finding["where"]["file"]).is_file()
    assert "images move and their boxes do not" in finding["what"]
    assert "times as large" in " ".join(finding["evidence"]["examples"])


@pytest.mark.parametrize("policy", ["mosaic", "darknet"])
def test_sound_runs_say_nothing_of_it(policy: str, data: Path, tmp_path: Path) -> None:
    told = Told({"data": str(data), "epochs": 1, "augmentation.policy": policy, **QUIET}, tmp_path)
    assert told.error is None
    assert "pixels-astray" not in told.codes
