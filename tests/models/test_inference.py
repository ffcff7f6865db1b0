"""A detector as a function of arrays: of any size, within bounds of memory, back at its own size afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onestage.boxes.selection import PRESETS, Selection
from onestage.errors import ModelError
from onestage.models import build, inference, model_class, ssd
from onestage.models.inference import TorchPredictor, refuse_one_size, shortage_told, shown_selection, size_kept
from onestage.models.ssd import Multibox


@pytest.fixture(scope="module")
def detector() -> Multibox:
    torch.manual_seed(0)
    made = build("ssd-lite0", 2, (64, 64)).eval()
    assert isinstance(made, Multibox)
    return made


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (1, 3, height, width), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (31, 130), (97, 64), (64, 64)])
def test_any_size_is_answered_as_by_a_detector_of_that_size(detector: Multibox, size: tuple[int, int]) -> None:
    own = build("ssd-lite0", 2, size).eval()
    own.load_state_dict(detector.state_dict())
    with size_kept(detector):
        boxes, scores = TorchPredictor(detector)(noise(*size))
        assert detector.size == size
    expected = TorchPredictor(own)(noise(*size))
    assert boxes.shape[1] == scores.shape[1] == len(own.priors)
    np.testing.assert_array_equal(boxes, expected[0])
    np.testing.assert_array_equal(scores, expected[1])
    assert detector.size == (64, 64)


def test_the_own_size_comes_back_after_a_failure_too(detector: Multibox) -> None:
    def fails() -> None:
        with size_kept(detector):
            detector.resized((80, 32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert detector.size == (64, 64)
    assert detector.priors is detector.first_priors


def test_priors_of_few_sizes_are_kept(detector: Multibox, monkeypatch: pytest.MonkeyPatch) -> None:
    detector._known.clear()
    with size_kept(detector):
        for side in range(32, 32 + 3 * ssd.SIZES_KEPT):
            detector.resized((side, 40))
            detector.resized((32, 40))  # used again and again, so it stays
        assert len(detector._known) == ssd.SIZES_KEPT
        assert (32, 40) in detector._known
        monkeypatch.setattr(ssd, "PRIORS_KEPT", 10)
        detector.resized((500, 500))
        assert list(detector._known) == [(500, 500)]
        assert len(detector.priors) == sum(detector.levels)


def test_a_model_of_one_size_says_that_it_has_one() -> None:
    with pytest.raises(ModelError, match="ssd300 takes 300x300 alone") as error:
        refuse_one_size(build("ssd300", 1))
    assert "fit=squash" in str(error.value)


def test_too_little_memory_is_said_in_words(detector: Multibox, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(images: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: not enough memory")

    def wrong(images: torch.Tensor) -> None:
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(detector, "forward", short)
    with pytest.raises(ModelError, match="too little memory for 1 image of 64x64 pixels") as error:
        TorchPredictor(detector)(noise(64, 64))
    assert "a smaller scale" in str(error.value)
    monkeypatch.setattr(detector, "forward", wrong)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        TorchPredictor(detector)(noise(64, 64))


def test_what_is_shown_is_the_model_s_where_nobody_says_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_selection("ssd-lite0") == PRESETS["view"]
    crowd = {"validation.iou": 0.3, "validation.candidates": 5000, "validation.most": 750, "validation.score": 0.05}
    monkeypatch.setattr(model_class("ssd-lite0"), "recipe_defaults", crowd)
    assert shown_selection("ssd-lite0") == Selection(PRESETS["view"].score, 0.3, 5000, 750)
    assert shown_selection("ssd-lite0", 0.1, 0.5, 9, 8) == Selection(0.1, 0.5, 9, 8)


def test_memory_is_asked_for_before_the_system_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_free_memory", lambda: 2**30)
    with pytest.raises(ModelError, match="too little memory for 1 image of 8192x8192"), shortage_told(1, 8192, 8192):
        raise AssertionError("begun all the same")
    for free in (2**40, None):
        monkeypatch.setattr(inference, "_free_memory", lambda free=free: free)
        with shortage_told(1, 8192, 8192):
            pass


def test_free_memory_is_told_or_unknown(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    7 kB\n")
    assert inference._free_memory(tmp_path / "meminfo") == 7168
    assert inference._free_memory(tmp_path / "none") is None
