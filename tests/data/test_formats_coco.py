"""COCO JSON: layouts, ids, flags, faults, round trip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import coco, codes, only, picture, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.formats import coco as module
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo

CATS = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def image(number: int = 1, name: str = "a.jpg", **more: object) -> dict:
    return {"id": number, "file_name": name, "width": 60, "height": 40} | more


def box(bbox: object, image_id: object = 1, category: object = 3, **more: object) -> dict:
    return {"image_id": image_id, "category_id": category, "bbox": bbox} | more


def small(root: Path, annotations: list, images: list | None = None, categories: list | None = None) -> Dataset:
    picture(root / "images" / "a.jpg")
    path = coco(root / "annotations/instances_train2017.json", images or [image()], annotations, categories or CATS)
    assert path.is_file()
    return module.read(root, None)


def test_xywh_ids_with_gaps_flags_and_extras(tmp_path: Path) -> None:
    dataset = small(
        tmp_path,
        [
            box([1.5, 2, 10, 20], id=900, area=55.5, segmentation=[[1, 2, 3]]),
            box([0, 0, 5, 5], category=7, id=4, iscrowd=1),
            box([3, 3, 5, 5], category=7, id=5, ignore=1),
        ],
    )
    assert dataset.classes == ("cat", "dog")  # ids 3 and 7, ascending, whatever the order in the file
    truth = only(dataset)
    assert truth.boxes.tolist() == [[1.5, 2, 11.5, 22], [0, 0, 5, 5], [3, 3, 8, 8]]
    assert truth.labels.tolist() == [0, 1, 1]
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.ignore.tolist() == [False, False, False]  # pycocotools honours iscrowd alone
    assert truth.extra["ignore"].tolist() == [False, False, True]
    assert truth.extra["area"].tolist() == [55.5, 25, 25]
    assert truth.extra["id"].tolist() == [900, 4, 5]
    assert dataset.images[0].id == 1
    assert dataset.split == "train2017"


@pytest.mark.parametrize(
    ("json_path", "image_path", "split"),
    [
        ("annotations/instances_val2017.json", "images/val2017/a.jpg", "val2017"),
        ("annotations/instances_val2017.json", "val2017/a.jpg", "val2017"),
        ("annotations/instances_val2017.json", "images/val/a.jpg", "val2017"),
        ("annotations/train.json", "train/a.jpg", "train"),
        ("train/_annotations.coco.json", "train/a.jpg", "train"),
        ("valid/annotations.json", "valid/images/a.jpg", "valid"),
        ("labels.json", "images/a.jpg", "labels"),
        ("labels.json", "a.jpg", "labels"),
        ("result.json", "data/a.jpg", "result"),
    ],
)
def test_layouts(tmp_path: Path, json_path: str, image_path: str, split: str) -> None:
    picture(tmp_path / image_path)
    coco(tmp_path / json_path, [image()], [box([1, 1, 5, 5])], CATS)
    for root in (tmp_path, tmp_path / json_path):
        assert "COCO" in (module.recognise(root) or "")
        assert module.splits(root) == [split]
        assert module.read(root, split).images[0].path == tmp_path / image_path


def test_captions_and_keypoints_beside_instances_are_passed_over(tmp_path: Path) -> None:
    for name in ("instances_train2017", "person_keypoints_train2017", "captions_train2017"):
        coco(tmp_path / f"annotations/{name}.json", [image()], [], CATS)
    assert module.splits(tmp_path) == ["train2017"]


def test_bad_rows_go_images_stay(tmp_path: Path) -> None:
    dataset = small(
        tmp_path,
        [
            box([1, 1, 5, 5]),
            box([1, 1, 0, 5]),
            box([1, 1, -3, 5]),
            box([100, 1, 3, 5]),
            box([1, 1, float("nan"), 5]),
            box(["x", 1, 3, 5]),
            box([1, 1, 3]),
            box(None),
            box([1, 1, 5, 5], category=99),
            box([1, 1, 5, 5], image_id=42),
            box([1, 1, 5, 5]),
            box([1, 1, 500, 5]),
            "rubbish",
            box([1, 1, 5, 5], image_id=[1]),
            box([1, 1, 9, 9], category=None),
            box([1, 1, float("inf"), 5]),
        ],
        [image(), image(2, "b.jpg"), image(1, "c.jpg"), {"id": 3}, "rubbish"],
    )
    assert sorted(codes(dataset)) == sorted(
        [
            "zero-area-box",
            "inverted-box",
            "box-outside",
            "not-a-number",
            "not-a-number",
            "bad-row",
            "bad-row",
            "unknown-class",
            "orphan-annotation",
            "duplicate-box",
            "box-clipped",
            "orphan-annotation",
            "orphan-annotation",
            "unknown-class",
            "not-a-number",
            "missing-image",
            "repeated-image",
            "bad-row",
            "bad-row",
        ]
    )
    assert only(dataset).boxes.tolist() == [[1, 1, 6, 6], [1, 1, 60, 6]]
    assert (dataset.boxes_read, dataset.images_read) == (16, 5)


def test_an_image_without_annotations_is_kept(tmp_path: Path) -> None:
    assert len(only(small(tmp_path, []))) == 0


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "images/../../secret.jpg", "C:\\secret.jpg"])
def test_no_way_out(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.jpg")
    dataset = small(tmp_path / "set", [box([1, 1, 5, 5])], [image(1, name), image(2)])
    assert [one.id for one in dataset.images] == [2]
    assert codes(dataset) == ["path-escape"]


def test_links_out_are_refused_and_absolute_names_inside_are_found(tmp_path: Path) -> None:
    root = tmp_path / "set"
    picture(tmp_path / "secret.jpg")
    (root / "images").mkdir(parents=True)
    (root / "images" / "s.jpg").symlink_to(tmp_path / "secret.jpg")
    dataset = small(root, [], [image(1, "s.jpg"), image(2, str(root / "images" / "a.jpg"))])
    assert [one.id for one in dataset.images] == [2]
    assert codes(dataset) == ["path-escape"]


def test_a_group_category_without_boxes_is_left_out_and_equal_names_are_one_class(tmp_path: Path) -> None:
    group = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "dog", "supercategory": "animals"},
    ]
    assert small(tmp_path / "1", [box([1, 1, 5, 5], category=2)], categories=group).classes == ("cat", "dog")
    same = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "cat"}]
    dataset = small(tmp_path / "2", [box([1, 1, 5, 5], category=1)], categories=same)
    assert dataset.classes == ("cat",)
    assert only(dataset).labels.tolist() == [0]


def test_sets_with_different_categories_share_all_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path / "annotations/train.json", [image()], [box([1, 1, 5, 5], category=1)], [{"id": 1, "name": "cat"}])
    coco(tmp_path / "annotations/val.json", [image()], [box([1, 1, 5, 5], category=1)], [{"id": 1, "name": "dog"}])
    train, val = module.read_splits(tmp_path, ["train", "val"])
    assert train.classes == val.classes == ("cat", "dog")
    assert (only(train).labels[0], only(val).labels[0]) == (0, 1)
    assert "classes-differ" in codes(train)


def test_class_list_given(tmp_path: Path) -> None:
    small(tmp_path, [box([1, 1, 5, 5]), box([2, 2, 5, 5], category=7)])
    dataset = module.read(tmp_path, None, ["dogs", "cat"])
    assert dataset.classes == ("dogs", "cat")
    assert only(dataset).labels.tolist() == [1]
    assert "did you mean 'dogs'" in dataset.findings[0].what


def test_sizes_in_the_file_are_checked(tmp_path: Path) -> None:
    dataset = small(tmp_path, [], [image(width=40, height=60)])
    assert codes(dataset) == ["size-mismatch"]
    assert (dataset.images[0].width, dataset.images[0].height) == (60, 40)


def test_without_image_files_the_sizes_in_the_file_are_believed(tmp_path: Path) -> None:
    path = coco(tmp_path / "truth.json", [image()], [box([1, 1, 5, 5])], CATS)
    assert len(module.read(path, None)) == 0
    dataset = module.read(path, None, probe_images=False)
    assert (dataset.images[0].width, dataset.boxes) == (60, 1)


def test_string_ids_are_kept(tmp_path: Path) -> None:
    dataset = small(tmp_path, [box([1, 1, 5, 5], image_id="x1")], [image() | {"id": "x1"}])
    assert dataset.images[0].id == "x1"
    assert dataset.boxes == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [],\n "annotations": [}, "categories"', ":2: not valid JSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "expected a list, got dict"),
        ('{"images": [], "annotations": [], "categories": [{"id": "a", "name": 3}]}', "categories[0]"),
        ('["images", "annotations", "categories"]', "got a list"),
        ('{"x": ["images", "annotations", "categories"]}', "got nothing"),
    ],
)
def test_documents_that_are_not_coco(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "annotations" / "train.json", text)
    with pytest.raises(DataError) as caught:
        module.read(tmp_path, None)
    assert words in str(caught.value)


def test_bom_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    small(tmp_path, [box([1, 1, 5, 5])])
    path = tmp_path / "annotations/instances_train2017.json"
    data = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert module.read(tmp_path, None).boxes == 1
    path.write_bytes(data.replace(b"dog", b"d\xff\xfe"))
    with pytest.raises(DataError, match="not UTF-8"):
        module.read(tmp_path, None)


def test_deep_nesting_is_an_error_not_a_crash(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"images": "annotations" "categories"' + "[" * 100_000)
    write(tmp_path / "b.json", '["images", "annotations", "categories",' + "[" * 200_000)
    for name in "ab":
        with pytest.raises(DataError):
            module.read(tmp_path / f"{name}.json", None)


def test_unknown_split_and_no_coco(tmp_path: Path) -> None:
    small(tmp_path, [])
    with pytest.raises(DataError, match="did you mean 'train2017'"):
        module.read(tmp_path, "train2071")
    assert module.recognise(tmp_path / "absent") is None
    write(tmp_path / "settings.json", "{}")
    write(tmp_path / "empty.json", "")
    assert module.recognise(tmp_path / "settings.json") is None
    assert module.recognise(tmp_path / "empty.json") is None


number = st.floats(0, 50) | st.integers(0, 50).map(float)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            number, number, st.floats(0.01, 9), st.floats(0.01, 9), st.integers(0, 1), st.booleans(), st.booleans()
        ),
        max_size=6,
        unique_by=lambda r: r[:5],
    ),
    st.sampled_from([5, "x/y", "über"]),
)
def test_round_trip(tmp_path: Path, rows: list, image_id: int | str) -> None:
    info = ImageInfo(image_id, picture(tmp_path / "a b.png", 60, 60), 60, 60)
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, *_ in rows]).reshape(-1, 4)
    extra = {"id": np.arange(len(rows)) + 40, "area": np.linspace(1, 2, len(rows))}
    crowd, ignore = [row[5] for row in rows], [row[6] for row in rows]
    truth = Annotations(boxes, [row[4] for row in rows], ignore, ignore, crowd, extra)
    dataset = Dataset(tmp_path, "coco", "train", ("a&b", "ü"), (info,), {image_id: truth})
    assert module.write(dataset, tmp_path / "out") == []
    back = module.read(tmp_path / "out", "train")
    assert back.classes == dataset.classes
    again = only(back)
    np.testing.assert_allclose(again.boxes, boxes, atol=1e-9)
    for name in ("labels", "difficult"):
        assert getattr(again, name).tolist() == getattr(truth, name).tolist()
    assert again.crowd.tolist() == (truth.crowd | truth.ignore).tolist()  # what COCO's judge does not count
    assert not again.ignore.any()
    kept = extra | ({"ignore": truth.ignore} if truth.ignore.any() else {})
    assert {key: column.tolist() for key, column in again.extra.items()} == (
        {k: c.tolist() for k, c in kept.items()} if rows else {}
    )
    assert back.images[0].id == (image_id if isinstance(image_id, int) else 1)
    assert codes(back) == []


def test_written_ids_start_at_one_as_pycocotools_needs(tmp_path: Path) -> None:
    info = ImageInfo("a", picture(tmp_path / "a.jpg"), 60, 40)
    dataset = Dataset(tmp_path, "voc", "val", ("cat",), (info,), {"a": Annotations([[1, 2, 3, 5]], [0])})
    module.write(dataset, tmp_path / "out", images=None)
    document = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert document["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 2, 3], "area": 6, "iscrowd": 0}
    ]
    assert not (tmp_path / "out/images").exists()
