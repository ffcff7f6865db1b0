"""Detections written as WIDER FACE's and FDDB's tools read them: what the files say, and that they come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.detections import fddb, widerface
from onestage.data.detections.reading import read_detections
from onestage.data.detections.writing import WRITTEN, refuse_filled, write_detections
from onestage.errors import DataError, UsageError
from onestage.evaluation import evaluate
from onestage.records import Annotations, Detections, ImageId, ImageInfo

GOLDEN = Path(__file__).parent.parent / "golden" / "fddb"
FOUND = Detections(
    np.array([[1.5, 2.25, 11.5, 42.25], [0.0, 0.0, 3.0, 4.0]]), np.array([0, 0]), np.array([0.25, 0.9375])
)
Found = Mapping[ImageId, Detections]


def image(path: str, image_id: str | None = None) -> ImageInfo:
    return ImageInfo(image_id or Path(path).with_suffix("").as_posix(), Path(path), 640, 480)


def random_found(rng: np.random.Generator, faces: np.ndarray) -> Detections:
    """Boxes near the faces, some twice, and false ones; scores as float32 gives them, many of them tied."""
    near = np.repeat(faces, 2, 0) + rng.normal(0, 6, (2 * len(faces), 4))
    corner = rng.random((5, 2)) * 300
    boxes = np.concatenate([near, np.hstack([corner, corner + rng.random((5, 2)) * 90])])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = np.round(rng.random(len(boxes)), 2).astype(np.float32)
    return Detections(boxes, np.zeros(len(boxes), int), scores)


def face_set(rng: np.random.Generator) -> tuple[Dataset, dict[ImageId, Detections]]:
    images = [image(f"WIDER_val/images/{event}/{event}_{i}.jpg", f"{event}/{event}_{i}")
              for event in ("0--Parade", "9--Press") for i in range(3)]  # fmt: skip
    truths, found = {}, {}
    for one in images:
        corner = rng.random((int(rng.integers(0, 6)), 2)) * 300
        faces = np.hstack([corner, corner + 8 + rng.random(corner.shape) * 100])
        hard = np.ones(len(faces), bool)
        levels = {"easy": rng.random(len(faces)) < 0.5, "medium": rng.random(len(faces)) < 0.8, "hard": hard}
        truths[one.id] = Annotations(faces, np.zeros(len(faces), int), extra=levels)
        found[one.id] = random_found(rng, faces)
    return Dataset(Path(), "widerface", "val", ("face",), tuple(images), truths), found


def test_a_widerface_file_to_the_letter(tmp_path: Path) -> None:
    images = [image("in/0--Parade/0_Parade_a.jpg"), image("in/0--Parade/b.png"), image("in/9--Press/c.jpg")]
    files = widerface.write({images[0].id: FOUND}, images, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "0--Parade/0_Parade_a.txt", "0--Parade/b.txt", "9--Press/c.txt",
    ]  # fmt: skip
    assert files[0].read_text() == "0--Parade/0_Parade_a.jpg\n2\n0 0 3 4 0.9375\n1.5 2.25 10 40 0.25\n"
    assert files[1].read_text() == "0--Parade/b.png\n0\n"
    widerface.write({images[0].id: FOUND}, images, tmp_path, plus_one=True)
    assert files[0].read_text().splitlines()[2:] == ["0 0 4 5 0.9375", "1.5 2.25 11 41 0.25"]


def test_an_fddb_file_to_the_letter(tmp_path: Path) -> None:
    images = [image("x/originalPics/2002/08/11/big/img_591.jpg", "11/big/img_591"), image("x/y.jpg", "y")]
    [file] = fddb.write({images[0].id: FOUND, "y": Detections.empty()}, images, tmp_path / "out.txt")
    assert file.read_text() == "2002/08/11/big/img_591\n2\n0 0 3 4 0.9375\n1.5 2.25 10 40 0.25\ny\n0\n"
    fddb.write({images[0].id: FOUND}, images[:1], file, plus_one=True)
    assert file.read_text().splitlines()[2] == "0 0 4 5 0.9375"


@pytest.mark.parametrize("format", WRITTEN)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_written_is_read_and_judged_alike(
    tmp_path_factory: pytest.TempPathFactory, format: str, seed: int
) -> None:
    dataset, found = face_set(np.random.default_rng(seed))
    folder = tmp_path_factory.mktemp("written")
    write_detections(format, found, dataset.images, dataset.classes, folder)
    again = read_detections(folder, dataset, format=format)
    assert not [finding for finding in again.findings if finding.severity != "note"]
    if format != "comp4":  # a row of equal score in another image may come first
        for one in dataset.images:
            read = again.detections.get(one.id, Detections.empty())
            np.testing.assert_allclose(read.boxes, found[one.id].boxes, atol=1e-5)
            np.testing.assert_allclose(read.scores, found[one.id].scores, rtol=1e-7)
    numbers = [
        {(row.protocol, row.name): row.value
         for row in evaluate(dataset.truths, what, dataset.classes, ("widerface", "voc10"), False).metrics}
        for what in (found, again.detections)
    ]  # fmt: skip
    assert numbers[0] == pytest.approx(numbers[1], nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("format", ["widerface", "fddb"])
def test_the_readers_undo_x2_minus_x1_and_keep_the_pixel_that_plus_one_adds(
    tmp_path: Path, format: str, plus_one: bool
) -> None:
    dataset, found = face_set(np.random.default_rng(1))
    write_detections(format, found, dataset.images, dataset.classes, tmp_path / "w", plus_one=plus_one)
    again = read_detections(tmp_path / "w", dataset, format=format).detections
    for one in dataset.images:
        np.testing.assert_allclose(
            again[one.id].boxes - found[one.id].boxes, [[0, 0, plus_one, plus_one]] * len(found[one.id]), atol=1e-5
        )


def test_the_official_roc_of_golden_detections_survives_writing(tmp_path: Path) -> None:
    """Rectangles that FDDB's program has judged (tests/golden/fddb), read, written, and read once more."""
    rows = fddb.read(GOLDEN / "rectangles.txt")
    images = [ImageInfo(str(name), Path(f"{name}.jpg"), 0, 0) for name in rows.images]
    found = {
        one.id: Detections(rows.boxes[rows.image == i], rows.label[rows.image == i], rows.scores[rows.image == i])
        for i, one in enumerate(images)
    }
    fddb.write(found, images, tmp_path / "fold-01-out.txt")
    again = fddb.read(tmp_path)
    assert again.images == rows.images
    assert not again.findings
    assert len(again) == len(rows) > 20
    order = np.lexsort((-rows.scores, rows.image))
    np.testing.assert_array_equal(again.scores, rows.scores[order])
    np.testing.assert_allclose(again.boxes, rows.boxes[order], atol=1e-6)


def test_only_faces_of_several_classes_are_written(tmp_path: Path) -> None:
    one = image("a/b.jpg")
    found = {one.id: Detections(FOUND.boxes, np.array([1, 0]), FOUND.scores)}
    told = write_detections("widerface", found, [one], ("person", "face"), tmp_path)
    assert told == "1 detection in 1 image"
    assert (tmp_path / "a" / "b.txt").read_text() == "a/b.jpg\n1\n0 0 3 4 0.9375\n"


REFUSED: list[tuple[Callable[[Path], object], type[Exception], str]] = [
    (lambda p: write_detections("widrface", {}, [], ("face",), p), UsageError, r"written \(did you mean 'widerface'"),
    (lambda p: write_detections("fddb", {}, [], ("a", "b"), p), UsageError, "none of the classes is 'face': a, b"),
    (lambda p: write_detections("yolo", {}, [], ("a",), p, plus_one=True), UsageError, "no effect on format=yolo"),
    (lambda p: widerface.write({}, [image("x/e/a.jpg"), image("y/e/a.jpg")], p), DataError, "would share a file"),
    (lambda p: widerface.write({}, [image("e/a.jpg"), image("e/a.png", "q")], p), DataError, "would share a file"),
    (lambda p: refuse_filled(p.parent), UsageError, "holds something already"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "told"), REFUSED)
def test_refusals(call: Callable[[Path], object], error: type[Exception], told: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(error, match=told):
        call(tmp_path / "new")
    refuse_filled(tmp_path / "new")


def test_an_image_in_no_folder_has_an_event_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [file] = widerface.write({}, [image("a.jpg")], tmp_path / "out")
    assert file == tmp_path / "out" / tmp_path.name / "a.txt"
