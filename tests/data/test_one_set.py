"""One set of a dataset: by role, by name, whole, as training would split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from folders_on_disk import coco, picture, voc

from onestage.data.one_set import open_set
from onestage.data.opening import open_dataset
from onestage.errors import DataError

BOX = ("cat", 5, 5, 30, 30)
FILES: dict[str, Any] = {f"i{k:02d}": [BOX] for k in range(10)}


def stems(dataset: Any) -> list[str]:
    return [image.path.stem for image in dataset.images]


def test_one_set_is_split_as_training_splits_it(tmp_path: Path) -> None:
    root = voc(tmp_path / "v", FILES)
    for seed in (0, 1):
        opened = open_dataset(root, seed=seed)
        assert stems(open_set(root, seed=seed)) == stems(opened.val)
        assert stems(open_set(root, "train", seed=seed)) == stems(opened.train)
    assert stems(open_set(root, "all")) == sorted(FILES)


def test_lists_are_found_by_name_and_by_role(tmp_path: Path) -> None:
    root = voc(tmp_path / "v", FILES, {"train": ["i00", "i01"], "val": ["i02"], "odd": ["i03", "i05"]})
    assert stems(open_set(root)) == ["i02"]
    assert stems(open_set(root, "odd")) == ["i03", "i05"]
    with pytest.raises(DataError, match="did you mean 'odd'"):
        open_set(root, "od")
    with pytest.raises(DataError, match="no set 'test'"):
        open_set(root, "test")


def one_coco(path: Path, image: str) -> Path:
    entry = {"id": 1, "file_name": image, "width": 60, "height": 40}
    box = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 2, 20, 20]}
    return coco(path, [entry], [box], [{"id": 4, "name": "cat"}])


def test_a_coco_file_of_one_set_is_taken_whole(tmp_path: Path) -> None:
    path = one_coco(tmp_path / "instances_val.json", "a.jpg")
    assert len(open_set(path, images=False)) == 1  # without any image
    picture(tmp_path / "a.jpg")
    assert len(open_set(path)) == 1


def test_a_coco_folder_without_images(tmp_path: Path) -> None:
    for name in ("train", "val"):
        one_coco(tmp_path / "annotations" / f"instances_{name}2017.json", f"{name}.jpg")
    assert stems(open_set(tmp_path, images=False)) == ["val"]
    assert stems(open_set(tmp_path, "train", images=False)) == ["train"]
    assert stems(open_set(tmp_path, "train2017", images=False)) == ["train"]
    with pytest.raises(DataError, match="no set 'tset'"):
        open_set(tmp_path, "tset", images=False)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_set(tmp_path / "none")
