"""WIDER FACE: txt and mat, layouts, levels, every oddity, round trip, and the real files."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes, only, picture, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from onestage.data.dataset import Dataset
from onestage.data.formats import READERS, recognise
from onestage.data.formats import widerface as module
from onestage.data.loader import Loader
from onestage.data.one_set import open_set
from onestage.data.opening import open_dataset, refuse_losses
from onestage.data.views import moved
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo, ImageTransform

TXT = "wider_face_split/wider_face_train_bbx_gt.txt"
ROW = "5 6 20 10 1 0 1 0 2 1 "
ZEROS = "0 0 0 0 0 0 0 0 0 0 "


def text(*records: tuple[str, object, list[str]]) -> str:
    return "".join(f"{name}\n{count}\n" + "".join(f"{row}\n" for row in rows) for name, count, rows in records)


def small(root: Path, content: str | bytes, *, images: bool = True) -> Dataset:
    """The set train of a folder whose images, 60x40, are those that the text names."""
    data = content if isinstance(content, bytes) else content.encode()
    (root / TXT).parent.mkdir(parents=True)
    (root / TXT).write_bytes(data)
    for line in data.decode().split("\n"):
        name = line.strip()
        if images and name.endswith(".jpg") and ".." not in name and not name.startswith("/"):
            picture(root / "WIDER_train" / "images" / name)
    return module.read(root, "train", probe_images=images)


def test_boxes_and_the_six_other_columns(tmp_path: Path) -> None:
    dataset = small(tmp_path, text(("0--Parade/a.jpg", 2, [ROW, "1 2 3 4 0 1 0 1 0 0 "])))
    truth = only(dataset)
    assert dataset.classes == ("face",)
    assert dataset.images[0].id == "0--Parade/a"
    assert dataset.images[0].path == tmp_path / "WIDER_train/images/0--Parade/a.jpg"
    assert (dataset.images[0].width, dataset.images[0].height) == (60, 40)
    assert truth.boxes.tolist() == [[5, 6, 25, 16], [1, 2, 4, 6]]
    assert {name: truth.extra[name].tolist() for name in module.ATTRIBUTES} == {
        "blur": [1, 0], "expression": [0, 1], "illumination": [1, 0], "invalid": [0, 1], "occlusion": [2, 0],
        "pose": [1, 0],
    }  # fmt: skip
    assert truth.ignore.tolist() == [False, True]  # invalid
    assert "easy" not in truth.extra
    assert not dataset.findings
    assert (dataset.boxes_read, dataset.images_read) == (2, 1)


@pytest.mark.parametrize("change", [
    lambda t: t.replace("\n", "\r\n"), lambda t: t.replace(" ", "\t"), lambda t: t.replace(" \n", "   \n"),
    lambda t: t.replace("\n", "\n\n"), lambda t: t.replace("5 6 20 10", "5,6,20,10"), lambda t: "\ufeff" + t,
    lambda t: t.replace("0--Parade/a", "0--Parade\\a"),
])  # fmt: skip
def test_text_as_written_elsewhere(tmp_path: Path, change: object) -> None:
    picture(tmp_path / "WIDER_train/images/0--Parade/a.jpg")
    dataset = small(tmp_path, change(text(("0--Parade/a.jpg", 1, [ROW]))))  # type: ignore[operator]
    assert only(dataset).boxes.tolist() == [[5, 6, 25, 16]]
    assert dataset.images[0].id == "0--Parade/a"
    assert not dataset.findings


@pytest.mark.parametrize("rows", [[ZEROS], []])
def test_a_count_of_zero_with_or_without_a_row_of_zeros(tmp_path: Path, rows: list[str]) -> None:
    dataset = small(tmp_path, text(("e/a.jpg", 0, rows), ("e/b.jpg", 1, [ROW])))
    assert [len(dataset.annotations[image.id]) for image in dataset.images] == [0, 1]
    assert not dataset.findings


def test_faces_of_no_size_stay_and_are_ignored(tmp_path: Path) -> None:
    rows = [ZEROS, ROW, "8 9 0 4 0 0 0 0 0 0", "30 30 -2 5 0 0 0 0 0 0"]
    dataset = small(tmp_path, text(("e/a.jpg", 4, rows)))
    truth = only(dataset)
    assert truth.boxes.tolist() == [[0, 0, 0, 0], [5, 6, 25, 16], [8, 9, 8, 13], [30, 30, 28, 35]]
    assert truth.ignore.tolist() == truth.extra["degenerate"].tolist() == [True, False, True, True]
    assert codes(dataset) == ["degenerate-face"] * 3
    assert [finding.where.line for finding in dataset.findings] == [3, 5, 6]
    assert dataset.boxes == dataset.boxes_read == 4  # nothing is lost


def test_boxes_over_the_border_and_twice_are_kept_as_written(tmp_path: Path) -> None:
    rows = ["-4 3 10 10 0 0 0 0 0 0", "50 30 20 10 0 0 0 0 0 0", ROW, ROW]
    dataset = small(tmp_path, text(("e/a.jpg", 4, rows)))
    truth = only(dataset)
    assert truth.boxes.tolist() == [[-4, 3, 6, 13], [50, 30, 70, 40], [5, 6, 25, 16], [5, 6, 25, 16]]
    assert not truth.ignore.any()
    assert codes(dataset) == ["beyond-image", "beyond-image", "repeated-face"]
    assert "10 px beyond" in dataset.findings[1].what


def test_rows_that_cannot_be_read_go_alone(tmp_path: Path) -> None:
    rows = [ROW, "1 2 x 4 0 0 0 0 0 0", "1 2 3", "nan 2 3 4 0 0 0 0 0 0", "1 2 3 4"]
    dataset = small(tmp_path, "stray line\n" + text(("e/a.jpg", 5, rows), ("e/b.jpg", 1, [ROW])))
    assert len(dataset.annotations["e/a"]) == 2
    assert dataset.annotations["e/a"].extra["blur"].tolist() == [1, -1]
    assert dataset.annotations["e/a"].ignore.tolist() == [False, False]
    assert codes(dataset) == ["bad-row"] * 4 + ["missing-columns"]


@pytest.mark.parametrize(("count", "rows"), [(3, 1), (1, 2), (0, 2)])
def test_a_count_that_disagrees(tmp_path: Path, count: int, rows: int) -> None:
    several = [f"{i} 1 9 9 0 0 0 0 0 0" for i in range(rows)]
    dataset = small(tmp_path, text(("e/a.jpg", count, several), ("e/b.jpg", 1, [ROW])))
    assert len(dataset.annotations["e/a"]) == rows
    assert codes(dataset) == ["count-mismatch"]
    assert f"a count of {count}, {rows} row" in dataset.findings[0].what


def test_a_missing_count(tmp_path: Path) -> None:
    dataset = small(tmp_path, f"e/a.jpg\n{ROW}\ne/b.jpg\n1\n{ROW}\n")
    assert [len(truth) for truth in dataset.annotations.values()] == [1, 1]
    assert codes(dataset) == ["count-mismatch"]


WHOLE = text(("e/a.jpg", 1, [ROW]), ("e/b.jpg", 3, [f"{k} 6 21 10 1 0 1 0 2 1 " for k in (7, 8, 9)]))


@pytest.mark.parametrize("length", range(len("e/a.jpg\n1\n") + len(ROW) + 1, len(WHOLE)))
def test_a_file_cut_short_anywhere(tmp_path: Path, length: int) -> None:
    """What was read before the cut is kept, what the cut left is never a wrong box, and the cut is told."""
    dataset = small(tmp_path, WHOLE[:length], images=False)
    assert dataset.annotations["e/a"].boxes.tolist() == [[5, 6, 25, 16]]
    rest = dataset.annotations.get("e/b")
    if rest is not None:
        assert rest.boxes.tolist() == [[k, 6, k + 21, 16] for k in (7, 8, 9)][: len(rest)]
        assert len(rest) > 0
    if WHOLE[:length].rstrip() != WHOLE.rstrip():
        clean = length == len("e/a.jpg\n1\n") + len(ROW) + 1  # exactly between two images
        assert clean or set(codes(dataset)) & {"cut-short", "no-line-end"}
        assert clean or len(rest or ()) == 3 or "cut-short" in codes(dataset)


LINES = text(
    ("e/a.jpg", 1, [ROW]), ("e/b.jpg", 0, [ZEROS]), ("e/c.jpg", 2, [f"{k} 6 21 10 1 0 0 1 2 1 " for k in (7, 8)])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 30), min_size=10, max_size=10), st.booleans())
def test_every_line_may_be_cut_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, kept: list[int], end: bool
) -> None:
    """Nothing crashes, no face goes to the image of another line while counts stand, and what is lost is told."""
    lines = [line[:n] for line, n in zip(LINES.splitlines(), kept, strict=True)]
    path = tmp_path_factory.mktemp("cut") / "wider_face_val_bbx_gt.txt"
    path.write_text("\n".join(lines) + "\n" * end)
    dataset = module.read(path, "val", probe_images=False)
    for image_id, truth in dataset.annotations.items():
        whole = {"e/a": [5], "e/c": [7, 8], "e/b": [0]}.get(str(image_id), [0, 5, 7, 8])
        if all(kept[at] for at in (1, 4, 7)):
            assert set(truth.boxes[~truth.ignore, 0].tolist()) <= set(whole), (lines, image_id)
        assert truth.ignore[truth.extra["invalid"] == 1].all()
    assert dataset.boxes <= dataset.boxes_read
    if all(kept[at] >= 7 for at in (0, 3, 6)):  # the names are whole
        faces = {name: len(dataset.annotations.get(name, ())) for name in ("e/a", "e/c")}
        assert faces == {"e/a": 1, "e/c": 2} or dataset.findings, lines


@pytest.mark.parametrize("name", ["", "0--Pa", "e"])
def test_rows_behind_a_damaged_name_do_not_go_to_the_image_before(tmp_path: Path, name: str) -> None:
    dataset = small(tmp_path, text(("e/a.jpg", 1, [ROW]), (name, 2, [ROW, "1 1 5 5 0 0 0 0 0 0"])))
    assert len(only(dataset)) == 1
    assert codes(dataset) == ["misfit-line"]
    assert (dataset.boxes_read, dataset.images_read) == (3, 2)


def test_rows_that_cannot_be_read_count_as_lost(tmp_path: Path) -> None:
    dataset = small(tmp_path, text(("e/a.jpg", 3, [ROW, "1 2 x 4 0 0 0 0 0 0", "1 2 3"])))
    assert (dataset.boxes, dataset.boxes_read) == (1, 3)
    with pytest.raises(DataError, match="2 of 3 boxes"):
        open_dataset(tmp_path)


def test_repeated_images_and_names_that_lead_out(tmp_path: Path) -> None:
    names = ["e/a.jpg", "e/a.jpg", "../secret.jpg", "/etc/secret.jpg", "e/../../x.jpg"]
    dataset = small(tmp_path, text(*((name, 1, [ROW]) for name in names)))
    assert [image.id for image in dataset.images] == ["e/a"]
    assert codes(dataset) == ["repeated-image", "path-escape", "path-escape", "path-escape"]


def test_missing_and_broken_images(tmp_path: Path) -> None:
    small(tmp_path, text(("e/a.jpg", 1, [ROW]), ("e/b.jpg", 1, [ROW]), ("e/c.jpg", 1, [ROW])))
    (tmp_path / "WIDER_train/images/e/b.jpg").unlink()
    (tmp_path / "WIDER_train/images/e/c.jpg").write_bytes(b"")
    dataset = module.read(tmp_path, "train")
    assert [image.id for image in dataset.images] == ["e/a"]
    assert codes(dataset) == ["missing-image", "unreadable-image"]


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.jpg")
    small(tmp_path / "set", text(("e/a.jpg", 1, [ROW])))
    (tmp_path / "set/WIDER_train/images/e/a.jpg").unlink()
    (tmp_path / "set/WIDER_train/images/e/a.jpg").symlink_to(outside)
    dataset = module.read(tmp_path / "set", "train")
    assert codes(dataset) == ["path-escape"]
    assert not dataset.images


def cells(items: list) -> np.ndarray:
    made = np.empty((len(items), 1), object)
    for row, item in zip(made, items, strict=True):
        row[0] = item
    return made


FACES = [[[5, 6, 20, 10], [8, 9, 0, 4], [1, 1, 4, 4]], [[0, 0, 0, 0]]]


def mats(folder: Path, levels: dict[str, list[list[int]]], faces: list | None = None, split: str = "val") -> Path:
    """Files as the official ones, of one event with the images a and b; `levels` are row numbers from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = [np.array(own, np.int32).reshape(-1, 4) for own in (FACES if faces is None else faces)]
    common = {
        "event_list": cells(["e"]), "file_list": cells([cells(["a", "b"])]), "face_bbx_list": cells([cells(boxes)]),
    }  # fmt: skip
    for k, name in enumerate(module.ATTRIBUTES):
        own = [np.arange(len(rows), dtype=np.uint8)[:, None] % 2 * (k == 3) for rows in boxes]
        common[f"{name}_label_list"] = cells([cells(own)])
    savemat(folder / f"wider_face_{split}.mat", common)
    for level, rows in levels.items():
        lists = cells([cells([np.array(own, np.uint8)[:, None] for own in rows])])
        savemat(folder / f"wider_{level}_{split}.mat", common | {"gt_list": lists})
    return folder


LISTS: dict[str, list[list[int]]] = {"easy": [[1], []], "medium": [[1, 3], []], "hard": [[1, 2, 3], [1]]}


@pytest.mark.parametrize("which", ["", "wider_face_val.mat", "wider_hard_val.mat"])
def test_the_mat_files_alone(tmp_path: Path, which: str) -> None:
    path = mats(tmp_path / "ground_truth", LISTS) / which
    assert "WIDER FACE" in (module.recognise(path) or "")
    assert module.splits(path) == ["val"]
    dataset = open_set(path, images=False)
    assert [image.id for image in dataset.images] == ["e/a", "e/b"]
    assert (dataset.images[0].width, dataset.images[0].height) == (0, 0)
    a, b = dataset.annotations["e/a"], dataset.annotations["e/b"]
    assert a.boxes.tolist() == [[5, 6, 25, 16], [8, 9, 8, 13], [1, 1, 5, 5]]
    assert [a.extra[level].tolist() for level in LISTS] == [
        [True, False, False], [True, False, True], [True, True, True],
    ]  # fmt: skip
    assert a.extra["invalid"].tolist() == [0, 1, 0]
    assert a.ignore.tolist() == [False, True, False]
    assert b.extra["hard"].tolist() == b.ignore.tolist() == [True]


@pytest.mark.parametrize("place", ["", "eval_tools/ground_truth", "ground_truth", "eval", "wider_face_split"])
def test_levels_come_to_the_txt_by_themselves(tmp_path: Path, place: str) -> None:
    rows = [f"{' '.join(map(str, face))} 0 0 0 0 0 0 " for face in FACES[0]]
    path = write(tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt", text(("e/a.jpg", 3, rows)))
    mats(tmp_path / place, LISTS)
    for root in (tmp_path, path):
        dataset = module.read(root, "val", probe_images=False)
        assert only(dataset).extra["medium"].tolist() == [True, False, True]
        assert [code for code in codes(dataset) if code != "degenerate-face"] == ["part-of-set"]


def test_the_txt_goes_before_the_mat_and_images_before_both(tmp_path: Path) -> None:
    mats(tmp_path / "wider_face_split", LISTS)
    assert module.splits(tmp_path) == ["val"]
    picture(tmp_path / "WIDER_val/images/e/a.jpg")
    picture(tmp_path / "WIDER_val/images/e/b.jpg")
    assert len(module.read(tmp_path, "val")) == 2
    write(tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt", text(("e/a.jpg", 1, [ROW])))
    for root in (tmp_path, tmp_path / "WIDER_val"):
        assert len(module.read(root, "val")) == 1
    assert "wider_face_val_bbx_gt.txt" in (module.recognise(tmp_path / "WIDER_val") or "")


def test_where_the_txt_says_no_face_the_mat_s_row_of_zeros_counts_as_in_the_tool(tmp_path: Path) -> None:
    write(tmp_path / "wider_face_val_bbx_gt.txt", text(("e/b.jpg", 0, [ZEROS])))
    truth = only(module.read(mats(tmp_path, LISTS), "val", probe_images=False))
    assert (truth.boxes.tolist(), truth.ignore.tolist(), truth.extra["hard"].tolist()) == ([[0] * 4], [True], [True])


def test_other_rows_than_the_mat_s_are_found_by_their_boxes(tmp_path: Path) -> None:
    rows = ["1 1 4 4 0 0 0 0 0 0", "30 30 5 5 0 0 0 0 0 0", "5 6 20 10 0 0 0 0 0 0"]
    write(tmp_path / "wider_face_val_bbx_gt.txt", text(("e/a.jpg", 3, rows), ("e/z.jpg", 1, [ROW])))
    dataset = module.read(mats(tmp_path, LISTS), "val", probe_images=False)
    assert dataset.annotations["e/a"].extra["medium"].tolist() == [True, False, True]
    assert dataset.annotations["e/a"].extra["easy"].tolist() == [False, False, True]
    assert dataset.annotations["e/z"].extra["hard"].tolist() == [False]
    assert codes(dataset) == ["levels-differ"] * 3 + ["levels-differ", "part-of-set"]
    assert "1 of hard have no equal box" in dataset.findings[2].what


def test_row_numbers_out_of_range(tmp_path: Path) -> None:
    dataset = module.read(mats(tmp_path, {"easy": [[1, 4], [0]]}), "val", probe_images=False)
    assert dataset.annotations["e/a"].extra["easy"].tolist() == [True, False, False]
    assert Counter(codes(dataset))["level-row"] == 2


def test_a_mat_that_is_none(tmp_path: Path) -> None:
    folder = mats(tmp_path, LISTS)
    whole = (folder / "wider_face_val.mat").read_bytes()
    (folder / "wider_easy_val.mat").write_bytes(b"not a mat")
    with pytest.raises(DataError, match=r"wider_easy_val\.mat cannot be read"):
        module.read(folder, "val", probe_images=False)
    savemat(folder / "wider_easy_val.mat", {"gt_list": np.zeros(3)})
    with pytest.raises(DataError, match=r"wider_easy_val\.mat is not laid out"):
        module.read(folder, "val", probe_images=False)
    (folder / "wider_face_val.mat").write_bytes(whole[: len(whole) // 2])
    assert recognise(folder / "wider_face_val.mat") == [] or isinstance(_refusal(folder), DataError)
    for content in (whole[:100], b"x" * 900):  # named, so that it is not said that there are no annotations
        (folder / "wider_face_val.mat").write_bytes(content)
        assert len(recognise(folder)) == 1
        assert re.search(r"wider_face_val\.mat cannot be read(.|\n)*is it whole", str(_refusal(folder)))
    (folder / "wider_face_val.mat").write_bytes(b"")
    assert recognise(folder / "wider_face_val.mat") == []


def test_a_mat_of_version_7_3_is_refused_with_the_remedy(tmp_path: Path) -> None:
    head = b"MATLAB 7.3 MAT-file, made elsewhere".ljust(124) + b"\x00\x02IM"
    (tmp_path / "wider_face_val.mat").write_bytes(head.ljust(600, b"\0"))
    with pytest.raises(DataError, match=r"version 7\.3(.|\n)*-v7"):
        open_set(tmp_path, images=False)
    (tmp_path / "other.mat").write_bytes(head.ljust(600, b"\0"))
    assert recognise(tmp_path / "other.mat") == []


def test_a_face_of_no_size_never_reaches_the_network(tmp_path: Path) -> None:
    rows = [
        ZEROS,
        ROW,
        "8 9 0 4 0 0 0 0 0 0",
        "30 30 -2 5 0 0 0 0 0 0",
        "-9 -9 4 4 0 0 0 0 0 0",
        "50 30 20 20 0 0 0 0 0 0",
    ]
    truth = only(small(tmp_path, text(("e/a.jpg", 6, rows))))
    seen = moved(truth, ImageTransform(5.0, 5.0), (300, 200))
    sides = seen.boxes[:, 2:] - seen.boxes[:, :2]
    assert (sides >= 1).all()
    assert seen.boxes[~seen.ignore].tolist() == [[25, 30, 125, 80]]  # the last one's centre is on the border
    assert seen.extra["degenerate"].tolist() == seen.ignore.tolist()


def test_a_count_of_zero_with_its_dummy_row_trains_no_face_and_loses_no_image(tmp_path: Path) -> None:
    names = [f"e/{i}.jpg" for i in range(4)]
    rows = [(name, 0, [ZEROS]) for name in names[:2]] + [(name, 1, [ROW]) for name in names[2:]]
    dataset = small(tmp_path, text(*rows))
    refuse_losses(dataset, 0.0)
    assert (len(dataset), dataset.boxes, dataset.boxes_read) == (4, 2, 2)
    with Loader(dataset, (60, 40), "none", batch=4, shuffle=False) as loader:
        (batch,) = loader.epoch(0)
    assert [len(truth) for truth in batch.annotations] == [0, 0, 1, 1]


def test_real_faces_that_do_not_count_stay_apart_through_the_loader(shared: Path) -> None:
    """The 21 invalid faces of the photographs and one planted without area: ignored in every batch, and in the loss."""
    dataset = open_set(shared / "wider_face", "val")
    odd = [image for image in dataset.images if dataset.annotations[image.id].ignore.any()]
    assert sum(int(dataset.annotations[image.id].ignore.sum()) for image in odd) == 21
    truth = dataset.annotations[odd[0].id]
    planted = {name: np.append(column, column[:1] * 0) for name, column in truth.extra.items()}
    planted["degenerate"] = np.append(truth.extra["degenerate"], True)
    truths = dict(dataset.annotations) | {
        odd[0].id: Annotations(
            np.vstack([truth.boxes, [[30.0, 30, 30, 60]]]), np.append(truth.labels, 0),
            ignore=np.append(truth.ignore, True), extra=planted,
        )
    }  # fmt: skip
    part = replace(dataset, images=tuple(odd[:3]), annotations=truths)
    for policy in ("none", "ssd", "mosaic", "faceboxes"):
        with Loader(part, (320, 320), policy, batch=3) as loader:
            for batch in (batch for epoch in range(3) for batch in loader.epoch(epoch)):
                for seen in batch.annotations:
                    out = (seen.extra["invalid"] == 1) | seen.extra["degenerate"]
                    assert seen.ignore[out].all()
                    assert policy == "faceboxes" or np.array_equal(out, seen.ignore)  # it also ignores small faces
                    assert ((seen.boxes[:, 2:] - seen.boxes[:, :2]) >= 1).all()


def _refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as refused:
        module.read(folder / "wider_face_val.mat", "val", probe_images=False)
    return refused.value


@pytest.mark.parametrize("content", [
    "", "\n\n", "a.jpg", "2002/08/11/big/img_591\n1\n1 2 3 4 5 1\n", "a.jpg\n1\n0.5 0.5 0.1 0.1 0.2\n",
    "0 0.5 0.5 0.1 0.1\n", "a.jpg 1\nb.jpg 0\n", "name\n3\n1 2 3 4\n",
])  # fmt: skip
def test_other_text_is_not_taken_for_it(tmp_path: Path, content: str) -> None:
    assert module.recognise(write(tmp_path / "some.txt", content)) is None
    assert module.recognise(tmp_path) is None


def test_any_name_of_a_txt_that_reads_like_it(tmp_path: Path) -> None:
    path = write(tmp_path / "faces.txt", text(("a.jpg", 0, []), ("b.jpg", 1, ["1 2 3 4"])))
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "images/b.jpg")
    dataset = open_set(path)
    assert dataset.split == "faces"
    assert [image.id for image in dataset.images] == ["a", "b"]


def test_classes_and_sets_that_it_has_not(tmp_path: Path) -> None:
    small(tmp_path, text(("e/a.jpg", 1, [ROW])))
    with pytest.raises(DataError, match="one class 'face', got cat"):
        module.read(tmp_path, "train", ["cat"])
    assert only(module.read(tmp_path, "train", ["cat", "face"])).labels.tolist() == [1]
    with pytest.raises(DataError, match="did you mean 'train'"):
        module.read(tmp_path, "trian")
    with pytest.raises(DataError, match="holds no WIDER FACE"):
        module.read(tmp_path / "WIDER_train" / "images", None)


def test_train_and_val_open_for_training(tmp_path: Path) -> None:
    for split in ("train", "val"):
        names = [f"e/{split}{i}.jpg" for i in range(3)]
        write(
            tmp_path / f"wider_face_split/wider_face_{split}_bbx_gt.txt", text(*((n, 2, [ROW, ZEROS]) for n in names))
        )
        for name in names:
            picture(tmp_path / f"WIDER_{split}/images/{name}")
    opened = open_dataset(tmp_path)
    assert (opened.format, len(opened.train), len(opened.val), opened.split_made) == ("widerface", 3, 3, None)
    assert opened.train.boxes == 6
    assert len(open_set(tmp_path, "all")) == 6


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(
    st.tuples(*[st.integers(-50, 2000)] * 2, *[st.integers(-3, 500)] * 2), st.tuples(*[st.integers(0, 2)] * 6),
), max_size=5), min_size=1, max_size=4))  # fmt: skip
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    root = tmp_path_factory.mktemp("faces")
    lines = [
        (f"{i % 2}--E/{i}.jpg", len(rows), [" ".join(map(str, [*box, *more])) for box, more in rows] or [ZEROS])
        for i, rows in enumerate(records)
    ]  # fmt: skip
    source = write(root / "a" / "wider_face_val_bbx_gt.txt", text(*lines))
    first = module.read(source, "val", probe_images=False)
    assert first.boxes == sum(map(len, records))
    assert module.write(first, root / "b", images=None) == []
    again = module.read(root / "b", "val", probe_images=False)
    assert again.fingerprint() == first.fingerprint()
    for name, truth in first.annotations.items():
        assert np.array_equal(truth.ignore, again.annotations[name].ignore)
        for column in truth.extra:
            assert np.array_equal(truth.extra[column], again.annotations[name].extra[column])


def test_writing_tells_what_is_lost(tmp_path: Path) -> None:
    source = picture(tmp_path / "here/a.png")
    extra = {"easy": np.array([True, False])}
    truth = Annotations(
        [[1, 2, 4.5, 8], [3, 3, 9, 9]], [0, 1], difficult=[True, False], ignore=[False, True], extra=extra
    )
    image = ImageInfo(7, source, 60, 40)
    dataset = Dataset(tmp_path, "voc", "test", ("cat", "dog"), (image,), {7: truth})
    findings = module.write(dataset, tmp_path / "out")
    assert [finding.code for finding in findings] == ["lost-class", "lost-flag", "lost-flag"]
    again = module.read(tmp_path / "out", "test")
    assert only(again).boxes.tolist() == truth.boxes.tolist()
    assert only(again).ignore.tolist() == [False, True]
    assert again.images[0].path == tmp_path / "out/WIDER_test/images/7.png"


def test_the_shared_photos(shared: Path) -> None:
    root = shared / "wider_face"
    opened = open_dataset(root)
    assert (len(opened.train), opened.train.boxes, len(opened.val), opened.val.boxes) == (110, 312, 87, 1334)
    assert [finding.code for finding in opened.findings] == ["part-of-set"]
    hard = sum(int(truth.extra["hard"].sum()) for truth in opened.val.annotations.values())
    assert hard == 1081


def test_the_whole_official_mat(shared: Path) -> None:
    dataset = open_set(shared / "wider_face" / "eval", images=False)
    assert (len(dataset), dataset.boxes, dataset.boxes_read) == (3226, 39708, 39708)
    assert Counter(codes(dataset)) == {"degenerate-face": 11, "repeated-face": 1}
    totals = {level: sum(int(t.extra[level].sum()) for t in dataset.annotations.values()) for level in LISTS}
    assert totals == {"easy": 7211, "medium": 13319, "hard": 31958}


def test_txt_and_mat_tell_the_same(shared: Path) -> None:
    """Also for the first 1,062 images of the whole txt, which is cut after a row."""
    root = shared / "wider_face"
    whole = open_set(root / "eval", images=False)
    for name in ("wider_face_val_bbx_gt.txt", "wider_face_val_bbx_gt.cut_short.txt"):
        part = open_set(root / "wider_face_split" / name, images=False)
        assert "levels-differ" not in codes(part)
        assert ("no-line-end" in codes(part)) == ("cut_short" in name)
        for image in part.images:
            truth, same = part.annotations[image.id], whole.annotations[image.id]
            assert np.array_equal(truth.boxes, same.boxes)
            assert all(np.array_equal(truth.extra[column], same.extra[column]) for column in truth.extra)


def test_it_is_registered() -> None:
    assert READERS["widerface"].NAME == "WIDER FACE"
