"""VisDrone txt: layouts, regions and scores, faults with file and line, round trip, the real 548 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes, only, picture, write, yolo
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import recognise
from onestage.data.formats import visdrone as module
from onestage.data.one_set import open_set
from onestage.data.opening import open_dataset
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

GOOD = "1,2,10,20,1,4,0,1\n"


def small(root: Path, text: str, probe_images: bool = True, **options: object) -> Dataset:
    """One annotated image of 60x40."""
    write(root / "annotations" / "a.txt", text)
    picture(root / "images" / "a.jpg")
    return module.read(root, None, probe_images=probe_images, **options)  # type: ignore[arg-type]


def test_columns_classes_and_flags(tmp_path: Path) -> None:
    rows = ["1,2,10,20,1,1,0,0", "0,0,30,30,0,0,0,0,", "", "5,5,6,7,0,10,1,2", "8,8,9,9,0,11,0,0", "3,4,5,6,1,4,1,1"]
    dataset = small(tmp_path, "\r\n".join(rows))
    truth = only(dataset)
    assert dataset.classes == module.CLASSES
    assert len(dataset.classes) == 10
    assert dataset.images[0] == ImageInfo("a", tmp_path / "images" / "a.jpg", 60, 40)
    assert truth.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 30, 30], [5, 5, 11, 12], [8, 8, 17, 17], [3, 4, 8, 10]]
    assert truth.labels.tolist() == [0, 0, 9, 0, 3]
    assert truth.ignore.tolist() == [False, True, True, True, False]
    assert truth.extra["region"].tolist() == [False, True, False, True, False]
    assert truth.extra["category"].tolist() == [1, 0, 10, 11, 4]
    assert truth.extra["score"].tolist() == [1, 0, 0, 0, 1]
    assert truth.extra["truncation"].tolist() == [0, 0, 1, 0, 1]
    assert truth.extra["occlusion"].tolist() == [0, 0, 2, 0, 1]
    assert truth.extra["line"].tolist() == [1, 2, 4, 5, 6]  # blank lines count
    assert (dataset.boxes_read, dataset.boxes, codes(dataset)) == (5, 5, [])


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("1,2,3,4,1", "bad-row", "5 columns"),
        ("1,2,3,4,1,4,0,0,7", "bad-row", "9 columns"),
        ("1,2,3,4,,4,0,0", "not-a-number", "eight finite numbers"),
        ("1,2,nan,4,1,4,0,0", "not-a-number", "eight finite numbers"),
        ("1,two,3,4,1,4,0,0", "not-a-number", "eight finite numbers"),
        ("1,2,3,4,1,12,0,0", "unknown-class", "category 12"),
        ("1,2,3,4,1,2.5,0,0", "unknown-class", "category 2.5"),
        ("1,2,3,4,0.7,4,0,0", "bad-row", "score 0.7"),
    ],
)
def test_rows_that_cannot_be_read_are_listed_by_file_and_line(tmp_path: Path, row: str, code: str, said: str) -> None:
    dataset = small(tmp_path, GOOD + row + "\n")
    assert len(only(dataset)) == 1
    (finding,) = dataset.findings
    assert (finding.code, finding.where.file, finding.where.line) == (code, "annotations/a.txt", 2)
    assert said in finding.what
    assert dataset.boxes_read == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("7,8,0,5,1,4,0,0", "no area"),
        ("7,8,-3,5,1,4,0,0", "no area"),
        ("70,8,5,5,1,4,0,0", "outside the image of 60x40"),
        ("1,2,10,20,1,4,0,1", "twice"),
    ],
)
def test_rows_that_cannot_be_trained_are_kept_aside_as_the_judge_counts_them(
    tmp_path: Path, row: str, said: str
) -> None:
    dataset = small(tmp_path, GOOD + row + "\n")
    truth = only(dataset)
    assert truth.ignore.tolist() == [False, True]
    assert truth.extra["xywh"][1].tolist() == [float(v) for v in row.split(",")[:4]]
    assert (truth.boxes[:, 2:] >= truth.boxes[:, :2]).all()
    (finding,) = dataset.findings
    assert (finding.code, finding.where.line) == ("kept-aside", 2)
    assert said in finding.what
    judged = module.read(tmp_path, None, probe_images=False)
    assert only(judged).ignore.tolist() == [False, False]  # a judge takes them as they are
    assert codes(judged) == ["kept-as-written"]


def test_boxes_are_cut_at_the_border_where_it_is_known_and_kept_as_written(tmp_path: Path) -> None:
    text = "50,30,20,20,1,4,0,0\n-5,-5,100,100,0,0,0,0\n"
    dataset = small(tmp_path, text)
    assert only(dataset).boxes.tolist() == [[50, 30, 60, 40], [0, 0, 60, 40]]
    assert only(dataset).extra["xywh"].tolist() == [[50, 30, 20, 20], [-5, -5, 100, 100]]
    assert codes(dataset) == ["box-clipped"]  # of a region nobody need know
    to_judge = module.read(tmp_path, None, probe_images=False)
    assert only(to_judge).boxes.tolist() == [[50, 30, 70, 50], [-5, -5, 95, 95]]
    assert (to_judge.images[0].width, codes(to_judge)) == (60, ["kept-as-written"])
    (tmp_path / "images" / "a.jpg").unlink()
    without = module.read(tmp_path, None, probe_images=False)
    assert only(without).boxes.tolist() == [[50, 30, 70, 50], [-5, -5, 95, 95]]
    assert (without.images[0].width, without.images[0].height, codes(without)) == (0, 0, [])


def test_without_images_sizes_are_those_of_the_images_that_are_there(tmp_path: Path) -> None:
    small(tmp_path, GOOD)
    for name in "bc":
        write(tmp_path / "annotations" / f"{name}.txt", GOOD)
    write(tmp_path / "images" / "c.jpg", "no picture")
    sizes = [(i.width, i.height) for i in module.read(tmp_path, None, probe_images=False).images]
    assert sizes == [(60, 40), (0, 0), (0, 0)]
    with_images = module.read(tmp_path, None)
    assert [image.id for image in with_images.images] == ["a"]
    assert sorted(codes(with_images)) == ["missing-image", "unreadable-image"]


def test_images_and_files_without_each_other(tmp_path: Path) -> None:
    small(tmp_path, GOOD)
    picture(tmp_path / "images" / "b.jpg")
    write(tmp_path / "annotations" / "empty.txt", "")
    picture(tmp_path / "images" / "empty.jpg")
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["a", "empty"]
    assert len(dataset.annotations["empty"]) == 0
    assert (codes(dataset), dataset.images_read) == (["missing-annotation"], 3)


def test_annotations_alone_are_refused_for_training_and_enough_for_judging(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "a.txt", GOOD)
    with pytest.raises(DataError, match="there are no images"):
        module.read(tmp_path, None)
    for place in (tmp_path, tmp_path / "annotations"):
        assert len(open_set(place, images=False)) == 1


@pytest.mark.parametrize(
    ("folder", "below", "name"),
    [
        ("VisDrone2019-DET-val", "annotations", "val"),
        ("VisDrone2018-DET-train", "annotations", "train"),
        ("VisDrone2019-DET-test-dev", "annotations", "test-dev"),
        ("valid", "annotations", "valid"),
        ("drones", "annotations", "all"),
        ("drones", "", "all"),
    ],
)
def test_a_set_is_called_after_its_folder(tmp_path: Path, folder: str, below: str, name: str) -> None:
    write(tmp_path / folder / below / "a.txt", GOOD)
    for place in {tmp_path / folder, tmp_path / folder / below}:
        assert module.splits(place) == [name]
        assert recognise(place) == [("visdrone", f"VisDrone folder, sets {name}")]
        assert module.read(place, name, probe_images=False).split == name


def test_a_folder_of_sets_is_opened_for_training(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("val", 2), ("test-dev", 1)):
        for k in range(count):
            root = tmp_path / f"VisDrone2019-DET-{name}"
            picture(root / "images" / f"{name}{k}.jpg")
            write(root / "annotations" / f"{name}{k}.txt", GOOD + f"{k + 20},3,8,9,1,1,0,0\n")
    (tmp_path / "VisDrone2019-DET-test-challenge" / "images").mkdir(parents=True)
    assert module.splits(tmp_path) == ["train", "val", "test-dev"]
    opened = open_dataset(tmp_path)
    assert opened.format == "visdrone"
    assert (len(opened.train), len(opened.val), opened.test and len(opened.test)) == (3, 2, 1)
    assert len(module.read(tmp_path, None)) == 6
    with pytest.raises(DataError, match="did you mean 'val'"):
        module.read(tmp_path, "vall")


def test_classes_may_be_fewer_and_in_another_order(tmp_path: Path) -> None:
    text = "1,2,10,20,1,4,0,0\n3,3,10,20,1,1,0,0\n5,5,10,20,1,9,0,0\n0,0,9,9,0,0,0,0\n"
    dataset = small(tmp_path, text, classes=["car", "pedestrian"])
    assert only(dataset).labels.tolist() == [0, 1, 0]
    assert codes(dataset) == ["unknown-class"]


@pytest.mark.parametrize(
    "text",
    ["0 0.5 0.5 0.2 0.2\n", "1 2 3 4 1 4 0 0\n", "1,2,3,4,0.93,4,-1,-1\n", "a,b,c,d,e,f,g,h\n", "1,2,3,4\n", ""],
)
def test_other_text_is_not_taken_for_it(tmp_path: Path, text: str) -> None:
    for place in ("a.txt", "annotations/a.txt", "sub/annotations/a.txt"):
        write(tmp_path / place, text)
    assert module.recognise(tmp_path) is None
    assert module.splits(tmp_path) == []
    with pytest.raises(DataError, match="is no VisDrone txt"):
        module.read(tmp_path, None)


def test_converted_labels_beside_the_original_do_not_win(tmp_path: Path) -> None:
    yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n"})
    write(tmp_path / "annotations" / "a.txt", GOOD)
    assert [name for name, _ in recognise(tmp_path)] == ["visdrone", "yolo"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "set"
    small(root, GOOD)
    (root / "annotations" / "b.txt").symlink_to(write(tmp_path / "secret.txt", GOOD))
    dataset = module.read(root, None, probe_images=False)
    assert [image.id for image in dataset.images] == ["a"]
    assert codes(dataset) == ["path-escape"]


numbers = st.one_of(st.integers(-20, 80).map(float), st.floats(-20, 80).map(lambda v: round(v, 3)))
sides = st.one_of(st.integers(0, 60).map(float), st.floats(0.5, 60).map(lambda v: round(v, 3)))
rows_of_a_file = st.lists(
    st.tuples(
        numbers, numbers, sides, sides, st.integers(0, 1), st.integers(0, 11), st.integers(0, 1), st.integers(0, 2)
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(rows=rows_of_a_file, known=st.booleans())
@settings(max_examples=50)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]], known: bool) -> None:
    root = tmp_path_factory.mktemp("trip")
    write(root / "annotations" / "a.txt", "".join(",".join(map(str, row)) + "\n" for row in rows))
    if known:
        picture(root / "images" / "a.png")
    dataset = module.read(root, None, probe_images=known)
    assert module.write(dataset, root / "again", "copy" if known else None) == []
    again = module.read(root / "again", None, probe_images=known)
    assert again.fingerprint() == dataset.fingerprint()
    before, after = only(dataset), only(again)
    assert before.ignore.tolist() == after.ignore.tolist()
    for name, column in before.extra.items():
        assert column.tolist() == after.extra[name].tolist(), name


def test_truth_of_other_formats_is_written_too(tmp_path: Path) -> None:
    boxes = np.array([[1, 2, 11, 22], [3, 4, 8, 9.5], [0, 0, 30, 30], [5, 5, 9, 9]])
    truth = Annotations(
        boxes, [0, 1, 0, 1], difficult=[True, False, False, False], ignore=[False, False, True, False],
        crowd=[False, False, False, True], extra={"region": np.array([False, False, True, False])},
    )  # fmt: skip
    image = ImageInfo("a", picture(tmp_path / "a.jpg"), 60, 40)
    dataset = Dataset(tmp_path, "coco", "train", ("car", "bus"), (image,), {"a": truth})
    findings = module.write(dataset, tmp_path / "out")
    assert [finding.code for finding in findings] == ["lost-flag"]
    assert (tmp_path / "out/train/annotations/a.txt").read_text().split() == [
        "1,2,10,20,1,4,0,0", "3,4,5,5.5,1,9,0,0", "0,0,30,30,0,0,0,0", "5,5,4,4,0,9,0,0",
    ]  # fmt: skip
    assert only(module.read(tmp_path / "out", "train")).labels.tolist() == [3, 8, 0, 8]
    strange = Dataset(tmp_path, "coco", "train", ("car", "cat"), (image,), {"a": truth})
    with pytest.raises(DataError, match="ten classes only") as refused:
        module.write(strange, tmp_path / "no")
    assert "'cat'" in refused.value.problems[0]
    assert not (tmp_path / "no").exists()


def test_the_official_validation_set(shared: Path) -> None:
    root = shared / "visdrone" / "VisDrone2019-DET-val"
    dataset = open_set(root, images=False)
    truths = list(dataset.annotations.values())
    assert (dataset.format, dataset.split, len(dataset), dataset.boxes_read, dataset.boxes) == (
        "visdrone", "val", 548, 40169, 40169,
    )  # fmt: skip
    assert dataset.findings == ()
    assert sum(int((~truth.ignore).sum()) for truth in truths) == 38759
    assert max(int((~truth.ignore).sum()) for truth in truths) == 317
    counts = np.bincount(np.concatenate([truth.extra["category"] for truth in truths]), minlength=12)
    assert counts.tolist() == [1378, 8844, 5125, 1287, 14064, 1975, 750, 1045, 532, 251, 4886, 32]


def test_the_sample_with_its_photo(shared: Path) -> None:
    dataset = module.read(shared / "visdrone" / "sample", None)
    truth = only(dataset)
    assert dataset.images[0].width > 0
    assert len(truth) == dataset.boxes_read > 0
