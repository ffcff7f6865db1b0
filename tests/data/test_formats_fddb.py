"""FDDB's folds: the real lists, broken ones, with and without images, and back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import fddb, recognise
from onestage.data.formats.fddb_folder import known_sizes
from onestage.data.one_set import open_set
from onestage.data.opening import open_dataset
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

FIRST = "2002/08/11/big/img_591\n1\n123.583300 85.549500 1.265839 269.693400 161.781200  1\n"


def put(root: Path, text: str, names: str | None = None, number: str = "01") -> Path:
    folder = root / "FDDB-folds"
    folder.mkdir(exist_ok=True)
    (folder / f"FDDB-fold-{number}-ellipseList.txt").write_bytes(text.encode())
    if names is not None:
        (folder / f"FDDB-fold-{number}.txt").write_text(names)
    return root


def read(root: Path) -> Dataset:
    return fddb.read(root, None, probe_images=False)


def codes(dataset: Dataset) -> list[str]:
    return [finding.code for finding in dataset.findings if finding.code != "known-size"]


def with_images(root: Path, n: int = 6) -> Path:
    rng = np.random.default_rng(1)
    rows = []
    for k in range(n):
        path = root / "originalPics" / "set" / f"img_{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (60 + k, 80, 3), np.uint8))
        rows.append(f"set/img_{k}\n2\n20.5 12.25 1.5 {30 + k} 30 1\n9 7 -0.5 70 20 1\n")
    return put(root, "".join(rows), "".join(f"set/img_{k}\n" for k in range(n)))


def test_real_folds(shared: Path) -> None:
    root = shared / "fddb"
    assert recognise(root) == [("fddb", "FDDB ellipse list FDDB-folds/FDDB-fold-01-ellipseList.txt and 9 more")]
    assert fddb.splits(root) == ["all"]
    dataset = read(root)
    assert (len(dataset), dataset.boxes, dataset.images_read, dataset.boxes_read) == (2845, 5171, 2845, 5171)
    assert dataset.classes == ("face",)
    assert codes(dataset) == []
    image, truth = dataset.images[0], dataset.annotations["2002/08/11/big/img_591"]
    assert (image.id, image.width, image.height) == ("2002/08/11/big/img_591", 450, 431)
    assert truth.extra["ellipse"].tolist() == [[123.5833, 85.5495, 1.265839, 269.6934, 161.7812]]
    assert truth.extra["fold"].tolist() == [1]
    names = [line for number in range(1, 11) for line in (root / "FDDB-folds" / f"FDDB-fold-{number:02d}.txt").open()]
    assert [f"{image.id}\n" for image in dataset.images] == names


def test_a_fold_is_a_set_of_its_own_and_one_file_will_do(shared: Path) -> None:
    fold = fddb.read(shared / "fddb", "fold-10", probe_images=False)
    alone = read(shared / "fddb" / "FDDB-folds" / "FDDB-fold-10-ellipseList.txt")
    assert fold.split == "fold-10"
    assert fold.annotations.keys() == alone.annotations.keys()
    assert set(np.concatenate([truth.extra["fold"] for truth in alone.annotations.values()])) == {10}
    with pytest.raises(DataError, match=r"no set 'fold-11' \(did you mean 'fold-10'"):
        fddb.read(shared / "fddb", "fold-11")


def test_open_set_judges_all_without_images(shared: Path) -> None:
    dataset = open_set(shared / "fddb", images=False)
    assert (len(dataset), dataset.split) == (2845, "all")
    assert len(open_set(shared / "fddb", "fold-02", images=False)) == len(
        fddb.read(shared / "fddb", "fold-02", probe_images=False)
    )


def test_known_sizes_are_those_of_every_listed_image(shared: Path) -> None:
    assert len(known_sizes()) == 2845
    assert set(known_sizes()) == {image.id for image in read(shared / "fddb").images}
    assert all(max(size) <= 600 and min(size) >= 100 for size in known_sizes().values())


@given(
    st.floats(1, 80), st.floats(1, 80), st.floats(-3.2, 3.2), st.floats(-50, 200), st.floats(-50, 200),
)  # fmt: skip
def test_the_box_touches_the_ellipse_on_all_four_sides(a: float, b: float, t: float, x: float, y: float) -> None:
    turn = np.linspace(0, 2 * np.pi, 20_000)
    px = x + a * np.cos(turn) * np.cos(t) - b * np.sin(turn) * np.sin(t)
    py = y + a * np.cos(turn) * np.sin(t) + b * np.sin(turn) * np.cos(t)
    assert fddb.upright((a, b, t, x, y)) == pytest.approx((px.min(), py.min(), px.max(), py.max()), abs=1e-3)


def test_line_ends_blank_lines_and_spaces_do_not_matter(tmp_path: Path) -> None:
    text = "\ufeff" + FIRST.replace("\n", "\r\n").replace(" ", "   ") + "\r\n\r\n a/b \r\n 0 \r\n"
    dataset = read(put(tmp_path, text))
    assert [image.id for image in dataset.images] == ["2002/08/11/big/img_591", "a/b"]
    assert dataset.boxes == 1
    assert codes(dataset) == []


@pytest.mark.parametrize(
    ("more", "code", "said", "boxes"),
    [
        ("a/b\n2\n9 7 1 50 50 1\nc/d\n0\n", "count-mismatch", "the count says 2, there are 1 rows", 2),
        ("a/b\n1\n9 7 1 50 50 1\n9 7 1 80 50 1\n", "count-mismatch", "the count says 1, there are 2 rows", 3),
        ("a/b\n3\n9 7 1 50 50 1\n", "count-mismatch", "there are 1 rows where the file ends: it is cut short", 2),
        ("a/b\n", "count-mismatch", "no line with the number of rows", 1),
        ("a/b\n1\n9 7 1 50\n", "bad-row", "got 4 numbers", 1),
        ("a/b\n1\n9\n", "bad-row", "got 1 numbers", 1),
        ("a/b\n1\n9 -7 1 50 50 1\n", "bad-row", "a radius is negative", 1),
        ("a/b\n1\n9 nan 1 50 50 1\n", "not-a-number", "not four finite numbers", 1),
        ("a/b\n1\n9 seven 1 50 50 1\n", "not-a-number", "not four finite numbers", 1),
        ("a/b\n1\n9 7 inf 50 50 1\n", "not-a-number", "not four finite numbers", 1),
        (FIRST, "repeated-image", "a second time", 1),
        ("../../etc/x\n1\n9 7 1 50 50 1\n", "path-escape", "leads out of the folder", 1),
    ],
)
def test_oddities_are_listed_with_file_and_line(tmp_path: Path, more: str, code: str, said: str, boxes: int) -> None:
    dataset = read(put(tmp_path, FIRST + more))
    assert codes(dataset) == [code]
    finding = next(finding for finding in dataset.findings if finding.code == code)
    assert said in finding.what
    assert finding.where.file == "FDDB-folds/FDDB-fold-01-ellipseList.txt"
    assert finding.where.line in (4, 6)
    assert dataset.boxes == boxes


def test_list_of_names_and_ellipses_that_disagree(tmp_path: Path) -> None:
    dataset = read(put(tmp_path, FIRST + "a/b\n0\n", "2002/08/11/big/img_591\nc/d\n"))
    assert codes(dataset) == ["missing-annotation", "unlisted-image"]
    assert [image.id for image in dataset.images] == ["2002/08/11/big/img_591", "a/b"]
    assert dataset.images_read == 3


def test_unknown_image_without_file_has_no_size_and_with_file_its_own(tmp_path: Path) -> None:
    root = with_images(tmp_path, 1)
    put(root, "set/img_0\n1\n9 7 1 50 50 1\nset/none\n1\n9 7 1 50 50 1\n")
    (root / "originalPics" / "set" / "broken.jpg").write_bytes(b"no image")
    put(root, "set/broken\n1\n9 7 1 50 50 1\n", number="02")
    assert [(image.width, image.height) for image in read(root).images] == [(80, 60), (0, 0), (0, 0)]


def test_faces_beyond_the_border_are_kept_for_judging_and_cut_for_training(tmp_path: Path) -> None:
    root = put(with_images(tmp_path, 1), "set/img_0\n1\n20 20 0 5 30 1\n")
    judged, trained = read(root), fddb.read(root, None)
    assert judged.annotations["set/img_0"].boxes.tolist() == [[-15.0, 10.0, 25.0, 50.0]]
    assert codes(judged) == []
    assert trained.annotations["set/img_0"].boxes.tolist() == [[0.0, 10.0, 25.0, 50.0]]
    assert codes(trained) == ["box-clipped"]
    assert trained.annotations["set/img_0"].extra["ellipse"].tolist() == [[20, 20, 0, 5, 30]]


def test_opens_for_training_and_splits_off_validation(tmp_path: Path) -> None:
    opened = open_dataset(with_images(tmp_path, 10))
    assert opened.format == "fddb"
    assert len(opened.train) + len(opened.val) == 10
    assert all(truth.extra["ellipse"].shape == (2, 5) for truth in opened.train.annotations.values())


def test_images_may_lie_above_the_folds(tmp_path: Path) -> None:
    root = with_images(tmp_path, 2)
    assert len(fddb.read(root / "FDDB-folds", None)) == 2
    assert len(fddb.read(root / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt", None)) == 2


def test_training_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_dataset(put(tmp_path, FIRST))
    assert codes(fddb.read(tmp_path, None)) == ["missing-image"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    root = with_images(tmp_path / "from", 3)
    put(root, "set/img_2\n1\n9.125 7 -1 30 30  1\n", number="07")
    put(root, "set/img_0\n1\n20.5 12.25 1.5 30 30 1\nset/img_1\n0\n", "set/img_0\nset/img_1\n")
    dataset = fddb.read(root, None)
    assert fddb.write(dataset, tmp_path / "to") == []
    back = fddb.read(tmp_path / "to", None)
    assert back.fingerprint() == dataset.fingerprint()
    assert back.annotations["set/img_2"].extra["fold"].tolist() == [7]
    assert back.annotations["set/img_2"].extra["ellipse"].tolist() == [[9.125, 7, -1, 30, 30]]


def test_real_folds_are_written_as_they_were(shared: Path, tmp_path: Path) -> None:
    fddb.write(read(shared / "fddb"), tmp_path, images=None)
    for path in (shared / "fddb" / "FDDB-folds").glob("*.txt"):
        ours = (tmp_path / "FDDB-folds" / path.name).read_text().split()
        theirs = path.read_text().split()
        assert len(ours) == len(theirs)
        assert [a for a, b in zip(ours, theirs, strict=True) if a != b and float(a) != float(b)] == []


def test_writing_boxes_and_what_is_lost(tmp_path: Path) -> None:
    truth = Annotations([[10.0, 20, 30, 60], [0, 0, 8, 4], [1, 1, 2, 2]], [0, 1, 0], ignore=[False, False, True])
    dataset = Dataset(
        tmp_path, "coco", "val", ("face", "head"), (ImageInfo(5, tmp_path / "5.jpg", 90, 90),), {5: truth}
    )
    lost = fddb.write(dataset, tmp_path / "to", images=None)
    assert [finding.code for finding in lost] == ["lost-class", "lost-flag", "box-as-ellipse"]
    back = read(tmp_path / "to")
    assert back.annotations["5"].boxes == pytest.approx(truth.boxes[:2], abs=1e-5)


def test_other_formats_are_not_taken_for_fddb(shared: Path, tmp_path: Path) -> None:
    for name in ("bccd", "coco128", "tinycoco", "road", "wider_face", "visdrone", "raccoon"):
        assert fddb.recognise(shared / name) is None
    for text in ("", "a\nb\nc\n", "a/b.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n", "\0\1\2", "10 20 30 40 0.5\n"):
        (tmp_path / "list.txt").write_text(text)
        assert fddb.recognise(tmp_path / "list.txt") is None
    with pytest.raises(DataError, match="holds no FDDB ellipse list"):
        fddb.read(tmp_path, None)
