"""Makes the pictures of docs/anchors.md, anchors.jpg and anchor_shapes.jpg in docs/images, from the sample `trees`.

python docs/anchors_image.py
"""

from __future__ import annotations

from pathlib import Path

import cv2

import onestage
from onestage.report.anchor_shapes import shapes_sheet
from onestage.report.anchor_sheet import anchor_sheet
from onestage.report.draw import Image
from onestage.training.anchors import chosen_set, remade

IMAGES = Path(__file__).parent / "images"
IMAGE, WIDTH = "35", 1000


def main() -> None:
    """The priors of FaceBoxes with the trees of one tile, and anchors of yolov4-tiny made for all of them."""
    dataset = chosen_set("trees", "train", [IMAGE])
    priors = onestage.anchors("faceboxes", size=(320, 320), layout="symmetric")
    image = dataset.images[0]
    shown = priors.shown(image.path, f"trees, image {IMAGE}", dataset.annotations[image.id])
    write(IMAGES / "anchors.jpg", anchor_sheet(priors, [shown], "faceboxes at 320x320, layout symmetric"))
    made = remade(chosen_set("trees"), "yolov4-tiny", "kmedians")
    sheet = shapes_sheet(made.refit, made.held.sides, "yolov4-tiny at 416x416, fit squash")
    write(IMAGES / "anchor_shapes.jpg", sheet)


def write(path: Path, sheet: Image) -> None:
    """The sheet, RGB, as a small JPEG."""
    size = (WIDTH, round(sheet.shape[0] * WIDTH / sheet.shape[1]))
    small = cv2.resize(sheet[..., ::-1], size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 76])
    print(path)


if __name__ == "__main__":
    main()
