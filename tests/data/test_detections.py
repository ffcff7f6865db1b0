"""Detection files: which image and class a row means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onestage.data.dataset import Dataset
from onestage.data.detections import own_labels, read_detections
from onestage.errors import DataError
from onestage.records import Annotations, ImageId, ImageInfo


def dataset(*images: tuple[ImageId, str]) -> Dataset:
    infos = tuple(ImageInfo(image_id, Path(path), 50, 50) for image_id, path in images)
    return Dataset(Path(), "voc", "val", ("cat",), infos, {image.id: Annotations.empty() for image in infos})


def read(tmp_path: Path, data: Dataset, image: ImageId, score: float = 0.5, floor: float = 0.0) -> list[ImageId]:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"image_id": image, "category_id": 1, "bbox": [1, 2, 3, 4], "score": score}]))
    found = read_detections(path, data, {1: 0}, floor)
    for detections in found.values():
        np.testing.assert_array_equal(detections.boxes, [[1, 2, 4, 6]])
    return list(found)


def test_an_id_goes_before_a_name(tmp_path: Path) -> None:
    data = dataset(("1", "2.jpg"), ("2", "1.jpg"))
    assert read(tmp_path, data, "1") == ["1"]
    assert read(tmp_path, data, 2) == ["2"]


def test_a_name_that_two_images_share_finds_neither(tmp_path: Path) -> None:
    data = dataset((1, "x/a.jpg"), (2, "y/a.jpg"))
    with pytest.raises(DataError, match="1 of 1 detections"):
        read(tmp_path, data, "a.jpg")


def test_the_floor_keeps_its_own_score(tmp_path: Path) -> None:
    data = dataset((1, "a.jpg"))
    assert read(tmp_path, data, 1, score=0.3, floor=0.3) == [1]
    assert read(tmp_path, data, 1, score=0.29, floor=0.3) == []


def test_classes_of_ours_go_by_name() -> None:
    assert own_labels(["dog", "cat"], ["cat", "fish", "dog"]) == {1: 2, 2: 0}
    with pytest.raises(DataError) as caught:
        own_labels(["dgo"], ["cat", "dog"])
    assert caught.value.problems == ("'dgo' (did you mean 'dog'?)",)
