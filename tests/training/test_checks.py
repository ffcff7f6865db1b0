"""What cannot work is told before a run starts, and leaves no run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onestage.errors import RecipeError
from onestage.training.checks import refuse_impossible
from onestage.training.fit import fit
from onestage.training.plan import ask, make_plan

TINY = {
    "size": 64, "weights": "none", "epochs": 1, "batch": 4, "precision": "fp32", "device": "cpu",
    "augmentation.policy": "zoom",
}  # fmt: skip


def pictures(folder: Path, images: int) -> Path:
    """One box on each grey image, YOLO txt."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(images):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.full((64, 64, 3), 90 + i, np.uint8))
        (folder / "labels" / f"{i}.txt").write_text("0 .5 .5 .4 .4\n")
    return folder


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"validation.protocols": ["voc99"]}, "'voc99' (did you mean 'voc10'"),
        ({"validation.protocols": []}, "at least one"),
        ({"validation.protocols": ["fddb"]}, "validation.protocols: fddb: "),
        ({"augmentation.policy": "zooom"}, "did you mean 'zoom'"),
        ({"augmentation.options.mirrror": 0.5}, "did you mean 'mirror'"),
        ({"freeze": ["stemm"]}, "did you mean 'stem'"),
        ({"freeze": ["backbone", "neck", "heads"]}, "nothing could learn"),
        ({"loss.boxx": 2.0}, "did you mean 'box'"),
        ({"loss.cls": -1.0}, "expected 0 or more"),
        ({"batch": 1}, "batch norm"),
    ],
)
def test_what_cannot_work_leaves_no_run(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 4)
    with pytest.raises(RecipeError) as caught:
        fit({**TINY, "data": str(data), **keys}, root=tmp_path / "runs")
    assert said in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_several_problems_come_at_once(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 4)
    with pytest.raises(RecipeError) as caught:
        make_plan(ask({**TINY, "data": str(data), "loss.boxx": 2.0, "freeze": ["stemm"]}))
    assert len(caught.value.problems) == 2


def test_one_training_image_is_refused_only_where_a_map_has_one_cell(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 2)
    with pytest.raises(RecipeError, match="one training image"):
        make_plan(ask({**TINY, "data": str(data)}))
    plan = make_plan(ask({**TINY, "data": str(data), "size": 160}))
    assert plan.steps == 1


@pytest.mark.parametrize(("keys", "words"), [
    ({"batch": 4, "accumulate": 5}, "more micro-batches than the 4 images"),
    ({"batch": 4, "accumulate": 4}, "batch=4 with accumulate=4, so a micro-batch has one image"),
])  # fmt: skip
def test_batches_that_cannot_be_cut(tmp_path: Path, keys: dict[str, int], words: str) -> None:
    folder = str(pictures(tmp_path / "data", 10))
    with pytest.raises(RecipeError, match=words):
        make_plan(ask({**TINY, "data": folder, **keys}))
    if keys["accumulate"] == 4:
        make_plan(ask({**TINY, "data": folder, **keys, "norms": "frozen"}))


def test_each_process_needs_an_image(tmp_path: Path) -> None:
    plan = make_plan(ask({**TINY, "data": str(pictures(tmp_path / "data", 10)), "batch": 2}))
    with pytest.raises(RecipeError, match="2 images in a step for 3 processes"):
        refuse_impossible(plan.recipe, plan.detector, 8, plan.opened.val, 3)
