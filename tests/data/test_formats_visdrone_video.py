"""VisDrone VID and MOT read as frames: ids, targets, empty frames, faults with file and line, splits by video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from folders_on_disk import codes, picture, write
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.dataset import Dataset
from onestage.data.formats import READERS, recognise
from onestage.data.formats import visdrone as module
from onestage.data.mixture import thinned
from onestage.data.opening import open_dataset
from onestage.data.split import divided
from onestage.errors import DataError

ROWS = "1,0,0,0,30,30,0,0,0,0\n1,7,5,6,10,12,1,4,0,1\n3,7,6,6,10,12,1,4,1,2,\n3,8,20,10,8,8,1,1,0,0\n"


def video(root: Path, name: str = "uav0000013_00000_v", frames: int = 4, rows: str = ROWS) -> Path:
    """One sequence of frames of 60x40."""
    write(root / "annotations" / f"{name}.txt", rows)
    for frame in range(1, frames + 1):
        picture(root / "sequences" / name / f"{frame:07d}.jpg", seed=sum(name.encode()) * 100 + frame)
    return root


def read(root: Path, probe_images: bool = True) -> Dataset:
    return module.read(root, None, probe_images=probe_images)


def test_frames_are_images_and_targets_are_kept(tmp_path: Path) -> None:
    dataset = read(video(tmp_path / "VisDrone2019-VID-val"))
    assert (dataset.split, dataset.format) == ("val", "visdrone")
    assert [image.id for image in dataset.images] == [f"uav0000013_00000_v/{n:07d}" for n in (1, 2, 3, 4)]
    assert {image.sequence for image in dataset.images} == {"uav0000013_00000_v"}
    first, second, third, fourth = (dataset.annotations[image.id] for image in dataset.images)
    assert first.boxes.tolist() == [[0, 0, 30, 30], [5, 6, 15, 18]]
    assert first.ignore.tolist() == [True, False]
    assert first.extra["region"].tolist() == [True, False]
    assert (len(second), len(fourth)) == (0, 0)  # nothing on them, but they are there
    assert third.labels.tolist() == [3, 0]
    assert {name: third.extra[name].tolist() for name in ("target_id", "frame", "line", "truncation", "occlusion")} == {
        "target_id": [7, 8], "frame": [3, 3], "line": [3, 4], "truncation": [1, 0], "occlusion": [2, 0],
    }  # fmt: skip
    assert (dataset.boxes_read, dataset.boxes, dataset.images_read, codes(dataset)) == (4, 4, 4, [])


def test_sets_of_videos_are_told(tmp_path: Path) -> None:
    for name in ("VisDrone2019-VID-train", "VisDrone2019-MOT-val"):
        video(tmp_path / name)
    assert recognise(tmp_path)[0] == ("visdrone", "VisDrone folder of videos, sets train, val")
    opened = open_dataset(tmp_path)
    assert (len(opened.train), len(opened.val)) == (4, 4)


def test_without_images_the_frames_with_rows_can_be_judged(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "uav.txt", ROWS)
    dataset = read(tmp_path, probe_images=False)
    assert [image.id for image in dataset.images] == ["uav/0000001", "uav/0000003"]
    assert dataset.images[0].path == tmp_path / "sequences" / "uav" / "0000001.jpg"
    assert dataset.sizes == {}
    with pytest.raises(DataError, match="1 sequences, but there are no frames"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("2,7,1,2,3,4,1,4,0", "bad-row", "9 columns, expected frame, target_id, left"),
        ("0,7,1,2,3,4,1,4,0,0", "bad-row", "expected a frame, counted from 1"),
        ("2.5,7,1,2,3,4,1,4,0,0", "bad-row", "both whole numbers"),
        ("2,x,1,2,3,4,1,4,0,0", "bad-row", "both whole numbers"),
        ("1e300,7,1,2,3,4,1,4,0,0", "bad-row", "both whole numbers"),
        ("2,7,1,2,3,4,1,12,0,0", "unknown-class", "category 12"),
        ("2,7,nan,2,3,4,1,4,0,0", "not-a-number", "eight finite numbers"),
        ("2,7,1,2,0,4,1,4,0,0", "kept-aside", "no area"),
        ("9,7,1,2,3,4,1,4,0,0", "missing-image", "no image of frame 9, which has 1 rows"),
    ],
)
def test_a_bad_row_is_listed_with_its_line(tmp_path: Path, row: str, code: str, said: str) -> None:
    dataset = read(video(tmp_path, "uav", rows=ROWS + row + "\n"))
    (finding,) = dataset.findings
    assert (finding.code, finding.where.file, finding.where.line) == (code, "annotations/uav.txt", 5)
    assert said in finding.what
    assert len(dataset) == 4
    assert dataset.images_read == 4 + (code == "missing-image")
    assert dataset.boxes_read == 5


def test_a_sequence_without_its_file_and_a_strange_name_are_listed(tmp_path: Path) -> None:
    video(tmp_path, "a")
    picture(tmp_path / "sequences" / "b" / "0000001.jpg")
    picture(tmp_path / "sequences" / "a" / "thumb.jpg")
    dataset = read(tmp_path)
    assert sorted(codes(dataset)) == ["missing-annotation", "missing-annotation"]
    assert {finding.where.file for finding in dataset.findings} == {"sequences/b", "sequences/a/thumb.jpg"}
    assert (len(dataset), dataset.images_read) == (4, 5)


def test_a_frame_that_links_out_is_not_opened(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    root = video(tmp_path / "data", "a")
    (root / "sequences" / "a" / "0000002.jpg").unlink()
    (root / "sequences" / "a" / "0000002.jpg").symlink_to(tmp_path / "secret.jpg")
    dataset = read(root)
    assert codes(dataset) == ["path-escape"]
    assert len(dataset) == 3


def videos(root: Path, count: int) -> Path:
    for number in range(count):
        video(root, f"uav{number}", frames=3, rows="1,1,5,6,10,12,1,4,0,1\n2,1,5,6,10,12,1,1,0,1\n")
    return root


def test_a_split_does_not_part_a_video(tmp_path: Path) -> None:
    opened = open_dataset(videos(tmp_path, 5), val_fraction=0.4)
    sides = [{image.sequence for image in part.images} for part in (opened.train, opened.val)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [3, 2]
    assert "6 of 15 images, 2 of 5 videos for val" in opened.described


def test_one_video_alone_is_not_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 frames of one video"):
        divided(read(video(tmp_path)), 0.2, 0)


def test_every_so_many_frames(tmp_path: Path) -> None:
    root = videos(tmp_path / "VID", 4)
    whole = read(root)
    part = thinned(whole, 2)
    assert [image.id for image in part.images][:3] == ["uav0/0000001", "uav0/0000003", "uav1/0000001"]
    assert (part.images_read - len(part), part.boxes_read - part.boxes) == (0, 0)
    spec = tmp_path / "sets.yaml"
    spec.write_text("train: {data: VID, every: 2}\nval: {data: VID, every: 3}\n")
    opened = open_dataset(spec)
    assert (len(opened.train), len(opened.val)) == (8, 4)
    spec.write_text("train: {data: VID, every: 0}\n")
    with pytest.raises(DataError, match="every: expected a whole number"):
        open_dataset(spec)


@pytest.mark.parametrize("name", ["visdrone", "yolo", "voc", "coco"])
def test_frames_are_written_to_other_formats_and_read_back(name: str, tmp_path: Path) -> None:
    dataset = read(videos(tmp_path / "in", 2))
    READERS[name].write(dataset, tmp_path / "out")
    again = READERS[name].read(tmp_path / "out", None, module.CLASSES)
    assert (len(again), again.boxes) == (6, 4)
    if name == "visdrone":
        assert again.images[0].id == "uav0_0000001"
        assert (tmp_path / "out" / "all" / "annotations" / "uav1_0000002.txt").read_text() == "5,6,10,12,1,1,0,1\n"


def test_show_tells_videos_and_frames(tmp_path: Path) -> None:
    root = str(videos(tmp_path, 5))
    answer = CliRunner().invoke(app, ["data", "show", root])
    assert answer.exit_code == 0, answer.output
    assert "videos: train 4 videos with 12 frames, val 1 video with 3 frames" in answer.output
    told = json.loads(CliRunner().invoke(app, ["data", "show", root, "--json"]).stdout)
    assert told["sets"]["train"]["videos"] == 4
