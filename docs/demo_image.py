"""Makes docs/images/demo.jpg, the README's picture, from a finished run of `onestage demo`.

python docs/demo_image.py runs/demo-001
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from onestage.data.images import decode
from onestage.experiments.run import Run
from onestage.experiments.truth import read_truth
from onestage.records import Detections
from onestage.report.draw import contact_sheet, draw

OUT = Path(__file__).parent / "images" / "demo.jpg"
TILES, COLUMNS = 8, 4


def main() -> None:
    """Draw every other validation tile with what was found, missed and wrongly found at the operating point."""
    run = Run(sys.argv[1])
    truth = read_truth(run)
    if truth is None:
        sys.exit(f"{run.folder} keeps no truth")
    cut = float(run.metrics["operating_point"]["score"])
    pictures = []
    for image in truth.images[:: max(len(truth.images) // TILES, 1)][:TILES]:
        rows = [row for row in run.predictions if row["image_id"] == image.id and row["score"] >= cut]
        xywh = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        found = Detections(
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
            np.array([row["category_id"] - 1 for row in rows], np.int64),
            np.array([row["score"] for row in rows]),
        )
        pictures.append(draw(decode(image.path), found, truth.annotations[image.id], truth.classes))
    OUT.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(OUT), contact_sheet(pictures, COLUMNS)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(OUT)


if __name__ == "__main__":
    main()
