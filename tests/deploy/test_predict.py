"""Images in, boxes out: a predictor that sees bright squares, so that every step in between can be told wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onestage.boxes.selection import Selection, select_in_image
from onestage.deploy.outputs import as_coco, as_json, write_yolo_txt
from onestage.deploy.predict import Prediction, predict
from onestage.errors import ModelError, StorageError, UsageError
from onestage.records import Detections, ImageTransform

SIZE = (64, 32)


class Bright:
    """Finds the red rectangle as class 1 of two; keeps the sizes of the batches it was asked for."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (3, SIZE[1], SIZE[0])
        self.batches.append(len(images))
        boxes, scores = np.zeros((len(images), 2, 4), np.float32), np.zeros((len(images), 2, 2), np.float32)
        for i, image in enumerate(images):
            y, x = np.nonzero((image[0] > 200) & (image[2] < 60))
            if len(x):
                boxes[i, 0] = x.min(), y.min(), x.max() + 1, y.max() + 1
                scores[i, 0] = 0.1, 0.9
        return boxes, scores


def picture(box: Sequence[int], width: int = 128, height: int = 128) -> NDArray[np.uint8]:
    """Black, with a red (RGB) rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2], 0] = 255
    return image


def saved(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[:, :, ::-1])
    return path


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(128, 128), (64, 128), (256, 64), (64, 32)])
def test_boxes_come_back_in_pixels_of_the_image(fit: str, width: int, height: int) -> None:
    box = [width // 4, height // 4, width // 2, 3 * height // 4]
    [found] = predict(Bright(), [picture(box, width, height)], ["a", "b"], SIZE, fit)  # type: ignore[arg-type]
    assert (found.width, found.height, found.path) == (width, height, None)
    scale = max(width / SIZE[0], height / SIZE[1])
    np.testing.assert_allclose(found.boxes, [box], atol=scale)
    assert found.labels.tolist() == [1]
    assert found.class_names == ["b"]
    assert found.scores[0] == pytest.approx(0.9)


def test_images_keep_their_order_in_batches_and_unreadable_ones_are_told(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{i}.png", picture([8 * i, 10, 8 * i + 40, 50])) for i in range(7)]
    paths[2].write_bytes(b"\x89PNG no more")
    paths[3].write_bytes(b"")
    paths[5].unlink()
    skipped: list[tuple[Path, str]] = []
    seen = Bright()
    found = list(predict(seen, paths, "ab", SIZE, batch=2, skipped=lambda path, why: skipped.append((path, why))))
    assert [prediction.path for prediction in found] == [paths[i] for i in (0, 1, 4, 6)]
    assert [round(prediction.boxes[0][0] / 8) for prediction in found] == [0, 1, 4, 6]
    assert [path for path, _ in skipped] == [paths[i] for i in (2, 3, 5)]
    assert all(path.name in why for path, why in skipped)
    assert seen.batches == [2, 1, 1]
    with pytest.warns(UserWarning, match=r"5\.png was left out"):
        assert list(predict(seen, paths[5:6], "ab", SIZE)) == []


def test_nothing_in_nothing_out() -> None:
    assert list(predict(Bright(), [], "ab", SIZE)) == []
    [found] = predict(Bright(), [np.zeros((5, 9, 3), np.uint8)], "ab", SIZE)
    assert (len(found), found.boxes.shape, found.class_names) == (0, (0, 4), [])


def test_a_turned_photograph_is_answered_as_a_viewer_shows_it(tmp_path: Path) -> None:
    upright = picture([10, 20, 60, 100], 100, 200)
    done, data = cv2.imencode(".jpg", np.rot90(upright)[:, :, ::-1])  # lies on its left side
    assert done
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    raw = data.tobytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(raw[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + raw[2:])
    [found] = predict(Bright(), [path], "ab", SIZE)
    assert (found.width, found.height) == (100, 200)
    np.testing.assert_allclose(found.boxes, [[10, 20, 60, 100]], atol=7)
    assert found.image().shape == (200, 100, 3)


def test_reversed_channels_of_a_view_and_what_is_no_rgb_image() -> None:
    bgr = picture([10, 10, 60, 60])[:, :, ::-1]
    [found] = predict(Bright(), [bgr[:, :, ::-1]], "ab", SIZE)
    assert len(found) == 1
    assert len(next(predict(Bright(), [bgr], "ab", SIZE))) == 0  # blue is not red
    bad = [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ]
    with pytest.raises(UsageError) as raised:
        list(predict(Bright(), [bgr, *bad, "x.jpg"], "ab", SIZE))  # type: ignore[list-item]
    assert len(raised.value.problems) == 5
    assert raised.value.problems[0].startswith("image 1: ")
    with pytest.raises(UsageError, match="batch"):
        predict(Bright(), [bgr], "ab", SIZE, batch=0)


@pytest.mark.parametrize(
    ("boxes", "scores", "match"),
    [
        (np.zeros((1, 2, 4)), np.zeros((1, 2, 3)), "2 classes"),
        (np.zeros((1, 3, 4)), np.zeros((1, 2, 2)), "does not fit"),
        (np.zeros((2, 2, 4)), np.zeros((2, 2, 2)), "1 images"),
        (np.zeros((1, 2, 4)), np.full((1, 2, 2), np.nan), "not finite"),
        (np.full((1, 2, 4), np.inf), np.zeros((1, 2, 2)), "not finite"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(boxes: NDArray, scores: NDArray, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        list(predict(lambda x: (boxes, scores), [picture([0, 0, 9, 9])], "ab", SIZE))


def test_select_in_image_cuts_at_the_border_and_drops_what_lies_on_padding() -> None:
    transform = ImageTransform(0.5, 0.5, 0, 16)  # a letterbox of 128x64 in 64x64
    boxes = np.array([[-10, 10, 20, 40], [0, 0, 30, 15], [40, 20, 80, 60.0]])
    scores = np.array([[0.9], [0.8], [0.7]])
    found = select_in_image(boxes, scores, Selection(0.5), transform, 128, 64)
    assert found.boxes.tolist() == [[0, 0, 40, 48], [80, 8, 128, 64]]
    assert found.scores.tolist() == [0.9, 0.7]
    assert len(select_in_image(boxes[:0], scores[:0], Selection(0.5), transform, 128, 64)) == 0


def two(names: Sequence[str] = ("7", "x/y")) -> list[Prediction]:
    found = Detections([[10, 20, 30, 60], [0, 0, 100, 50]], [1, 0], [0.25, 0.75])  # type: ignore[arg-type]
    return [
        Prediction(names[0], Path("p/7.jpg"), 100, 200, found, ("cat", "dog")),
        Prediction(names[1], None, 8, 8, Detections.empty(), ("cat", "dog")),
    ]


def test_as_json_says_everything_in_plain_numbers() -> None:
    first, second = json.loads(json.dumps(as_json(two())))
    assert first == {
        "image": "7", "path": "p/7.jpg", "width": 100, "height": 200,
        "detections": [
            {"box": [0.0, 0.0, 100.0, 50.0], "label": 0, "class": "cat", "score": 0.75},
            {"box": [10.0, 20.0, 30.0, 60.0], "label": 1, "class": "dog", "score": 0.25},
        ],
    }  # fmt: skip
    assert second == {"image": "x/y", "path": None, "width": 8, "height": 8, "detections": []}
    assert as_json([]) == as_coco([]) == []


def test_as_coco_counts_categories_from_one_and_numbers_images_where_all_are_numbers() -> None:
    rows = as_coco(two())
    assert rows[1] == {"image_id": "7", "category_id": 2, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.25}
    assert [row["image_id"] for row in as_coco(two(("000139", "12")))] == [139, 139]
    assert [row["image_id"] for row in as_coco(two(("007", "7")))] == ["007", "007"]  # one number for two images


def test_yolo_text_by_hand_and_an_empty_file_where_nothing_was_found(tmp_path: Path) -> None:
    written = write_yolo_txt(two(), tmp_path)
    assert written == [tmp_path / "7.txt", tmp_path / "x" / "y.txt"]
    assert written[0].read_text().splitlines() == [
        "0 0.500000 0.125000 1.000000 0.250000 0.75000",
        "1 0.200000 0.200000 0.200000 0.200000 0.25000",
    ]
    assert written[1].read_text() == ""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_yolo_txt(two(), tmp_path / "file")


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, onestage.deploy.predict, onestage.deploy.outputs; from onestage import Prediction, Run;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Anywhere(Bright):
    """`Bright` for input of any size; keeps the sizes."""

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.batches.append(images.shape)  # type: ignore[arg-type]
        places = np.argwhere((images[0, 0] > 200) & (images[0, 2] < 60))
        boxes, scores = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 2), np.float32)
        if len(places):
            boxes[0, 0, :2], boxes[0, 0, 2:] = places.min(0)[::-1], places.max(0)[::-1] + 1
            scores[0, 0, 1] = 0.9
        return boxes, scores


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_native_shows_each_image_alone_at_its_own_pixels(scale: float) -> None:
    images = [picture([8, 4, 24, 12], 40, 20), picture([20, 40, 60, 80], 70, 90), picture([0, 0, 2, 2], 2, 2)]
    seen = Anywhere()
    found = list(predict(seen, images, "ab", (8, 8), "native", batch=8, scale=scale))
    assert [shape[:1] + shape[2:] for shape in seen.batches] == [  # type: ignore[index]
        (1, int(h * scale), int(w * scale)) for w, h in ((40, 20), (70, 90), (2, 2))
    ]
    boxes = np.concatenate([one.boxes for one in found])
    np.testing.assert_allclose(boxes, [[8, 4, 24, 12], [20, 40, 60, 80], [0, 0, 2, 2]], atol=0.5 * (scale != 1))


def test_a_scale_must_be_one() -> None:
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="scale: expected more than 0"):
            predict(Bright(), [], ["a", "b"], SIZE, "native", scale=scale)


def test_an_image_too_large_at_its_scale_is_left_out_and_named() -> None:
    told: list[str] = []
    everywhere = lambda x: (np.tile([[[1.0, 1, 3, 3]]], (len(x), 1, 1)), np.full((len(x), 1, 1), 0.9))  # noqa: E731
    images = [np.zeros((5, 5, 3), np.uint8), np.zeros((4, 4000, 3), np.uint8)]
    found = list(
        predict(everywhere, images, ["cat"], (4, 4), "native", scale=200, skipped=lambda _, why: told.append(why))
    )
    assert len(found) == 1
    assert "800000x800 pixels" in told[0]
