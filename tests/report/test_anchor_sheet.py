"""The picture of priors: dots where centres are, colours by priors, forced, missed and ignored truths told apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from onestage.boxes.answers import Answers
from onestage.boxes.assigned import Assigned
from onestage.boxes.densified import densified_priors
from onestage.boxes.priors import to_corners
from onestage.boxes.tiling import tilings, together
from onestage.errors import StorageError
from onestage.records import Annotations
from onestage.report.anchor_sheet import INNER, MARGIN, anchor_sheet, is_anchor_sheet, write_anchor_sheet
from onestage.report.lattice_panel import _HEAD, WIDTH, lattice_panel
from onestage.report.matched_panel import Matched, busiest, matched_picture
from onestage.report.sheet import GREY, WRONG, level_colour

SIZE = (256, 192)
GROUND = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
RAW, LEVEL = densified_priors(SIZE, "symmetric")
PRIORS = to_corners(RAW)


def plain_anchors() -> SimpleNamespace:
    """What the sheet asks of a model's priors, without a network."""
    found = tilings(PRIORS, LEVEL, SIZE)
    tiling = np.zeros(len(PRIORS), np.int64)
    for i, one in enumerate(found):
        tiling[one.index] = i
    groups = together(found)

    def answered(assigned: Assigned, of: np.ndarray) -> Answers:
        return Answers.of(assigned, of, len(found), 0.35)

    def answer_rows(answers: Answers) -> list:
        return [{"level": one.level, "sizes": one.name, **row}
                for one, row in zip(found, answers.by_group(), strict=True)]  # fmt: skip

    return SimpleNamespace(
        priors=PRIORS, tilings=found, groups=groups, tiling=tiling, group_of=np.arange(len(groups)), size=SIZE,
        threshold=0.35, answered=answered, answer_rows=answer_rows,
    )  # fmt: skip


def matched(boxes: list[list[float]], match: dict[int, int], ignore: list[bool] | None = None) -> Matched:
    rows = np.full(len(PRIORS), -1)
    for prior, truth in match.items():
        rows[prior] = truth
    truths = np.array(boxes, float).reshape(-1, 4)
    flags = np.array(ignore or [False] * len(truths), bool)
    return Matched(GROUND, Assigned(rows, PRIORS, LEVEL, 3, truths, flags), plain_anchors().tiling, 0.35)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(-1).sum())


def test_dots_stand_at_the_centres() -> None:
    anchors = plain_anchors()
    panel = lattice_panel(GROUND, anchors.groups[2], PRIORS, level_colour(2))  # 128 px, one in each cell of 32
    scale = WIDTH / SIZE[0]
    for x, y in RAW[anchors.groups[2][0].index][:, :2]:
        assert tuple(panel[_HEAD + round((y - 0.5) * scale), round((x - 0.5) * scale)]) == level_colour(2)
    between = panel[_HEAD + round(32 * scale), round(64 * scale)]
    assert max(between) - min(between) < 12  # dim ground, no colour


def test_dots_too_dense_to_be_told_apart_are_thinned() -> None:
    priors, level = densified_priors((2048, 1024), "symmetric")
    corners = to_corners(priors)
    group = together(tilings(corners, level, (2048, 1024)))[0]
    panel = lattice_panel(np.full((1024, 2048, 3), 60, np.uint8), group, corners, level_colour(0))
    picture = panel[_HEAD : _HEAD + 260]
    assert 0.01 < has(picture, level_colour(0)) / picture[..., 0].size < 0.4


def test_a_forced_prior_is_dashed_and_others_are_not() -> None:
    best = int(np.argmin(np.abs(RAW - [84, 84, 32, 32]).sum(1)))
    box = PRIORS[best]
    good = matched_picture(matched([box.tolist()], {best: 0}), 512)
    tiny = [box[0] + 14, box[1] + 14, box[0] + 18, box[1] + 18]
    forced = matched_picture(matched([tiny], {best: 0}), 512)
    whole = matched_picture(matched([[box[0] + 2, box[1] + 2, box[2] - 2, box[3] - 2]], {best: 0}), 512)
    assert has(good, WRONG) == has(forced, WRONG) == 0
    x1, y2, x2 = round(2 * box[0]), round(2 * box[3]) - 1, round(2 * box[2])
    shares = [has(picture[y2 : y2 + 1, x1:x2], level_colour(0)) / (x2 - x1) for picture in (forced, whole)]
    assert 0.4 < shares[0] < 0.85
    assert shares[1] == 1


def test_unanswered_truths_are_red_and_ignored_ones_grey() -> None:
    one = matched([[10, 10, 60, 60], [100, 100, 160, 160]], {}, [False, True])
    picture = matched_picture(one, 512)
    left, right = picture[:, :200], picture[:, 190:]
    assert has(left, WRONG) > 100
    assert has(right, WRONG) == 0
    assert has(right, GREY) > 100


def test_a_closer_look_is_taken_where_most_truths_are() -> None:
    crowd = [[200 + 4 * i, 150, 203 + 4 * i, 155] for i in range(8)]
    one = matched([[10, 10, 20, 20], *crowd], {})
    window = busiest(one)
    assert window is not None
    x1, y1, x2, y2 = window
    assert sum(x1 <= left and right <= x2 for left, _, right, _ in crowd) >= 7
    assert y1 < 150 < 155 < y2
    assert x2 <= SIZE[0]
    assert y2 <= SIZE[1]
    assert busiest(matched([], {})) is None
    assert busiest(matched([[0, 0, 200, 190]], {})) is None  # it fills the picture


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_image_is_large_several_stand_side_by_side_none_is_plain_ground(count: int) -> None:
    anchors = plain_anchors()
    one = matched([[10, 10, 60, 60], [100, 100, 160, 160]], {100: 0})
    shown = SimpleNamespace(
        image=GROUND, name="Straße/\u4eba.jpg", truths=Annotations(one.assigned.truths, np.zeros(2, int)),
        assigned=one.assigned, tiling=anchors.tiling,
    )  # fmt: skip
    sheet = anchor_sheet(anchors, [shown] * count, "a title")  # type: ignore[arg-type]
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == INNER + 2 * MARGIN
    assert bool(has(sheet, WRONG)) == bool(count)


def test_the_file_knows_itself(tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    write_anchor_sheet(path, plain_anchors(), [], "title")  # type: ignore[arg-type]
    cv2.imwrite(str(other), cv2.imread(str(path)))
    assert is_anchor_sheet(path)
    assert not is_anchor_sheet(other)
    with pytest.raises(StorageError):
        write_anchor_sheet(tmp_path / "missing" / "a.png", plain_anchors(), [], "title")  # type: ignore[arg-type]
