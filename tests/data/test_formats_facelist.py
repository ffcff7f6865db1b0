"""Face lists: four layouts, every oddity, images found by the ends of their paths, round trip, fuzzed bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import codes, only, picture, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import facelist, recognise
from onestage.data.formats import widerface as wider
from onestage.data.formats.facelist_lines import LAYOUTS, Layout, layout_of, lines_of
from onestage.data.loader import Loader
from onestage.data.one_set import open_set
from onestage.data.opening import open_dataset, refuse_losses
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

COUNTED = "a.jpg 2 5 6 20 10 1 30 8 12 12 1 \nb.jpg 1 1 2 9 9 1 \n"


def made(root: Path, text: str, *names: str, **more: object) -> Dataset:
    """The list `faces.txt` with images of 60x40."""
    for name in names or ("a.jpg", "b.jpg"):
        picture(root / name)
    return facelist.read(write(root / "faces.txt", text), None, **more)  # type: ignore[arg-type]


def refusal(root: Path, text: str, *names: str) -> str:
    with pytest.raises(DataError) as refused:
        made(root, text, *names)
    return str(refused.value)


# ---- layouts


@pytest.mark.parametrize(("text", "layout"), [
    (COUNTED, "path count x y w h class x y w h class …"),
    ("a.jpg 2 5 6 20 10 30 8 12 12\nb.jpg 1 1 2 9 9\n", "path count x y w h x y w h …"),
    ("a.jpg 5 6 20 10 1 30 8 12 12 1\nb.jpg 1 2 9 9 1\n", "path x y w h class x y w h class …"),
    ("a.jpg 5 6 20 10 30 8 12 12\nb.jpg 1 2 9 9\n", "path x y w h x y w h …"),
])  # fmt: skip
def test_four_layouts_say_the_same(tmp_path: Path, text: str, layout: str) -> None:
    dataset = made(tmp_path, text)
    assert recognise(tmp_path / "faces.txt") == [("facelist", f"face list faces.txt (lines: {layout})")]
    assert dataset.classes == ("face",)
    assert [image.id for image in dataset.images] == ["a", "b"]
    assert dataset.annotations["a"].boxes.tolist() == [[5, 6, 25, 16], [30, 8, 42, 20]]
    assert dataset.annotations["b"].boxes.tolist() == [[1, 2, 10, 11]]
    assert dataset.annotations["b"].extra["line"].tolist() == [2]
    assert not dataset.findings
    assert (dataset.boxes_read, dataset.images_read) == (3, 2)


@pytest.mark.parametrize("change", [
    lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t.replace(" ", "\t"),
    lambda t: t.replace(" \n", "\n"),
    lambda t: t.replace("\n", "\n\n"), lambda t: "# path n x y w h c\n" + t, lambda t: t.replace("5 6", "5.0 6e0"),
    lambda t: t.replace("a.jpg", "./a.jpg"), lambda t: t.replace("b.jpg", '"b.jpg"'), lambda t: t.replace("  ", "   "),
])  # fmt: skip
def test_text_as_written_elsewhere(tmp_path: Path, change: object) -> None:
    dataset = made(tmp_path, change(COUNTED))  # type: ignore[operator]
    assert dataset.annotations["a"].boxes.tolist() == [[5, 6, 25, 16], [30, 8, 42, 20]]
    assert not dataset.findings


def test_two_byte_text(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "faces.txt").write_bytes("a.jpg 1 5 6 20 10 1\n".encode("utf-16"))
    assert only(facelist.read(tmp_path / "faces.txt", None)).boxes.tolist() == [[5, 6, 25, 16]]


def test_paths_with_blanks_and_numbers(tmp_path: Path) -> None:
    names = ["my photo 3.jpg", "2 3.JPG", "a.jpg b.jpg", "in 1/x  y.png"]
    dataset = made(tmp_path, "".join(f"{name} 1 5 6 20 10 1\n" for name in names), *names)
    assert [image.path for image in dataset.images] == [tmp_path / name for name in names]
    assert dataset.boxes == 4
    assert not dataset.findings


def test_paths_without_ending(tmp_path: Path) -> None:
    dataset = made(
        tmp_path, "".join(f"big/{n} 1 5 6 20 10 1\n" for n in ("a_1", "b_1", "c 2")), "big/a_1.jpg", "big/b_1.png"
    )
    assert [image.id for image in dataset.images] == ["big/a_1", "big/b_1"]  # "c 2 1 …" reads as a count of 2
    assert codes(dataset) == ["misfit-line"]


def test_a_tie_goes_to_the_count_and_landmarks_are_no_boxes(tmp_path: Path) -> None:
    assert layout_of(lines_of("a.jpg 1 5 6 7 8\n"))[0] == Layout(True, 4)
    marks = "".join(f"{i}.jpg {' '.join(str(60 + 7 * i + k) for k in range(10))}\n" for i in range(60))
    assert layout_of(lines_of(marks)) == (None, 0, 60)
    message = refusal(tmp_path, marks, "0.jpg")
    assert "of 60 lines with numbers no more than 0 fit one layout" in message
    assert "line 1: 10 numbers after '0.jpg'" in message


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LAYOUTS), st.lists(st.lists(st.tuples(
    st.integers(-9, 500), st.integers(-9, 500), st.integers(1, 300), st.integers(1, 300), st.integers(0, 4),
), max_size=4), min_size=2, max_size=8))  # fmt: skip
def test_the_layout_is_found_from_the_lines(layout: Layout, images: list) -> None:
    rows = [[word for box in boxes for word in box[: layout.columns]] for boxes in images]
    text = "".join(
        " ".join(map(str, [f"{i}.jpg", *[len(boxes)] * layout.counted, *row])) + "\n"
        for i, (boxes, row) in enumerate(zip(images, rows, strict=True))
    )
    if sum(map(len, images)) >= 4 and len({len(boxes) for boxes in images}) > 2:
        assert layout_of(lines_of(text))[0] == layout


@pytest.mark.parametrize("content", [
    "", "\n\n", "a.jpg\nb.jpg\n", "a.jpg 3\nb.jpg 5\n", "0 0.5 0.5 0.1 0.1\n", "face 10 20 30 40\n",
    "000001 -1\n000002 1\n", "word " * 90_000,
    "a.jpg\n1\n1 2 3 4\n", "a.jpg 1,2,3,4,0 5,6,7,8,0\n", "\x00\x01\x02" * 400, "{\"a.jpg\": [1, 2, 3, 4]}",
])  # fmt: skip
def test_other_text_is_not_taken_for_it(tmp_path: Path, content: str) -> None:
    assert facelist.recognise(write(tmp_path / "some.txt", content)) is None
    assert facelist.recognise(tmp_path) is None


def test_a_folder_of_labels_is_no_folder_of_lists(tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path / f"{i}.txt", COUNTED)
    assert facelist.recognise(tmp_path) is None


# ---- what is wrong with boxes and lines


def test_boxes_without_area_are_kept_but_ignored(tmp_path: Path) -> None:
    rows = "0 0 0 0 1 5 6 20 10 1 8 9 0 4 1 30 30 -2 5 1"
    dataset = made(tmp_path, f"a.jpg 4 {rows}\nb.jpg 1 0 0 0 0 0\n")
    truth = dataset.annotations["a"]
    assert truth.boxes.tolist() == [[0, 0, 0, 0], [5, 6, 25, 16], [8, 9, 8, 13], [30, 30, 28, 35]]
    assert truth.ignore.tolist() == truth.extra["degenerate"].tolist() == [True, False, True, True]
    assert dataset.classes == ("face",)  # the class 0 of the row of zeros is none
    assert codes(dataset) == ["degenerate-face"] * 4
    assert [(found.where.line, found.where.image) for found in dataset.findings] == [(1, "a")] * 3 + [(2, "b")]
    assert dataset.findings[1].where.box == (8, 9, 8, 13)
    refuse_losses(dataset, 0.0)
    with Loader(dataset, (64, 64), "ssd", batch=2) as loader:
        for seen in (truth for epoch in range(5) for batch in loader.epoch(epoch) for truth in batch.annotations):
            assert np.array_equal(seen.ignore, seen.extra["degenerate"]) if len(seen) else True
            assert ((seen.boxes[:, 2:] - seen.boxes[:, :2]) >= 1).all()


@pytest.mark.parametrize("zeros", ["0", "0 0 0 0 0", "0 0 0 0 0 0"])
def test_a_count_of_zero_is_an_image_without_faces(tmp_path: Path, zeros: str) -> None:
    dataset = made(tmp_path, f"a.jpg {zeros}\nb.jpg 1 5 6 20 10 1\n")
    assert [len(dataset.annotations[image.id]) for image in dataset.images] == [0, 1]
    assert not dataset.findings


def test_boxes_over_the_border_outside_and_twice(tmp_path: Path) -> None:
    rows = "-5 -3 20 20 1 50 30 20 20 1 70 5 9 9 1 5 6 20 10 1 5 6 20 10 1"
    dataset = made(tmp_path, f"a.jpg 5 {rows}\n")
    assert only(dataset).boxes.tolist() == [[-5, -3, 15, 17], [50, 30, 70, 50], [5, 6, 25, 16]]
    assert codes(dataset) == ["beyond-image", "beyond-image", "box-outside", "duplicate-box"]
    assert "10 px beyond the image of 60x40" in dataset.findings[1].what
    with Loader(dataset, (60, 40), "none", batch=1) as loader:
        (batch,) = loader.epoch(0)
    assert batch.annotations[0].boxes.tolist() == [[0, 0, 15, 17], [50, 30, 60, 40], [5, 6, 25, 16]]
    judged = facelist.read(tmp_path / "faces.txt", None, probe_images=False)
    assert len(only(judged)) == 5
    assert codes(judged) == ["kept-as-written"]


def test_an_image_in_several_lines(tmp_path: Path) -> None:
    dataset = made(tmp_path, "a.jpg 1 5 6 20 10 1\nb.jpg 0\na.jpg 1 5 6 20 10 1\na.jpg 2 5 6 20 10 1 1 1 9 9 1\n")
    assert dataset.annotations["a"].boxes.tolist() == [[5, 6, 25, 16], [1, 1, 10, 10]]
    assert dataset.annotations["a"].extra["line"].tolist() == [1, 4]
    assert [(found.code, found.where.line) for found in dataset.findings] == [
        ("repeated-image", 3),
        ("joined-lines", 4),
    ]
    assert (dataset.images_read, dataset.boxes_read) == (2, 2)
    one_each = made(tmp_path, "a.jpg 5 6 20 10 1\na.jpg 1 1 9 9 1\nb.jpg 2 2 9 9 1\n")
    assert len(one_each.annotations["a"]) == 2
    assert not one_each.findings  # a line per box is this layout's way


@pytest.mark.parametrize(("line", "code", "said", "boxes"), [
    ("a.jpg 3 5 6 20 10 1", "count-mismatch", "a count of 3, 1 box", 1),
    ("a.jpg 0 5 6 20 10 1", "count-mismatch", "a count of 0, 1 box", 1),
    (f"a.jpg {'9' * 5000} 5 6 20 10 1", "count-mismatch", "1 box", 1),
    ("a.jpg 1e300 5 6 20 10 1", "count-mismatch", "a count of 1e300", 1),
    ("a.jpg -1 5 6 20 10 1", "count-mismatch", "'-1' is no count", 1),
    ("a.jpg two 5 6 20 10 1 1 1 9 9 1", "count-mismatch", "'two' is no count, 2 boxes", 2),
    ("a.jpg 2 5 6 20 10 1 1 x 9 9 1", "not-a-number", "1 x 9 9 are not four finite numbers", 1),
    ("a.jpg 2 5 6 20 10 1 1 1e308 9 1.7e308 1", "not-a-number", "not four finite", 1),
    ("a.jpg 2 5 6 20 10 1 1 1 9 9 0.5", "bad-row", "the class 0.5 is no whole number".replace("0.5", "'0.5'"), 1),
    ("a.jpg 2 5 6 20 10 1 1 9 9 1", "misfit-line", "9 numbers after the count 2 are no whole boxes of 5", None),
    ("a.jpg", "misfit-line", "not even a count", None),
    ("a.jpg 1 1 1 9 9 1 c.jpg 1 5 6 20 10 1", "misfit-line", "two lines stand in one", None),
    ("1 5 6 20 10 1", "misfit-line", "names no image", None),
    ("x/../../a.jpg 1 5 6 20 10 1", "path-escape", "leads out", None),
    ("a\0.jpg 1 5 6 20 10 1", "path-escape", "leads out", None),
    (f"{'a' * 3000}.jpg 1 5 6 20 10 1", "missing-image", "no aaaa", None),
])  # fmt: skip
def test_a_line_that_is_wrong_is_listed_and_harms_no_other(
    tmp_path: Path, line: str, code: str, said: str, boxes: int | None
) -> None:
    dataset = made(tmp_path, f"{line}\nb.jpg 1 1 2 9 9 1\nc.jpg 1 1 2 9 9 1\n", "a.jpg", "b.jpg", "c.jpg")
    (found,) = dataset.findings
    assert (found.code, found.where.line) == (code, 1)
    assert said in found.what
    kept = {image.id: len(dataset.annotations[image.id]) for image in dataset.images}
    assert kept == ({} if boxes is None else {"a": boxes}) | {"b": 1, "c": 1}


WHOLE = "a.jpg 1 5 6 20 10 1\nb c.jpg 3 11 6 21 10 1 12 6 21 10 1 13 6 21 10 1\n"


@pytest.mark.parametrize("columns", [5, 4])
@pytest.mark.parametrize("length", range(len("a.jpg 1 5 6 20 10 1\n") + 1, len(WHOLE)))
def test_a_file_cut_short_anywhere(tmp_path: Path, length: int, columns: int) -> None:
    """What was read before the cut is kept, what the cut left is never a wrong box, and the cut is told."""
    text = WHOLE if columns == 5 else WHOLE.replace(" 10 1", " 10")
    text = text[:length]
    dataset = facelist.read(write(tmp_path / "faces.txt", text), None, probe_images=False)
    assert dataset.annotations["a"].boxes.tolist() == [[5, 6, 25, 16]]
    rest = dataset.annotations.get("b c")
    if rest is not None:
        if not (columns == 4 and text.endswith(" 1") and len(rest) == 3):  # all three are there: nobody could know
            assert rest.boxes.tolist() == [[k, 6, k + 21, 16] for k in (11, 12, 13)][: len(rest)]
        assert len(rest) > 0
        assert len(rest) == 3 or "cut-short" in codes(dataset)
    assert text.endswith("\n") or "no-line-end" in codes(dataset)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=4), st.integers(0, 6)), max_size=6))
@example([(0, b"\xff\xfe", 0)])
@example([(6, b"\x00", 1)])
@example([(20, b"\xe2\x80\xa8", 0)])
def test_changed_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, edits: list) -> None:
    data = bytearray((COUNTED + WHOLE).encode())
    for at, new, gone in edits:
        data[at : at + gone] = new
    path = tmp_path_factory.mktemp("fuzz") / "faces.txt"
    path.write_bytes(bytes(data))
    if not recognise(path):
        return
    try:
        dataset = facelist.read(path, None, probe_images=False)
    except DataError:
        return
    assert all(np.isfinite(truth.boxes).all() for truth in dataset.annotations.values())
    assert dataset.boxes <= dataset.boxes_read
    assert len(dataset) <= dataset.images_read


# ---- numbers that are something else


def test_corners_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{name}.jpg 2 {20 + i} 20 58 38 1 30 5 {40 + i} 39 1\n" for i, name in enumerate("abc"))
    message = refusal(tmp_path, rows, "a.jpg", "b.jpg", "c.jpg")
    assert "look like corners (x1 y1 x2 y2)" in message
    assert "x2 - x1" in message


def test_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    assert "shares of the image, not pixels" in refusal(tmp_path, "a.jpg 1 0.5 0.5 0.25 0.25 1\nb.jpg 1 0 0 1 1 1\n")


# ---- classes


TWO = "a.jpg 2 5 6 20 10 1 30 8 12 12 2\nb.jpg 1 1 2 9 9 2\n"


def test_class_numbers(tmp_path: Path) -> None:
    assert made(tmp_path, COUNTED.replace(" 1 \n", " 0 \n").replace("10 1", "10 0")).classes == ("face",)
    dataset = made(tmp_path, TWO)
    assert dataset.classes == ("1", "2")
    assert dataset.annotations["a"].labels.tolist() == [0, 1]
    named = made(tmp_path, TWO, classes=["face", "mask"])
    assert named.annotations["a"].labels.tolist() == [0, 1]
    assert [(found.code, found.what) for found in named.findings] == [
        ("numbered-classes", "class number 1 is face, class number 2 is mask")
    ]
    from_zero = made(tmp_path, TWO.replace("10 1", "10 0"), classes=["a", "b", "c"])
    assert from_zero.annotations["a"].labels.tolist() == [0, 2]
    by_name = made(tmp_path, TWO, classes=["2"])
    assert by_name.annotations["a"].labels.tolist() == [0]
    assert codes(by_name) == ["unknown-class"]
    with pytest.raises(DataError, match="class numbers 1, 2, classes names face"):
        made(tmp_path, TWO, classes=["face"])


def test_one_class_by_another_name(tmp_path: Path) -> None:
    assert made(tmp_path, COUNTED, classes=["head"]).classes == ("head",)
    bare = "a.jpg 1 5 6 20 10\n"
    assert made(tmp_path, bare, classes=["cat", "face"]).annotations["a"].labels.tolist() == [1]
    with pytest.raises(DataError, match="the one class 'face', classes names cat, dog"):
        made(tmp_path, bare, classes=["cat", "dog"])


def test_numbers_mean_the_same_in_all_lists_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", TWO)
    write(tmp_path / "val.txt", "c.jpg 1 5 6 20 10 2\n")
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    opened = open_dataset(tmp_path, classes=["face", "mask"])
    assert opened.val.annotations["c"].labels.tolist() == [1]
    assert (opened.classes, opened.split_made) == (("face", "mask"), None)


# ---- sets and images


def test_sets_by_the_names_of_the_lists(tmp_path: Path) -> None:
    for name in ("wider_train", "aflw-train", "wider_val"):
        write(tmp_path / f"label/{name}.txt", f"{name}.jpg 1 5 6 20 10 1\n")
        picture(tmp_path / f"images/{name}.jpg")
    assert facelist.splits(tmp_path) == ["train", "val"]
    opened = open_dataset(tmp_path)
    assert [image.id for image in opened.train.images] == ["aflw-train", "wider_train"]
    assert [image.id for image in opened.val.images] == ["wider_val"]
    assert len(open_set(tmp_path, "all")) == 3
    with pytest.raises(DataError, match="did you mean 'train'"):
        facelist.read(tmp_path, "trian")
    assert len(open_set(tmp_path / "label/wider_val.txt")) == 1  # one list is judged whole


@pytest.mark.parametrize(
    "place", ["", "images", "JPEGImages", "img", "faces", "images/faces", "anything", "WIDER_train/images"]
)
@pytest.mark.parametrize(
    "written", ["e/{}", "data/all/e/{}", "/home/me/set/e/{}", "C:\\set\\e\\{}", "../e/{}", "./e/{}"]
)
def test_images_are_found_by_the_ends_of_their_paths(tmp_path: Path, place: str, written: str) -> None:
    text = "".join(f"{written.format(name)} 1 5 6 20 10 1\n" for name in ("a.jpg", "b.jpg"))
    dataset = made(tmp_path, text, *(f"{place or '.'}/e/{name}.jpg" for name in "ab"))
    assert [image.path for image in dataset.images] == [tmp_path / place / "e" / name for name in ("a.jpg", "b.jpg")]
    assert set(codes(dataset)) <= {"shortened-paths"}


def test_paths_are_not_shortened_where_two_would_be_one(tmp_path: Path) -> None:
    dataset = made(tmp_path, "x/a.jpg 1 5 6 20 10 1\ny/a.jpg 1 1 2 9 9 1\n", "a.jpg")
    assert codes(dataset) == ["missing-image"] * 2
    with pytest.raises(DataError, match="2 of 2 images cannot be used"):
        open_dataset(tmp_path / "faces.txt")


def test_the_list_may_lie_beside_the_folder_of_images(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    path = write(tmp_path / "label/faces.txt", "a.jpg 1 5 6 20 10 1\n")
    assert facelist.read(path, None).images[0].path.resolve() == (tmp_path / "images/a.jpg").resolve()


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    outside = picture(tmp_path / "far/away/secret.jpg")
    home = tmp_path / "set/lists"
    home.mkdir(parents=True)
    (home / "link.jpg").symlink_to(outside)
    path = write(home / "faces.txt", f"{outside} 1 5 6 20 10 1\nlink.jpg 1 5 6 20 10 1\n")
    dataset = facelist.read(path, None)
    assert codes(dataset) == ["path-escape"] * 2
    assert not dataset.images


def test_broken_images_and_names_that_differ_by_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    picture(tmp_path / "b.jpg")
    picture(tmp_path / "b.png")
    text = "".join(f"{name} 1 5 6 20 10 1\n" for name in ("a.jpg", "b.jpg", "b.png", "c.jpg"))
    dataset = facelist.read(write(tmp_path / "faces.txt", text), None)
    assert [image.id for image in dataset.images] == ["b", "b.png"]
    assert codes(dataset) == ["unreadable-image", "missing-image"]


# ---- writing


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(
    st.integers(-50, 2000), st.integers(-50, 2000), st.integers(-3, 500).filter(lambda v: v != 1),
    st.integers(1, 50).map(lambda v: v / 8),
), max_size=5, unique=True), min_size=1, max_size=4))  # fmt: skip
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    root = tmp_path_factory.mktemp("faces")
    text = "".join(
        f"{i % 2}/{i} x.jpg {len(rows)} {' '.join(f'{x} {y} {w} {h} 1' for x, y, w, h in rows)}\n"
        for i, rows in enumerate(records)
    )
    if not any(records):
        return
    first = facelist.read(write(root / "a.txt", text), None, probe_images=False)
    assert facelist.write(first, root / "out", images=None) == []
    again = facelist.read(root / "out", "a", probe_images=False)
    assert again.fingerprint() == first.fingerprint()
    assert [truth.ignore.tolist() for truth in again.annotations.values()] == [
        truth.ignore.tolist() for truth in first.annotations.values()
    ]


def test_written_with_images_it_opens_again(tmp_path: Path) -> None:
    first = made(tmp_path / "in", TWO)
    findings = facelist.write(first, tmp_path / "out")
    assert [(found.code, found.what) for found in findings] == [
        ("numbered-classes", "1 is written as 1, 2 is written as 2")
    ]
    again = facelist.read(tmp_path / "out", None)
    assert again.images[0].path == tmp_path / "out/images/faces/a.jpg"
    assert again.fingerprint() == first.fingerprint()


def test_writing_tells_what_is_lost(tmp_path: Path) -> None:
    truth = Annotations(
        [[1, 2, 4.5, 8], [3, 3, 9, 9], [2, 2, 9, 9]], [0, 1, 0], difficult=[True, False, False],
        ignore=[False, True, False], crowd=[False, False, True],
    )  # fmt: skip
    image = ImageInfo(7, picture(tmp_path / "a.png"), 60, 40)
    findings = facelist.write(Dataset(tmp_path, "voc", "test", ("cat", "dog"), (image,), {7: truth}), tmp_path / "out")
    assert [found.code for found in findings] == ["numbered-classes", "lost-flag", "lost-flag"]
    assert (tmp_path / "out/test.txt").read_text() == "7.png 1 1 2 3.5 6 1\n"


def test_a_list_made_of_wider_face_tells_the_same(shared: Path, tmp_path: Path) -> None:
    """As lxg2015's converter does it: name, count, four numbers and the class 1 per row, a blank at the end."""
    source = shared / "wider_face"
    lines = (source / "wider_face_split/wider_face_train_bbx_gt.txt").read_text().splitlines()
    made_of, at = [], 0
    while at < len(lines):
        rows = max(int(lines[at + 1]), 1)
        boxes = [" ".join(row.split()[:4]) + " 1 " for row in lines[at + 2 : at + 2 + rows]]
        made_of.append(f"widerFace/WIDER_train/images/{lines[at]} {rows} {''.join(boxes)}")
        at += 2 + rows
    path = write(tmp_path / "box_label.txt", "\n".join(made_of) + "\n")
    (tmp_path / "WIDER_train").symlink_to(source / "WIDER_train")
    dataset, official = facelist.read(path, None), wider.read(source, "train")
    assert (len(dataset), dataset.boxes) == (110, 312)
    assert codes(dataset) == ["shortened-paths"]
    assert [truth.boxes.tolist() for truth in dataset.truths.values()] == [
        truth.boxes.tolist() for truth in official.truths.values()
    ]
    opened = open_dataset(path)
    assert (opened.format, len(opened.train), len(opened.val), opened.classes) == ("facelist", 88, 22, ("face",))
