"""Detection files looked up in a dataset: images, classes, what stops, what is listed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.detections import FORMATS, recognise
from onestage.data.detections.checks import places
from onestage.data.detections.coco_json import own_labels
from onestage.data.detections.faults import FAULTS, copies
from onestage.data.detections.lookup import Images
from onestage.data.detections.reading import Found, read_detections
from onestage.errors import DataError, UsageError
from onestage.records import Annotations, ImageId, ImageInfo


def dataset(*images: tuple[ImageId, str], classes: tuple[str, ...] = ("cat",), size: int = 50) -> Dataset:
    infos = tuple(ImageInfo(image_id, Path(path), size, size) for image_id, path in images)
    return Dataset(Path(), "voc", "val", classes, infos, {image.id: Annotations.empty() for image in infos})


def entry(image: ImageId, box: Any = (1, 2, 3, 4), score: Any = 0.5, category: Any = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def judged(tmp_path: Path, data: Dataset, rows: list[Any], **options: Any) -> Found:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(rows))
    return read_detections(path, data, **options)


def read(tmp_path: Path, data: Dataset, image: ImageId, score: float = 0.5, floor: float = 0.0) -> list[ImageId]:
    found = judged(tmp_path, data, [entry(image, score=score)], categories={1: 0}, floor=floor)
    for detections in found.detections.values():
        np.testing.assert_array_equal(detections.boxes, [[1, 2, 4, 6]])
    return list(found.detections)


def codes(found: Found) -> Counter[str]:
    counts: Counter[str] = Counter()
    for finding in found.findings:
        counts[finding.code] += finding.evidence.get("count", 1)
    return counts


# ---- images and classes


def test_an_id_goes_before_a_name(tmp_path: Path) -> None:
    data = dataset(("1", "2.jpg"), ("2", "1.jpg"))
    assert read(tmp_path, data, "1") == ["1"]
    assert read(tmp_path, data, 2) == ["2"]


def test_a_name_that_two_images_share_finds_neither_and_tells_both(tmp_path: Path) -> None:
    data = dataset((1, "x/a.jpg"), (2, "y/a.jpg"))
    with pytest.raises(DataError, match="1 of 1 detections") as caught:
        read(tmp_path, data, "a.jpg")
    assert "'a.jpg' may be x/a.jpg or y/a.jpg" in caught.value.problems[0]
    assert read(tmp_path, data, "y/a.jpg") == [2]
    assert read(tmp_path, data, "elsewhere/y/a") == [2]


@pytest.mark.parametrize(
    ("named", "image"),
    [
        ("2002/08/11/big/img_591", "2002/08/11/big/img_591"), ("08/11/big/img_591", "2002/08/11/big/img_591"),
        ("originalPics/2002/07/19/big/img_591.jpg", "2002/07/19/big/img_591"), ("2002/07/19/big/img_592", None),
        ("2003/01/01/big/img_700", None), ("img_700", "2002/07/19/big/img_700"), ("img_591", "both"),
    ],
)  # fmt: skip
def test_folders_decide_where_names_repeat(named: str, image: str | None) -> None:
    ids = ("2002/08/11/big/img_591", "2002/07/19/big/img_591", "2002/07/19/big/img_700")
    data = dataset(*((name, f"/data/{name}.jpg") for name in ids))
    found = [data.images[i].id for i in Images(data).find(named)]
    assert found == (list(ids[:2]) if image == "both" else [image] if image else [])


@pytest.mark.parametrize("named", ["/other/machine/val/000139.jpg", "C:\\pictures\\000139.png", 139, "139", "000139"])
def test_paths_of_another_machine_and_numbers_find_their_image(named: ImageId) -> None:
    data = dataset(("000139", "/here/000139.jpg"), ("000140", "/here/000140.jpg"))
    assert Images(data).find(named) == [0]


@given(st.lists(st.text("ab/.1", min_size=1, max_size=6), unique=True, min_size=1, max_size=6), st.text("ab/.1"))
def test_ids_find_themselves_and_anything_else_is_told_or_found(ids: list[str], named: str) -> None:
    data = dataset(*((name, f"{i}.jpg") for i, name in enumerate(ids)))
    images = Images(data)
    for i, name in enumerate(ids):
        assert images.find(name) == [i]
    assert set(images.find(named)) <= set(range(len(ids)))


def test_the_floor_keeps_its_own_score(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"))
    assert read(tmp_path, data, 1, score=0.3, floor=0.3) == [1]
    assert read(tmp_path, data, 1, score=0.29, floor=0.3) == []


def test_classes_of_ours_go_by_name() -> None:
    assert own_labels(["dog", "cat"], ["cat", "fish", "dog"]) == {1: 2, 2: 0}
    with pytest.raises(DataError) as caught:
        own_labels(["dgo"], ["cat", "dog"])
    assert caught.value.problems == ("'dgo' (did you mean 'dog'?)",)


def test_numbers_of_classes_mean_what_is_said(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"), classes=("cat", "dog"))

    def label(category: Any, said: Any) -> int:
        return int(judged(tmp_path, data, [entry(1, category=category)], categories=said).detections[1].labels[0])

    assert [label(1, None), label(1, "labels"), label(1, "indices"), label(7, {7: 1}), label("dog", None)] == [
        0, 0, 1, 1, 1,
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        label("Dog", None)
    assert "did you mean 'dog'" in caught.value.problems[0]


# ---- what stops


FAULTY = [
    entry(9), entry(9), entry(1, score=float("nan")), entry(1, score=float("inf")),
    entry(1, box=(1, 2, float("inf"), 4)), entry(1, box=(1, 2, -3, 4)),
    entry(1, category=3), entry(1, score="high"), {"image_id": 1}, [],
]  # fmt: skip
KINDS = {"unknown-image": 2, "not-a-score": 2, "not-a-box": 1, "inverted-box": 1, "unknown-class": 1, "bad-row": 3}


def test_every_kind_stops_and_is_told_with_count_and_place(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"))
    with pytest.raises(DataError, match="10 of 11 detections cannot be judged") as caught:
        judged(tmp_path, data, [entry(1), *FAULTY])
    said = "\n".join(caught.value.problems)
    for code in KINDS:
        assert f"[{code}]" in said
    assert "image 9 is not in the data (2 rows, the first [1], [2])" in said
    assert "score nan (2 rows, the first [3], [4])" in said
    assert "d.json: [8]: score 'high': expected a number" in said
    assert caught.value.exit_code == 3


def test_allow_loss_leaves_them_out_and_lists_them(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"))
    found = judged(tmp_path, data, [entry(1), *FAULTY], allow_loss=True)
    assert len(found.detections[1]) == 1
    assert {code: count for code, count in codes(found).items() if FAULTS[code][0] == "error"} == KINDS
    assert all("left out" in one.consequence for one in found.findings if one.severity == "error")
    with pytest.raises(DataError, match="10 of 10"):
        judged(tmp_path, data, FAULTY, allow_loss=True)


@given(st.lists(st.integers(0, len(FAULTY) - 1), max_size=8), st.integers(1, 4))
def test_no_row_disappears(tmp_path_factory: pytest.TempPathFactory, faulty: list[int], sound: int) -> None:
    data = dataset((1, "a.jpg"))
    rows = [*(FAULTY[i] for i in faulty), *(entry(1, score=0.1 * k) for k in range(sound))]
    found = judged(tmp_path_factory.mktemp("d"), data, rows, allow_loss=True)
    lost = sum(one.evidence["count"] for one in found.findings if one.severity == "error")
    assert len(found.detections[1]) + lost == len(rows)


def test_many_unknown_images_are_counted_not_printed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3000 of 3000") as caught:
        judged(tmp_path, dataset((1, "a.jpg")), [entry(f"n{i}") for i in range(3000)])
    assert len(caught.value.problems) == 11
    assert "2990 more like these" in caught.value.problems[-1]


def test_shares_of_an_image_of_unknown_size(tmp_path: Path) -> None:
    data = dataset(("a", "a.jpg"), size=0)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    with pytest.raises(DataError, match="1 of 1") as caught:
        read_detections(tmp_path / "a.txt", data, format="yolo")
    assert "unknown-size" in caught.value.problems[0]


# ---- what is listed


def test_what_looks_wrong_is_kept_and_listed(tmp_path: Path) -> None:
    rows = [
        entry(1, score=0.5), entry(1, score=0.5), entry(1, box=(60, 2, 5, 5), score=0.4),
        entry(1, box=(45, 2, 10, 5), score=0.3), entry(1, box=(5, 5, 0, 4), score=0.2), entry(1, score=1.5),
        entry(2, score=0.2),
    ]  # fmt: skip
    found = judged(tmp_path, dataset((1, "a.jpg"), (2, "b.jpg"), (3, "c.jpg")), rows)
    assert sum(map(len, found.detections.values())) == len(rows)
    assert codes(found) == {
        "duplicate-row": 1, "box-outside": 1, "box-across-border": 1, "zero-area-box": 1, "score-outside": 1,
        "unsorted": 1, "silent-images": 1,
    }  # fmt: skip
    by_code = {one.code: one for one in found.findings}
    assert "false positive" in by_code["duplicate-row"].consequence
    assert by_code["duplicate-row"].evidence["places"] == ["[1]"]
    assert by_code["box-outside"].where.image == 1
    assert "1 of 3 images are named nowhere, first 3" in by_code["silent-images"].what
    assert found.described.startswith("COCO results JSON: 7 detections in 2 images, scores 0.2 to 1.5; 1 of 3")


def test_numbers_beyond_all_bounds_are_listed(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"))
    with pytest.raises(DataError, match="2 of 2") as caught:
        judged(tmp_path, data, [entry(1, box=(1e308, 0, 1e308, 1)), entry(int("9" * 30))])
    assert {"not-a-box", "unknown-image"} == {problem.rpartition("[")[2][:-1] for problem in caught.value.problems}
    (tmp_path / "a.txt").write_text("1e30 0.5 0.5 0.1 0.1 0.9\n0 0.5 0.5 1e307 1e307 0.9\n0 0.5 0.5 0.1 0.1 0.9\n")
    found = read_detections(tmp_path / "a.txt", dataset(("a", "a.jpg")), format="yolo", allow_loss=True)
    assert codes(found)["bad-row"] == codes(found)["not-a-box"] == len(found.detections["a"]) == 1
    (tmp_path / "d.json").write_text('[{"image_id": ' + "9" * 5000 + "}]")
    with pytest.raises(DataError, match="not valid JSON"):
        read_detections(tmp_path / "d.json", data)


def test_boxes_that_are_shares_are_noticed(tmp_path: Path) -> None:
    found = judged(tmp_path, dataset((1, "a.jpg")), [entry(1, box=(0.1, 0.2, 0.3, 0.4))])
    assert codes(found) == {"boxes-in-shares": 1}


def test_nothing_found_is_an_answer(tmp_path: Path) -> None:
    found = judged(tmp_path, dataset((1, "a.jpg")), [])
    assert (dict(found.detections), found.rows, codes(found)) == ({}, 0, {"silent-images": 1})


def test_rows_keep_their_place_in_the_file(tmp_path: Path) -> None:
    rows = [entry(2, score=0.1), entry(1, score=0.2), entry(2, score=0.9), entry(2, score=0.5)]
    found = judged(tmp_path, dataset((1, "a.jpg"), (2, "b.jpg")), rows, floor=0.15)
    assert found.detections[2].extra["row"].tolist() == [1, 2]
    assert found.detections[2].scores.tolist() == [0.9, 0.5]
    assert found.detections[1].extra["row"].tolist() == [0]


@given(st.lists(st.integers(-1, 3)))
def test_places_count_within_each_image(image: list[int]) -> None:
    seen: Counter[int] = Counter()
    expected = []
    for one in image:
        expected.append(seen[one])
        seen[one] += 1
    assert places(np.array(image, np.int64)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), max_size=12))
def test_copies_are_what_comes_again(rows: list[tuple[int, float, bool]]) -> None:
    among = np.array([row[2] for row in rows], np.bool_)
    found = copies([np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows])], among)
    seen: set[tuple[int, float]] = set()
    for (number, value, counts), copy in zip(rows, found, strict=True):
        assert copy == (counts and (number, value) in seen)
        if counts:
            seen.add((number, value))


# ---- which format


def test_a_folder_of_two_kinds_says_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "comp4_det_test_cat.txt").write_text("a 0.5 1 2 3 4\n")
    (tmp_path / "more.json").write_text("[]")
    found = read_detections(tmp_path, dataset(("a", "a.jpg")))
    assert codes(found) == {"file-passed-over": 1}
    assert found.findings[0].where.file == "more.json"


def test_a_folder_of_nothing_known_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(DataError) as caught:
        read_detections(tmp_path, dataset((1, "a.jpg")))
    assert len(caught.value.problems) == len(FORMATS)
    (tmp_path / "inner.json").write_text("[]")
    with pytest.raises(DataError, match="neither a run nor detections") as caught:
        read_detections(tmp_path, dataset((1, "a.jpg")))
    assert "inner.json" in str(caught.value.hint)


def test_rows_of_a_name_and_five_numbers_go_by_file_names(tmp_path: Path) -> None:
    data = dataset(("a", "a.jpg"), ("b", "b.jpg"), classes=("cat", "dog"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("cat 0.5 1 2 3 4\ndog 0.4 1 2 3 4\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "cat.txt").write_text("a 0.5 1 2 3 4\nb 0.4 1 2 3 4\n")
    assert {name for name, _ in recognise(tmp_path / "one")} == {"comp4", "cartucho"}
    one, two = read_detections(tmp_path / "one", data), read_detections(tmp_path / "two", data)
    assert (one.format, two.format) == ("cartucho", "comp4")
    assert one.detections["a"].boxes[0].tolist() == [1, 2, 3, 4]
    assert two.detections["a"].boxes[0].tolist() == [0, 1, 3, 4]


def test_words_that_are_no_format_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(UsageError, match="did you mean 'yolo'"):
        read_detections(tmp_path / "found.json", dataset((1, "a.jpg")), format="yol")
    with pytest.raises(DataError, match=r"did you mean 'found\.json'"):
        read_detections(tmp_path / "fond.json", dataset((1, "a.jpg")))
