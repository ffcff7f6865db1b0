"""Makes docs/images/anchors.jpg, the picture of docs/anchors.md, from an image of the sample `trees`.

python docs/anchors_image.py
"""

from __future__ import annotations

from pathlib import Path

import cv2

import onestage
from onestage.report.anchor_sheet import anchor_sheet
from onestage.training.anchors import chosen_set

OUT = Path(__file__).parent / "images" / "anchors.jpg"
IMAGE, WIDTH = "35", 1000


def main() -> None:
    """Draw the priors of FaceBoxes at 320x320 and those that answer for the trees of one tile."""
    dataset = chosen_set("trees", "train", [IMAGE])
    priors = onestage.anchors("faceboxes", size=(320, 320), layout="symmetric")
    image = dataset.images[0]
    shown = priors.shown(image.path, f"trees, image {IMAGE}", dataset.annotations[image.id])
    sheet = anchor_sheet(priors, [shown], "faceboxes at 320x320, layout symmetric")
    size = (WIDTH, round(sheet.shape[0] * WIDTH / sheet.shape[1]))
    small = cv2.resize(sheet[..., ::-1], size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(OUT), small, [cv2.IMWRITE_JPEG_QUALITY, 76])
    print(OUT)


if __name__ == "__main__":
    main()
