"""`onestage data anchors --cluster`: what is printed can be pasted into a cfg and a recipe, and fits as it says."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import Command, onestage

from onestage import models
from onestage.boxes.anchor_fit import Heads, anchor_fit
from onestage.data.one_set import open_set
from onestage.data.sides import sides_at_input
from onestage.models.darknet.building import architecture
from onestage.models.darknet.changed import changed
from onestage.models.darknet.plans import plan

TINY = ("model=yolov3-tiny", "size=96")


@pytest.fixture(scope="module")
def told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    place = tmp_path_factory.mktemp("made")
    answer = onestage(
        "data", "anchors", folder, *TINY, "--cluster", "kmedians", "split=all", "fit=letterbox", "--draw",
        place / "a.png", "--json", runs=place / "runs",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return {**answer.json, "words": answer.err}


def test_what_is_printed_is_what_was_measured(told: dict, folder: Path) -> None:
    held = sides_at_input(open_set(folder, "all"), (96, 96), "letterbox")
    assert told["truths"] == len(held.sides)
    for name in ("own", "new"):
        heads = Heads(tuple(map(tuple, told[name]["anchors"])), tuple(map(tuple, told[name]["masks"])), (32, 16))
        assert anchor_fit(held.sides, heads).as_dict() == {
            key: told[name][key] for key in anchor_fit(held.sides, heads).as_dict()
        }
    area = np.array(told["new"]["anchors"]).prod(1)
    assert (np.diff(area) >= 0).all()
    assert told["new"]["mean_iou"] > told["own"]["mean_iou"]
    assert told["advice"] in ("keep", "doubtful", "try")


def test_the_cfg_line_makes_that_network(told: dict) -> None:
    """Read back by the reader of cfgs, which takes no anchors with a comma missing."""
    line = re.search(r"^anchors = (.*)$", told["words"], re.M)
    assert line
    assert line[1] == told["cfg"]["anchors"]
    text = plan("yolov3-tiny", len(told["own"]["load"]), (96, 96)).text()
    text = re.sub(r"^anchors=.*$", f"anchors={line[1]}", text, flags=re.M)
    from onestage.models.darknet.cfg import parse

    heads = architecture(parse(text)).heads
    assert [list(pair) for pair in heads[0].anchors] == told["new"]["anchors"]
    assert [head["mask"] for head in told["cfg"]["heads"]] == ["3,4,5", "0,1,2"]


def test_the_recipe_line_makes_that_network(told: dict) -> None:
    line = re.search(r"^options: .*$", told["words"], re.M)
    assert line
    options = yaml.safe_load(line[0])["options"]
    assert options == told["recipe"]
    heads = models.build("yolov3-tiny", 2, (96, 96), **options).anchor_heads()
    assert heads is not None
    assert [list(pair) for pair in heads.anchors] == told["new"]["anchors"]


def test_the_picture_and_the_words(told: dict) -> None:
    assert cv2.imread(told["picture"]).shape[1] > 1500
    for words in ("mean IoU with the best", "within a ratio of 4", "stride 16", "6 by kmedians under IoU, seed 0",
                  "verdict: ", "fit letterbox"):  # fmt: skip
        assert words in told["words"], words


def test_another_count_is_dealt_out_with_its_filters(here: Command, folder: Path) -> None:
    made = here("data", "anchors", folder, *TINY, "cluster=kmeans", "count=7", "--json").json
    assert [(head["mask"], head["filters"]) for head in made["cfg"]["heads"]] == [("4,5,6", 18), ("0,1,2,3", 24)]
    cfg = changed(plan("yolov3-tiny", 1, (96, 96)), anchors=made["new"]["anchors"], masks=made["new"]["masks"])
    assert [layer.shape.channels for layer in architecture(cfg).convolutions if layer.head] == [18, 24]
    region = here("data", "anchors", folder, "model=yolov2-tiny", "size=96", "cluster=kmeans", "--json").json
    pair = [float(value) for value in region["cfg"]["anchors"].split(",")[:2]]
    assert pair == pytest.approx(np.array(region["new"]["anchors"][0]) / 32, rel=1e-5)  # in cells


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("cluster=kmean",), 2, "did you mean 'kmeans'"),
        (("cluster=kmeans", "count=0"), 2, "count: expected a whole number"),
        (("cluster=kmeans", "count=1"), 2, "each of 2 heads"),
        (("count=9",), 2, "count: has no effect without cluster"),
        (("cluster=kmeans", "fit=native"), 2, "train at one size"),
        (("cluster=kmeans", "model=ssd300", "size=300"), 4, "ssd300 has no anchors"),
        (("cluster=kmeans", "count=90"), 3, "90 anchors need at least 90 boxes"),
    ],
)
def test_what_cannot_be_made_is_refused(
    here: Command, folder: Path, words: tuple[str, ...], code: int, told: str
) -> None:  # fmt: skip
    answer = here("data", "anchors", folder, *TINY, *words)
    assert answer.code == code, answer.err
    assert told in answer.err


def test_a_set_is_needed(here: Command) -> None:
    answer = here("data", "anchors", *TINY, "cluster=kmeans")
    assert answer.code == 2
    assert "none is given" in answer.err
